//! One authenticated request: reads its body, query and path, and answers.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::auth::{self, RequestId};
use super::errors::Failure;
use super::{AdminState, RehearsalSettings, ThisNode};
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::role::{Permission, Reach, Role, Scope, allows};
use crate::metrics::Metrics;
use crate::registry::{Actor, By, Caller, MAX_PAGE, Page, PageOf, Published, Registry};
use crate::snapshot::{Publisher, Routing};
use crate::telemetry::Store;

/// The largest request body.
const MAX_BODY_BYTES: usize = 2 << 20;

/// How many items a page has unless the caller says.
const DEFAULT_PAGE: u32 = 50;

/// A request of a known caller.
pub struct Call {
    state: AdminState,
    pub caller: Caller,
    request_id: String,
    pub parts: Parts,
    body: Bytes,
}

impl FromRequest<AdminState> for Call {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &AdminState) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let (caller, id) = (parts.extensions.remove(), parts.extensions.remove());
        let (Some(caller), Some(RequestId(request_id))) = (caller, id) else {
            tracing::error!("a route of the control plane is outside of its authentication");
            return Err(Failure::internal());
        };
        Ok(Self {
            state: state.clone(),
            caller,
            request_id,
            parts,
            body: read(body).await?,
        })
    }
}

impl Call {
    pub fn registry(&self) -> &Registry {
        &self.state.registry
    }

    pub fn metrics(&self) -> &Metrics {
        &self.state.metrics
    }

    /// What was recorded, if anything is.
    pub fn store(&self) -> Option<&Store> {
        self.state.store.as_deref()
    }

    /// The generation that this node serves.
    pub fn generation(&self) -> u64 {
        self.state.publisher.generation()
    }

    pub fn publisher(&self) -> &Publisher {
        &self.state.publisher
    }

    pub fn this_node(&self) -> &ThisNode {
        &self.state.node
    }

    /// What this node knows of models and prices.
    pub fn node(&self) -> (Arc<Routing>, Arc<RehearsalSettings>) {
        (self.state.publisher.routing(), Arc::clone(&self.state.rehearsal))
    }

    /// Who is to be named as author and in the audit log.
    pub fn actor(&self) -> Actor<'_> {
        auth::actor(&self.caller, &self.request_id)
    }

    /// Who, and why.
    pub fn by<'a>(&'a self, message: &'a str) -> By<'a> {
        let actor = self.actor();
        By { actor, message }
    }

    /// Whether the caller may.
    pub fn may(&self, permission: Permission, scope: Scope<'_>) -> bool {
        allows(&self.caller.grants, permission, scope)
    }

    /// Asks whether the caller may: the one place that refuses.
    ///
    /// # Errors
    /// 403 that says what is missing, and which role would do.
    pub fn require(&self, permission: Permission, scope: Scope<'_>) -> Result<(), Failure> {
        if self.may(permission, scope) {
            return Ok(());
        }
        let roles = Role::with(permission);
        let message = format!(
            "user {:?} may not {}{scope}: that needs the role {} there, ask an admin for it",
            self.caller.user,
            permission.as_str(),
            roles.join(" or "),
        );
        let reach = |reach| match reach {
            Reach::Any => Value::Null,
            Reach::All => json!("*"),
            Reach::One(name) => json!(name),
        };
        let details = json!({
            "permission": permission.as_str(),
            "environment": reach(scope.environment),
            "prompt": reach(scope.prompt),
            "roles": roles,
        });
        Err(ApiError::new(ErrorCode::NotAllowed, message).details(details).into())
    }

    /// Reads a segment of the path, counted from 0 behind `/api/v1`.
    ///
    /// # Errors
    /// 404 for what is not UTF-8: nothing has such a name.
    pub fn segment(&self, place: usize) -> Result<String, Failure> {
        decode(self.parts.uri.path().split('/').nth(place + 1).unwrap_or_default())
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    /// 400 for what is not JSON or does not fit `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        parse_json(&self.body)
    }

    /// Reads the body as JSON; an empty one says nothing.
    ///
    /// # Errors
    /// 400 for what is not JSON or does not fit `T`.
    pub fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Failure> {
        if self.body.is_empty() {
            Ok(T::default())
        } else {
            self.json()
        }
    }

    /// Reads the query string.
    ///
    /// # Errors
    /// 400 for parameters that are unknown or malformed.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        match Query::try_from_uri(&self.parts.uri) {
            Ok(Query(query)) => Ok(query),
            Err(rejection) => Err(ApiError::new(ErrorCode::InvalidField, rejection.body_text()).into()),
        }
    }

    /// Reads the last segment of the path.
    ///
    /// # Errors
    /// 404 for what is not UTF-8: nothing has such a name.
    pub fn last_segment(&self) -> Result<String, Failure> {
        decode(self.parts.uri.path().rsplit('/').next().unwrap_or_default())
    }

    /// Answers a change once this node serves it, with its generation.
    ///
    /// # Errors
    /// When this node cannot follow the registry.
    pub async fn changed<T>(
        &self,
        status: StatusCode,
        change: Published<T>,
        view: impl FnOnce(T) -> Value,
    ) -> Result<Response, Failure> {
        self.state.publisher.catch_up(change.generation).await?;
        let mut body = view(change.value);
        body["generation"] = json!(change.generation);
        Ok((status, Json(body)).into_response())
    }
}

fn decode(raw: &str) -> Result<String, Failure> {
    match percent_decode_str(raw).decode_utf8() {
        Ok(segment) => Ok(segment.into_owned()),
        Err(_) => Err(ApiError::new(ErrorCode::NotFound, "the path is not UTF-8").into()),
    }
}

/// A field or parameter that has the wrong form.
pub fn invalid(param: &'static str, message: impl Into<String>) -> Failure {
    let message = format!("{param}: {}", message.into());
    ApiError::new(ErrorCode::InvalidField, message).param(param).into()
}

/// Reads a time, µs since the Unix epoch.
///
/// # Errors
/// 400 for what is none.
pub fn instant(param: &'static str, text: Option<String>) -> Result<Option<i64>, Failure> {
    let Some(text) = text else { return Ok(None) };
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => Ok(Some(at.as_microsecond())),
        Err(_) => Err(invalid(
            param,
            format!("{text:?} is not a time, write e.g. 2026-01-31T12:00:00Z (a + is %2B in an address)"),
        )),
    }
}

/// The query parameters of a list.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paging {
    pub limit: Option<u32>,
    pub cursor: Option<String>,
}

impl Paging {
    pub fn page(&self) -> PageOf<'_> {
        PageOf {
            limit: self.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE),
            cursor: self.cursor.as_deref(),
        }
    }
}

/// Answers a read.
pub fn found(body: Value) -> Response {
    Json(body).into_response()
}

/// Answers a list.
pub fn listed<T>(page: Page<T>, view: impl Fn(&T) -> Value) -> Response {
    let items: Vec<Value> = page.items.iter().map(view).collect();
    found(json!({"items": items, "next_cursor": page.next_cursor}))
}

/// Writes a time as RFC 3339 in UTC.
pub fn time(at_us: i64) -> String {
    jiff::Timestamp::from_microsecond(at_us).unwrap_or_default().to_string()
}

/// Reads a whole body, or 413.
async fn read(body: Body) -> Result<Bytes, Failure> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the body is too large, at most {MAX_BODY_BYTES} bytes are allowed");
            Err(ApiError::new(ErrorCode::BodyTooLarge, message).into())
        }
        Err(_) => {
            let message = "the body did not arrive in whole";
            Err(ApiError::new(ErrorCode::InvalidJson, message).into())
        }
    }
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    if bytes.is_empty() {
        let message = "the body is empty, send a JSON object";
        return Err(ApiError::new(ErrorCode::InvalidJson, message).into());
    }
    if bytes.trim_ascii_start().starts_with(b"[") {
        // serde would take a list for the fields in their order.
        let message = "the body is a list, send a JSON object";
        return Err(ApiError::new(ErrorCode::InvalidField, message).into());
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        explain(&path, error.inner())
    })?;
    json.end().map_err(|error| explain(".", &error))?;
    Ok(value)
}

/// Says what is wrong, and with which field.
fn explain(path: &str, error: &serde_json::Error) -> ApiError {
    let sentence = error.to_string();
    if !error.is_data() {
        return ApiError::new(
            ErrorCode::InvalidJson,
            format!("the body is not valid JSON: {sentence}"),
        );
    }
    let inside = if path == "." { "" } else { path };
    let named = sentence
        .strip_prefix("unknown field `")
        .or_else(|| sentence.strip_prefix("missing field `"))
        .and_then(|rest| rest.split_once('`'))
        .map(|(field, _)| field);
    let field = match named {
        Some(field) if inside.is_empty() => field.to_owned(),
        // serde_path_to_error names the unknown field itself, and the parent of a missing one.
        Some(field) if inside.rsplit('.').next() == Some(field) => inside.to_owned(),
        Some(field) => format!("{inside}.{field}"),
        None => inside.to_owned(),
    };
    if field.is_empty() {
        return ApiError::new(ErrorCode::InvalidField, sentence);
    }
    ApiError::new(ErrorCode::InvalidField, format!("{field}: {sentence}")).param(field)
}
