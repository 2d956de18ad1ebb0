//! `/environments`: where a prompt can be live.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, found};
use super::errors::Failure;
use crate::domain::role::{Permission, Scope};
use crate::registry::{Environment, EnvironmentUpdate};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvironmentBody {
    protected: Option<bool>,
    approvals: Option<u32>,
    required_checks: Option<Vec<String>>,
    auto_apply: Option<bool>,
}

fn view(environment: &Environment) -> Value {
    json!({
        "name": environment.name,
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
    Ok(found(view(&call.registry().environment(&name).await?)))
}

/// `PUT /environments/{name}`: protects it or lifts that, says what changes need; what is left out stays. Creates it if there is none of that name.
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
    call.changed(StatusCode::OK, change, |environment| view(&environment))
        .await
}
