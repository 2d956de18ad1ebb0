//! `/prompts` and `/prompts/{id}`.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::call::{Call, Paging, found, listed, time};
use super::errors::Failure;
use crate::domain::role::{Permission, Scope};
use crate::registry::{NewPrompt, Prompt};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPromptBody {
    id: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    tags: Vec<String>,
}

/// Written out, because flattening another struct would give up naming unknown parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<u32>,
    cursor: Option<String>,
    query: Option<String>,
}

pub fn view(prompt: &Prompt) -> Value {
    let live: Map<String, Value> = prompt
        .live
        .iter()
        .map(|live| {
            let state = json!({"deployment": live.deployment, "split": live.split});
            (live.environment.clone(), state)
        })
        .collect();
    json!({
        "id": prompt.id,
        "description": prompt.description,
        "tags": prompt.tags,
        "aliases": prompt.aliases,
        "created_at": time(prompt.created_at_us),
        "created_by": prompt.created_by,
        "latest_version": prompt.latest_version,
        "live": live,
        "generation": prompt.generation,
    })
}

/// `GET /prompts`: those that the caller may see.
pub async fn list(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let ListQuery { limit, cursor, query } = call.query()?;
    let paging = Paging { limit, cursor };
    let mut page = call.registry().list_prompts(query.as_deref(), paging.page()).await?;
    // A page may have fewer items than asked for; the next one begins behind those left out.
    page.items
        .retain(|prompt| call.may(Permission::Read, Scope::prompt(&prompt.id)));
    Ok(listed(page, view))
}

/// `POST /prompts`.
pub async fn create(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Write, Scope::ANYWHERE)?;
    let NewPromptBody { id, description, tags } = call.json()?;
    call.require(Permission::Write, Scope::prompt(&id))?;
    let new = NewPrompt { id, description, tags };
    let change = call.registry().create_prompt(new, call.actor()).await?;
    call.changed(StatusCode::CREATED, change, |prompt| view(&prompt)).await
}

/// `GET /prompts/{id}`, also by an alias.
pub async fn show(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::prompt(id))?;
    Ok(found(view(&call.registry().prompt(id).await?)))
}
