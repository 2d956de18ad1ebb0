//! `/prompts/{id}/versions` and `/prompts/{id}/versions/{n}`.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Paging, found, listed, time};
use super::errors::Failure;
use crate::domain::content::Content;
use crate::registry::{By, Version, VersionName, VersionSummary};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewVersionBody {
    content: Content,
    message: String,
}

fn view(version: &VersionSummary) -> Value {
    json!({
        "prompt": version.prompt,
        "version": version.version,
        "hash": version.hash,
        "message": version.message,
        "author": version.author,
        "created_at": time(version.created_at_us),
    })
}

fn view_whole(version: &Version) -> Value {
    let names = |names: &[VersionName]| -> Vec<Value> {
        let name = |name: &VersionName| json!({"prompt": name.prompt, "version": name.version});
        names.iter().map(name).collect()
    };
    let mut body = view(&version.summary);
    body["content"] = json!(version.content);
    body["source"] = json!(version.source);
    body["uses"] = json!(names(&version.uses));
    body["used_by"] = json!(names(&version.used_by));
    body
}

/// `GET /prompts/{id}/versions`, newest first.
pub async fn list(call: Call, id: &str) -> Result<Response, Failure> {
    let paging: Paging = call.query()?;
    Ok(listed(call.registry().list_versions(id, paging.page()).await?, view))
}

/// `POST /prompts/{id}/versions`.
pub async fn create(call: Call, id: &str) -> Result<Response, Failure> {
    let NewVersionBody { content, message } = call.json()?;
    let by = By {
        actor: call.actor(),
        message: &message,
    };
    let change = call.registry().create_version(id, content, by).await?;
    call.changed(StatusCode::CREATED, change, |version| view(&version))
        .await
}

/// `GET /prompts/{id}/versions/{n}`.
pub async fn show(call: Call, id: &str, version: u32) -> Result<Response, Failure> {
    Ok(found(view_whole(&call.registry().version(id, version).await?)))
}
