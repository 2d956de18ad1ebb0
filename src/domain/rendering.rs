//! Messages rendered from a version: what a request sends, and what a preflight compares.

use std::borrow::Cow;

use serde::Deserialize;

use super::content::CallerSystem;
use super::error::{ApiError, ErrorCode};
use super::json::Text;
use super::variables::{Given, Values};
use super::version::{CompiledVersion, Message};

/// The messages of a request: the version's, with the caller's in their place. Items of a JSON array, without brackets.
#[derive(Debug, Default)]
pub struct Messages<'a> {
    pub before: Vec<u8>,
    pub caller: Cow<'a, str>,
    pub after: Vec<u8>,
}

impl Messages<'_> {
    /// How many bytes there are, without what joins them.
    pub fn size(&self) -> usize {
        self.before.len() + self.caller.len() + self.after.len()
    }

    /// Appends the messages as a JSON array.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        let mut first = true;
        for items in [&self.before, self.caller.as_bytes(), &self.after] {
            if !items.is_empty() {
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                out.extend_from_slice(items);
            }
        }
        out.push(b']');
    }
}

/// Renders the version's messages and places the caller's: into the history, or else after them.
///
/// # Errors
/// 400 for messages of the wrong form or role, 422 when a template fails.
pub fn messages<'a>(
    version: &CompiledVersion,
    values: &Values<'_>,
    caller: Cow<'a, str>,
    limit: usize,
) -> Result<Messages<'a>, ApiError> {
    let mut messages = Messages {
        caller,
        ..Messages::default()
    };
    let mut renderer = version.renderer(values, limit);
    let mut placed = false;
    for message in &version.messages {
        let out = if placed {
            &mut messages.after
        } else {
            &mut messages.before
        };
        match message {
            Message::Text(segments) => {
                separate(out);
                renderer.render(segments, out)?;
            }
            Message::Placeholder { variable, history } => {
                let value = match &values[*variable] {
                    Given::Json(text) => text.as_ref(),
                    Given::Text(_) => "[]",
                };
                let place = format!("prompt.variables.{}", version.variables[*variable].name);
                let items = check_messages(version, &place, value, true)?;
                if !items.is_empty() {
                    separate(out);
                    out.extend_from_slice(items.as_bytes());
                }
                placed |= history;
            }
        }
    }
    if messages.size() > limit {
        let why = format!("the rendered prompt is larger than {limit} bytes (limits.max_render_bytes)");
        return Err(ApiError::new(ErrorCode::RenderFailed, why));
    }
    Ok(messages)
}

/// The refusal of a system message of the caller's.
pub fn no_system(at: &str, what: &str) -> ApiError {
    let why = format!("{at} is {what}: this prompt does not let callers add system messages (caller_system: reject)");
    ApiError::new(ErrorCode::CallerSystemMessage, why).param(at)
}

fn separate(out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b',');
    }
}

#[derive(Deserialize)]
struct Role<'a> {
    #[serde(borrow, default)]
    role: Option<Text<'a>>,
}

/// Checks a list of messages and returns what is between its brackets. Items of the Responses API need no role.
///
/// # Errors
/// 400 for messages of the wrong form or role.
pub fn check_messages<'a>(
    version: &CompiledVersion,
    place: &str,
    text: &'a str,
    needs_role: bool,
) -> Result<&'a str, ApiError> {
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
            // Input items of other kinds (a function call's output, a reference) have no role.
            None if !needs_role => continue,
            None => return invalid("is missing".to_owned(), format!("{place}[{at}].role")),
        };
        if version.caller_system == CallerSystem::Reject && matches!(role.as_ref(), "system" | "developer") {
            return Err(no_system(&format!("{place}[{at}].role"), &format!("{role:?}")));
        }
    }
    Ok(inner)
}
