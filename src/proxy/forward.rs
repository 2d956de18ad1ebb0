//! Stage 4: the request goes to the model's target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;

use super::exchange::{AttemptFacts, Exchange};
use crate::domain::error::{ApiError, ErrorCode};
use crate::snapshot::Target;
use crate::upstream::{SendError, UpstreamBody};

/// The caller's headers that a provider gets. Credentials and cookies are never among them.
const PASSED: [HeaderName; 4] = [
    ACCEPT,
    USER_AGENT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// A provider's answer whose head has come.
pub struct Attempted {
    pub response: Response<UpstreamBody>,
    pub target: Arc<Target>,
    /// When the whole call must be over.
    pub deadline: Instant,
}

/// Sends the body to the target.
///
/// # Errors
/// 502 when the provider cannot be reached, 504 when it does not answer in time.
pub async fn forward(
    exchange: &mut Exchange,
    target: &Arc<Target>,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Attempted, ApiError> {
    let endpoint = &target.endpoint;
    let path = endpoint.target(exchange.call.kind.path());
    let request = || {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.clone();
        *request.headers_mut() = call_headers(&endpoint.headers, headers);
        request
    };
    let started = Instant::now();
    exchange.times.upstream_started = Some(started);
    // Noted before the wait, for a caller that leaves during it.
    exchange.call.attempts.push(AttemptFacts {
        target: target.label(&exchange.call.upstream_model),
        status: 0,
        duration: Duration::ZERO,
        error: "cancelled",
    });
    let pool = std::rc::Rc::clone(&exchange.worker.pool);
    let sent = exchange.while_open(pool.send(endpoint, request)).await;
    let status = sent.as_ref().map_or(0, |response| response.status().as_u16());
    let error = match &sent {
        Ok(response) if is_redirect(response.status()) => "redirect",
        Ok(response) if !response.status().is_success() => "status",
        Ok(_) => "",
        Err(SendError::Connect(_)) => "connect",
        Err(SendError::ConnectTimeout | SendError::FirstByteTimeout) => "timeout",
        Err(SendError::Broken(_)) => "reset",
    };
    if let Some(attempt) = exchange.call.attempts.last_mut() {
        (attempt.status, attempt.duration, attempt.error) = (status, started.elapsed(), error);
    }
    exchange
        .worker
        .series
        .attempt(&endpoint.name, if error.is_empty() { "ok" } else { error });
    match sent {
        // Following it would take the request, and perhaps the credential, to a host nobody configured.
        Ok(response) if is_redirect(response.status()) => Err(ApiError::new(
            ErrorCode::UpstreamInvalid,
            format!(
                "provider {:?} answered with a redirect ({status}), check its base_url",
                endpoint.name
            ),
        )),
        Ok(response) => Ok(Attempted {
            response,
            target: Arc::clone(target),
            deadline: started + endpoint.timeouts.total,
        }),
        Err(error) => {
            exchange.upstream_ended();
            tracing::debug!(%error, provider = %endpoint.name, "upstream call failed");
            Err(failure(&error, target))
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    status.is_redirection()
}

/// The caller learns which provider failed and how, but no address.
fn failure(error: &SendError, target: &Target) -> ApiError {
    let name = &target.endpoint.name;
    let timeouts = &target.endpoint.timeouts;
    let seconds = |duration: Duration| duration.as_secs_f64();
    match error {
        SendError::Connect(_) => ApiError::new(
            ErrorCode::UpstreamUnreachable,
            format!("provider {name:?} cannot be reached"),
        ),
        SendError::ConnectTimeout => ApiError::new(
            ErrorCode::UpstreamTimeout,
            format!(
                "no connection to provider {name:?} within {} s (timeouts.connect)",
                seconds(timeouts.connect)
            ),
        ),
        SendError::FirstByteTimeout => ApiError::new(
            ErrorCode::UpstreamTimeout,
            format!(
                "provider {name:?} did not answer within {} s (timeouts.first_byte)",
                seconds(timeouts.first_byte)
            ),
        ),
        SendError::Broken(_) => ApiError::new(
            ErrorCode::UpstreamInvalid,
            format!("provider {name:?} closed the connection without a valid answer"),
        ),
    }
}

/// The endpoint's own headers win over the caller's.
fn call_headers(endpoint: &HeaderMap, caller: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(endpoint.len() + PASSED.len() + 2);
    for name in PASSED {
        if let Some(value) = caller.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in endpoint {
        headers.insert(name.clone(), value.clone());
    }
    headers
}
