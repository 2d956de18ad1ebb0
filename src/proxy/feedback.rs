//! `POST /v1/feedback`: a score attached to an exchange.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::exchange::{Exchange, label};
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::exchange::FeedbackRecord;

const FORM: &str = "{\"exchange_id\": \"…\", \"name\": \"helpful\", \"value\": true}";

/// The longest comment or text value kept, in bytes.
const MAX_TEXT_BYTES: usize = 16 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Feedback {
    #[serde(default)]
    exchange_id: Option<Uuid>,
    #[serde(default)]
    response_id: Option<String>,
    name: String,
    value: Value,
    #[serde(default)]
    comment: Option<String>,
}

/// Records feedback; it is durable when this returns.
///
/// # Errors
/// 400 with the right form.
pub async fn take(exchange: &Exchange, body: &Bytes) -> Result<Value, ApiError> {
    let feedback: Feedback = serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() {
            ErrorCode::InvalidField
        } else {
            ErrorCode::InvalidJson
        };
        ApiError::new(code, format!("{error}; write {FORM}"))
    })?;
    let invalid =
        |param: &str, why: &str| Err(ApiError::new(ErrorCode::InvalidField, format!("{param} {why}")).param(param));
    let Feedback {
        exchange_id,
        response_id,
        name,
        value,
        comment,
    } = feedback;
    if exchange_id.is_none() == response_id.is_none() {
        return invalid(
            "exchange_id",
            &format!("or response_id, exactly one of them, is needed: {FORM}"),
        );
    }
    if name.is_empty() || name.len() > 64 {
        return invalid("name", "must have 1 to 64 bytes");
    }
    let comment = comment.unwrap_or_default();
    let (kind, number, text) = match &value {
        Value::Bool(value) => ("boolean", f64::from(u8::from(*value)), ""),
        Value::Number(value) => ("number", value.as_f64().unwrap_or_default(), ""),
        Value::String(value) => ("text", 0.0, value.as_str()),
        _ => return invalid("value", "must be a number, true, false or a text"),
    };
    if comment.len().max(text.len()) > MAX_TEXT_BYTES {
        return invalid(
            "comment",
            &format!("and a text value may have at most {MAX_TEXT_BYTES} bytes"),
        );
    }
    let redactor = &exchange.worker.settings.redactor;
    let (text, comment) = (
        redactor.label(text, MAX_TEXT_BYTES),
        redactor.label(&comment, MAX_TEXT_BYTES),
    );
    let id = exchange.worker.new_id(exchange.started_at);
    let ticket = exchange.worker.recorder.feedback(&FeedbackRecord {
        feedback_id: id,
        at: exchange.started_at,
        exchange_id: exchange_id.unwrap_or_default(),
        response_id: &exchange.worker.label(&label(&response_id.unwrap_or_default())),
        key_id: &exchange.key_id,
        name: &exchange.worker.label(&name),
        kind,
        number,
        text: &text,
        comment: &comment,
    });
    exchange.worker.recorder.flushed(ticket).await;
    Ok(json!({ "feedback_id": id.to_string() }))
}
