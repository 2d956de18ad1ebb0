//! Stage 3: the body for the provider.
//!
//! With a prompt it is put together from the version's rendered messages and parameters and the caller's fields that
//! pass. Without one it is the caller's own, and stays untouched to the byte unless something must change in it.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::reference;
use crate::domain::content::CallerSystem;
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::json::{self, Field, Fields};
use crate::domain::rendering::{Messages, check_messages, no_system};
use crate::domain::version::{CompiledVersion, Parameter, same_parameter};
use crate::provider::openai::{Call, responses};

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
pub fn raw(call: Call, fields: &Fields<'_>, body: &Bytes, requested: &str, upstream: &str) -> Shaped {
    let options = stream_options(call, fields);
    let stays = |field: &Field<'_>| !call.takes_prompt() || !reference::FIELDS.contains(&field.name.as_ref());
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
///
/// # Errors
/// 400 for what the call cannot say.
pub fn prompted(
    call: Call,
    fields: &Fields<'_>,
    messages: &Messages<'_>,
    parameters: &Parameters<'_>,
    upstream: &str,
) -> Result<Shaped, ApiError> {
    let options = stream_options(call, fields);
    let mut out = Vec::with_capacity(messages.size() + 512);
    out.extend_from_slice(b"{\"model\":");
    json::string_into(&mut out, upstream);
    if call == Call::Responses {
        let field = |why: String| ApiError::new(ErrorCode::InvalidField, why);
        write_field(&mut out, "input", &to_input(messages).map_err(field)?);
        for parameter in &parameters.version {
            let (name, value) = responses::parameter(&parameter.name, &parameter.json).map_err(field)?;
            write_field(&mut out, name, &value);
        }
    } else {
        out.extend_from_slice(b",\"messages\":");
        messages.write(&mut out);
        for parameter in &parameters.version {
            write_field(&mut out, &parameter.name, &parameter.json);
        }
    }
    for (name, value) in &parameters.caller {
        if *name != "stream_options" || options.is_none() {
            write_field(&mut out, name, value.get());
        }
    }
    Ok(finish(out, options))
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
fn stream_options(call: Call, fields: &Fields<'_>) -> Option<String> {
    if !call.asks_for_usage() || !wants_stream(fields) {
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
pub fn parameters<'a>(
    call: Call,
    version: &'a CompiledVersion,
    fields: &'a Fields<'a>,
) -> Result<Parameters<'a>, ApiError> {
    let mut chosen = Parameters::default();
    for field in &fields.0 {
        let name = field.name.as_ref();
        if matches!(name, "model")
            || name == callers_field(call)
            || reference::FIELDS.contains(&name)
            || is_absent(name, field.value)
        {
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

/// The field in which the caller has messages of its own.
fn callers_field(call: Call) -> &'static str {
    if call == Call::Responses { "input" } else { "messages" }
}

/// Returns the messages in the form of the Responses API. The caller's are in that form already.
fn to_input(messages: &Messages<'_>) -> Result<String, String> {
    let array = |items: &[u8]| [b"[", items, b"]"].concat();
    let before = responses::input(&array(&messages.before))?;
    let after = responses::input(&array(&messages.after))?;
    let parts = [before.as_str(), messages.caller.as_ref(), after.as_str()];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    Ok(format!("[{}]", parts.join(",")))
}

/// Returns the caller's own messages or input items.
///
/// # Errors
/// 400 for messages of the wrong form or role.
pub fn callers<'a>(call: Call, version: &CompiledVersion, fields: &Fields<'a>) -> Result<Cow<'a, str>, ApiError> {
    let place = callers_field(call);
    if call == Call::Responses && version.caller_system == CallerSystem::Reject && fields.get("instructions").is_some()
    {
        return Err(no_system("instructions", "given"));
    }
    let Some(raw) = fields.get(place) else {
        return Ok(Cow::Borrowed(""));
    };
    if call == Call::Responses && raw.get().starts_with('"') {
        return Ok(Cow::Owned(format!("{{\"role\":\"user\",\"content\":{}}}", raw.get())));
    }
    check_messages(version, place, raw.get(), call != Call::Responses).map(Cow::Borrowed)
}
