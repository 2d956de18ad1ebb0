//! `/prompts/{id}/versions` and `/prompts/{id}/versions/{n}`.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Paging, found, invalid, listed, time};
use super::errors::Failure;
use crate::domain::content::Content;
use crate::domain::partial;
use crate::domain::role::{Permission, Scope};
use crate::registry::{Version, VersionName, VersionSummary};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewVersionBody {
    content: Option<Content>,
    /// In the place of content: the text of that version, with the partials of today.
    from: Option<u32>,
    #[serde(default)]
    refresh_partials: bool,
    message: String,
}

pub fn view(version: &VersionSummary) -> Value {
    json!({
        "prompt": version.prompt,
        "version": version.version,
        "hash": version.hash,
        "message": version.message,
        "author": version.author,
        "created_at": time(version.created_at_us),
        "parent": version.parent,
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
    let NewVersionBody {
        content,
        from,
        refresh_partials,
        message,
    } = call.json()?;
    let change = match (content, from) {
        (Some(content), None) if !refresh_partials => {
            may_read_partials(&call, &content).await?;
            call.registry().create_version(id, content, call.by(&message)).await?
        }
        (None, Some(from)) if refresh_partials => {
            let source = call.registry().version(id, from).await?.source;
            may_read_partials(&call, &source).await?;
            call.registry().refresh_version(id, from, call.by(&message)).await?
        }
        _ => {
            let why = "give either content, or from together with refresh_partials: true";
            return Err(invalid("content", why));
        }
    };
    call.changed(StatusCode::CREATED, change, |version| view(&version))
        .await
}

/// What is included is copied, and could be read then: the caller must be allowed to read it anyway.
pub async fn may_read_partials(call: &Call, submitted: &Content) -> Result<(), Failure> {
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
