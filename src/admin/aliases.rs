//! `/prompts/{id}/aliases/{alias}`.

use axum::http::StatusCode;
use axum::response::Response;

use super::call::Call;
use super::errors::Failure;
use super::prompts;
use crate::domain::role::{Permission, Scope};

/// The name as well as the prompt must be in a folder of the caller: nobody takes names in the folders of others.
fn may_rename(call: &Call, id: &str, alias: &str) -> Result<(), Failure> {
    call.require(Permission::Write, Scope::prompt(id))?;
    call.require(Permission::Write, Scope::prompt(alias))
}

/// `PUT`: gives the prompt that name as well.
pub async fn add(call: Call, id: &str, alias: &str) -> Result<Response, Failure> {
    may_rename(&call, id, alias)?;
    let change = call.registry().add_alias(id, alias, call.actor()).await?;
    call.changed(StatusCode::OK, change, |prompt| prompts::view(&prompt))
        .await
}

/// `DELETE`: takes the name away. Whoever still uses it gets 404, so where something is live and protected this is for
/// those who may deploy there.
pub async fn remove(call: Call, id: &str, alias: &str) -> Result<Response, Failure> {
    may_rename(&call, id, alias)?;
    for live in call.registry().prompt(id).await?.live {
        if call.registry().environment(&live.environment).await?.protected {
            call.require(Permission::Deploy, Scope::live(id, &live.environment))?;
        }
    }
    let change = call.registry().remove_alias(id, alias, call.actor()).await?;
    call.changed(StatusCode::OK, change, |prompt| prompts::view(&prompt))
        .await
}
