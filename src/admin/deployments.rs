//! `/prompts/{id}/deployments/{environment}`, its history and the way back.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Paging, found, listed, time};
use super::errors::Failure;
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::role::{Permission, Scope};
use crate::domain::split::Arm;
use crate::registry::{Deployment, Published};

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

fn with_etag(mut response: Response, number: u32) -> Response {
    let etag = HeaderValue::from_str(&format!("\"{number}\"")).expect("digits in quotes are a header value");
    response.headers_mut().insert(header::ETAG, etag);
    response
}

/// Reads the deployment that the caller believes to be live; `"0"` is none.
fn expected(headers: &HeaderMap) -> Result<Option<u32>, Failure> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let number = value
        .to_str()
        .ok()
        .and_then(|etag| etag.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(ApiError::new(
            ErrorCode::InvalidField,
            "the header if-match must be the number of the live deployment in quotes, \"7\" for instance, or \"0\" for none",
        )
        .param("if-match")
        .into()),
    }
}

/// `GET`: what is live, with its number as ETag.
pub async fn show(call: Call, id: &str, environment: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::live(id, environment))?;
    let deployment = call.registry().deployment(id, environment).await?;
    Ok(with_etag(found(view(&deployment)), deployment.number))
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
    Ok(with_etag(response, number))
}

/// `GET …/history`, newest first.
pub async fn history(call: Call, id: &str, environment: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::live(id, environment))?;
    let paging: Paging = call.query()?;
    let page = call.registry().list_deployments(id, environment, paging.page()).await?;
    Ok(listed(page, view))
}
