//! `/keys`: keys of applications.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Paging, listed, time};
use super::errors::Failure;
use crate::domain::role::{Permission, Scope};
use crate::registry::{Key, NewKey};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKeyBody {
    name: String,
    #[serde(default = "production")]
    environment: String,
    #[serde(default)]
    environments: Vec<String>,
    #[serde(default)]
    models: Option<Vec<String>>,
    #[serde(default = "yes")]
    raw: bool,
    #[serde(default = "yes")]
    pin: bool,
    #[serde(default)]
    force_variant: bool,
}

fn production() -> String {
    "production".to_owned()
}

fn yes() -> bool {
    true
}

fn view(key: &Key) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "environment": key.environment,
        "environments": key.environments,
        "models": key.models,
        "raw": key.raw,
        "pin": key.pin,
        "force_variant": key.force_variant,
        "created_at": time(key.created_at_us),
        "created_by": key.created_by,
        "revoked_at": key.revoked_at_us.map(time),
        "generation": key.generation,
    })
}

/// `GET /keys`, oldest first; never their secrets.
pub async fn list(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let paging: Paging = call.query()?;
    Ok(listed(call.registry().list_keys(paging.page()).await?, view))
}

/// `POST /keys`: the only answer that has the secret.
pub async fn create(call: Call) -> Result<Response, Failure> {
    call.require(Permission::ManageKeys, Scope::ANYWHERE)?;
    let body: NewKeyBody = call.json()?;
    for environment in body.environments.iter().chain([&body.environment]) {
        call.require(Permission::ManageKeys, Scope::environment(environment))?;
    }
    let new = NewKey {
        name: body.name,
        environment: body.environment,
        environments: body.environments,
        models: body.models,
        raw: body.raw,
        pin: body.pin,
        force_variant: body.force_variant,
    };
    let change = call.registry().create_key(new, call.actor()).await?;
    call.changed(StatusCode::CREATED, change, |created| {
        let mut body = view(&created.key);
        body["key"] = json!(created.secret);
        body
    })
    .await
}

/// `DELETE /keys/{id}`: revokes it; the row stays, records refer to it.
pub async fn revoke(call: Call) -> Result<Response, Failure> {
    call.require(Permission::ManageKeys, Scope::ANYWHERE)?;
    let id = call.last_segment()?;
    for environment in call.registry().key(&id).await?.environments {
        call.require(Permission::ManageKeys, Scope::environment(&environment))?;
    }
    let change = call.registry().revoke_key(&id, call.actor()).await?;
    call.changed(StatusCode::OK, change, |key| view(&key)).await
}
