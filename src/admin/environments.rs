//! `/environments`: where a prompt can be live.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, found};
use super::errors::Failure;
use super::etag::{expected, tagged};
use crate::domain::role::{Permission, Scope};
use crate::registry::{Environment, EnvironmentEdit, EnvironmentUpdate, Published};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvironmentBody {
    protected: Option<bool>,
    approvals: Option<u32>,
    required_checks: Option<Vec<String>>,
    auto_apply: Option<bool>,
}

pub fn view(environment: &Environment) -> Value {
    json!({
        "name": environment.name,
        "label": environment.label,
        "position": environment.position,
        "protected": environment.protected,
        "approvals": environment.approvals,
        "required_checks": environment.required_checks,
        "auto_apply": environment.auto_apply,
        "generation": environment.generation,
    })
}

/// `GET /environments`, in order; there are few, so there is one page.
pub async fn list(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let environments = call.registry().list_environments().await?;
    let items: Vec<Value> = environments.iter().map(view).collect();
    Ok(found(json!({"items": items, "next_cursor": null})))
}

/// `GET /environments/{name}`.
pub async fn show(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let name = call.last_segment()?;
    let environment = call.registry().environment(&name).await?;
    Ok(tagged(found(view(&environment)), environment.generation))
}

/// `PUT /environments/{name}`: protects it or lifts that, says what changes need; what is left out stays. Creates it
/// if there is none of that name.
pub async fn set(call: Call) -> Result<Response, Failure> {
    let name = call.last_segment()?;
    call.require(Permission::ManageEnvironments, Scope::environment(&name))?;
    let body: EnvironmentBody = call.json()?;
    let update = EnvironmentUpdate {
        protected: body.protected,
        approvals: body.approvals,
        required_checks: body.required_checks,
        auto_apply: body.auto_apply,
    };
    let change = call.registry().set_environment(&name, update, call.actor()).await?;
    answer(&call, change).await
}

async fn answer(call: &Call, change: Published<Environment>) -> Result<Response, Failure> {
    let etag = change.value.generation;
    let response = call
        .changed(StatusCode::OK, change, |environment| view(&environment))
        .await?;
    Ok(tagged(response, etag))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    label: Option<String>,
    position: Option<u32>,
    protected: Option<bool>,
    approvals: Option<u32>,
    required_checks: Option<Vec<String>>,
    auto_apply: Option<bool>,
    #[serde(default)]
    message: String,
}

/// `PATCH /environments/{name}`, if nobody changed it meanwhile (`If-Match`).
pub async fn update(call: Call) -> Result<Response, Failure> {
    let name = call.last_segment()?;
    call.require(Permission::ManageEnvironments, Scope::environment(&name))?;
    let expected = expected(&call.parts.headers)?;
    let body: UpdateBody = call.json()?;
    if body.position.is_some() {
        // The others move.
        call.require(Permission::ManageEnvironments, Scope::EVERYWHERE)?;
    }
    let edit = EnvironmentEdit {
        label: body.label,
        position: body.position,
        settings: EnvironmentUpdate {
            protected: body.protected,
            approvals: body.approvals,
            required_checks: body.required_checks,
            auto_apply: body.auto_apply,
        },
    };
    let by = call.by(&body.message);
    let change = call.registry().edit_environment(&name, edit, expected, by).await?;
    answer(&call, change).await
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteBody {
    #[serde(default)]
    message: String,
}

/// `DELETE /environments/{name}`: one that was never used.
pub async fn delete(call: Call) -> Result<Response, Failure> {
    let name = call.last_segment()?;
    call.require(Permission::ManageEnvironments, Scope::environment(&name))?;
    let DeleteBody { message } = call.json_or_default()?;
    let change = call.registry().delete_environment(&name, call.by(&message)).await?;
    call.changed(StatusCode::OK, change, |environment| view(&environment))
        .await
}
