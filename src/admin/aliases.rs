//! `/prompts/{id}/aliases/{alias}`.

use axum::http::StatusCode;
use axum::response::Response;

use super::call::Call;
use super::errors::Failure;
use super::prompts;

/// `PUT`: gives the prompt that name as well.
pub async fn add(call: Call, id: &str, alias: &str) -> Result<Response, Failure> {
    let change = call.registry().add_alias(id, alias, call.actor()).await?;
    call.changed(StatusCode::OK, change, |prompt| prompts::view(&prompt))
        .await
}

/// `DELETE`: takes the name away.
pub async fn remove(call: Call, id: &str, alias: &str) -> Result<Response, Failure> {
    let change = call.registry().remove_alias(id, alias, call.actor()).await?;
    call.changed(StatusCode::OK, change, |prompt| prompts::view(&prompt))
        .await
}
