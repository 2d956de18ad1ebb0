//! Stage 3: the body for the provider.
//!
//! With a prompt it is put together from the version's rendered messages and parameters and the caller's fields that
//! pass. Without one it is the caller's own, and stays untouched to the byte unless something must change in it.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::reference;
use crate::domain::content::CallerSystem;
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::json::{self, Field, Fields, Text};
use crate::domain::variables::Values;
use crate::domain::version::{CompiledVersion, Message, Parameter, same_parameter};

/// Fields that belong to the call, not to the prompt: the caller's always pass.
const TRANSPORT: [&str; 10] = [
    "stream",
    "stream_options",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "metadata",
    "store",
    "include",
    "service_tier",
    "n",
];

/// A body ready to be sent.
#[derive(Debug)]
pub struct Shaped {
    pub body: Bytes,
    /// The usage chunk was asked for by us, and must not reach the caller.
    pub withhold_usage: bool,
}

/// Says whether the caller asks for a stream.
pub fn wants_stream(fields: &Fields<'_>) -> bool {
    fields.get("stream").is_some_and(|value| value.get() == "true")
}

/// Shapes a request without a prompt. Fields of a prompt reference are removed all the same.
pub fn raw(fields: &Fields<'_>, body: &Bytes, requested: &str, upstream: &str) -> Shaped {
    let options = stream_options(fields);
    let stays = |field: &Field<'_>| !reference::FIELDS.contains(&field.name.as_ref());
    if requested == upstream && options.is_none() && fields.0.iter().all(stays) {
        return Shaped {
            body: body.clone(),
            withhold_usage: false,
        };
    }
    let mut out = Vec::with_capacity(body.len() + 64);
    out.extend_from_slice(b"{\"model\":");
    json::string_into(&mut out, upstream);
    for field in fields.0.iter().filter(|field| stays(field)) {
        match field.name.as_ref() {
            "model" => {}
            "stream_options" if options.is_some() => {}
            name => write_field(&mut out, name, field.value.get()),
        }
    }
    finish(out, options)
}

/// Shapes a request with a prompt.
pub fn prompted(fields: &Fields<'_>, messages: &[u8], parameters: &Parameters<'_>, upstream: &str) -> Shaped {
    let options = stream_options(fields);
    let mut out = Vec::with_capacity(messages.len() + 512);
    out.extend_from_slice(b"{\"model\":");
    json::string_into(&mut out, upstream);
    out.extend_from_slice(b",\"messages\":");
    out.extend_from_slice(messages);
    for parameter in &parameters.version {
        write_field(&mut out, &parameter.name, &parameter.json);
    }
    for (name, value) in &parameters.caller {
        if *name != "stream_options" || options.is_none() {
            write_field(&mut out, name, value.get());
        }
    }
    finish(out, options)
}

fn finish(mut out: Vec<u8>, options: Option<String>) -> Shaped {
    if let Some(options) = &options {
        write_field(&mut out, "stream_options", options);
    }
    out.push(b'}');
    Shaped {
        body: out.into(),
        withhold_usage: options.is_some(),
    }
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b',');
    json::string_into(out, name);
    out.push(b':');
    out.extend_from_slice(value.as_bytes());
}

/// Returns the stream options that ask for usage, if the caller's do not.
fn stream_options(fields: &Fields<'_>) -> Option<String> {
    if !wants_stream(fields) {
        return None;
    }
    let given = fields.get("stream_options");
    let given: Fields<'_> = given
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    if given.get("include_usage").is_some_and(|value| value.get() == "true") {
        return None;
    }
    let mut out = b"{\"include_usage\":true".to_vec();
    for field in given.0.iter().filter(|field| field.name != "include_usage") {
        write_field(&mut out, &field.name, field.value.get());
    }
    out.push(b'}');
    String::from_utf8(out).ok()
}

/// Which parameters go upstream.
#[derive(Debug, Default)]
pub struct Parameters<'a> {
    pub version: Vec<&'a Parameter>,
    pub caller: Vec<(&'a str, &'a RawValue)>,
    /// The caller's fields in whose place the version's went.
    pub ignored: Vec<&'a str>,
}

/// Decides between the version's parameters and the caller's.
///
/// # Errors
/// 400 in a strict version that would ignore something.
pub fn parameters<'a>(version: &'a CompiledVersion, fields: &'a Fields<'a>) -> Result<Parameters<'a>, ApiError> {
    let mut chosen = Parameters::default();
    for field in &fields.0 {
        let name = field.name.as_ref();
        if matches!(name, "model" | "messages") || reference::FIELDS.contains(&name) || is_absent(name, field.value) {
            continue;
        }
        let set = version
            .parameters
            .iter()
            .find(|parameter| same_parameter(&parameter.name, name));
        match set {
            Some(parameter) if !parameter.overridable && !TRANSPORT.contains(&name) => chosen.ignored.push(name),
            _ => chosen.caller.push((name, field.value)),
        }
    }
    if version.strict && !chosen.ignored.is_empty() {
        let names = chosen.ignored.join(", ");
        let why = format!(
            "this prompt is strict and sets {names} itself; leave it out, or list it in the version's overrides"
        );
        return Err(ApiError::new(ErrorCode::FieldNotAllowed, why).param(names));
    }
    let theirs = |parameter: &Parameter| {
        chosen
            .caller
            .iter()
            .any(|(name, _)| same_parameter(&parameter.name, name))
    };
    let ours = version
        .parameters
        .iter()
        .filter(|parameter| !theirs(parameter))
        .collect();
    chosen.version = ours;
    Ok(chosen)
}

/// SDKs send some fields unasked: null, and empty lists.
fn is_absent(name: &str, value: &RawValue) -> bool {
    json::is_null(value) || (matches!(name, "tools" | "include") && json::is_empty_container(value))
}

/// Renders the version's messages with the caller's in their place, as a JSON array.
///
/// # Errors
/// 400 for messages of the wrong form or role, 422 when a template fails.
pub fn messages(
    version: &CompiledVersion,
    values: &Values<'_>,
    caller: Option<&RawValue>,
    limit: usize,
) -> Result<Vec<u8>, ApiError> {
    let caller = match caller {
        Some(raw) => check_messages(version, "messages", raw.get())?,
        None => "",
    };
    let mut renderer = version.renderer(values, limit);
    let mut out = Vec::with_capacity(1024 + caller.len());
    out.push(b'[');
    let mut placed = false;
    for message in &version.messages {
        match message {
            Message::Text(segments) => {
                separate(&mut out);
                renderer.render(segments, &mut out)?;
            }
            Message::Placeholder { variable, history } => {
                let value = match &values[*variable] {
                    crate::domain::variables::Given::Json(text) => text.as_ref(),
                    crate::domain::variables::Given::Text(_) => "[]",
                };
                let name = &version.variables[*variable].name;
                let items = check_messages(version, &format!("prompt.variables.{name}"), value)?;
                append(&mut out, items);
                if *history {
                    append(&mut out, caller);
                    placed = true;
                }
            }
        }
    }
    if !placed {
        append(&mut out, caller);
    }
    out.push(b']');
    if out.len() > limit {
        let why = format!("the rendered prompt is larger than {limit} bytes (limits.max_render_bytes)");
        return Err(ApiError::new(ErrorCode::RenderFailed, why));
    }
    Ok(out)
}

fn append(out: &mut Vec<u8>, items: &str) {
    if !items.is_empty() {
        separate(out);
        out.extend_from_slice(items.as_bytes());
    }
}

fn separate(out: &mut Vec<u8>) {
    if out.len() > 1 {
        out.push(b',');
    }
}

#[derive(Deserialize)]
struct Role<'a> {
    #[serde(borrow, default)]
    role: Option<Text<'a>>,
}

/// Checks a list of messages and returns what is between its brackets.
fn check_messages<'a>(version: &CompiledVersion, place: &str, text: &'a str) -> Result<&'a str, ApiError> {
    let inner = text
        .trim()
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .map(str::trim);
    if inner == Some("") {
        return Ok("");
    }
    let invalid =
        |why: String, at: String| Err(ApiError::new(ErrorCode::InvalidField, format!("{at} {why}")).param(at));
    let (Some(inner), Ok(roles)) = (inner, serde_json::from_str::<Vec<Role<'_>>>(text)) else {
        return invalid("must be a list of {\"role\", \"content\"}".to_owned(), place.to_owned());
    };
    for (at, message) in roles.iter().enumerate() {
        let role: Cow<'_, str> = match &message.role {
            Some(Text(role)) => Cow::Borrowed(role),
            None => return invalid("is missing".to_owned(), format!("{place}[{at}].role")),
        };
        if version.caller_system == CallerSystem::Reject && matches!(role.as_ref(), "system" | "developer") {
            let at = format!("{place}[{at}].role");
            let why = format!(
                "{at} is {role:?}: this prompt does not let callers add system messages (caller_system: reject)"
            );
            return Err(ApiError::new(ErrorCode::CallerSystemMessage, why).param(at));
        }
    }
    Ok(inner)
}
