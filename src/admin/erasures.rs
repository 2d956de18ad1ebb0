//! `/erasures`: content that is to be erased.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Paging, found, invalid, listed, time};
use super::errors::Failure;
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::role::{Permission, Scope};
use crate::registry::{Erasure, Person};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewErasureBody {
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    user_hash: Option<String>,
    #[serde(default)]
    reason: String,
}

fn view(erasure: &Erasure) -> Value {
    json!({
        "id": erasure.id,
        "user_hash": erasure.user_hash,
        "reason": erasure.reason,
        "requested_at": time(erasure.until_us),
        "requested_by": erasure.requested_by,
        "state": if erasure.done_at_us.is_some() { "done" } else { "pending" },
        "exchanges": erasure.exchanges,
        "done_at": erasure.done_at_us.map(time),
    })
}

/// `POST /erasures`: it is carried out in the background.
pub async fn create(call: Call) -> Result<Response, Failure> {
    call.require(Permission::EraseContent, Scope::EVERYWHERE)?;
    let body: NewErasureBody = call.json()?;
    let person = match (&body.user, &body.user_hash) {
        (Some(id), None) => Person::Id(id),
        (None, Some(hash)) => Person::Hash(hash),
        _ => {
            let message =
                "or user_hash, exactly one of them, is needed: {\"user\": \"the id as the application sends it\"}";
            return Err(invalid("user", message));
        }
    };
    if call.store().is_none() {
        let message = "exchanges are not recorded here (telemetry.sink is \"none\")";
        return Err(ApiError::new(ErrorCode::NotFound, message).into());
    }
    let change = call
        .registry()
        .create_erasure(person, &body.reason, call.actor())
        .await?;
    call.changed(StatusCode::ACCEPTED, change, |erasure| view(&erasure))
        .await
}

/// `GET /erasures`, newest first.
pub async fn list(call: Call) -> Result<Response, Failure> {
    call.require(Permission::EraseContent, Scope::EVERYWHERE)?;
    let paging: Paging = call.query()?;
    Ok(listed(call.registry().list_erasures(paging.page()).await?, view))
}

/// `GET /erasures/{id}`.
pub async fn show(call: Call) -> Result<Response, Failure> {
    call.require(Permission::EraseContent, Scope::EVERYWHERE)?;
    let id = call.last_segment()?;
    Ok(found(view(&call.registry().erasure(&id).await?)))
}
