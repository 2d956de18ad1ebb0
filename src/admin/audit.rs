//! `/audit`: who changed what, when and why, and whether that is still what was written.

use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Paging, found, instant, invalid, listed, time};
use super::errors::Failure;
use crate::domain::role::{Permission, Scope};
use crate::registry::{AuditEntry, AuditFilter};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    #[serde(default)]
    actor: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    environment: String,
    from: Option<String>,
    to: Option<String>,
    order: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyQuery {
    head: Option<String>,
}

/// An entry as the API and exports show it.
pub fn view(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.id,
        "at": time(entry.at_us),
        "actor": entry.actor,
        "actor_id": entry.actor_id,
        "token_id": entry.token_id,
        "request_id": entry.request_id,
        "action": entry.action,
        "subject": entry.subject,
        "environment": entry.environment,
        "detail": entry.detail,
        "hash": entry.hash,
    })
}

/// `GET /audit?actor=&action=&subject=&environment=&from=&to=&order=&limit=&cursor=`, newest first.
pub async fn list(call: Call) -> Result<Response, Failure> {
    call.require(Permission::ReadAudit, Scope::EVERYWHERE)?;
    let query: Query = call.query()?;
    let filter = AuditFilter {
        from_us: instant("from", query.from)?,
        to_us: instant("to", query.to)?,
        oldest_first: match query.order.as_deref() {
            None | Some("newest") => false,
            Some("oldest") => true,
            Some(other) => return Err(invalid("order", format!("{other:?} is neither newest nor oldest"))),
        },
        actor: query.actor,
        action: query.action,
        subject: query.subject,
        environment: query.environment,
    };
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor,
    };
    Ok(listed(call.registry().list_audit(&filter, paging.page()).await?, view))
}

/// `GET /audit/verify?head=`: follows the chain; a broken one is an answer with `ok: false`.
pub async fn verify(call: Call) -> Result<Response, Failure> {
    call.require(Permission::ReadAudit, Scope::EVERYWHERE)?;
    let VerifyQuery { head } = call.query()?;
    if let Some(head) = &head
        && (head.len() != 64 || !head.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Err(invalid("head", "must be the 64 hexadecimal digits of a hash"));
    }
    let result = call.registry().verify_audit(head.as_deref()).await?;
    let broken = result.broken.as_ref();
    Ok(found(json!({
        "ok": broken.is_none(),
        "entries": result.entries,
        "head": result.head,
        "broken": broken.map(|broken| json!({"entry": broken.entry, "message": broken.message})),
    })))
}
