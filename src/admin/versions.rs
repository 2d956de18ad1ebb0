//! `/prompts/{id}/versions` and `/prompts/{id}/versions/{n}`.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Paging, found, listed, time};
use super::errors::Failure;
use crate::domain::content::Content;
use crate::domain::partial;
use crate::domain::role::{Permission, Scope};
use crate::registry::{Version, VersionName, VersionSummary};

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
    call.require(Permission::Read, Scope::prompt(id))?;
    let paging: Paging = call.query()?;
    Ok(listed(call.registry().list_versions(id, paging.page()).await?, view))
}

/// `POST /prompts/{id}/versions`.
pub async fn create(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Write, Scope::prompt(id))?;
    let NewVersionBody { content, message } = call.json()?;
    may_read_partials(&call, &content).await?;
    let change = call.registry().create_version(id, content, call.by(&message)).await?;
    call.changed(StatusCode::CREATED, change, |version| view(&version))
        .await
}

/// What is included is copied, and could be read then: the caller must be allowed to read it anyway.
async fn may_read_partials(call: &Call, submitted: &Content) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    // What has no normal form is refused with everything else that is wrong, like what cannot be read as a template.
    let Ok(mut content) = submitted.clone().normalise() else {
        return Ok(());
    };
    partial::visit_templates(&mut content, &mut |_, template| {
        for reference in partial::references(template).unwrap_or_default() {
            names.insert(reference.id.to_owned());
        }
    });
    for name in names {
        let id = call.registry().prompt_id(&name).await?.unwrap_or(name);
        call.require(Permission::Read, Scope::prompt(&id))?;
    }
    Ok(())
}

/// `GET /prompts/{id}/versions/{n}`.
pub async fn show(call: Call, id: &str, version: u32) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::prompt(id))?;
    Ok(found(view_whole(&call.registry().version(id, version).await?)))
}
