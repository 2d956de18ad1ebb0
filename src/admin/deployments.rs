//! `/prompts/{id}/deployments/{environment}`, its history and the way back; promotions, and several prompts at once.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Paging, found, listed, time};
use super::errors::Failure;
use super::etag::{expected, tagged};
use crate::domain::role::{Permission, Scope};
use crate::domain::split::Arm;
use crate::registry::{Deployment, Glass, Published, Target};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeployBody {
    split: Vec<Arm>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    break_glass: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TakeDownBody {
    #[serde(default)]
    message: String,
    #[serde(default)]
    break_glass: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PromoteBody {
    from: String,
    to: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    break_glass: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetBody {
    prompt: String,
    split: Vec<Arm>,
    /// The deployment that the caller saw live, 0 for none.
    expected: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TogetherBody {
    environment: String,
    deployments: Vec<TargetBody>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    break_glass: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    to: Option<u32>,
    #[serde(default)]
    message: String,
}

pub fn view(deployment: &Deployment) -> Value {
    json!({
        "prompt": deployment.prompt,
        "environment": deployment.environment,
        "deployment": deployment.number,
        "split": deployment.split,
        "message": deployment.message,
        "actor": deployment.actor,
        "created_at": time(deployment.created_at_us),
        "kind": deployment.kind.as_str(),
        "rolled_back_to": deployment.rolled_back_to,
        "change": deployment.change,
        "break_glass": deployment.break_glass,
        "generation": deployment.generation,
    })
}

/// `GET`: what is live, with its number as ETag.
pub async fn show(call: Call, id: &str, environment: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::live(id, environment))?;
    let deployment = call.registry().deployment(id, environment).await?;
    Ok(tagged(found(view(&deployment)), u64::from(deployment.number)))
}

/// `PUT`: makes a split live, if nobody did meanwhile (`If-Match`).
pub async fn deploy(call: Call, id: &str, environment: &str) -> Result<Response, Failure> {
    call.require(Permission::Deploy, Scope::live(id, environment))?;
    let expected = expected(&call.parts.headers)?;
    let body: DeployBody = call.json()?;
    let by = call.by(&body.message);
    if body.break_glass {
        call.require(Permission::BreakGlass, Scope::live(id, environment))?;
        let change = call
            .registry()
            .break_glass(id, environment, body.split, expected, by)
            .await?;
        shout(&call, &change.value);
        return answer(&call, change).await;
    }
    let change = call
        .registry()
        .deploy(id, environment, body.split, expected, by)
        .await?;
    answer(&call, change).await
}

/// `DELETE`: takes the prompt off, if nobody changed what is live meanwhile (`If-Match`).
pub async fn take_down(call: Call, id: &str, environment: &str) -> Result<Response, Failure> {
    call.require(Permission::Deploy, Scope::live(id, environment))?;
    let expected = expected(&call.parts.headers)?;
    let body: TakeDownBody = call.json_or_default()?;
    let glass = glass(&call, id, environment, body.break_glass)?;
    let by = call.by(&body.message);
    let change = call.registry().take_down(id, environment, expected, glass, by).await?;
    shout(&call, &change.value);
    answer(&call, change).await
}

/// `POST /prompts/{id}/promote`: what is live in one environment goes live in another.
pub async fn promote(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Deploy, Scope::prompt(id))?;
    let expected = expected(&call.parts.headers)?;
    let body: PromoteBody = call.json()?;
    call.require(Permission::Read, Scope::live(id, &body.from))?;
    call.require(Permission::Deploy, Scope::live(id, &body.to))?;
    let glass = glass(&call, id, &body.to, body.break_glass)?;
    let (way, by) = ((body.from.as_str(), body.to.as_str()), call.by(&body.message));
    let change = call.registry().promote(id, way, expected, glass, by).await?;
    shout(&call, &change.value);
    answer(&call, change).await
}

/// `POST /deployments`: several prompts in one change.
pub async fn together(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Deploy, Scope::ANYWHERE)?;
    let TogetherBody {
        environment,
        deployments,
        message,
        break_glass,
    } = call.json()?;
    let mut targets = Vec::with_capacity(deployments.len());
    for TargetBody {
        prompt,
        split,
        expected,
    } in deployments
    {
        // Authority is asked for by id: an alias in one folder may name a prompt in another.
        let prompt = call.registry().prompt_id(&prompt).await?.unwrap_or(prompt);
        call.require(Permission::Deploy, Scope::live(&prompt, &environment))?;
        glass(&call, &prompt, &environment, break_glass)?;
        targets.push(Target {
            prompt,
            split,
            expected,
        });
    }
    let by = call.by(&message);
    let glass = if break_glass { Glass::Broken } else { Glass::Whole };
    let change = call
        .registry()
        .deploy_together(&environment, targets, glass, by)
        .await?;
    change.value.iter().for_each(|made| shout(&call, made));
    call.changed(StatusCode::OK, change, |made| {
        let deployments: Vec<Value> = made.iter().map(view).collect();
        json!({ "deployments": deployments })
    })
    .await
}

/// Asks whether the caller may do without approval, if they want to.
fn glass(call: &Call, id: &str, environment: &str, broken: bool) -> Result<Glass, Failure> {
    if !broken {
        return Ok(Glass::Whole);
    }
    call.require(Permission::BreakGlass, Scope::live(id, environment))?;
    Ok(Glass::Broken)
}

/// Makes sure that a deployment without approval is noticed; the audit log has it already.
fn shout(call: &Call, made: &Deployment) {
    if !made.break_glass {
        return;
    }
    call.metrics()
        .break_glass_deployments
        .with_label_values(&[made.environment.as_str()])
        .inc();
    tracing::warn!(
        prompt = made.prompt,
        environment = made.environment,
        deployment = made.number,
        user = made.actor,
        "glass was broken: a deployment to a protected environment without approval, see the audit log"
    );
}

/// `POST …/rollback`.
pub async fn rollback(call: Call, id: &str, environment: &str) -> Result<Response, Failure> {
    call.require(Permission::Deploy, Scope::live(id, environment))?;
    let RollbackBody { to, message } = call.json_or_default()?;
    let change = call.registry().rollback(id, environment, to, call.by(&message)).await?;
    answer(&call, change).await
}

async fn answer(call: &Call, change: Published<Deployment>) -> Result<Response, Failure> {
    let number = change.value.number;
    let response = call
        .changed(StatusCode::OK, change, |deployment| view(&deployment))
        .await?;
    Ok(tagged(response, u64::from(number)))
}

/// `GET …/history`, newest first.
pub async fn history(call: Call, id: &str, environment: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::live(id, environment))?;
    let paging: Paging = call.query()?;
    let page = call.registry().list_deployments(id, environment, paging.page()).await?;
    Ok(listed(page, view))
}
