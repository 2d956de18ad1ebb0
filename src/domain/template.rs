//! Templates compiled to what a request needs: bytes that are already JSON, and holes.
//!
//! Most prompts are text with `{{ name }}` in it. Those never meet the template engine: their literal text is escaped for
//! JSON once, when the version is compiled, and a request copies it and escapes the values in between. Everything else
//! (conditions, loops, filters, expressions) is rendered by minijinja, with bounded work. Both ways give the same text;
//! a property test holds them to it.
//!
//! Values are inert: they are put in after compilation and never read as templates.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};

use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::json::escape_into;
use crate::domain::variables::{Given, Values, Variable};

/// One stretch of a message's JSON text.
#[derive(Debug, PartialEq)]
pub enum Segment {
    /// Bytes of JSON, copied as they are.
    Literal(Box<[u8]>),
    /// The variable of that index, inside a JSON string.
    Variable(usize),
    /// The engine's template of that name, inside a JSON string.
    Template(Box<str>),
}

/// The work one rendering may do, in minijinja's fuel: about one an instruction and one per 64 bytes produced.
const FUEL: u64 = 200_000;

/// How deep macros and includes may nest.
const RECURSION: usize = 50;

/// Returns the engine in which a version's templates live.
pub fn engine() -> Environment<'static> {
    let mut engine = Environment::new();
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    engine.set_syntax(syntax.expect("the default delimiters are valid"));
    // Printing, looping over and computing with what is undefined fails; asking whether it is there does not.
    engine.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    engine.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    engine.set_fuel(Some(FUEL));
    engine.set_recursion_limit(RECURSION);
    engine.set_debug(false);
    engine.remove_global("debug");
    engine
}

/// A piece of a template that the engine is not needed for.
#[derive(Debug, PartialEq)]
pub enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// Splits a template into text and plain `{{ name }}`; `None` if there is anything else in it.
pub fn plain_pieces(source: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = source;
    while let Some(open) = find_tag(rest) {
        if open > 0 {
            pieces.push(Piece::Text(&rest[..open]));
        }
        let inside = rest[open..].strip_prefix("{{")?;
        let close = inside.find("}}")?;
        let name = inside[..close].trim_matches([' ', '\t', '\n', '\r']);
        let mut bytes = name.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !starts || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') || KEYWORDS.contains(&name) {
            return None;
        }
        pieces.push(Piece::Variable(name));
        rest = &inside[close + 2..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Some(pieces)
}

/// Names that mean something else than a variable to the engine.
const KEYWORDS: [&str; 15] = [
    "true", "false", "none", "True", "False", "None", "not", "and", "or", "in", "is", "if", "else", "self", "loop",
];

/// Finds the first `{{`, `{%` or `{#`.
fn find_tag(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'{', bytes).find(|at| matches!(bytes.get(at + 1), Some(b'{' | b'%' | b'#')))
}

/// Renders segments to JSON bytes.
///
/// The engine's context is built on first need, once for all segments of a request.
pub struct Renderer<'a> {
    pub variables: &'a [Variable],
    pub values: &'a Values<'a>,
    pub engine: Option<&'a Environment<'static>>,
    /// The most bytes `out` may reach.
    pub limit: usize,
    context: Option<minijinja::Value>,
}

impl<'a> Renderer<'a> {
    pub fn new(
        variables: &'a [Variable],
        values: &'a Values<'a>,
        engine: Option<&'a Environment<'static>>,
        limit: usize,
    ) -> Self {
        Self {
            variables,
            values,
            engine,
            limit,
            context: None,
        }
    }

    /// Appends the segments to `out`.
    ///
    /// # Errors
    /// [`ErrorCode::RenderFailed`] when a template fails on these values or the text grows beyond the limit.
    pub fn render(&mut self, segments: &[Segment], out: &mut Vec<u8>) -> Result<(), ApiError> {
        for segment in segments {
            match segment {
                Segment::Literal(bytes) => out.extend_from_slice(bytes),
                Segment::Variable(index) => match &self.values[*index] {
                    Given::Text(text) => escape_into(out, text),
                    given => escape_into(out, &given.to_template().to_string()),
                },
                Segment::Template(name) => {
                    let text = self.template(name).map_err(|error| failed(&error))?;
                    escape_into(out, &text);
                }
            }
            if out.len() > self.limit {
                return Err(ApiError::new(
                    ErrorCode::RenderFailed,
                    format!(
                        "the rendered prompt is larger than {} bytes (limits.max_render_bytes)",
                        self.limit
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Renders one template of the engine as plain text.
    ///
    /// # Errors
    /// The engine's.
    pub fn template(&mut self, name: &str) -> Result<String, minijinja::Error> {
        let engine = self.engine.expect("a version with templates has an engine");
        let context = self.context.get_or_insert_with(|| {
            let pairs = self.variables.iter().zip(self.values);
            let map: std::collections::BTreeMap<String, minijinja::Value> = pairs
                .map(|(variable, given)| (variable.name.to_string(), given.to_template()))
                .collect();
            minijinja::Value::from(map)
        });
        engine.get_template(name)?.render(context.clone())
    }
}

fn failed(error: &minijinja::Error) -> ApiError {
    ApiError::new(
        ErrorCode::RenderFailed,
        format!("the template failed on these variables: {}", explain(error)),
    )
    .param("prompt.variables")
}

/// Returns the engine's error as one sentence, with its line.
pub fn explain(error: &minijinja::Error) -> String {
    let what = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    match error.line() {
        Some(line) => format!("{what} (line {line})"),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    #[test]
    fn plain_pieces_leaves_expressions_to_the_engine() {
        use Piece::{Text, Variable};
        assert_eq!(
            plain_pieces("a {{ b }}\n{{c}}{"),
            Some(vec![Text("a "), Variable("b"), Text("\n"), Variable("c"), Text("{")])
        );
        for engine in [
            "{{ a.b }}",
            "{{- a }}",
            "{% if a %}",
            "{# c #}",
            "{{ true }}",
            "{{ a|upper }}",
            "{{ a",
            "{{{a}}}",
        ] {
            assert_eq!(plain_pieces(engine), None, "{engine}");
        }
    }

    fn plain(source: &str, values: &Values<'_>, variables: &[Variable]) -> Option<String> {
        let pieces = plain_pieces(source)?;
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Variable(name) => {
                    let index = variables.iter().position(|v| *v.name == *name)?;
                    match &values[index] {
                        Given::Text(text) => out.push_str(text),
                        given => out.push_str(&given.to_template().to_string()),
                    }
                }
            }
        }
        Some(out)
    }

    proptest! {
        /// The shortcut and the engine agree on every template that the shortcut takes.
        #[test]
        fn plain_rendering_equals_the_engine(
            source in r"([a-z \n\t{}%#\\]|\{\{ ?[ab] ?\}\}){0,12}",
            text in any::<String>(),
            number in prop_oneof![any::<i64>().prop_map(|n| n.to_string()), any::<f64>().prop_map(|f| serde_json::json!(f).to_string())],
        ) {
            let variables = [Variable::undeclared("a"), Variable::undeclared("b")];
            let raw: &RawValue = serde_json::from_str(&number).unwrap();
            let values = vec![Given::Text(text.into()), Given::Json(raw.get().into())];
            if let Some(fast) = plain(&source, &values, &variables) {
                let mut engine = engine();
                engine.add_template_owned("t", source).unwrap();
                let slow = Renderer::new(&variables, &values, Some(&engine), 0).template("t").unwrap();
                prop_assert_eq!(fast, slow);
            }
        }
    }
}
