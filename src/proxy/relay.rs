//! Stage 5: the provider's answer goes to the caller, watched on its way.
//!
//! A plain answer of usual size is read whole, so that head and body leave in one write. Everything else is relayed as it
//! comes by [`stream::Relay`]. Either way the record is durable before the last bytes leave.

mod opaque;
mod stream;

use std::future::poll_fn;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};

pub use stream::Relay;

use super::answer;
use super::body::Body;
use super::exchange::{Captured, Exchange, label};
use super::forward::Attempted;
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::exchange::Outcome;
use crate::provider::openai;
use crate::upstream::UpstreamBody;

/// Plain answers up to this size are held until they are complete.
const WHOLE_BYTES: usize = 1 << 20;

/// Relays the answer.
pub async fn relay(mut exchange: Box<Exchange>, attempted: Attempted, withhold_usage: bool) -> Response<Body> {
    let (mut head, body) = attempted.response.into_parts();
    if !head.status.is_success() {
        attempted.target.endpoint.scrub_headers(&mut head.headers);
    }
    exchange.call.upstream_request_id = label(answer::upstream_request_id(&head.headers));
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = head.status;
    answer::upstream_headers(&head.headers, response.headers_mut());
    let content_type = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let limits = stream::Limits {
        idle: attempted.target.endpoint.timeouts.idle,
        deadline: attempted.deadline,
    };
    if head.status.is_success() && content_type.starts_with("text/event-stream") {
        answer::describe(&exchange, response.headers_mut());
        *response.body_mut() = Body::Relay(Relay::events(exchange, body, limits, withhold_usage));
        return response;
    }
    match exchange.while_open(read_whole(body, &limits)).await {
        Read::Whole(bytes) => whole(exchange, response, bytes).await,
        Read::Large(beginning, body) => {
            answer::describe(&exchange, response.headers_mut());
            *response.body_mut() = Body::Relay(Relay::opaque(exchange, beginning, body, limits, head.status));
            response
        }
        Read::Failed(error) => answer::refuse(exchange, error).await,
    }
}

enum Read {
    Whole(Bytes),
    /// More than is held: what has come, and the rest.
    Large(Bytes, UpstreamBody),
    Failed(ApiError),
}

async fn read_whole(mut body: UpstreamBody, limits: &stream::Limits) -> Read {
    if body.announced_bytes().is_some_and(|length| length > WHOLE_BYTES as u64) {
        return Read::Large(Bytes::new(), body);
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let wait = limits
            .idle
            .min(limits.deadline.saturating_duration_since(Instant::now()));
        let data = match tokio::time::timeout(wait, poll_fn(|cx| body.poll_data(cx))).await {
            Err(_) => return Read::Failed(limits.passed()),
            Ok(None) => break,
            Ok(Some(Ok(data))) => data,
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "upstream answer broke off");
                return Read::Failed(broken());
            }
        };
        if first.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
        if first.len().max(all.len()) > WHOLE_BYTES {
            let beginning = if all.is_empty() { first } else { all.freeze() };
            return Read::Large(beginning, body);
        }
    }
    Read::Whole(if all.is_empty() { first } else { all.freeze() })
}

/// Answers with a complete body.
async fn whole(mut exchange: Box<Exchange>, mut response: Response<Body>, bytes: Bytes) -> Response<Body> {
    exchange.upstream_ended();
    let status = response.status();
    let bytes = if status.is_success() {
        match openai::read_answer(exchange.call.kind, &bytes) {
            Some(facts) => exchange.call.facts = facts,
            None if serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_err() => {
                let why = "the provider's answer is not valid JSON";
                return answer::refuse(exchange, ApiError::new(ErrorCode::UpstreamInvalid, why)).await;
            }
            None => {}
        }
        bytes
    } else {
        scrub(&exchange, bytes)
    };
    exchange.content.response_bytes = bytes.len() as u64;
    exchange.content.response = Captured::Body(bytes.clone());
    let ticket = exchange.record(outcome_of(status), status.as_u16(), None);
    exchange.worker.recorder.flushed(ticket).await;
    answer::describe(&exchange, response.headers_mut());
    *response.body_mut() = Body::Whole(Some(bytes));
    response
}

/// Which outcome a provider's status means.
pub fn outcome_of(status: StatusCode) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Ok,
        400 | 404 | 413 | 422 => Outcome::ClientError,
        _ => Outcome::UpstreamError,
    }
}

fn scrub(exchange: &Exchange, bytes: Bytes) -> Bytes {
    match &exchange.call.target {
        Some(target) => target.endpoint.scrub(bytes),
        None => bytes,
    }
}

fn broken() -> ApiError {
    ApiError::new(
        ErrorCode::UpstreamInvalid,
        "the provider's answer broke off before its end",
    )
}
