//! `/webhooks`: who is told of what, and the log of deliveries.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::call::{Call, Paging, found, invalid, listed, time};
use super::errors::Failure;
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::role::{Permission, Scope};
use crate::registry::{CreatedWebhook, Delivery, Webhook, WebhookUpdate};

/// How long a test call is waited for, and how often it is looked at.
const TEST_PATIENCE: Duration = Duration::from_secs(12);
const TEST_POLL: Duration = Duration::from_millis(50);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    url: Option<String>,
    description: Option<String>,
    events: Option<Vec<String>>,
    environment: Option<String>,
    folder: Option<String>,
    enabled: Option<bool>,
}

impl From<Body> for WebhookUpdate {
    fn from(body: Body) -> Self {
        let Body {
            url,
            description,
            events,
            environment,
            folder,
            enabled,
        } = body;
        Self {
            url,
            description,
            events,
            environment,
            folder,
            enabled,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeliveriesQuery {
    state: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

fn view(webhook: &Webhook) -> Value {
    json!({
        "id": webhook.id,
        "url": webhook.url,
        "description": webhook.description,
        "events": webhook.events,
        "environment": webhook.environment,
        "folder": webhook.folder,
        "enabled": webhook.enabled,
        "created_at": time(webhook.created_at_us),
        "created_by": webhook.created_by,
        "waiting": webhook.waiting,
        "failed": webhook.failed,
    })
}

fn with_secret(created: &CreatedWebhook) -> Value {
    let mut body = view(&created.webhook);
    body["secret"] = json!(created.secret);
    body
}

fn delivery_view(delivery: &Delivery) -> Value {
    json!({
        "delivery": delivery.seq,
        "event": delivery.event_id,
        "type": delivery.event_type,
        "happened_at": time(delivery.happened_at_us),
        "state": delivery.state,
        "attempts": delivery.attempts,
        "next_at": (delivery.state == "waiting").then(|| time(delivery.next_at_us)),
        "last_at": delivery.last_at_us.map(time),
        "status": delivery.status,
        "error": delivery.error,
        "took_ms": delivery.took_us as f64 / 1e3,
    })
}

fn may_manage(call: &Call) -> Result<(), Failure> {
    call.require(Permission::ManageWebhooks, Scope::EVERYWHERE)
}

/// Reads the delivery that the path names behind its webhook.
fn delivery_of(call: &Call) -> Result<(String, i64), Failure> {
    let (webhook, segment) = (call.segment(1)?, call.segment(3)?);
    let seq = segment.parse().ok().filter(|seq| *seq > 0);
    let seq = seq.ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("delivery {segment:?} does not exist")))?;
    Ok((webhook, seq))
}

/// `POST /webhooks`: answers the secret, this once.
pub async fn create(call: Call) -> Result<Response, Failure> {
    may_manage(&call)?;
    let body: Body = call.json()?;
    if body.url.is_none() {
        return Err(invalid(
            "url",
            "is missing, write e.g. \"https://example.com/promptgate\"",
        ));
    }
    let change = call.registry().create_webhook(body.into(), call.actor()).await?;
    call.changed(StatusCode::CREATED, change, |created| with_secret(&created))
        .await
}

/// `GET /webhooks`, newest first.
pub async fn list(call: Call) -> Result<Response, Failure> {
    may_manage(&call)?;
    let paging: Paging = call.query()?;
    Ok(listed(call.registry().list_webhooks(paging.page()).await?, view))
}

/// `GET /webhooks/{webhook}`.
pub async fn show(call: Call) -> Result<Response, Failure> {
    may_manage(&call)?;
    Ok(found(view(&call.registry().webhook(&call.segment(1)?).await?)))
}

/// `PATCH /webhooks/{webhook}`.
pub async fn update(call: Call) -> Result<Response, Failure> {
    may_manage(&call)?;
    let (id, body): (String, Body) = (call.segment(1)?, call.json()?);
    let change = call.registry().update_webhook(&id, body.into(), call.actor()).await?;
    call.changed(StatusCode::OK, change, |webhook| view(&webhook)).await
}

/// `DELETE /webhooks/{webhook}`: what waits for it is told to nobody.
pub async fn delete(call: Call) -> Result<Response, Failure> {
    may_manage(&call)?;
    let change = call.registry().delete_webhook(&call.segment(1)?, call.actor()).await?;
    call.changed(StatusCode::OK, change, |webhook| view(&webhook)).await
}

/// `POST /webhooks/{webhook}/secret`: another one, shown once.
pub async fn rotate(call: Call) -> Result<Response, Failure> {
    may_manage(&call)?;
    let change = call
        .registry()
        .rotate_webhook_secret(&call.segment(1)?, call.actor())
        .await?;
    call.changed(StatusCode::OK, change, |created| with_secret(&created))
        .await
}

/// `POST /webhooks/{webhook}/test`: a `ping`, and what came of its first attempt.
pub async fn test(call: Call) -> Result<Response, Failure> {
    may_manage(&call)?;
    let id = call.segment(1)?;
    let mut change = call.registry().test_webhook(&id, call.actor()).await?;
    let until = Instant::now() + TEST_PATIENCE;
    while change.value.attempts == 0 && Instant::now() < until {
        tokio::time::sleep(TEST_POLL).await;
        change.value = call.registry().delivery(&id, change.value.seq).await?;
    }
    call.changed(StatusCode::OK, change, |delivery| delivery_view(&delivery))
        .await
}

/// `GET /webhooks/{webhook}/deliveries?state=`, newest first.
pub async fn deliveries(call: Call) -> Result<Response, Failure> {
    may_manage(&call)?;
    let DeliveriesQuery { state, limit, cursor } = call.query()?;
    let state = state.unwrap_or_default();
    if !["", "waiting", "delivered", "failed"].contains(&state.as_str()) {
        let why = format!("{state:?} is not one of waiting, delivered, failed");
        return Err(invalid("state", why));
    }
    let paging = Paging { limit, cursor };
    let page = call
        .registry()
        .list_deliveries(&call.segment(1)?, &state, paging.page())
        .await?;
    Ok(listed(page, delivery_view))
}

/// `POST /webhooks/{webhook}/deliveries/{delivery}/resend`.
pub async fn resend(call: Call) -> Result<Response, Failure> {
    may_manage(&call)?;
    let (webhook, seq) = delivery_of(&call)?;
    let change = call.registry().resend_delivery(&webhook, seq, call.actor()).await?;
    call.changed(StatusCode::OK, change, |delivery| delivery_view(&delivery))
        .await
}
