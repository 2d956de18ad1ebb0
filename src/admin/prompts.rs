//! `/prompts`, `/prompts/{id}` and `/folders`.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::call::{Call, Paging, found, listed, time};
use super::errors::Failure;
use super::etag::{expected, tagged};
use crate::domain::folder;
use crate::domain::role::{Permission, Scope};
use crate::registry::{Archived, Listed, NewPrompt, Prompt, PromptFilter, PromptUpdate, Published};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPromptBody {
    id: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    owner: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    description: Option<String>,
    tags: Option<Vec<String>>,
    owner: Option<String>,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RenameBody {
    to: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageBody {
    #[serde(default)]
    message: String,
}

/// Written out, because flattening another struct would give up naming unknown parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<u32>,
    cursor: Option<String>,
    /// Its former name was `query`.
    #[serde(alias = "query")]
    q: Option<String>,
    folder: Option<String>,
    recursive: Option<String>,
    tag: Option<String>,
    owner: Option<String>,
    archived: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FoldersQuery {
    folder: Option<String>,
    archived: Option<String>,
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
        "owner": prompt.owner,
        "aliases": prompt.aliases,
        "created_at": time(prompt.created_at_us),
        "created_by": prompt.created_by,
        "latest_version": prompt.latest_version,
        "live": live,
        "archived_at": prompt.archived_at_us.map(time),
        "revision": prompt.revision,
        "generation": prompt.generation,
    })
}

fn view_listed(listed: &Listed) -> Value {
    let mut body = view(&listed.prompt);
    if let Some(found) = &listed.found {
        body["match"] = json!({
            "in": found.place, "version": found.version, "path": found.path, "snippet": found.snippet,
        });
    }
    body
}

/// Reads a switch: present and empty is on.
fn switch(param: &'static str, value: Option<&str>) -> Result<bool, Failure> {
    match value {
        None | Some("false") => Ok(false),
        Some("" | "true") => Ok(true),
        Some(other) => Err(super::call::invalid(
            param,
            format!("{other:?} is neither true nor false"),
        )),
    }
}

fn archived(value: Option<&str>) -> Result<Archived, Failure> {
    match value {
        None | Some("false") => Ok(Archived::Hidden),
        Some("" | "true") => Ok(Archived::Included),
        Some("only") => Ok(Archived::Only),
        Some(other) => Err(super::call::invalid(
            "archived",
            format!("{other:?} is none of true, false and only"),
        )),
    }
}

/// `GET /prompts`: those that the caller may see.
pub async fn list(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let query: ListQuery = call.query()?;
    let recursive = switch("recursive", query.recursive.as_deref())?;
    let filter = PromptFilter {
        folder: query.folder.as_deref(),
        // Without a folder there is nothing to be directly inside of.
        recursive: query.folder.is_none() || recursive,
        query: query.q.as_deref(),
        tag: query.tag.as_deref(),
        owner: query.owner.as_deref(),
        archived: archived(query.archived.as_deref())?,
    };
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor.clone(),
    };
    let mut page = call.registry().list_prompts(filter, paging.page()).await?;
    // A page may have fewer items than asked for; the next one begins behind those left out.
    page.items
        .retain(|item| call.may(Permission::Read, Scope::prompt(&item.prompt.id)));
    Ok(listed(page, view_listed))
}

/// `GET /folders`: what is inside one, as far as the caller may see it.
pub async fn folders(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let FoldersQuery {
        folder,
        archived: put_away,
    } = call.query()?;
    let folder = folder.unwrap_or_default();
    let ids = call
        .registry()
        .prompt_ids(&folder, archived(put_away.as_deref())?)
        .await?;
    let seen = ids.iter().map(String::as_str);
    let seen = seen.filter(|id| call.may(Permission::Read, Scope::prompt(id)));
    let inside = folder::contents(seen, &folder::prefix(&folder));
    Ok(found(json!({
        "folder": folder.trim_matches('/'),
        "prompts": inside.total,
        "direct": inside.direct,
        "folders": inside.folders,
    })))
}

/// `POST /prompts`.
pub async fn create(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Write, Scope::ANYWHERE)?;
    let NewPromptBody {
        id,
        description,
        tags,
        owner,
    } = call.json()?;
    call.require(Permission::Write, Scope::prompt(&id))?;
    let new = NewPrompt {
        id,
        description,
        tags,
        owner,
    };
    let change = call.registry().create_prompt(new, call.actor()).await?;
    answer(&call, StatusCode::CREATED, change).await
}

/// `GET /prompts/{id}`, also by an alias.
pub async fn show(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::prompt(id))?;
    let prompt = call.registry().prompt(id).await?;
    Ok(tagged(found(view(&prompt)), u64::from(prompt.revision)))
}

/// `PATCH /prompts/{id}`: what is written about it, if nobody changed it meanwhile (`If-Match`).
pub async fn update(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Write, Scope::prompt(id))?;
    let expected = expected(&call.parts.headers)?;
    let UpdateBody {
        description,
        tags,
        owner,
        message,
    } = call.json()?;
    let update = PromptUpdate {
        description,
        tags,
        owner,
    };
    let by = call.by(&message);
    let change = call.registry().update_prompt(id, update, expected, by).await?;
    answer(&call, StatusCode::OK, change).await
}

/// `POST /prompts/{id}/rename`: the present id becomes an alias.
pub async fn rename(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Write, Scope::prompt(id))?;
    let RenameBody { to, message } = call.json()?;
    call.require(Permission::Write, Scope::prompt(&to))?;
    let change = call.registry().rename_prompt(id, &to, call.by(&message)).await?;
    answer(&call, StatusCode::OK, change).await
}

/// `POST /prompts/{id}/archive`.
pub async fn archive(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Write, Scope::prompt(id))?;
    let MessageBody { message } = call.json_or_default()?;
    let change = call.registry().archive_prompt(id, call.by(&message)).await?;
    answer(&call, StatusCode::OK, change).await
}

/// `POST /prompts/{id}/restore`.
pub async fn restore(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Write, Scope::prompt(id))?;
    let MessageBody { message } = call.json_or_default()?;
    let change = call.registry().restore_prompt(id, call.by(&message)).await?;
    answer(&call, StatusCode::OK, change).await
}

async fn answer(call: &Call, status: StatusCode, change: Published<Prompt>) -> Result<Response, Failure> {
    let etag = u64::from(change.value.revision);
    let response = call.changed(status, change, |prompt| view(&prompt)).await?;
    Ok(tagged(response, etag))
}
