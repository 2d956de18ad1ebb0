//! `/prompts/{id}/uses`, `/used-by` and `/updates`: partials, both ways, and newer ones.

use axum::response::Response;
use serde_json::{Value, json};

use super::call::{Call, Paging, found, listed};
use super::errors::Failure;
use super::versions::may_read_partials;
use crate::domain::role::{Permission, Scope};
use crate::registry::Update;

/// `GET …/uses`: what each version includes, newest first.
pub async fn uses(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::prompt(id))?;
    let paging: Paging = call.query()?;
    Ok(listed(call.registry().list_uses(id, paging.page()).await?, |uses| {
        json!(uses)
    }))
}

/// `GET …/used-by`: which versions include it, and where they are live.
pub async fn used_by(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::prompt(id))?;
    let paging: Paging = call.query()?;
    let mut page = call.registry().list_used_by(id, paging.page()).await?;
    page.items
        .retain(|item| call.may(Permission::Read, Scope::prompt(&item.prompt)));
    Ok(listed(page, |used| json!(used)))
}

/// `GET …/updates`: which of the latest and the live versions have partials that are behind, and what would change.
pub async fn updates(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::prompt(id))?;
    let updates = call.registry().list_updates(id).await?;
    for update in &updates {
        let source = call.registry().version(id, update.version).await?.source;
        may_read_partials(&call, &source).await?;
    }
    let items: Vec<Value> = updates.iter().map(view).collect();
    Ok(found(json!({"items": items, "next_cursor": null})))
}

fn view(update: &Update) -> Value {
    let (diff, problems) = match &update.outcome {
        Ok(diff) => (json!(diff), json!([])),
        Err(problems) => (Value::Null, json!(problems)),
    };
    json!({"version": update.version, "live": update.live, "diff": diff, "problems": problems})
}
