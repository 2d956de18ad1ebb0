//! `POST /v1/prompts/{id}/render`: what would be sent, without a model call.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::exchange::Exchange;
use super::shape::Parameters;
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::rendering::Messages;

/// Returns the rendered messages, the model and the parameters.
///
/// # Errors
/// 422 when a placeholder was filled with something that is not JSON.
pub fn answer(
    exchange: &Exchange,
    model: Option<&str>,
    messages: &Messages<'_>,
    parameters: &Parameters<'_>,
) -> Result<Value, ApiError> {
    let mut rendered = Vec::new();
    messages.write(&mut rendered);
    let messages: Value = serde_json::from_slice(&rendered).map_err(|error| {
        ApiError::new(
            ErrorCode::RenderFailed,
            format!("the rendered messages are not JSON: {error}"),
        )
    })?;
    let tree = |json: &str| serde_json::from_str::<Value>(json).unwrap_or(Value::Null);
    let mut fields = Map::new();
    for parameter in &parameters.version {
        fields.insert(parameter.name.to_string(), tree(&parameter.json));
    }
    for (name, value) in &parameters.caller {
        let value: &RawValue = value;
        fields.insert((*name).to_owned(), tree(value.get()));
    }
    let prompt = exchange.prompt.as_ref().map(|prompt| {
        json!({
            "id": &*prompt.id,
            "version": prompt.version,
            "variant": &*prompt.variant,
            "environment": &*exchange.environment,
            "deployment": (prompt.deployment > 0).then_some(prompt.deployment),
        })
    });
    Ok(json!({
        "prompt": prompt,
        "model": model,
        "messages": messages,
        "parameters": fields,
    }))
}
