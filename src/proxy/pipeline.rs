//! The path of a request, in one place.

use std::rc::Rc;
use std::sync::Arc;

use arc_swap::Guard;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use serde_json::Value;
use serde_json::value::RawValue;

use super::admit::{self, Admitted, BodyError};
use super::answer;
use super::body::{Answer, Body};
use super::exchange::{Exchange, PromptFacts, UNIT_HEADER, label};
use super::forward::{self, Attempted};
use super::reference::{self, Reference};
use super::relay::relay;
use super::resolve::{self, Choice, Resolved};
use super::route::{self, Route};
use super::shape::{self, Shaped};
use super::worker::Worker;
use super::{feedback, models, render, show};
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::json::{self, Fields};
use crate::domain::version::CompiledVersion;
use crate::domain::{rendering, variables};
use crate::provider::openai::Call;
use crate::snapshot::{Key, PinnedError, PromptEntry, Snapshot};

/// What the stages before the relay end with.
pub(super) enum Reply {
    /// A provider's answer, and whether its usage chunk is withheld.
    Upstream(Attempted, bool),
    /// An answer of ours, and its `ETag`.
    Own(Value, Option<HeaderValue>),
    /// 304: the caller has what this `ETag` names.
    Unchanged(HeaderValue),
}

pub(super) enum Failure {
    Refused(ApiError),
    /// The caller left; the exchange's drop records it.
    Gone,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

/// Answers one request.
///
/// Cancel safe: dropped before its end, the exchange is recorded as the caller's leaving.
pub async fn serve(worker: Rc<Worker>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let snapshot = worker.cell.load();
    // Boxed: it is moved several times, and is a kilobyte.
    let mut exchange = Box::new(Exchange::begin(&worker, &head, &snapshot));
    Ok(match stages(&mut exchange, snapshot, &head, body).await {
        Ok(Reply::Upstream(attempted, withhold_usage)) => relay(exchange, attempted, withhold_usage).await,
        Ok(Reply::Own(value, etag)) => answer::own(exchange, &value, etag).await,
        Ok(Reply::Unchanged(etag)) => answer::unchanged(exchange, etag).await,
        Err(Failure::Refused(error)) => answer::refuse(exchange, error).await,
        Err(Failure::Gone) => Response::new(Body::Whole(None)),
    })
}

async fn stages(
    exchange: &mut Exchange,
    snapshot: Guard<Arc<Snapshot>>,
    head: &Parts,
    body: Incoming,
) -> Result<Reply, Failure> {
    let (admitted, route) = match enter(exchange, snapshot, head).await {
        Ok(entered) => entered,
        Err(error) => {
            admit::discard(exchange, &head.headers, body).await;
            return Err(Failure::Refused(error));
        }
    };
    match route {
        Route::Models => Ok(Reply::Own(models::list(&admitted), None)),
        Route::Prompt(name) => show::answer(exchange, head, admitted, &name).await,
        Route::Feedback => {
            let body = read(exchange, head, body).await?;
            Ok(Reply::Own(feedback::take(exchange, &body).await?, None))
        }
        Route::Call(call) => {
            let body = read(exchange, head, body).await?;
            let asked = Asked::new(call, None);
            complete(exchange, head, admitted, &body, asked).await
        }
        Route::PromptCompletions(name) => {
            let body = read(exchange, head, body).await?;
            let asked = Asked::new(Call::ChatCompletions, Some(&name));
            complete(exchange, head, admitted, &body, asked).await
        }
        Route::Render(name) => {
            let body = read(exchange, head, body).await?;
            let mut asked = Asked::new(Call::ChatCompletions, Some(&name));
            asked.render_only = true;
            complete(exchange, head, admitted, &body, asked).await
        }
    }
}

/// Everything that the head decides.
async fn enter<'a>(
    exchange: &mut Exchange,
    snapshot: Guard<Arc<Snapshot>>,
    head: &'a Parts,
) -> Result<(Admitted, Route<'a>), ApiError> {
    let route = route::find(head.uri.path());
    exchange.endpoint = route.as_ref().map_or("other", Route::endpoint);
    let admitted = admit::admit(exchange, snapshot, &head.headers).await?;
    let route = route?;
    route.allow(&head.method)?;
    Ok((admitted, route))
}

async fn read(exchange: &mut Exchange, head: &Parts, body: Incoming) -> Result<Bytes, Failure> {
    match admit::read_body(exchange, &head.headers, body).await {
        Ok(body) => Ok(body),
        Err(BodyError::Refused(error)) => Err(Failure::Refused(error)),
        Err(BodyError::Gone) => Err(Failure::Gone),
    }
}

/// What the route says of a call.
struct Asked<'a> {
    call: Call,
    /// The prompt's name in the path.
    path: Option<&'a str>,
    /// Answers what would be sent, and sends nothing.
    render_only: bool,
}

impl<'a> Asked<'a> {
    fn new(call: Call, path: Option<&'a str>) -> Self {
        Self {
            call,
            path,
            render_only: false,
        }
    }
}

async fn complete(
    exchange: &mut Exchange,
    head: &Parts,
    admitted: Admitted,
    body: &Bytes,
    asked: Asked<'_>,
) -> Result<Reply, Failure> {
    let fields = parse(body, asked.path.is_some())?;
    note_caller(exchange, head, &fields);
    exchange.call.kind = asked.call;
    if !asked.call.takes_prompt() {
        return raw(exchange, head, &admitted, &fields, body).await;
    }
    let from_header = reference::header_variables(&head.headers)?;
    match reference::find(&fields, &head.headers, asked.path, from_header.as_deref())? {
        None => raw(exchange, head, &admitted, &fields, body).await,
        Some(reference) => {
            prompted(
                exchange,
                head,
                admitted,
                Prompted {
                    fields: &fields,
                    body,
                    reference,
                    asked,
                },
            )
            .await
        }
    }
}

/// A request with a prompt.
struct Prompted<'a> {
    fields: &'a Fields<'a>,
    body: &'a Bytes,
    reference: Reference<'a>,
    asked: Asked<'a>,
}

async fn raw(
    exchange: &mut Exchange,
    head: &Parts,
    admitted: &Admitted,
    fields: &Fields<'_>,
    body: &Bytes,
) -> Result<Reply, Failure> {
    if !admitted.key.raw {
        let why = "this key may only use prompts; send \"prompt\": {\"id\": \"…\"}";
        return Err(ApiError::new(ErrorCode::NotAllowed, why).param("prompt").into());
    }
    let Some(requested) = fields.get("model").and_then(json::as_str) else {
        return Err(model_missing("the request has no prompt and names no model").into());
    };
    if exchange.call.kind.takes_prompt() {
        let ignored = fields
            .0
            .iter()
            .filter(|field| reference::FIELDS.contains(&field.name.as_ref()));
        exchange
            .call
            .ignored
            .extend(ignored.map(|field| field.name.clone().into_owned()));
    }
    let (snapshot, key) = (&admitted.snapshot, &admitted.key);
    let upstream = route_model(exchange, snapshot, key, &requested)?;
    let shaped = shape::raw(exchange.call.kind, fields, body, &requested, &upstream);
    send(exchange, head, shaped).await
}

async fn prompted(
    exchange: &mut Exchange,
    head: &Parts,
    admitted: Admitted,
    request: Prompted<'_>,
) -> Result<Reply, Failure> {
    let Prompted {
        fields,
        body,
        reference,
        asked,
    } = request;
    let call = asked.call;
    let forced = head
        .headers
        .get(resolve::VARIANT_HEADER)
        .and_then(|value| value.to_str().ok());
    let Admitted { snapshot, key } = admitted;
    let resolved = {
        let mut own_id = [0; uuid::fmt::Hyphenated::LENGTH];
        let unit = unit(head, fields);
        let unit = match &unit {
            Some(unit) => unit.as_ref(),
            None => exchange.id.hyphenated().encode_lower(&mut own_id),
        };
        resolve::resolve(&snapshot, &key, &reference, unit.as_bytes(), forced)?
    };
    note_prompt(exchange, &resolved);
    let version = compiled(exchange, &resolved).await?;
    exchange.narrow_capture(version.capture);
    let (values, unknown) = variables::check(&version.variables, reference.variables, version.strict)?;
    note_variables(exchange, body, reference.variables, &version, &values);
    let settings = Arc::clone(&exchange.worker.settings);
    let callers = shape::callers(call, &version, fields)?;
    let messages = rendering::messages(&version, &values, callers, settings.max_render_bytes)?;
    let parameters = shape::parameters(call, &version, fields)?;
    let ignored = parameters.ignored.iter().map(|name| (*name).to_owned());
    exchange
        .call
        .ignored
        .extend(ignored.chain(unknown.iter().map(|name| format!("variables.{name}"))));

    let callers = fields
        .get("model")
        .and_then(json::as_str)
        .filter(|model| !model.starts_with("prompt/"));
    let requested = version.model_for(callers.as_deref());
    if asked.render_only {
        let rendered = render::answer(exchange, requested, &messages, &parameters)?;
        return Ok(Reply::Own(rendered, None));
    }
    let Some(requested) = requested else {
        return Err(model_missing("neither the prompt's version nor the request names a model").into());
    };
    let upstream = route_model(exchange, &snapshot, &key, requested)?;
    drop(snapshot);
    let shaped = shape::prompted(call, fields, &messages, &parameters, &upstream)?;
    send(exchange, head, shaped).await
}

async fn send(exchange: &mut Exchange, head: &Parts, shaped: Shaped) -> Result<Reply, Failure> {
    let Some(target) = exchange.call.target.clone() else {
        return Err(ApiError::new(ErrorCode::Internal, "no target was chosen").into());
    };
    exchange.content.request = shaped.body.clone();
    let attempted = forward::forward(exchange, &target, &head.headers, shaped.body).await?;
    Ok(Reply::Upstream(attempted, shaped.withhold_usage))
}

/// Splits the body into its fields. A prompt named in the path needs no body.
fn parse(body: &Bytes, may_be_empty: bool) -> Result<Fields<'_>, ApiError> {
    if body.is_empty() && may_be_empty {
        return Ok(Fields::default());
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        ApiError::new(
            ErrorCode::InvalidJson,
            format!("the body is not UTF-8 at byte {}", error.valid_up_to()),
        )
    })?;
    serde_json::from_str(text).map_err(|error| {
        ApiError::new(
            ErrorCode::InvalidJson,
            format!("the body is not a JSON object: {error}"),
        )
    })
}

/// The text that sticks to a variant: header, `safety_identifier`, `user`.
fn unit<'a>(head: &'a Parts, fields: &Fields<'a>) -> Option<std::borrow::Cow<'a, str>> {
    let header = head
        .headers
        .get(UNIT_HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|unit| !unit.is_empty());
    header.map(Into::into).or_else(|| user(fields))
}

fn user<'a>(fields: &Fields<'a>) -> Option<std::borrow::Cow<'a, str>> {
    let named = |name| fields.get(name).and_then(json::as_str).filter(|text| !text.is_empty());
    named("safety_identifier").or_else(|| named("user"))
}

fn note_caller(exchange: &mut Exchange, head: &Parts, fields: &Fields<'_>) {
    exchange.call.streaming = shape::wants_stream(fields);
    if let Some(model) = fields.get("model").and_then(json::as_str) {
        exchange.call.request_model = label(&model);
    }
    let user = user(fields);
    exchange.caller.user = exchange.pseudonym(user.as_deref().unwrap_or_default());
    exchange.caller.unit = match unit(head, fields) {
        Some(unit) if Some(&unit) == user.as_ref() => exchange.caller.user.clone(),
        Some(unit) => exchange.pseudonym(&unit),
        None => String::new(),
    };
    let scalar = |value: &RawValue| match json::as_str(value) {
        Some(text) => text.into_owned(),
        None => value.get().to_owned(),
    };
    let named = |fields: &Fields<'_>, names: &[&str]| -> Vec<String> {
        names.iter().filter_map(|name| fields.get(name)).map(scalar).collect()
    };
    exchange.caller.ids = named(fields, &["user", "safety_identifier"]);
    exchange.caller.ids.extend(unit(head, fields).map(Into::into));
    let metadata: Option<Fields<'_>> = fields
        .get("metadata")
        .and_then(|raw| serde_json::from_str(raw.get()).ok());
    if let Some(metadata) = &metadata {
        let more = named(metadata, &["user", "user_id", "safety_identifier"]);
        exchange.caller.ids.extend(more);
    }
    exchange.caller.ids.retain(|id| !id.is_empty());
    for field in metadata.iter().flat_map(|metadata| &metadata.0).take(16) {
        if let Some(value) = json::as_str(field.value) {
            exchange.caller.tags.push((label(&field.name), label(&value)));
        }
    }
}

pub(super) fn note_prompt(exchange: &mut Exchange, resolved: &Resolved) {
    exchange.environment = Arc::clone(&resolved.environment);
    let prompt = &resolved.prompt;
    exchange.prompt = Some(match &resolved.choice {
        Choice::Live { live, arm, forced } => PromptFacts {
            id: Arc::clone(&prompt.id),
            id_header: prompt.id_header.clone(),
            version: arm.version,
            version_header: arm.version_header.clone(),
            variant: Arc::clone(&arm.variant),
            variant_header: arm.variant_header.clone(),
            environment_header: live.environment_header.clone(),
            assignment: if *forced { "forced" } else { "split" },
            deployment: live.deployment,
            document_ids: Vec::new(),
        },
        Choice::Pinned(version) => PromptFacts {
            id: Arc::clone(&prompt.id),
            id_header: prompt.id_header.clone(),
            version: *version,
            version_header: http::HeaderValue::from(*version),
            variant: "pinned".into(),
            variant_header: http::HeaderValue::from_static("pinned"),
            environment_header: http::HeaderValue::from_str(&resolved.environment)
                .unwrap_or(http::HeaderValue::from_static("")),
            assignment: "pinned",
            deployment: 0,
            document_ids: Vec::new(),
        },
    });
}

async fn compiled(exchange: &Exchange, resolved: &Resolved) -> Result<Arc<CompiledVersion>, ApiError> {
    let prompt = &resolved.prompt;
    match &resolved.choice {
        Choice::Live { arm, .. } => arm.compiled.clone().map_err(|why| broken(prompt, &why)),
        Choice::Pinned(version) => {
            let version = exchange.worker.pinned.get(&prompt.uid, *version).await;
            version.map_err(|error| pinned_error(prompt, &error))
        }
    }
}

fn broken(prompt: &PromptEntry, why: &str) -> ApiError {
    tracing::error!(prompt = %prompt.id, why, "a stored version cannot be used");
    ApiError::new(
        ErrorCode::Internal,
        "this version cannot be used by this build, the log says why",
    )
}

pub(super) fn pinned_error(prompt: &PromptEntry, error: &PinnedError) -> ApiError {
    match error {
        PinnedError::Broken(why) => broken(prompt, why),
        PinnedError::Missing => ApiError::new(ErrorCode::VersionNotFound, error.to_string()),
        PinnedError::Registry(why) => {
            tracing::warn!(why, "cannot read a version");
            ApiError::new(ErrorCode::Unavailable, "the version cannot be read now, try again")
        }
    }
}

fn note_variables(
    exchange: &mut Exchange,
    body: &Bytes,
    given: Option<&RawValue>,
    version: &CompiledVersion,
    values: &variables::Values<'_>,
) {
    if let Some(given) = given {
        exchange.content.variables = share(body, given.get().as_bytes());
    }
    if let Some(prompt) = &mut exchange.prompt {
        prompt.document_ids = variables::document_ids(&version.variables, values);
    }
}

/// Returns `part` as a slice of `body` if it is one, or else a copy.
fn share(body: &Bytes, part: &[u8]) -> Bytes {
    let start = (part.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
    match start.checked_add(part.len()) {
        Some(end) if end <= body.len() => body.slice(start..end),
        _ => Bytes::copy_from_slice(part),
    }
}

/// Chooses model and target, and returns the model's name upstream.
fn route_model(exchange: &mut Exchange, snapshot: &Snapshot, key: &Key, requested: &str) -> Result<Arc<str>, ApiError> {
    let model = resolve::model(snapshot, key, requested)?;
    let target = model.pick(exchange.worker.roll());
    let upstream = target.model.clone().unwrap_or_else(|| requested.into());
    let call = &mut exchange.call;
    call.model = Some(Arc::clone(&model.name));
    call.rates = model.rates;
    call.upstream_model = Arc::clone(&upstream);
    call.target = Some(Arc::clone(target));
    Ok(upstream)
}

fn model_missing(why: &str) -> ApiError {
    ApiError::new(ErrorCode::ModelMissing, format!("{why}; name one in \"model\"")).param("model")
}
