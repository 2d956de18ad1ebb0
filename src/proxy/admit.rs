//! Stage 1: who asks, for which generation, and with a body within its limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::Guard;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sha2::{Digest, Sha256};

use super::exchange::{Exchange, State};
use super::worker::{Settings, Worker};
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::json;
use crate::snapshot::{Key, Snapshot};

/// Waits until this node serves that generation or a later one.
const MIN_GENERATION_HEADER: &str = "x-promptgate-min-generation";
const MAX_GENERATION_WAIT: Duration = Duration::from_secs(2);

/// Of a body that is too large, or of a refused request, this many times the limit is read and thrown away, so that the
/// caller, still sending, gets to read the answer.
const DISCARD_FACTOR: usize = 4;

/// The table of this request, loaded once, and its key.
pub struct Admitted {
    pub snapshot: Guard<Arc<Snapshot>>,
    pub key: Arc<Key>,
}

/// Why a body did not arrive.
pub enum BodyError {
    Refused(ApiError),
    /// The caller left while sending.
    Gone,
}

/// Finds the key in the request's snapshot, or in a later one if the caller asks for a generation.
///
/// # Errors
/// 401 with one text for a missing, unknown and revoked key; 503 when the generation is not reached in time.
pub async fn admit(
    exchange: &mut Exchange,
    mut snapshot: Guard<Arc<Snapshot>>,
    headers: &HeaderMap,
) -> Result<Admitted, ApiError> {
    if let Some(value) = headers.get(MIN_GENERATION_HEADER) {
        let wanted = value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
            ApiError::new(
                ErrorCode::InvalidField,
                format!("{MIN_GENERATION_HEADER} must be a number"),
            )
            .param(MIN_GENERATION_HEADER)
        })?;
        if snapshot.generation < wanted {
            let worker = std::rc::Rc::clone(&exchange.worker);
            exchange.while_open(reach(&worker, wanted)).await?;
            snapshot = exchange.worker.cell.load();
            exchange.state = State::of(&snapshot);
        }
    }
    let key = authenticate(&snapshot, &exchange.worker.settings, headers)?;
    exchange.key_id = Arc::clone(&key.id);
    exchange.environment = Arc::clone(&key.environment);
    reserve(exchange)?;
    Ok(Admitted { snapshot, key })
}

/// Makes sure that the request's record will have room, if the configuration asks for that.
fn reserve(exchange: &mut Exchange) -> Result<(), ApiError> {
    let worker = &exchange.worker;
    if !worker.settings.reject_when_full || !worker.recorder.is_on() {
        return Ok(());
    }
    exchange.reservation = worker.recorder.reserve();
    match exchange.reservation {
        Some(_) => Ok(()),
        None => Err(ApiError::new(
            ErrorCode::RecordingFull,
            "there is no room to record this request, and telemetry.when_full is \"reject\"; try again later",
        )),
    }
}

async fn reach(worker: &Worker, wanted: u64) -> Result<(), ApiError> {
    let mut generations = worker.cell.generations();
    let reached = generations.wait_for(|generation| *generation >= wanted);
    match tokio::time::timeout(MAX_GENERATION_WAIT, reached).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(ApiError::new(
            ErrorCode::GenerationNotReached,
            format!(
                "this node serves generation {}, {wanted} was not reached within {} s",
                worker.cell.load().generation,
                MAX_GENERATION_WAIT.as_secs()
            ),
        )),
    }
}

fn authenticate(snapshot: &Snapshot, settings: &Settings, headers: &HeaderMap) -> Result<Arc<Key>, ApiError> {
    if let Some(anonymous) = &settings.anonymous {
        return Ok(Arc::clone(anonymous));
    }
    let secret = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let key = secret.and_then(|secret| snapshot.key(&Sha256::digest(secret).into()));
    key.cloned().ok_or_else(|| {
        ApiError::new(
            ErrorCode::InvalidApiKey,
            "no valid api key; send \"authorization: Bearer pg_…\" with a key made by POST /api/v1/keys",
        )
    })
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, secret) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| secret.trim_ascii())
}

/// Reads the body, within the limits of size, time and nesting.
///
/// # Errors
/// 413, 408 or 400; or the caller is gone.
pub async fn read_body(exchange: &mut Exchange, headers: &HeaderMap, body: Incoming) -> Result<Bytes, BodyError> {
    let settings = Arc::clone(&exchange.worker.settings);
    let limit = settings.max_request_body;
    let announced = announced(headers);
    let started = Instant::now();
    let reading = tokio::time::timeout(settings.request_body_timeout, collect(body, announced, limit));
    let body = match exchange.while_open(reading).await {
        Ok(body) => body?,
        Err(_) => {
            let seconds = settings.request_body_timeout.as_secs_f64();
            return Err(BodyError::Refused(ApiError::new(
                ErrorCode::BodyTimeout,
                format!("the body did not arrive within {seconds} s (timeouts.request_body)"),
            )));
        }
    };
    exchange.times.body = started.elapsed();
    exchange.content.request_bytes = body.len() as u64;
    if json::deeper_than(&body, settings.max_json_depth) {
        return Err(BodyError::Refused(ApiError::new(
            ErrorCode::InvalidJson,
            format!(
                "the body is nested deeper than {} levels (limits.max_json_depth)",
                settings.max_json_depth
            ),
        )));
    }
    Ok(body)
}

/// Reads the body of a refused request and throws it away: closing while the caller still sends would reset the
/// connection, and the answer with it.
pub async fn discard(exchange: &mut Exchange, headers: &HeaderMap, mut body: Incoming) {
    let settings = Arc::clone(&exchange.worker.settings);
    let limit = settings.max_request_body.saturating_mul(DISCARD_FACTOR);
    // Who expects to be told to continue does not send before that.
    if headers.contains_key(EXPECT) || announced(headers).is_some_and(|length| length > limit) {
        return;
    }
    let started = Instant::now();
    let reading = async {
        let mut length = 0;
        while length <= limit
            && let Some(Ok(frame)) = body.frame().await
        {
            length += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Whoever takes longer learns from the connection's end that something is wrong.
    let reading = tokio::time::timeout(settings.request_body_timeout, reading);
    let _ = exchange.while_open(reading).await;
    exchange.times.body = started.elapsed();
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(mut body: Incoming, announced: Option<usize>, limit: usize) -> Result<Bytes, BodyError> {
    let too_large = announced.is_some_and(|length| length > limit);
    if too_large && announced.is_some_and(|length| length > limit.saturating_mul(DISCARD_FACTOR)) {
        return Err(refused(limit));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut length = 0usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Gone)?.into_data() else {
            continue;
        };
        length += data.len();
        if length > limit {
            if length > limit.saturating_mul(DISCARD_FACTOR) {
                return Err(refused(limit));
            }
            continue;
        }
        // Nearly every body comes in one piece, which is then shared, not copied.
        if first.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(announced.unwrap_or(0).clamp(first.len() + data.len(), limit));
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&data);
    }
    if length > limit {
        return Err(refused(limit));
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn refused(limit: usize) -> BodyError {
    BodyError::Refused(ApiError::new(
        ErrorCode::BodyTooLarge,
        format!("the body is larger than {limit} bytes (limits.max_request_body)"),
    ))
}
