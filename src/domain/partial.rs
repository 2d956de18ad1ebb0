//! Partials: `{% include "prompt:id" %}` and `{% include "prompt:id:3" %}` in a template.
//!
//! This reads templates just far enough to find the tags that load other templates and to write explicit versions into
//! them; what the tags mean is the template engine's business. It lexes as minijinja does: comments and raw blocks are
//! skipped, strings and brackets inside a tag hide its end. A template that is cut off inside a tag has no references:
//! the compiler says what is wrong with it.

use std::ops::Range;

use serde_json::Value;

use super::content::Content;
use super::prompt::PromptName;
use super::version::Problem;

/// What the literal of a tag must start with.
const SCHEME: &str = "prompt:";

/// Tags that load another template.
const LOADING_TAGS: [&str; 4] = ["include", "import", "from", "extends"];

/// A tag that names a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The prompt's id or alias.
    pub id: &'a str,
    /// The version, if the tag names one.
    pub version: Option<u32>,
    /// Where the literal is in the template, between its quotes.
    pub place: Range<usize>,
}

/// Returns the name under which a version is frozen: `prompt:support/tone:3`.
pub fn frozen_name(id: &str, version: u32) -> String {
    format!("{SCHEME}{id}:{version}")
}

/// Finds the prompts that a template loads, in order.
///
/// # Errors
/// A sentence for each tag that loads anything but a prompt named by a literal.
pub fn references(template: &str) -> Result<Vec<Reference<'_>>, Vec<String>> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    let mut at = 0;
    while let Some(open) = template[at..].find('{').map(|offset| at + offset) {
        let rest = &template[open + 1..];
        at = match rest.as_bytes().first() {
            Some(b'#') => end_of_comment(template, open),
            Some(b'{') => end_of_tag(template, open + 2, "}}"),
            Some(b'%') => match end_of_raw(template, open + 2) {
                Some(end) => end,
                None => {
                    let end = end_of_tag(template, open + 2, "%}");
                    match loaded(template, open + 2..end) {
                        Some(Ok(reference)) => found.push(reference),
                        Some(Err(problem)) => problems.push(problem),
                        None => {}
                    }
                    end
                }
            },
            _ => open + 1,
        };
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// Returns the template with each reference replaced by the name that `freeze` gives it.
pub fn rewrite(template: &str, references: &[Reference<'_>], freeze: impl Fn(&Reference<'_>) -> String) -> String {
    let mut out = String::with_capacity(template.len() + 8 * references.len());
    let mut copied = 0;
    for reference in references {
        out.push_str(&template[copied..reference.place.start]);
        out.push_str(&freeze(reference));
        copied = reference.place.end;
    }
    out.push_str(&template[copied..]);
    out
}

/// Calls `visit` with each template string of a content's messages and its path.
pub fn visit_templates(content: &mut Content, visit: &mut impl FnMut(&str, &mut String)) {
    for (at, message) in content.messages.iter_mut().enumerate() {
        if let Some(template) = message.get_mut("content") {
            visit_value(&format!("messages[{at}].content"), template, visit);
        }
    }
}

fn visit_value(path: &str, value: &mut Value, visit: &mut impl FnMut(&str, &mut String)) {
    match value {
        Value::String(template) => visit(path, template),
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                visit_value(&format!("{path}[{at}]"), item, visit);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                visit_value(&format!("{path}.{name}"), field, visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Returns the text of a content that can be included.
///
/// # Errors
/// A sentence when it is anything but one message with text.
pub fn includable_text(content: &Content) -> Result<&str, String> {
    match content.messages.as_slice() {
        [message] => message.get("content").and_then(Value::as_str),
        _ => None,
    }
    .ok_or_else(|| "only a prompt of exactly one message with text can be included".to_owned())
}

/// A problem at a path.
pub(crate) fn problem(path: &str, message: impl Into<String>) -> Problem {
    Problem {
        path: path.to_owned(),
        message: message.into(),
    }
}

fn end_of_comment(template: &str, open: usize) -> usize {
    let inside = open + 2;
    template[inside..]
        .find("#}")
        .map_or(template.len(), |offset| inside + offset + 2)
}

/// Returns the offset behind `close`, which counts only outside of strings and brackets.
fn end_of_tag(template: &str, start: usize, close: &str) -> usize {
    let bytes = template.as_bytes();
    let mut depth = 0usize;
    let mut at = start;
    while at < bytes.len() {
        if depth == 0 && bytes[at..].starts_with(close.as_bytes()) {
            return at + close.len();
        }
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at = end_of_string(bytes, at + 1, quote);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Returns the offset behind the closing quote.
fn end_of_string(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// If a raw block starts at `inside` (behind `{%`), returns the offset behind its `{% endraw %}`.
fn end_of_raw(template: &str, inside: usize) -> Option<usize> {
    let mut at = inside + basic_tag(&template[inside..], "raw")?;
    while let Some(open) = template[at..].find("{%") {
        at += open + 2;
        if let Some(end) = basic_tag(&template[at..], "endraw") {
            return Some(at + end);
        }
    }
    Some(template.len())
}

/// If `text` is the inside of a tag of just one word, returns the length up to and with its `%}`.
fn basic_tag(text: &str, word: &str) -> Option<usize> {
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let rest = rest.trim_ascii_start().strip_prefix(word)?.trim_ascii_start();
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
    Some(text.len() - rest.len())
}

/// Reads the inside of one `{% … %}` tag; `None` if it loads nothing.
fn loaded(template: &str, tag: Range<usize>) -> Option<Result<Reference<'_>, String>> {
    let inside = template[tag.clone()].strip_suffix("%}")?;
    let inside = inside.strip_suffix(['-', '+']).unwrap_or(inside);
    let body = inside.strip_prefix(['-', '+']).unwrap_or(inside).trim_ascii_start();
    let word_end = body
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(body.len());
    let (word, rest) = body.split_at(word_end);
    if !LOADING_TAGS.contains(&word) {
        return None;
    }
    let refused = || {
        format!(
            "{{% {word}{} %}}: includes from disk or computed names are not available, \
             write for instance {{% include \"prompt:support/tone\" %}}",
            rest.trim_end()
        )
    };
    Some(literal(word, rest).ok_or_else(refused).and_then(|name| {
        let start = tag.start + offset_in(&template[tag.clone()], name);
        reference(name, start).ok_or_else(refused)
    }))
}

/// Returns the literal that a loading tag names, if it names nothing else.
fn literal<'a>(word: &str, rest: &'a str) -> Option<&'a str> {
    let rest = rest.trim_ascii_start();
    let quote = *rest.as_bytes().first().filter(|byte| matches!(byte, b'"' | b'\''))?;
    let end = end_of_string(rest.as_bytes(), 1, quote);
    let name = rest.get(1..end - 1)?;
    let after = rest.get(end..)?.split_ascii_whitespace().next();
    let complete = match (word, after) {
        ("include", after) => matches!(after, None | Some("ignore" | "with" | "without")),
        ("import", after) => after == Some("as"),
        ("from", after) => after == Some("import"),
        (_, after) => after.is_none(),
    };
    (complete && !name.contains('\\')).then_some(name)
}

fn reference(name: &str, start: usize) -> Option<Reference<'_>> {
    let named = name.strip_prefix(SCHEME)?;
    let place = start..start + name.len();
    let parsed = match PromptName::parse(named) {
        // An environment cannot be frozen: it is part of the name here, and no prompt has it.
        PromptName {
            environment: Some(_), ..
        } => (named, None),
        PromptName { id, version: None, .. } => (id, None),
        PromptName {
            id,
            version: Some(version),
            ..
        } => (id, Some(version.parse().ok()?)),
    };
    Some(Reference {
        id: parsed.0,
        version: parsed.1,
        place,
    })
}

/// Where `part`, a slice of `whole`, begins in it.
fn offset_in(whole: &str, part: &str) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
}

#[cfg(test)]
mod tests;
