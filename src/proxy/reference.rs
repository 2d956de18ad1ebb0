//! Which prompt a request means.
//!
//! The primary form is `"prompt": {"id", "version" | "environment", "variables"}` in the body. Callers of other systems
//! keep theirs: flat fields, `model: "prompt/<id>"`, headers, or the path. All that are given must agree.

use std::borrow::Cow;

use http::HeaderMap;
use percent_encoding::percent_decode;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::json::{self, Fields};
use crate::domain::prompt::PromptName;

/// Header that names a prompt for SDKs that drop unknown body fields.
pub const PROMPT_HEADER: &str = "x-promptgate-prompt";
/// Header with the variables as JSON, percent-encoded where not ASCII.
pub const VARIABLES_HEADER: &str = "x-promptgate-variables";

/// Fields of the body that are a prompt reference; none of them ever reaches a provider.
pub const FIELDS: [&str; 9] = [
    "prompt",
    "prompt_id",
    "inputs",
    "prompt_variables",
    "variables",
    "environment",
    "prompt_label",
    "version_id",
    "prompt_version",
];

const MODEL_PREFIX: &str = "prompt/";
const FORM: &str = "{\"id\": \"support/greet\", \"variables\": {\"name\": \"Ada\"}}";

/// A prompt that a request names.
#[derive(Debug)]
pub struct Reference<'a> {
    /// An id or an alias.
    pub name: Cow<'a, str>,
    pub selector: Selector<'a>,
    pub variables: Option<&'a RawValue>,
}

/// Which version of it.
#[derive(Debug, PartialEq)]
pub enum Selector<'a> {
    /// What is live in the key's environment.
    Default,
    Environment(Cow<'a, str>),
    Version(u32),
}

/// Reads the variables' header.
///
/// # Errors
/// 400 when it is not percent-encoded JSON.
pub fn header_variables(headers: &HeaderMap) -> Result<Option<Box<RawValue>>, ApiError> {
    let Some(value) = headers.get(VARIABLES_HEADER) else {
        return Ok(None);
    };
    let text = percent_decode(value.as_bytes()).decode_utf8().ok();
    let raw = text.and_then(|text| serde_json::from_str::<Box<RawValue>>(&text).ok());
    raw.map(Some).ok_or_else(|| {
        ApiError::new(
            ErrorCode::InvalidField,
            format!("{VARIABLES_HEADER} is not JSON, percent-encoded where not ASCII: {{\"name\": \"Zo%C3%AB\"}}"),
        )
        .param(VARIABLES_HEADER)
    })
}

/// Finds the reference in all the places that may have one.
///
/// `path` is the name in the path, `from_header` what [`header_variables`] returned. `None` is a request without a prompt;
/// any prompt fields it has all the same are removed later.
///
/// # Errors
/// 400 when the form is wrong or two places disagree.
pub fn find<'a>(
    fields: &Fields<'a>,
    headers: &'a HeaderMap,
    path: Option<&'a str>,
    from_header: Option<&'a RawValue>,
) -> Result<Option<Reference<'a>>, ApiError> {
    let mut found = Found::default();
    if let Some(path) = path {
        found.named("the path", PromptName::parse(path))?;
    }
    if let Some(value) = headers.get(PROMPT_HEADER) {
        let text = value.to_str().map_err(|_| invalid(PROMPT_HEADER, "must be ASCII"))?;
        found.named(PROMPT_HEADER, PromptName::parse(text))?;
    }
    if let Some(model) = fields.get("model").and_then(json::as_str)
        && model.starts_with(MODEL_PREFIX)
    {
        found.model(model)?;
    }
    if let Some(prompt) = fields.get("prompt") {
        found.object(prompt)?;
    }
    found.flat(fields)?;
    found.variables(VARIABLES_HEADER, from_header)?;
    found.finish(fields.get("prompt").is_some())
}

/// One of the values found, with the place it was found at.
#[derive(Debug)]
struct At<T> {
    place: &'static str,
    value: T,
}

#[derive(Debug, Default)]
struct Found<'a> {
    id: Option<At<Cow<'a, str>>>,
    version: Option<At<u32>>,
    environment: Option<At<Cow<'a, str>>>,
    variables: Option<At<&'a RawValue>>,
}

impl<'a> Found<'a> {
    fn named(&mut self, place: &'static str, name: PromptName<'a>) -> Result<(), ApiError> {
        self.id(place, name.id.into())?;
        if let Some(version) = name.version {
            self.version(place, parse_version(place, version)?)?;
        }
        match name.environment {
            Some(environment) => self.environment(place, environment.into()),
            None => Ok(()),
        }
    }

    fn model(&mut self, model: Cow<'a, str>) -> Result<(), ApiError> {
        match model {
            Cow::Borrowed(model) => self.named("model", PromptName::parse(&model[MODEL_PREFIX.len()..])),
            Cow::Owned(model) => {
                let name = PromptName::parse(&model[MODEL_PREFIX.len()..]);
                self.id("model", name.id.to_owned().into())?;
                if let Some(version) = name.version {
                    self.version("model", parse_version("model", version)?)?;
                }
                match name.environment {
                    Some(environment) => self.environment("model", environment.to_owned().into()),
                    None => Ok(()),
                }
            }
        }
    }

    fn object(&mut self, prompt: &'a RawValue) -> Result<(), ApiError> {
        let Ok(fields) = serde_json::from_str::<Fields<'a>>(prompt.get()) else {
            return Err(invalid(
                "prompt",
                &format!("must be an object such as {FORM}, not {}", json::type_name(prompt)),
            ));
        };
        for field in &fields.0 {
            let value = field.value;
            if json::is_null(value) {
                continue;
            }
            match field.name.as_ref() {
                "id" => self.id("prompt.id", text("prompt.id", value)?)?,
                "prompt_id" => self.id("prompt.prompt_id", text("prompt.prompt_id", value)?)?,
                "version" => self.version("prompt.version", version("prompt.version", value)?)?,
                "environment" => self.environment("prompt.environment", text("prompt.environment", value)?)?,
                "label" => self.environment("prompt.label", text("prompt.label", value)?)?,
                "variables" => self.variables("prompt.variables", Some(value))?,
                other => {
                    let known = "id, version, environment, variables";
                    return Err(invalid(
                        "prompt",
                        &format!("field {other:?} is not known here, there are {known}"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn flat(&mut self, fields: &Fields<'a>) -> Result<(), ApiError> {
        if let Some(value) = fields.get("prompt_id") {
            self.id("prompt_id", text("prompt_id", value)?)?;
        }
        for place in ["version_id", "prompt_version"] {
            if let Some(value) = fields.get(place) {
                self.version(place, version(place, value)?)?;
            }
        }
        for place in ["environment", "prompt_label"] {
            if let Some(value) = fields.get(place) {
                self.environment(place, text(place, value)?)?;
            }
        }
        for place in ["inputs", "prompt_variables", "variables"] {
            self.variables(place, fields.get(place))?;
        }
        Ok(())
    }

    fn id(&mut self, place: &'static str, value: Cow<'a, str>) -> Result<(), ApiError> {
        agree(&mut self.id, place, value, |a, b| a == b, |v| format!("{v:?}"))
    }

    fn version(&mut self, place: &'static str, value: u32) -> Result<(), ApiError> {
        agree(&mut self.version, place, value, |a, b| a == b, u32::to_string)
    }

    fn environment(&mut self, place: &'static str, value: Cow<'a, str>) -> Result<(), ApiError> {
        agree(&mut self.environment, place, value, |a, b| a == b, |v| format!("{v:?}"))
    }

    fn variables(&mut self, place: &'static str, value: Option<&'a RawValue>) -> Result<(), ApiError> {
        match value {
            Some(value) => agree(
                &mut self.variables,
                place,
                value,
                |a, b| same(a, b),
                |_| "other values".to_owned(),
            ),
            None => Ok(()),
        }
    }

    fn finish(self, has_object: bool) -> Result<Option<Reference<'a>>, ApiError> {
        let Some(id) = self.id else {
            if has_object {
                return Err(ApiError::new(
                    ErrorCode::PromptIdMissing,
                    format!("prompt.id is missing, write \"prompt\": {FORM}"),
                )
                .param("prompt.id"));
            }
            return Ok(None);
        };
        if id.value.is_empty() {
            return Err(ApiError::new(ErrorCode::PromptIdMissing, format!("{} is empty", id.place)).param(id.place));
        }
        let selector = match (self.version, self.environment) {
            (None, None) => Selector::Default,
            (Some(version), None) => Selector::Version(version.value),
            (None, Some(environment)) => Selector::Environment(environment.value),
            (Some(version), Some(environment)) => {
                return Err(ApiError::new(
                    ErrorCode::Contradiction,
                    format!(
                        "{} and {} exclude each other, give one of them",
                        version.place, environment.place
                    ),
                )
                .param(version.place));
            }
        };
        Ok(Some(Reference {
            name: id.value,
            selector,
            variables: self.variables.map(|variables| variables.value),
        }))
    }
}

/// Keeps the first value; a second one must say the same.
fn agree<T>(
    slot: &mut Option<At<T>>,
    place: &'static str,
    value: T,
    equal: impl Fn(&T, &T) -> bool,
    show: impl Fn(&T) -> String,
) -> Result<(), ApiError> {
    match slot {
        None => {
            *slot = Some(At { place, value });
            Ok(())
        }
        Some(first) if equal(&first.value, &value) => Ok(()),
        Some(first) => Err(ApiError::new(
            ErrorCode::Contradiction,
            format!(
                "{} says {} and {place} says {}, give one of them",
                first.place,
                show(&first.value),
                show(&value)
            ),
        )
        .param(place)),
    }
}

fn same(a: &RawValue, b: &RawValue) -> bool {
    let tree = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).ok();
    a.get() == b.get() || tree(a) == tree(b)
}

fn text<'a>(place: &str, value: &'a RawValue) -> Result<Cow<'a, str>, ApiError> {
    json::as_str(value).ok_or_else(|| invalid(place, &format!("must be a string, not {}", json::type_name(value))))
}

/// A version is a number, as such or in quotes.
fn version(place: &'static str, value: &RawValue) -> Result<u32, ApiError> {
    match json::as_str(value) {
        Some(text) => parse_version(place, &text),
        None => parse_version(place, value.get()),
    }
}

fn parse_version(place: &'static str, text: &str) -> Result<u32, ApiError> {
    match text.parse::<u32>() {
        Ok(version) if version > 0 => Ok(version),
        _ => {
            let shown: String = text.chars().take(60).collect();
            Err(invalid(
                place,
                &format!("{shown:?} is not a version, write a number such as 3"),
            ))
        }
    }
}

fn invalid(place: &str, why: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidField, format!("{place}: {why}")).param(place)
}

#[cfg(test)]
mod tests;
