//! Answers to the caller: our own, our errors, and the head of a provider's.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use serde_json::Value;

use super::body::Body;
use super::exchange::Exchange;
use super::finish::outcome_of;
use crate::domain::error::{ApiError, ErrorCode, ErrorKind};
use crate::domain::exchange::Outcome;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");
const EXCHANGE_ID: HeaderName = HeaderName::from_static("x-promptgate-exchange-id");
const GENERATION: HeaderName = HeaderName::from_static("x-promptgate-generation");
const PROMPT: HeaderName = HeaderName::from_static("x-promptgate-prompt");
const VERSION: HeaderName = HeaderName::from_static("x-promptgate-version");
const VARIANT: HeaderName = HeaderName::from_static("x-promptgate-variant");
const ENVIRONMENT: HeaderName = HeaderName::from_static("x-promptgate-environment");
const PROVIDER: HeaderName = HeaderName::from_static("x-promptgate-provider");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-promptgate-attempts");
const IGNORED: HeaderName = HeaderName::from_static("x-promptgate-ignored");

/// The longest list of ignored names that a header takes.
const MAX_IGNORED_BYTES: usize = 1024;

/// Answers an error of ours, and records the exchange as ended by it.
pub async fn refuse(mut exchange: Box<Exchange>, error: ApiError) -> Response<Body> {
    let body = Bytes::from(error.to_json().to_string());
    exchange.content.response_bytes = body.len() as u64;
    exchange.upstream_ended();
    let status = error.code.status();
    let ticket = exchange.record(outcome_of(error.code), status, Some(error.code));
    exchange.worker.recorder.flushed(ticket).await;
    let mut response = Response::new(Body::Whole(Some(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    match error.code {
        ErrorCode::InvalidApiKey => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        ErrorCode::MethodNotAllowed => {
            let allow = if ["models", "prompt"].contains(&exchange.endpoint) {
                "GET"
            } else {
                "POST"
            };
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        code if code.kind() == ErrorKind::Overloaded => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    describe(&exchange, headers);
    response
}

/// Answers with JSON of our own, and records the exchange as done.
pub async fn own(mut exchange: Box<Exchange>, value: &Value, etag: Option<HeaderValue>) -> Response<Body> {
    let body = Bytes::from(value.to_string());
    exchange.content.response_bytes = body.len() as u64;
    let ticket = exchange.record(Outcome::Ok, 200, None);
    exchange.worker.recorder.flushed(ticket).await;
    let mut response = Response::new(Body::Whole(Some(body)));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    if let Some(etag) = etag {
        tag(response.headers_mut(), etag);
    }
    describe(&exchange, response.headers_mut());
    response
}

/// Answers that the caller has it already, and records the exchange as done.
pub async fn unchanged(mut exchange: Box<Exchange>, etag: HeaderValue) -> Response<Body> {
    let ticket = exchange.record(Outcome::Ok, 304, None);
    exchange.worker.recorder.flushed(ticket).await;
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    tag(response.headers_mut(), etag);
    describe(&exchange, response.headers_mut());
    response
}

/// What a cache needs to know: for whom it is, and that it must ask.
fn tag(headers: &mut HeaderMap, etag: HeaderValue) {
    headers.insert(ETAG, etag);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(VARY, HeaderValue::from_static("authorization, x-promptgate-unit"));
}

/// Takes over what a caller may see of a provider's head.
pub fn upstream_headers(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        let text = name.as_str();
        let passes = matches!(
            text,
            "content-type" | "retry-after" | "cache-control" | "x-should-retry"
        ) || ["x-ratelimit-", "openai-", "anthropic-"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
        // Whose account it is, is the operator's business.
        if passes
            && !matches!(
                text,
                "openai-organization" | "openai-project" | "anthropic-organization-id"
            )
        {
            to.append(name.clone(), value.clone());
        }
    }
    if let Some(id) = from.get(&REQUEST_ID) {
        to.insert(UPSTREAM_REQUEST_ID, id.clone());
    }
}

/// Returns a provider's id of the request.
pub fn upstream_request_id(headers: &HeaderMap) -> &str {
    headers
        .get(&REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Adds the headers that say which exchange this was, and what it was resolved to.
pub fn describe(exchange: &Exchange, headers: &mut HeaderMap) {
    let mut text = [0u8; uuid::fmt::Hyphenated::LENGTH];
    let id = exchange.id.hyphenated().encode_lower(&mut text);
    let id = HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static(""));
    headers.insert(REQUEST_ID, id.clone());
    headers.insert(EXCHANGE_ID, id);
    headers.insert(GENERATION, exchange.state.generation_header.clone());
    if let Some(prompt) = &exchange.prompt {
        headers.insert(PROMPT, prompt.id_header.clone());
        headers.insert(VERSION, prompt.version_header.clone());
        headers.insert(VARIANT, prompt.variant_header.clone());
        headers.insert(ENVIRONMENT, prompt.environment_header.clone());
    }
    if let Some(target) = &exchange.call.target {
        headers.insert(PROVIDER, target.endpoint.name_header.clone());
        headers.insert(ATTEMPTS, HeaderValue::from(exchange.call.attempts.len()));
    }
    if !exchange.call.ignored.is_empty()
        && let Ok(ignored) = HeaderValue::from_str(&ignored(&exchange.call.ignored))
    {
        headers.insert(IGNORED, ignored);
    }
}

/// Lists names as far as they fit, with what no header may have replaced.
fn ignored(names: &[String]) -> String {
    let mut list = String::new();
    for name in names {
        if list.len() + name.len() > MAX_IGNORED_BYTES {
            list.push_str(", …");
            break;
        }
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.extend(
            name.chars()
                .map(|c| if c.is_ascii_graphic() && c != ',' { c } else { '?' }),
        );
    }
    list.replace('…', "...")
}
