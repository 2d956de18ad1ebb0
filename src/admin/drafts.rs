//! `/prompts/{id}/drafts`: texts under work.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Paging, found, listed, time};
use super::errors::Failure;
use super::etag::{expected, tagged};
use super::versions::{self, may_read_partials};
use crate::domain::role::{Permission, Scope};
use crate::registry::{Draft, DraftName, DraftSave};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SaveBody {
    content: Value,
    base_version: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitBody {
    message: String,
    /// The latest version, if it is not the one that the draft began with.
    onto: Option<u32>,
}

/// Whose: the caller's, unless somebody else is named.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnerQuery {
    user: Option<String>,
}

fn summary(draft: &Draft) -> Value {
    json!({
        "prompt": draft.prompt,
        "user": draft.owner,
        "name": draft.name,
        "base_version": draft.base_version,
        "latest_version": draft.latest_version,
        "stale": draft.base_version < draft.latest_version,
        "revision": draft.revision,
        "created_at": time(draft.created_at_us),
        "updated_at": time(draft.updated_at_us),
        "updated_by": draft.updated_by,
    })
}

pub fn view(draft: &Draft) -> Value {
    let mut body = summary(draft);
    body["content"] = draft.content.clone();
    body
}

fn owner(call: &Call) -> Result<String, Failure> {
    let OwnerQuery { user } = call.query()?;
    Ok(user.unwrap_or_else(|| call.caller.user.clone()))
}

/// What would be included if this became a version must be readable, as for a version.
pub async fn may_read(call: &Call, content: &Value) -> Result<(), Failure> {
    match serde_json::from_value(content.clone()) {
        Ok(content) => may_read_partials(call, &content).await,
        // What is no content includes nothing.
        Err(_) => Ok(()),
    }
}

/// `GET …/drafts`: everybody's.
pub async fn list(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::prompt(id))?;
    let paging: Paging = call.query()?;
    Ok(listed(call.registry().list_drafts(id, paging.page()).await?, summary))
}

/// `GET …/drafts/{name}`, with what is wrong with it.
pub async fn show(call: Call, id: &str, name: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::prompt(id))?;
    let owner = owner(&call)?;
    let of = DraftName {
        prompt: id,
        owner: &owner,
        name,
    };
    let (draft, problems) = call.registry().draft(of).await?;
    let mut body = view(&draft);
    body["problems"] = json!(problems);
    Ok(tagged(found(body), u64::from(draft.revision)))
}

/// `PUT …/drafts/{name}`: saves it, broken or not, if nobody did meanwhile (`If-Match`).
pub async fn save(call: Call, id: &str, name: &str) -> Result<Response, Failure> {
    call.require(Permission::Write, Scope::prompt(id))?;
    let owner = owner(&call)?;
    let expected = expected(&call.parts.headers)?;
    let SaveBody { content, base_version } = call.json()?;
    may_read(&call, &content).await?;
    let of = DraftName {
        prompt: id,
        owner: &owner,
        name,
    };
    let save = DraftSave {
        content,
        base_version,
        expected,
    };
    let (change, problems) = call.registry().save_draft(of, save, call.actor()).await?;
    let revision = u64::from(change.value.revision);
    let status = if revision == 1 {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let view = |draft: Draft| {
        let mut body = view(&draft);
        body["problems"] = json!(problems);
        body
    };
    Ok(tagged(call.changed(status, change, view).await?, revision))
}

/// `DELETE …/drafts/{name}`.
pub async fn delete(call: Call, id: &str, name: &str) -> Result<Response, Failure> {
    call.require(Permission::Write, Scope::prompt(id))?;
    let owner = owner(&call)?;
    let expected = expected(&call.parts.headers)?;
    let of = DraftName {
        prompt: id,
        owner: &owner,
        name,
    };
    let change = call.registry().delete_draft(of, expected, call.actor()).await?;
    call.changed(StatusCode::OK, change, |draft| view(&draft)).await
}

/// `POST …/drafts/{name}/commit`: makes it the next version.
pub async fn commit(call: Call, id: &str, name: &str) -> Result<Response, Failure> {
    call.require(Permission::Write, Scope::prompt(id))?;
    let owner = owner(&call)?;
    let expected = expected(&call.parts.headers)?;
    let CommitBody { message, onto } = call.json()?;
    let of = DraftName {
        prompt: id,
        owner: &owner,
        name,
    };
    let (draft, _) = call.registry().draft(of).await?;
    may_read(&call, &draft.content).await?;
    // What was looked at is what is committed.
    let expected = expected.or(Some(draft.revision));
    let by = call.by(&message);
    let change = call.registry().commit_draft(of, expected, onto, by).await?;
    call.changed(StatusCode::CREATED, change, |version| versions::view(&version))
        .await
}
