//! A version compiled for requests: templates parsed, validators built, parameters already JSON.

use minijinja::Environment;
use serde_json::{Map, Value};

use crate::domain::content::{CallerSystem, Content};
use crate::domain::exchange::Capture;
use crate::domain::json;
use crate::domain::template::{self, Piece, Renderer, Segment};
use crate::domain::variables::{Given, Variable};

/// Something wrong in a version's content or in a request's variables.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Problem {
    /// Where: `messages[0].content`, `variables.language`.
    pub path: String,
    pub message: String,
}

impl Problem {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

/// The placeholder that takes the caller's own messages.
pub const HISTORY: &str = "history";

/// A version, ready for requests.
#[derive(Debug)]
pub struct CompiledVersion {
    pub messages: Vec<Message>,
    pub variables: Vec<Variable>,
    pub model: Option<Box<str>>,
    /// Whether the caller's `model` wins.
    pub model_override: bool,
    pub parameters: Vec<Parameter>,
    pub strict: bool,
    pub caller_system: CallerSystem,
    /// What the version says of recording; the configuration decides how far that goes.
    pub capture: Option<Capture>,
    engine: Option<Box<Environment<'static>>>,
}

/// One entry of a version's messages.
#[derive(Debug)]
pub enum Message {
    /// A whole message as JSON with holes.
    Text(Vec<Segment>),
    /// Messages from the variable of that index, and the caller's own if it is the history.
    Placeholder { variable: usize, history: bool },
}

/// A field of the provider's body that the version sets.
#[derive(Debug)]
pub struct Parameter {
    pub name: Box<str>,
    /// The value as JSON.
    pub json: Box<str>,
    /// Whether the caller's value wins.
    pub overridable: bool,
}

/// Fields of a request that are not the version's business: they belong to the call, or are promptgate's own.
pub const NOT_PARAMETERS: [&str; 17] = [
    "messages",
    "model",
    "tools",
    "response_format",
    "stream",
    "stream_options",
    "user",
    "safety_identifier",
    "input",
    "prompt",
    "prompt_id",
    "prompt_label",
    "prompt_version",
    "prompt_variables",
    "version_id",
    "inputs",
    "variables",
];

/// Compiles `content` and renders it once on sample values, so that what cannot work is refused when it is written.
///
/// # Errors
/// Every problem found.
pub fn check(content: &Content) -> Result<(), Vec<Problem>> {
    let version = CompiledVersion::compile(content)?;
    let samples: Vec<Given<'_>> = version.variables.iter().map(Variable::sample).collect();
    let Some(engine) = version.engine.as_deref() else {
        return Ok(());
    };
    let mut renderer = Renderer::new(&version.variables, &samples, Some(engine), usize::MAX);
    let problems: Vec<Problem> = engine
        .templates()
        .filter_map(|(name, _)| {
            let error = renderer.template(name).err()?;
            is_certain(&error).then(|| Problem::new(name, template::explain(&error)))
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Says whether a template fails with this error on any values, not only on the samples.
fn is_certain(error: &minijinja::Error) -> bool {
    use minijinja::ErrorKind::*;
    matches!(
        error.kind(),
        UnknownFilter | UnknownTest | UnknownFunction | TemplateNotFound | TooManyArguments | MissingArgument
    )
}

impl CompiledVersion {
    /// Compiles effective content.
    ///
    /// Content without a `variables` key declares what its templates use: required, of any type.
    ///
    /// # Errors
    /// Every problem found.
    pub fn compile(content: &Content) -> Result<Self, Vec<Problem>> {
        let mut compiler = Compiler::new(content);
        compiler.declared(content.variables.as_ref());
        compiler.partials(&content.partials);
        let mut messages: Vec<Message> = (0..content.messages.len())
            .filter_map(|at| compiler.message(at, &content.messages[at]))
            .collect();
        let parameters = compiler.parameters(content);
        let Compiler {
            problems,
            mut variables,
            engine,
            ..
        } = compiler;
        if !problems.is_empty() {
            return Err(problems);
        }
        // Thousands of versions stay for long.
        messages.shrink_to_fit();
        variables.shrink_to_fit();
        Ok(Self {
            messages,
            variables,
            model: content.model.as_deref().map(Into::into),
            model_override: content.overrides.iter().any(|field| field == "model"),
            parameters,
            strict: content.strict,
            caller_system: content.caller_system,
            capture: content.capture,
            engine: engine.map(Box::new),
        })
    }

    /// The model of a request: the version's own, the caller's where the version lets it win or names none.
    pub fn model_for<'a>(&'a self, callers: Option<&'a str>) -> Option<&'a str> {
        let own = self.model.as_deref();
        if self.model_override {
            callers.or(own)
        } else {
            own.or(callers)
        }
    }

    /// Returns a renderer of this version's segments on `values`.
    pub fn renderer<'a>(&'a self, values: &'a Vec<Given<'a>>, limit: usize) -> Renderer<'a> {
        Renderer::new(&self.variables, values, self.engine.as_deref(), limit)
    }
}

struct Compiler {
    problems: Vec<Problem>,
    variables: Vec<Variable>,
    /// Content without a `variables` key: templates declare what they use.
    infer: bool,
    engine: Option<Environment<'static>>,
}

impl Compiler {
    fn new(content: &Content) -> Self {
        Self {
            problems: Vec::new(),
            variables: Vec::new(),
            infer: content.variables.is_none(),
            engine: None,
        }
    }

    fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(path, message));
    }

    fn declared(&mut self, variables: Option<&Map<String, Value>>) {
        for (name, schema) in variables.into_iter().flatten() {
            match Variable::compile(name, schema) {
                Ok(variable) => self.variables.push(variable),
                Err(why) => {
                    self.problem(&format!("variables.{name}"), why);
                    self.variables.push(Variable::undeclared(name));
                }
            }
        }
    }

    fn partials(&mut self, partials: &Map<String, Value>) {
        for (name, text) in partials {
            self.engine_template(name, name, text.as_str().unwrap_or_default());
        }
    }

    /// Adds a template to the engine and checks the variables it uses.
    fn engine_template(&mut self, path: &str, name: &str, source: &str) {
        let engine = self.engine.get_or_insert_with(template::engine);
        if let Err(error) = engine.add_template_owned(name.to_owned(), source.to_owned()) {
            let why = template::explain(&error);
            return self.problem(path, why);
        }
        let globals: Vec<String> = engine.globals().map(|(name, _)| name.to_owned()).collect();
        let mut used: Vec<String> = match engine.get_template(name) {
            Ok(template) => template.undeclared_variables(false).into_iter().collect(),
            Err(_) => Vec::new(),
        };
        used.retain(|name| !globals.contains(name));
        used.sort();
        for name in used {
            self.variable(path, &name);
        }
    }

    /// Returns the index of a variable that a template uses.
    fn variable(&mut self, path: &str, name: &str) -> Option<usize> {
        if let Some(index) = self.variables.iter().position(|v| *v.name == *name) {
            return Some(index);
        }
        if self.infer {
            self.variables.push(Variable::undeclared(name));
            return Some(self.variables.len() - 1);
        }
        let near = self
            .variables
            .iter()
            .map(|v| (strsim::jaro_winkler(&v.name, name), v.name.as_ref()))
            .filter(|(score, _)| *score > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = match near {
            Some((_, near)) => format!("did you mean {near:?}?"),
            None => format!("add it to variables: {{{name:?}: {{\"type\": \"string\"}}}}"),
        };
        self.problem(path, format!("variable {name:?} is not declared, {hint}"));
        None
    }

    fn message(&mut self, at: usize, message: &Value) -> Option<Message> {
        let path = format!("messages[{at}]");
        let Some(fields) = message.as_object() else {
            self.problem(
                &path,
                format!("must be {{\"role\", \"content\"}} or {{\"placeholder\"}}, not {message}"),
            );
            return None;
        };
        if let Some(name) = fields.get("placeholder") {
            return self.placeholder(&path, name, fields.len());
        }
        const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
        match fields.get("role").map(Value::as_str) {
            Some(Some(role)) if ROLES.contains(&role) => {}
            _ => self.problem(&format!("{path}.role"), format!("must be one of {}", ROLES.join(", "))),
        }
        let needs_content = matches!(
            fields.get("role").and_then(Value::as_str),
            Some("system" | "developer" | "user")
        );
        if needs_content && !fields.contains_key("content") {
            self.problem(&format!("{path}.content"), "is missing");
        }
        let mut segments = Segments::default();
        segments.raw(b"{");
        for (i, (name, value)) in fields.iter().enumerate() {
            if i > 0 {
                segments.raw(b",");
            }
            json::string_into(&mut segments.open, name);
            segments.raw(b":");
            let field = format!("{path}.{name}");
            match (name.as_str(), value) {
                ("content", Value::String(_) | Value::Array(_)) => self.templated(&field, value, &mut segments),
                ("content", Value::Null) | (_, _) if name != "content" || value.is_null() => segments.json(value),
                _ => self.problem(&field, "must be a text or a list of parts"),
            }
        }
        segments.raw(b"}");
        Some(Message::Text(segments.finish()))
    }

    fn placeholder(&mut self, path: &str, name: &Value, fields: usize) -> Option<Message> {
        let Some(name) = name.as_str().filter(|_| fields == 1) else {
            self.problem(path, "a placeholder is {\"placeholder\": \"name\"} and nothing else");
            return None;
        };
        let variable = match self.variables.iter().position(|v| *v.name == *name) {
            Some(index) if self.variables[index].may_fill_a_placeholder() => index,
            Some(_) => {
                self.problem(
                    path,
                    format!("variable {name:?} fills a placeholder, its type must be \"messages\""),
                );
                return None;
            }
            None => {
                self.variables.push(Variable::placeholder(name));
                self.variables.len() - 1
            }
        };
        Some(Message::Placeholder {
            variable,
            history: name == HISTORY,
        })
    }

    /// Compiles a value whose strings are templates.
    fn templated(&mut self, path: &str, value: &Value, out: &mut Segments) {
        match value {
            Value::String(source) => {
                out.raw(b"\"");
                self.template(path, source, out);
                out.raw(b"\"");
            }
            Value::Array(items) => {
                out.raw(b"[");
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.raw(b",");
                    }
                    self.templated(&format!("{path}[{i}]"), item, out);
                }
                out.raw(b"]");
            }
            Value::Object(fields) => {
                out.raw(b"{");
                for (i, (name, field)) in fields.iter().enumerate() {
                    if i > 0 {
                        out.raw(b",");
                    }
                    json::string_into(&mut out.open, name);
                    out.raw(b":");
                    self.templated(&format!("{path}.{name}"), field, out);
                }
                out.raw(b"}");
            }
            other => out.json(other),
        }
    }

    fn template(&mut self, path: &str, source: &str, out: &mut Segments) {
        let Some(pieces) = template::plain_pieces(source) else {
            self.engine_template(path, path, source);
            return out.hole(Segment::Template(path.into()));
        };
        for piece in pieces {
            match piece {
                Piece::Text(text) => json::escape_into(&mut out.open, text),
                Piece::Variable(name) => {
                    if let Some(index) = self.variable(path, name) {
                        out.hole(Segment::Variable(index));
                    }
                }
            }
        }
    }

    fn parameters(&mut self, content: &Content) -> Vec<Parameter> {
        for name in content.parameters.keys() {
            if NOT_PARAMETERS.contains(&name.as_str()) {
                let path = format!("parameters.{name}");
                self.problem(&path, "is not a generation parameter, a version cannot set it here");
            }
        }
        for (at, name) in content.parameters.keys().enumerate() {
            if let Some(other) = content
                .parameters
                .keys()
                .skip(at + 1)
                .find(|other| same_parameter(name, other))
            {
                self.problem(
                    &format!("parameters.{other}"),
                    format!("says the same as {name:?}, keep one of them"),
                );
            }
        }
        if let Some(at) = content.tools.iter().position(|tool| !tool.is_object()) {
            self.problem(&format!("tools[{at}]"), "must be an object");
        }
        let mut fields: Vec<(&str, Value)> = content
            .parameters
            .iter()
            .map(|(n, v)| (n.as_str(), v.clone()))
            .collect();
        if !content.tools.is_empty() {
            fields.push(("tools", Value::Array(content.tools.clone())));
        }
        if let Some(format) = &content.response_format {
            fields.push(("response_format", format.clone()));
        }
        fields
            .into_iter()
            .map(|(name, value)| Parameter {
                name: name.into(),
                json: value.to_string().into(),
                overridable: content.overrides.iter().any(|field| same_parameter(field, name)),
            })
            .collect()
    }
}

/// Says whether two field names set the same thing, under the names of chat completions and of responses.
///
/// Source: <https://platform.openai.com/docs/api-reference/chat/create>: `max_tokens` is the former name of
/// `max_completion_tokens`, sending both is an error; <https://platform.openai.com/docs/guides/migrate-to-responses>.
pub fn same_parameter(a: &str, b: &str) -> bool {
    let canonical = |name| match name {
        "max_tokens" | "max_output_tokens" => "max_completion_tokens",
        "reasoning" => "reasoning_effort",
        "text" => "response_format",
        other => other,
    };
    canonical(a) == canonical(b)
}

/// Collects literal bytes and holes into segments.
#[derive(Default)]
struct Segments {
    done: Vec<Segment>,
    open: Vec<u8>,
}

impl Segments {
    fn raw(&mut self, bytes: &[u8]) {
        self.open.extend_from_slice(bytes);
    }

    fn json(&mut self, value: &Value) {
        self.raw(value.to_string().as_bytes());
    }

    fn hole(&mut self, segment: Segment) {
        let literal = std::mem::take(&mut self.open);
        self.done.push(Segment::Literal(literal.into()));
        self.done.push(segment);
    }

    fn finish(mut self) -> Vec<Segment> {
        self.done.push(Segment::Literal(self.open.into()));
        self.done.shrink_to_fit();
        self.done
    }
}

#[cfg(test)]
mod tests;
