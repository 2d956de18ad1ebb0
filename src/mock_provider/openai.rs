//! OpenAI's dialect: which endpoints there are, who is let in, and the shape of errors.
//!
//! Source: OpenAI's API reference (platform.openai.com/docs/api-reference).

mod chat;
mod chat_stream;
mod completions;
mod embeddings;
mod prompt;
mod request;
mod responses;

use std::borrow::Cow;

use http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION};
use serde::Serialize;

pub(super) use self::request::Request;
use super::{
    ControlError, Controls,
    json::{put, put_json},
    respond::{Answer, Stamp},
};

const FINGERPRINT: &str = "fp_promptgate_mock";
/// What `GET /v1/models` lists; requests may name any other.
const MODELS: [&str; 2] = ["mock-model", "mock-embedding"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    ChatCompletions,
    Completions,
    Embeddings,
    Models,
    Responses,
}

impl Endpoint {
    /// Finds the endpoint of a path, with or without the `/v1` before it.
    pub(super) fn of(method: &Method, path: &str) -> Result<Self, Failure> {
        let endpoint = match path.strip_prefix("/v1").unwrap_or(path) {
            "/chat/completions" => Self::ChatCompletions,
            "/completions" => Self::Completions,
            "/embeddings" => Self::Embeddings,
            "/models" => Self::Models,
            "/responses" => Self::Responses,
            _ => {
                let message = format!("unknown request url: {method} {path}");
                return Err(Failure {
                    code: Some("unknown_url"),
                    ..Failure::new(StatusCode::NOT_FOUND, message)
                });
            }
        };
        let allowed = if endpoint.takes_body() {
            Method::POST
        } else {
            Method::GET
        };
        if *method != allowed {
            let message = format!("{path} takes {allowed}, not {method}");
            return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, message));
        }
        Ok(endpoint)
    }

    pub(super) fn takes_body(self) -> bool {
        self != Self::Models
    }
}

/// Checks what comes before the request's content: the key, and the error status asked for.
pub(super) fn admit(controls: &Controls, headers: &HeaderMap) -> Result<(), Failure> {
    if let Some(key) = &controls.require_key {
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if given != Some(key.as_bytes()) {
            let message = match given {
                None => "you didn't provide an API key: send it as `Authorization: Bearer <key>`",
                Some(_) => "incorrect API key provided",
            };
            return Err(Failure::new(StatusCode::UNAUTHORIZED, message));
        }
    }
    match controls.status {
        Some(status) => Err(Failure::new(status, "the mock provider was asked for this error")),
        None => Ok(()),
    }
}

/// Answers a request that was let in.
pub(super) fn answer(
    endpoint: Endpoint,
    request: &Request<'_>,
    controls: &Controls,
    stamp: &Stamp,
) -> Result<Answer, Failure> {
    if endpoint.takes_body() && request.model_name().is_empty() {
        return Err(Failure::missing("model"));
    }
    let mut answer = match endpoint {
        Endpoint::ChatCompletions => chat::answer(request, controls, stamp)?,
        Endpoint::Completions => completions::answer(request, controls, stamp)?,
        Endpoint::Embeddings => embeddings::answer(request, controls)?,
        Endpoint::Models => models(stamp),
        Endpoint::Responses => responses::answer(request, controls, stamp)?,
    };
    if let (Answer::Stream(events), Some(chunks)) = (&mut answer, controls.error_in_stream) {
        if endpoint == Endpoint::Responses {
            events.break_off(chunks, Some("error"), &responses::error_event(chunks));
        } else {
            events.break_off(chunks, None, &Failure::in_stream().to_json());
        }
    }
    Ok(answer)
}

fn models(stamp: &Stamp) -> Answer {
    let mut out = Vec::with_capacity(256);
    put(&mut out, r#"{"object":"list","data":["#);
    for (index, model) in MODELS.iter().enumerate() {
        put(&mut out, if index == 0 { r#"{"id":"# } else { r#",{"id":"# });
        put_json(&mut out, model);
        put(&mut out, r#","object":"model","created":"#);
        put_json(&mut out, &stamp.created_unix_seconds);
        put(&mut out, r#","owned_by":"promptgate"}"#);
    }
    put(&mut out, "]}");
    Answer::Plain(out)
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(
        StatusCode::BAD_REQUEST,
        format!("could not parse the JSON body of the request: {error}"),
    )
}

/// An error answer.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    message: Cow<'static, str>,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

impl Failure {
    fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        let code = match status {
            StatusCode::UNAUTHORIZED => Some("invalid_api_key"),
            StatusCode::NOT_FOUND => Some("model_not_found"),
            StatusCode::TOO_MANY_REQUESTS => Some("rate_limit_exceeded"),
            _ => None,
        };
        Self {
            status,
            message: message.into(),
            param: None,
            code,
        }
    }

    fn invalid(param: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            param: Some(param),
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    fn missing(param: &'static str) -> Self {
        let message = format!("missing required parameter: '{param}'");
        Self {
            code: Some("missing_required_parameter"),
            ..Self::invalid(param, message)
        }
    }

    pub(super) fn bad_control(error: &ControlError) -> Self {
        Self {
            code: Some("invalid_mock_control"),
            ..Self::new(StatusCode::BAD_REQUEST, error.to_string())
        }
    }

    pub(super) fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request body is larger than the mock provider takes",
        )
    }

    /// What breaks a stream off.
    fn in_stream() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the mock provider was asked to fail within the stream",
        )
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "requests",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let error = ErrorFields {
            message: &self.message,
            r#type: kind,
            param: self.param,
            code: self.code,
        };
        let mut out = Vec::with_capacity(256);
        put_json(&mut out, &ErrorBody { error });
        out
    }
}
