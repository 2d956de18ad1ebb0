//! One request, from its head to an answer that is ready to send.

use std::{io, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::sleep;

use super::{
    Controls, Point,
    body::{MockBody, deliberate_cut, stopped},
    events::EventStream,
    openai::{self, Failure},
    server::Worker,
    stats::{self, AnswerGuard},
};

const MAX_REQUEST_BYTES: usize = 64 << 20;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// What a dialect says, before anything goes wrong with it.
pub(super) enum Answer {
    Plain(Vec<u8>),
    Stream(EventStream),
}

/// What names and dates an answer.
pub(super) struct Stamp {
    hex: [u8; 16],
    started: Instant,
    pub(super) created_unix_seconds: u64,
}

impl Stamp {
    fn new(worker: &Worker) -> Self {
        let number = worker.next_answer_number();
        let mut hex = [0; 16];
        for (position, digit) in hex.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (60 - 4 * position)) as usize & 15];
        }
        let created_unix_seconds = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        Self {
            hex,
            started: Instant::now(),
            created_unix_seconds,
        }
    }

    /// 16 hexadecimal digits no other answer has.
    pub(super) fn id(&self) -> &str {
        str::from_utf8(&self.hex).expect("hexadecimal digits are ASCII")
    }

    fn request_id(&self) -> HeaderValue {
        let mut id = *b"req_0000000000000000";
        id[4..].copy_from_slice(&self.hex);
        HeaderValue::from_bytes(&id).expect("hexadecimal digits are ASCII")
    }
}

/// Answers one request.
///
/// # Errors
/// The connection is to be closed without a response: a control asks for it, or the client broke off.
///
/// Dropped when the client leaves; counts that as cancelled.
pub(super) async fn respond(worker: Arc<Worker>, request: Request<Incoming>) -> io::Result<Response<MockBody>> {
    let (head, body) = request.into_parts();
    if let Some(response) = operator_answer(&worker, &head) {
        return Ok(response);
    }
    let mut guard = AnswerGuard::new(Arc::clone(&worker));
    let stamp = Stamp::new(&worker);
    let defaults = &worker.shared.defaults;
    let body = match read(body).await? {
        Ok(body) => body,
        Err(failure) => return Ok(send(&stamp, Err(failure), defaults, guard)),
    };
    if defaults.remember {
        worker.shared.last_request.remember(&head, &body);
    }
    let endpoint = openai::Endpoint::of(&head.method, head.uri.path());
    let request = match &endpoint {
        Ok(endpoint) if endpoint.takes_body() => openai::Request::parse(&body),
        _ => Ok(openai::Request::default()),
    };
    let in_model = request.as_ref().ok().and_then(|request| request.controls_in_model());
    let controls = match Controls::for_request(defaults, in_model, &head.headers) {
        Ok(controls) => controls,
        Err(error) => {
            return Ok(send(&stamp, Err(Failure::bad_control(&error)), defaults, guard));
        }
    };
    wait_for_head(&controls, &mut guard).await?;
    let answer = openai::admit(&controls, &head.headers)
        .and(endpoint)
        .and_then(|endpoint| openai::answer(endpoint, &request?, &controls, &stamp));
    Ok(send(&stamp, answer, &controls, guard))
}

/// Routes that are about the mock and not a provider's: no controls, not counted.
fn operator_answer(worker: &Worker, head: &Parts) -> Option<Response<MockBody>> {
    let shared = &worker.shared;
    let body = match (&head.method, head.uri.path()) {
        (&Method::GET, "/healthz") => br#"{"status":"ok"}"#.to_vec(),
        (&Method::GET, "/__mock/stats") => stats::to_json(&shared.counters, &shared.last_request),
        (&Method::POST, "/__mock/reset") => {
            stats::reset(&shared.counters, &shared.last_request);
            b"{}".to_vec()
        }
        _ => return None,
    };
    Some(with_content(JSON, MockBody::whole(body)))
}

async fn read(body: Incoming) -> io::Result<Result<Bytes, Failure>> {
    match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
        Ok(collected) => Ok(Ok(collected.to_bytes())),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Ok(Err(Failure::too_large())),
        Err(error) => Err(io::Error::other(error)),
    }
}

async fn wait_for_head(controls: &Controls, guard: &mut AnswerGuard) -> io::Result<()> {
    if !controls.latency.is_zero() {
        sleep(controls.latency).await;
    }
    if controls.cut == Some(Point::Head) {
        guard.finish();
        return Err(deliberate_cut());
    }
    if controls.stall == Some(Point::Head) {
        guard.worker().until_stopped().await;
        guard.finish();
        return Err(stopped());
    }
    Ok(())
}

fn send(stamp: &Stamp, answer: Result<Answer, Failure>, controls: &Controls, guard: AnswerGuard) -> Response<MockBody> {
    let mut response = match answer {
        Ok(Answer::Plain(bytes)) => with_content(JSON, MockBody::plain(bytes, controls, guard)),
        Ok(Answer::Stream(events)) => with_content(EVENT_STREAM, MockBody::stream(events, controls, guard)),
        Err(failure) => {
            let mut response = with_content(JSON, MockBody::plain(failure.to_json(), controls, guard));
            *response.status_mut() = failure.status();
            response
        }
    };
    let may_retry_later = matches!(
        response.status(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let headers = response.headers_mut();
    if may_retry_later {
        headers.insert(RETRY_AFTER, controls.retry_after.clone());
    }
    for (name, value) in [
        ("x-request-id", stamp.request_id()),
        (
            "openai-processing-ms",
            HeaderValue::from(stamp.started.elapsed().as_millis() as u64),
        ),
        ("x-ratelimit-limit-requests", HeaderValue::from_static("10000")),
        ("x-ratelimit-remaining-requests", HeaderValue::from_static("9999")),
    ] {
        headers.insert(HeaderName::from_static(name), value);
    }
    response
}

fn with_content(content_type: HeaderValue, body: MockBody) -> Response<MockBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
