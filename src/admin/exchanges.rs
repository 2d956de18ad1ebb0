//! `/exchanges`: what was recorded.

use axum::response::Response;
use serde_json::json;

use super::call::{Call, found};
use super::errors::Failure;
use crate::domain::error::{ApiError, ErrorCode};
use crate::telemetry::{ExchangeFilter, Store, StoreError};

const DEFAULT_LIMIT: u32 = 50;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    prompt: Option<String>,
    environment: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /exchanges?prompt=&environment=&limit=&cursor=`: newest first.
pub async fn list(call: Call) -> Result<Response, Failure> {
    let query: Query = call.query()?;
    let filter = ExchangeFilter {
        prompt: query.prompt,
        environment: query.environment,
        limit: query.limit.unwrap_or(DEFAULT_LIMIT),
        cursor: query.cursor,
    };
    let page = store(&call)?.exchanges(&filter).await?;
    Ok(found(json!({"items": page.items, "next_cursor": page.next_cursor})))
}

/// `GET /exchanges/{id}`.
pub async fn show(call: Call) -> Result<Response, Failure> {
    let id = call.last_segment()?;
    match store(&call)?.exchange(&id).await? {
        Some(exchange) => Ok(found(exchange)),
        None => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("there is no exchange {id:?}; one just made appears a second or two later"),
        )
        .into()),
    }
}

fn store(call: &Call) -> Result<&Store, Failure> {
    call.store().ok_or_else(|| {
        ApiError::new(
            ErrorCode::NotFound,
            "exchanges are not recorded here (telemetry.sink is \"none\")",
        )
        .into()
    })
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::BadCursor(_) => ApiError::new(ErrorCode::InvalidField, error.to_string())
                .param("cursor")
                .into(),
            StoreError::Sql(_) => {
                tracing::error!(%error, "the telemetry store failed");
                Self::internal()
            }
        }
    }
}
