//! A version's variables: what callers must and may give, and the check of what they gave.
//!
//! Every problem is listed at once. Values stay slices of the request's body where they can.

use std::borrow::Cow;

use jsonschema::Validator;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::json::{self, Fields};
use crate::domain::version::Problem;

/// One declared variable.
#[derive(Debug)]
pub struct Variable {
    pub name: Box<str>,
    kind: Kind,
    required: bool,
    default: Option<Box<RawValue>>,
    check: Check,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Integer,
    Boolean,
    Array,
    Object,
    /// Retrieved passages: `[{id, text, title?, score?}]`.
    Documents,
    /// A list of chat messages, for a placeholder.
    Messages,
    Any,
}

/// What is checked beyond the type.
#[derive(Debug)]
enum Check {
    Nothing,
    /// The keywords that most variables use, without a tree.
    Text {
        choices: Vec<Box<str>>,
        min: usize,
        max: usize,
    },
    Schema(Box<Validator>),
}

/// A variable's value for one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Given<'a> {
    Text(Cow<'a, str>),
    /// Any other JSON value, as text.
    Json(Cow<'a, str>),
}

/// The values of one request, in the order of the declarations.
pub type Values<'a> = Vec<Given<'a>>;

/// What the caller gave that the version does not know.
pub type Unknown<'a> = Vec<Cow<'a, str>>;

const KNOWN_KINDS: &str = "string, number, integer, boolean, array, object, documents, messages";

impl Variable {
    /// Builds a variable from its JSON Schema.
    ///
    /// # Errors
    /// A sentence that names the keyword and the fix.
    pub fn compile(name: &str, schema: &Value) -> Result<Self, String> {
        if !is_identifier(name) {
            return Err("a name is a letter or '_', then letters, digits and '_'".to_owned());
        }
        let schema = schema
            .as_object()
            .ok_or_else(|| format!("must be an object such as {{\"type\": \"string\"}}, not {schema}"))?;
        let kind = kind_of(schema)?;
        let optional = match schema.get("optional") {
            None => false,
            Some(Value::Bool(optional)) => *optional,
            Some(other) => return Err(format!("optional must be true or false, not {other}")),
        };
        let default = schema.get("default").map(raw);
        let variable = Self {
            name: name.into(),
            kind,
            required: !optional && default.is_none(),
            check: check_of(kind, schema)?,
            default,
        };
        if let Some(default) = &variable.default {
            variable
                .read(default)
                .map_err(|why| format!("the default does not fit: {why}"))?;
        }
        Ok(variable)
    }

    /// Builds a variable that a template uses and nothing declares: required, of any type.
    pub fn undeclared(name: &str) -> Self {
        Self::implied(name, Kind::Any, true)
    }

    /// Builds the optional list of messages of an undeclared placeholder.
    pub fn placeholder(name: &str) -> Self {
        Self::implied(name, Kind::Messages, false)
    }

    fn implied(name: &str, kind: Kind, required: bool) -> Self {
        Self {
            name: name.into(),
            kind,
            required,
            default: None,
            check: Check::Nothing,
        }
    }

    /// Whether a request that leaves it out is refused.
    pub fn is_required(&self) -> bool {
        self.required
    }

    pub fn may_fill_a_placeholder(&self) -> bool {
        matches!(self.kind, Kind::Messages | Kind::Array | Kind::Any)
    }

    /// Returns what stands for a value that was not given: the default, or the type's empty value.
    fn absent(&self) -> Given<'_> {
        match (&self.default, self.kind) {
            (Some(default), _) => self.read(default).expect("the default was read when compiled"),
            (None, Kind::Array | Kind::Documents | Kind::Messages) => Given::Json("[]".into()),
            (None, Kind::Object) => Given::Json("{}".into()),
            (None, _) => Given::Text("".into()),
        }
    }

    /// Returns a value that fits the type, for a trial rendering.
    pub fn sample(&self) -> Given<'_> {
        match (&self.check, self.kind) {
            _ if self.default.is_some() => self.absent(),
            (Check::Text { choices, .. }, _) if !choices.is_empty() => Given::Text(choices[0].as_ref().into()),
            (_, Kind::Number | Kind::Integer) => Given::Json("1".into()),
            (_, Kind::Boolean) => Given::Json("true".into()),
            (_, Kind::Documents) => Given::Json(r#"[{"id":"doc","title":"title","text":"text","score":1.0}]"#.into()),
            (_, Kind::Text | Kind::Any) => Given::Text("sample".into()),
            _ => self.absent(),
        }
    }

    /// Reads a value, converting where nothing is lost.
    fn read<'a>(&self, value: &'a RawValue) -> Result<Given<'a>, String> {
        let given = self.typed(value)?;
        match &self.check {
            Check::Nothing => {}
            Check::Text { choices, min, max } => check_text(&given, choices, *min, *max)?,
            Check::Schema(validator) => {
                let tree = given.to_json();
                let problems: Vec<String> = validator.iter_errors(&tree).map(|e| describe(&e)).collect();
                if !problems.is_empty() {
                    return Err(problems.join("; "));
                }
            }
        }
        if self.kind == Kind::Documents {
            check_documents(value)?;
        }
        Ok(given)
    }

    fn typed<'a>(&self, value: &'a RawValue) -> Result<Given<'a>, String> {
        let text = value.get();
        let wrong = |wanted: &str| Err(format!("must be {wanted}, not {}", json::type_name(value)));
        match (self.kind, text.as_bytes().first()) {
            (Kind::Text | Kind::Any, Some(b'"')) => Ok(Given::Text(json::as_str(value).unwrap_or_default())),
            (Kind::Text | Kind::Any, Some(b'{')) if input_text(value).is_some() => {
                Ok(Given::Text(input_text(value).unwrap_or_default()))
            }
            (Kind::Any, _) => Ok(Given::Json(text.into())),
            (Kind::Text, _) => wrong("a string"),
            (Kind::Number | Kind::Integer | Kind::Boolean, Some(b'"')) => {
                let inner = json::as_str(value).unwrap_or_default();
                self.converted(inner.trim())
            }
            (Kind::Number, Some(b'-' | b'0'..=b'9')) => Ok(Given::Json(text.into())),
            (Kind::Integer, Some(b'-' | b'0'..=b'9')) if is_integer(text) => Ok(Given::Json(text.into())),
            (Kind::Boolean, Some(b't' | b'f')) => Ok(Given::Json(text.into())),
            (Kind::Array | Kind::Documents | Kind::Messages, Some(b'[')) => Ok(Given::Json(text.into())),
            (Kind::Object, Some(b'{')) => Ok(Given::Json(text.into())),
            (Kind::Number, _) => wrong("a number"),
            (Kind::Integer, Some(b'-' | b'0'..=b'9')) => Err(format!("must be a whole number, not {text}")),
            (Kind::Integer, _) => wrong("a whole number"),
            (Kind::Boolean, _) => wrong("true or false"),
            (Kind::Array | Kind::Documents | Kind::Messages, _) => wrong("an array"),
            (Kind::Object, _) => wrong("an object"),
        }
    }

    /// Converts a string to a number or boolean if nothing is lost.
    fn converted<'a>(&self, text: &str) -> Result<Given<'a>, String> {
        let fits = match self.kind {
            Kind::Boolean => matches!(text, "true" | "false"),
            Kind::Integer => is_integer(text),
            _ => is_number(text),
        };
        match (fits, self.kind) {
            (true, _) => Ok(Given::Json(text.to_owned().into())),
            (false, Kind::Boolean) => Err("must be true or false, the string given is neither".to_owned()),
            (false, Kind::Integer) => Err("must be a whole number, the string given is not one".to_owned()),
            (false, _) => Err("must be a number, the string given is not one".to_owned()),
        }
    }
}

impl Given<'_> {
    /// Returns the value as a JSON tree.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.clone().into_owned()),
            Self::Json(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        }
    }

    /// Returns the value for the template engine.
    pub fn to_template(&self) -> minijinja::Value {
        match self {
            Self::Text(text) => minijinja::Value::from(text.as_ref()),
            Self::Json(text) => serde_json::from_str(text).unwrap_or_default(),
        }
    }
}

/// Checks what the caller gave against the declarations.
///
/// # Errors
/// One [`ErrorCode::InvalidVariables`] that lists every problem in `details.problems`.
pub fn check<'a>(
    declared: &'a [Variable],
    given: Option<&'a RawValue>,
    strict: bool,
) -> Result<(Values<'a>, Unknown<'a>), ApiError> {
    let fields = match given {
        None => Fields::default(),
        Some(raw) => serde_json::from_str::<Fields<'a>>(raw.get()).map_err(|_| {
            ApiError::new(
                ErrorCode::InvalidField,
                format!(
                    "variables must be an object such as {{\"name\": \"value\"}}, not {}",
                    json::type_name(raw)
                ),
            )
            .param("prompt.variables")
        })?,
    };
    let mut problems: Vec<Problem> = Vec::new();
    let mut values = Vec::with_capacity(declared.len());
    for variable in declared {
        let problem = match fields.get(&variable.name) {
            Some(value) => match variable.read(value) {
                Ok(given) => {
                    values.push(given);
                    continue;
                }
                Err(why) => why,
            },
            None if variable.required => "is missing".to_owned(),
            None => {
                values.push(variable.absent());
                continue;
            }
        };
        problems.push(Problem::new(variable.name.as_ref(), problem));
    }
    let unknown: Unknown<'a> = fields
        .0
        .into_iter()
        .map(|field| field.name)
        .filter(|name| declared.iter().all(|variable| *variable.name != **name))
        .collect();
    if strict {
        let known: Vec<&str> = declared.iter().map(|variable| variable.name.as_ref()).collect();
        problems.extend(unknown.iter().map(|name| {
            Problem::new(
                name.as_ref(),
                format!("is not a variable of this prompt ({})", known.join(", ")),
            )
        }));
    }
    if problems.is_empty() {
        Ok((values, unknown))
    } else {
        Err(invalid(&problems))
    }
}

fn invalid(problems: &[Problem]) -> ApiError {
    let text: Vec<String> = problems.iter().map(|p| format!("{} {}", p.path, p.message)).collect();
    let list: Vec<Value> = problems
        .iter()
        .map(|p| json!({"variable": p.path, "message": p.message}))
        .collect();
    ApiError::new(
        ErrorCode::InvalidVariables,
        format!("variables do not fit the prompt: {}", text.join("; ")),
    )
    .param("prompt.variables")
    .details(json!({ "problems": list }))
}

fn kind_of(schema: &Map<String, Value>) -> Result<Kind, String> {
    Ok(match schema.get("type") {
        None => Kind::Any,
        Some(Value::String(kind)) => match kind.as_str() {
            "string" => Kind::Text,
            "number" => Kind::Number,
            "integer" => Kind::Integer,
            "boolean" => Kind::Boolean,
            "array" => Kind::Array,
            "object" => Kind::Object,
            "documents" => Kind::Documents,
            "messages" => Kind::Messages,
            other => return Err(format!("type {other:?} is not known, use one of {KNOWN_KINDS}")),
        },
        Some(other) => return Err(format!("type must be one of {KNOWN_KINDS}, not {other}")),
    })
}

/// Keywords that need no check of a value.
const SILENT: [&str; 6] = ["type", "optional", "default", "description", "title", "examples"];

fn check_of(kind: Kind, schema: &Map<String, Value>) -> Result<Check, String> {
    let keywords: Vec<&str> = schema
        .keys()
        .map(String::as_str)
        .filter(|keyword| !SILENT.contains(keyword))
        .collect();
    if let Some(odd) = keywords.iter().find(|keyword| !KEYWORDS.contains(keyword)) {
        let near = KEYWORDS
            .iter()
            .max_by(|a, b| similarity(a, odd).total_cmp(&similarity(b, odd)));
        return Err(format!(
            "keyword {odd:?} is not known, did you mean {:?}?",
            near.unwrap_or(&"type")
        ));
    }
    if keywords.is_empty() {
        return Ok(Check::Nothing);
    }
    let simple = ["enum", "minLength", "maxLength"];
    if kind == Kind::Text && keywords.iter().all(|keyword| simple.contains(keyword)) {
        return text_check(schema);
    }
    let mut schema = schema.clone();
    schema.remove("optional");
    if matches!(kind, Kind::Documents | Kind::Messages) {
        schema.insert("type".to_owned(), "array".into());
    }
    Validator::new(&Value::Object(schema))
        .map(|validator| Check::Schema(Box::new(validator)))
        .map_err(|error| format!("not a valid JSON Schema: {error}"))
}

/// The JSON Schema keywords a variable may have.
const KEYWORDS: [&str; 35] = [
    "enum",
    "const",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "items",
    "prefixItems",
    "contains",
    "minContains",
    "maxContains",
    "minItems",
    "maxItems",
    "uniqueItems",
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "$defs",
    "$ref",
];

fn similarity(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(a, b)
}

fn text_check(schema: &Map<String, Value>) -> Result<Check, String> {
    let length = |keyword: &str| match schema.get(keyword) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(length) => Ok(Some(length as usize)),
            None => Err(format!("{keyword} must be a whole number, not {value}")),
        },
    };
    let choices = match schema.get("enum") {
        None => Vec::new(),
        Some(Value::Array(choices)) if !choices.is_empty() => choices
            .iter()
            .map(|choice| match choice {
                Value::String(text) => Ok(text.as_str().into()),
                other => Err(format!("enum of a string must list strings, not {other}")),
            })
            .collect::<Result<_, _>>()?,
        Some(other) => return Err(format!("enum must be a list of strings, not {other}")),
    };
    Ok(Check::Text {
        choices,
        min: length("minLength")?.unwrap_or(0),
        max: length("maxLength")?.unwrap_or(usize::MAX),
    })
}

fn check_text(given: &Given<'_>, choices: &[Box<str>], min: usize, max: usize) -> Result<(), String> {
    let Given::Text(text) = given else {
        return Ok(());
    };
    if !choices.is_empty() && !choices.iter().any(|choice| **choice == **text) {
        return Err(format!("must be one of {}", choices.join(", ")));
    }
    // A text has at least as many bytes as characters, and at most four times as many.
    if text.len() <= max && text.len() >= min.saturating_mul(4) {
        return Ok(());
    }
    let length = text.chars().count();
    if length > max {
        return Err(format!("has {length} characters, at most {max} are allowed"));
    }
    if length < min {
        return Err(format!("has {length} characters, at least {min} are needed"));
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct Document {
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    text: Option<Value>,
}

fn check_documents(value: &RawValue) -> Result<(), String> {
    let form = "must be a list of {\"id\": \"…\", \"text\": \"…\"}";
    let documents: Vec<Document> = serde_json::from_str(value.get()).map_err(|_| form.to_owned())?;
    let fits = |d: &Document| matches!((&d.id, &d.text), (Some(Value::String(_)), Some(Value::String(_))));
    match documents.iter().position(|d| !fits(d)) {
        None => Ok(()),
        Some(at) => Err(format!("{form}, item {at} is not")),
    }
}

/// Returns the ids of all documents given, for the record.
pub fn document_ids(declared: &[Variable], values: &Values<'_>) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Id {
        id: String,
    }
    declared
        .iter()
        .zip(values)
        .filter(|(variable, _)| variable.kind == Kind::Documents)
        .filter_map(|(_, given)| match given {
            Given::Json(text) => serde_json::from_str::<Vec<Id>>(text).ok(),
            Given::Text(_) => None,
        })
        .flatten()
        .map(|document| document.id)
        .collect()
}

/// Unwraps OpenAI's `{"type": "input_text", "text": "…"}`.
///
/// Source: <https://platform.openai.com/docs/api-reference/responses/create>, `prompt.variables`.
fn input_text(value: &RawValue) -> Option<Cow<'_, str>> {
    let fields: Fields<'_> = serde_json::from_str(value.get()).ok()?;
    let kind = fields.get("type").and_then(json::as_str)?;
    (kind == "input_text").then(|| fields.get("text").and_then(json::as_str))?
}

fn describe(error: &jsonschema::ValidationError<'_>) -> String {
    let at = error.instance_path().to_string();
    if at.is_empty() {
        error.to_string()
    } else {
        format!("{at}: {error}")
    }
}

pub(super) fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_number(text: &str) -> bool {
    serde_json::from_str::<serde_json::Number>(text).is_ok()
}

fn is_integer(text: &str) -> bool {
    match serde_json::from_str::<serde_json::Number>(text) {
        Ok(number) => !number.is_f64() || number.as_f64().is_some_and(|f| f.fract() == 0.0),
        Err(_) => false,
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a JSON value serialises")
}

#[cfg(test)]
mod tests;
