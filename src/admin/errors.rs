//! From a failure to the answer the caller sees: the one place that knows how.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{deployments, drafts, environments, prompts, versions};
use crate::domain::error::{ApiError, ErrorCode, ErrorKind};
use crate::domain::version::Problem;
use crate::registry::{Edited, Missing, RegistryError};

/// What a caller is told when it was our fault; the detail is in the log.
const INTERNAL: &str = "something went wrong on our side, the detail is in the log";

/// What a caller is told while the registry's database does not answer; why is in the log.
const AWAY: &str = "the registry's database does not answer, nothing can be looked up or changed now: applications go on \
     being served what is live; try again";

/// Left in the extensions of a refusing answer, for the audit log.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub code: ErrorCode,
    pub message: String,
}

/// A request that failed.
#[derive(Debug)]
pub struct Failure {
    error: Box<ApiError>,
    /// The methods that would have been right.
    allow: Option<&'static str>,
}

impl Failure {
    /// The answer to everything that is our fault.
    pub fn internal() -> Self {
        ApiError::new(ErrorCode::Internal, INTERNAL).into()
    }

    /// The answer to a route that exists for other methods.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..ApiError::new(
                ErrorCode::MethodNotAllowed,
                format!("this route does not have that method, it has {allow}"),
            )
            .into()
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let error = Box::new(error);
        Self { error, allow: None }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        match error {
            RegistryError::NotFound(missing) => ApiError::new(code_of(&missing), message),
            RegistryError::Conflict(_) => ApiError::new(ErrorCode::Conflict, message),
            RegistryError::InUse { details, .. } => ApiError::new(ErrorCode::Conflict, message).details(details),
            RegistryError::Edited(edited) => stale(message, &edited),
            RegistryError::InvalidField { field, message } => {
                ApiError::new(ErrorCode::InvalidField, message).param(field)
            }
            RegistryError::Invalid(problems) => invalid_content(message, &problems),
            RegistryError::ApprovalRequired { change } => {
                ApiError::new(ErrorCode::ApprovalRequired, message).details(json!({"change": change}))
            }
            RegistryError::StaleChange { id, moved } => {
                let moved = moved.iter().map(|moved| {
                    let current = moved.current.as_ref().map(deployments::view);
                    json!({"prompt": moved.prompt, "base": moved.base, "current": current})
                });
                let moved: Vec<Value> = moved.collect();
                ApiError::new(ErrorCode::Stale, message).details(json!({"change": id, "moved": moved}))
            }
            RegistryError::RevisedMeanwhile { id, revision, .. } => {
                ApiError::new(ErrorCode::Stale, message).details(json!({"change": id, "revision": revision}))
            }
            RegistryError::NotAllowed(_) => ApiError::new(ErrorCode::NotAllowed, message),
            RegistryError::NotApproved { id, given, needed } => ApiError::new(ErrorCode::ApprovalRequired, message)
                .details(json!({"id": id, "approvals": {"given": given, "needed": needed}})),
            RegistryError::ChecksUnmet { id, checks } => {
                let checks = checks.iter();
                let checks: Vec<Value> = checks
                    .map(|(name, state)| json!({"name": name, "state": state.as_str()}))
                    .collect();
                ApiError::new(ErrorCode::ChecksRequired, message).details(json!({"id": id, "checks": checks}))
            }
            RegistryError::Stale { current } => {
                let current = current.map(|current| deployments::view(&current));
                ApiError::new(ErrorCode::Stale, message).details(json!({"current": current}))
            }
            RegistryError::Unavailable(_) => {
                tracing::warn!(error = %message, "the registry is away");
                ApiError::new(ErrorCode::Unavailable, AWAY)
            }
            RegistryError::Stored(_) | RegistryError::Database(_) => {
                tracing::error!(error = %message, "the registry failed");
                return Self::internal();
            }
        }
        .into()
    }
}

fn code_of(missing: &Missing) -> ErrorCode {
    match missing {
        Missing::Prompt(_) => ErrorCode::PromptNotFound,
        Missing::Version { .. } => ErrorCode::VersionNotFound,
        Missing::Environment(_) => ErrorCode::EnvironmentNotFound,
        Missing::NothingLive { .. } => ErrorCode::NothingLive,
        Missing::Deployment { .. }
        | Missing::Key(_)
        | Missing::Erasure(_)
        | Missing::Change(_)
        | Missing::User(_)
        | Missing::Token(_)
        | Missing::Grant { .. }
        | Missing::Draft { .. }
        | Missing::Shift(_)
        | Missing::Webhook(_)
        | Missing::Delivery { .. }
        | Missing::Alias { .. } => ErrorCode::NotFound,
    }
}

/// Somebody else was quicker: what they made comes with the refusal.
fn stale(message: String, edited: &Edited) -> ApiError {
    let current = match edited {
        Edited::Prompt(prompt) => prompts::view(prompt),
        Edited::Environment(environment) => environments::view(environment),
        Edited::Draft(draft) => drafts::view(draft),
        Edited::Version(version) => versions::view(version),
    };
    ApiError::new(ErrorCode::Stale, message).details(json!({"current": current}))
}

fn invalid_content(message: String, problems: &[Problem]) -> ApiError {
    let list: Vec<Value> = problems
        .iter()
        .map(|problem| json!({"path": problem.path, "message": problem.message}))
        .collect();
    let error = ApiError::new(ErrorCode::InvalidContent, message).details(json!({"problems": list}));
    match problems.first() {
        Some(first) => error.param(first.path.as_str()),
        None => error,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.error.to_json())).into_response();
        if let Some(allow) = self.allow {
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        let kind = self.error.code.kind();
        let refused = matches!(kind, ErrorKind::Forbidden | ErrorKind::Unauthenticated);
        if refused || self.error.code == ErrorCode::Stale {
            let refusal = Refusal {
                code: self.error.code,
                message: self.error.message.clone(),
            };
            response.extensions_mut().insert(refusal);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let second = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, second);
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"promptgate\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Answers paths that no route has.
pub async fn unknown_route() -> Failure {
    ApiError::new(ErrorCode::UnknownRoute, "there is no such route").into()
}

/// Answers methods that a route does not have; the router adds `Allow`.
pub async fn method_not_allowed() -> Failure {
    let message = "this route does not have that method, see the header allow";
    ApiError::new(ErrorCode::MethodNotAllowed, message).into()
}
