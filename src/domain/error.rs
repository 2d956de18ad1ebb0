//! What can go wrong for a caller, as a closed list.
//!
//! Both planes answer errors in OpenAI's shape, so that SDKs raise their typed exceptions. [`ErrorCode`] is what a
//! program matches on; its [`ErrorKind`] is the metric label and the record's column.

use serde_json::{Value, json};

/// The closed classes of failure; metric label and record column `error_kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    InvalidRequest,
    Unauthenticated,
    Forbidden,
    NotFound,
    Conflict,
    RateLimited,
    Overloaded,
    UpstreamRejected,
    UpstreamUnavailable,
    UpstreamTimeout,
    ClientDisconnected,
    Internal,
}

impl ErrorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::UpstreamRejected => "upstream_rejected",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::ClientDisconnected => "client_disconnected",
            Self::Internal => "internal",
        }
    }

    /// OpenAI's `error.type` for this kind.
    ///
    /// Source: <https://platform.openai.com/docs/guides/error-codes>.
    fn openai_type(self) -> &'static str {
        match self {
            Self::Unauthenticated => "authentication_error",
            Self::Forbidden => "permission_error",
            Self::RateLimited => "rate_limit_error",
            Self::Overloaded
            | Self::UpstreamUnavailable
            | Self::UpstreamTimeout
            | Self::UpstreamRejected
            | Self::Internal => "server_error",
            Self::InvalidRequest | Self::NotFound | Self::Conflict | Self::ClientDisconnected => {
                "invalid_request_error"
            }
        }
    }
}

/// Every code that promptgate itself answers with, in `error.code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 400: the body is not JSON, or nested too deeply.
    InvalidJson,
    /// 400: a field has the wrong type or form.
    InvalidField,
    /// 400: two fields say different things.
    Contradiction,
    /// 400: the prompt reference has no id.
    PromptIdMissing,
    /// 400: neither the version nor the caller names a model.
    ModelMissing,
    /// 400: the version does not let callers add system messages.
    CallerSystemMessage,
    /// 400: a strict version ignores nothing.
    FieldNotAllowed,
    /// 401: no key, an unknown key or a revoked key (always the same text).
    InvalidApiKey,
    /// 403: the key may not do this.
    NotAllowed,
    /// 403: the environment is protected; somebody else must approve.
    ApprovalRequired,
    /// 403: a check that the environment requires has not passed.
    ChecksRequired,
    /// 404: no such route.
    UnknownRoute,
    /// 404: no such prompt.
    PromptNotFound,
    /// 404: the prompt has no such version.
    VersionNotFound,
    /// 404: no such environment.
    EnvironmentNotFound,
    /// 404: nothing is live for this prompt in this environment.
    NothingLive,
    /// 404: no such model is configured.
    ModelNotFound,
    /// 404: no such thing (control plane).
    NotFound,
    /// 405: the route exists for other methods.
    MethodNotAllowed,
    /// 409: it exists already, or is in use.
    Conflict,
    /// 412: somebody else changed it meanwhile.
    Stale,
    /// 413: the body is too large.
    BodyTooLarge,
    /// 408: the body did not arrive in time.
    BodyTimeout,
    /// 422: the variables do not fit the version's schema.
    InvalidVariables,
    /// 422: the content of a new version is not valid.
    InvalidContent,
    /// 422: the template failed on these variables.
    RenderFailed,
    /// 500: our fault; the detail is in the log.
    Internal,
    /// 502: the provider could not be reached.
    UpstreamUnreachable,
    /// 502: the provider's answer made no sense, or broke off.
    UpstreamInvalid,
    /// 503: the gateway cannot take this request now.
    Unavailable,
    /// 503: this node has not reached the asked generation in time.
    GenerationNotReached,
    /// 503: there is no room to record the request, and `telemetry.when_full` is `reject`.
    RecordingFull,
    /// 504: the provider did not answer in time.
    UpstreamTimeout,
}

impl ErrorCode {
    /// Every code, for the documentation and its test.
    pub const ALL: &'static [ErrorCode] = &[
        Self::InvalidJson,
        Self::InvalidField,
        Self::Contradiction,
        Self::PromptIdMissing,
        Self::ModelMissing,
        Self::CallerSystemMessage,
        Self::FieldNotAllowed,
        Self::InvalidApiKey,
        Self::NotAllowed,
        Self::ApprovalRequired,
        Self::ChecksRequired,
        Self::UnknownRoute,
        Self::PromptNotFound,
        Self::VersionNotFound,
        Self::EnvironmentNotFound,
        Self::NothingLive,
        Self::ModelNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::Stale,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::InvalidVariables,
        Self::InvalidContent,
        Self::RenderFailed,
        Self::Internal,
        Self::UpstreamUnreachable,
        Self::UpstreamInvalid,
        Self::Unavailable,
        Self::GenerationNotReached,
        Self::RecordingFull,
        Self::UpstreamTimeout,
    ];

    /// Returns code text, HTTP status and kind: the one table of errors.
    fn row(self) -> (&'static str, u16, ErrorKind) {
        use ErrorKind::*;
        match self {
            Self::InvalidJson => ("invalid_json", 400, InvalidRequest),
            Self::InvalidField => ("invalid_field", 400, InvalidRequest),
            Self::Contradiction => ("contradiction", 400, InvalidRequest),
            Self::PromptIdMissing => ("prompt_id_missing", 400, InvalidRequest),
            Self::ModelMissing => ("model_missing", 400, InvalidRequest),
            Self::CallerSystemMessage => ("caller_system_message", 400, InvalidRequest),
            Self::FieldNotAllowed => ("field_not_allowed", 400, InvalidRequest),
            Self::InvalidApiKey => ("invalid_api_key", 401, Unauthenticated),
            Self::NotAllowed => ("not_allowed", 403, Forbidden),
            Self::ApprovalRequired => ("approval_required", 403, Forbidden),
            Self::ChecksRequired => ("checks_required", 403, Forbidden),
            Self::UnknownRoute => ("unknown_route", 404, ErrorKind::NotFound),
            Self::PromptNotFound => ("prompt_not_found", 404, ErrorKind::NotFound),
            Self::VersionNotFound => ("version_not_found", 404, ErrorKind::NotFound),
            Self::EnvironmentNotFound => ("environment_not_found", 404, ErrorKind::NotFound),
            Self::NothingLive => ("nothing_live", 404, ErrorKind::NotFound),
            Self::ModelNotFound => ("model_not_found", 404, ErrorKind::NotFound),
            Self::NotFound => ("not_found", 404, ErrorKind::NotFound),
            Self::MethodNotAllowed => ("method_not_allowed", 405, InvalidRequest),
            Self::Conflict => ("conflict", 409, ErrorKind::Conflict),
            Self::Stale => ("stale", 412, ErrorKind::Conflict),
            Self::BodyTooLarge => ("body_too_large", 413, InvalidRequest),
            Self::BodyTimeout => ("body_timeout", 408, InvalidRequest),
            Self::InvalidVariables => ("invalid_variables", 422, InvalidRequest),
            Self::InvalidContent => ("invalid_content", 422, InvalidRequest),
            Self::RenderFailed => ("render_failed", 422, InvalidRequest),
            Self::Internal => ("internal", 500, ErrorKind::Internal),
            Self::UpstreamUnreachable => ("upstream_unreachable", 502, UpstreamUnavailable),
            Self::UpstreamInvalid => ("upstream_invalid", 502, UpstreamUnavailable),
            Self::Unavailable => ("unavailable", 503, Overloaded),
            Self::GenerationNotReached => ("generation_not_reached", 503, Overloaded),
            Self::RecordingFull => ("recording_full", 503, Overloaded),
            Self::UpstreamTimeout => ("upstream_timeout", 504, ErrorKind::UpstreamTimeout),
        }
    }

    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Returns the HTTP status this code is answered with.
    pub fn status(self) -> u16 {
        self.row().1
    }

    pub fn kind(self) -> ErrorKind {
        self.row().2
    }
}

/// An error as the caller sees it.
///
/// `message` is lowercase, names the value and the fix, and never contains a secret or body text beyond the value named.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    pub code: ErrorCode,
    pub message: String,
    /// The field at fault, as a path: `messages[0].role`.
    pub param: Option<String>,
    /// Machine-readable detail, for instance every problem of a list.
    pub details: Option<Box<Value>>,
}

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
            details: None,
        }
    }

    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub fn details(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// Returns the error in OpenAI's shape.
    pub fn to_json(&self) -> Value {
        let mut error = json!({
            "message": self.message,
            "type": self.code.kind().openai_type(),
            "param": self.param,
            "code": self.code.as_str(),
        });
        if let Some(details) = &self.details {
            error["details"] = Value::clone(details);
        }
        json!({ "error": error })
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_lists_every_code_with_its_status_and_kind() {
        let text = include_str!("../../docs/errors.md");
        for code in ErrorCode::ALL {
            let row = format!("| `{}` | {} | {} |", code.as_str(), code.status(), code.kind().as_str());
            assert!(
                text.lines().any(|line| line.starts_with(&row)),
                "docs/errors.md lacks {row}"
            );
        }
        let rows = text.lines().filter(|line| {
            let mut cells = line.split(" | ");
            line.starts_with("| `") && cells.nth(1).is_some_and(|status| status.parse::<u16>().is_ok())
        });
        assert_eq!(
            rows.count(),
            ErrorCode::ALL.len(),
            "docs/errors.md has codes that are not there"
        );
    }
}
