//! `/audit`: who changed what, when and why.

use axum::response::Response;
use serde_json::{Value, json};

use super::call::{Call, Paging, listed, time};
use super::errors::Failure;
use crate::domain::role::{Permission, Scope};
use crate::registry::AuditEntry;

fn view(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.id,
        "at": time(entry.at_us),
        "actor": entry.actor,
        "actor_id": entry.actor_id,
        "token_id": entry.token_id,
        "request_id": entry.request_id,
        "action": entry.action,
        "subject": entry.subject,
        "detail": entry.detail,
    })
}

/// `GET /audit`, newest first.
pub async fn list(call: Call) -> Result<Response, Failure> {
    call.require(Permission::ReadAudit, Scope::EVERYWHERE)?;
    let paging: Paging = call.query()?;
    Ok(listed(call.registry().list_audit(paging.page()).await?, view))
}
