//! What changed between two contents, as people think of it: message by message and word by word, then parameters,
//! tools, variables and the rest by name.

mod written;

use serde::Serialize;
use serde_json::{Map, Value};
use similar::{Algorithm, ChangeTag, DiffOp, TextDiff, capture_diff_slices};

use crate::domain::content::Content;

/// How long the search for the shortest difference of one text may take; then a longer one will do.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(300);

/// Whether something is there on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Same,
    Added,
    Removed,
    Changed,
}

/// A stretch of text: on both sides, or only in the old or the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hunk {
    /// `same`, `removed` or `added`.
    pub op: ChangeKind,
    pub text: String,
}

/// One named value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    pub name: String,
    pub change: ChangeKind,
    /// `null` where it is missing.
    pub from: Value,
    pub to: Value,
}

/// One message, or a pair of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessageDiff {
    pub change: ChangeKind,
    /// Its place in the old messages, from 0.
    pub from: Option<usize>,
    pub to: Option<usize>,
    /// `system`, or `placeholder history`.
    pub kind: String,
    /// Its text, word by word.
    pub text: Vec<Hunk>,
    /// What changed of its other fields.
    pub fields: Vec<Entry>,
}

/// A frozen partial, or one field of text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextEntry {
    pub name: String,
    pub change: ChangeKind,
    pub text: Vec<Hunk>,
}

/// Everything that changed. Lists of names have only what differs; `messages` has all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContentDiff {
    /// Whether both become the same request: their hashes agree.
    pub same: bool,
    pub messages: Vec<MessageDiff>,
    pub variables: Vec<Entry>,
    pub parameters: Vec<Entry>,
    pub tools: Vec<Entry>,
    pub partials: Vec<TextEntry>,
    /// `model`, `response_format`, `strict`, `caller_system`, `notes`.
    pub settings: Vec<Entry>,
    pub overrides_added: Vec<String>,
    pub overrides_removed: Vec<String>,
    /// What has the same entries in another order, which reaches the model as well.
    pub reordered: Vec<&'static str>,
}

/// Compares two contents in their normal form.
pub fn diff(old: &Content, new: &Content) -> ContentDiff {
    let none = Map::new();
    let (old_variables, new_variables) = (
        old.variables.as_ref().unwrap_or(&none),
        new.variables.as_ref().unwrap_or(&none),
    );
    let (old_tools, new_tools) = (named_tools(&old.tools), named_tools(&new.tools));
    let mut reordered = Vec::new();
    for (name, old, new) in [
        ("variables", old_variables, new_variables),
        ("parameters", &old.parameters, &new.parameters),
        ("tools", &old_tools, &new_tools),
    ] {
        if old.len() == new.len() && old.keys().all(|key| new.contains_key(key)) && !old.keys().eq(new.keys()) {
            reordered.push(name);
        }
    }
    let missing = |here: &[String], there: &[String]| -> Vec<String> {
        here.iter().filter(|name| !there.contains(name)).cloned().collect()
    };
    ContentDiff {
        same: old.hash() == new.hash(),
        messages: messages(&old.messages, &new.messages),
        variables: entries(old_variables, new_variables),
        parameters: entries(&old.parameters, &new.parameters),
        tools: entries(&old_tools, &new_tools),
        partials: partials(&old.partials, &new.partials),
        settings: entries(&settings(old), &settings(new)),
        overrides_added: missing(&new.overrides, &old.overrides),
        overrides_removed: missing(&old.overrides, &new.overrides),
        reordered,
    }
}

/// Whether two values are the same to the last byte: the order of fields is content.
fn identical(one: &Value, other: &Value) -> bool {
    let (one, other) = (one.to_string(), other.to_string());
    one == other
}

/// Compares by name; the new order first, then what is gone.
fn entries(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<Entry> {
    let entry = |name: &str, change| Entry {
        name: name.to_owned(),
        change,
        from: old.get(name).cloned().unwrap_or_default(),
        to: new.get(name).cloned().unwrap_or_default(),
    };
    let present = new.iter().filter_map(|(name, value)| match old.get(name) {
        Some(before) if identical(before, value) => None,
        Some(_) => Some(entry(name, ChangeKind::Changed)),
        None => Some(entry(name, ChangeKind::Added)),
    });
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    present
        .chain(gone.map(|name| entry(name, ChangeKind::Removed)))
        .collect()
}

/// Tools by their function's name; those without one, or with one that was there, by their place.
fn named_tools(tools: &[Value]) -> Map<String, Value> {
    let mut named = Map::new();
    for (at, tool) in tools.iter().enumerate() {
        let name = tool["function"]["name"].as_str().or(tool["name"].as_str());
        let name = match name {
            Some(name) if !named.contains_key(name) => name.to_owned(),
            _ => format!("tools[{at}]"),
        };
        named.insert(name, tool.clone());
    }
    named
}

fn settings(content: &Content) -> Map<String, Value> {
    let mut settings = Map::new();
    let whole = serde_json::to_value(content).unwrap_or_default();
    for name in ["model", "response_format", "strict", "caller_system", "notes"] {
        if let Some(value) = whole.get(name) {
            settings.insert(name.to_owned(), value.clone());
        }
    }
    settings
}

fn partials(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<TextEntry> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries(old, new)
        .into_iter()
        .map(|entry| TextEntry {
            text: words(&text(&entry.from), &text(&entry.to)),
            name: entry.name,
            change: entry.change,
        })
        .collect()
}

/// Compares two texts word by word, white space included.
pub fn words(old: &str, new: &str) -> Vec<Hunk> {
    let diff = TextDiff::configure().timeout(PATIENCE).diff_words(old, new);
    let mut hunks: Vec<Hunk> = Vec::new();
    for change in diff.iter_all_changes() {
        let op = match change.tag() {
            ChangeTag::Equal => ChangeKind::Same,
            ChangeTag::Delete => ChangeKind::Removed,
            ChangeTag::Insert => ChangeKind::Added,
        };
        match hunks.last_mut() {
            Some(last) if last.op == op => last.text.push_str(change.value()),
            _ => hunks.push(Hunk {
                op,
                text: change.value().to_owned(),
            }),
        }
    }
    hunks
}

/// Puts messages side by side: equal ones first, and among the rest those of the same kind in their order.
fn messages(old: &[Value], new: &[Value]) -> Vec<MessageDiff> {
    let as_text = |messages: &[Value]| messages.iter().map(Value::to_string).collect::<Vec<_>>();
    let kinds = |messages: &[Value]| messages.iter().map(kind).collect::<Vec<_>>();
    let (old_kinds, new_kinds) = (kinds(old), kinds(new));
    let mut diffs = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, &as_text(old), &as_text(new)) {
        if let DiffOp::Equal {
            old_index,
            new_index,
            len,
        } = op
        {
            diffs.extend((0..len).map(|i| pair(old, new, Some(old_index + i), Some(new_index + i))));
            continue;
        }
        let (from, to) = (op.old_range(), op.new_range());
        for op in capture_diff_slices(Algorithm::Myers, &old_kinds[from.clone()], &new_kinds[to.clone()]) {
            let (olds, news) = (op.old_range(), op.new_range());
            if matches!(op, DiffOp::Equal { .. }) {
                let pairs = olds.zip(news);
                diffs.extend(pairs.map(|(i, j)| pair(old, new, Some(from.start + i), Some(to.start + j))));
            } else {
                diffs.extend(olds.map(|i| pair(old, new, Some(from.start + i), None)));
                diffs.extend(news.map(|j| pair(old, new, None, Some(to.start + j))));
            }
        }
    }
    diffs
}

fn kind(message: &Value) -> String {
    match message["placeholder"].as_str() {
        Some(name) => format!("placeholder {name}"),
        None => message["role"].as_str().unwrap_or("message").to_owned(),
    }
}

fn pair(old: &[Value], new: &[Value], from: Option<usize>, to: Option<usize>) -> MessageDiff {
    let none = Value::Null;
    let before = from.map_or(&none, |at| &old[at]);
    let after = to.map_or(&none, |at| &new[at]);
    MessageDiff {
        change: match (from, to) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ if identical(before, after) => ChangeKind::Same,
            _ => ChangeKind::Changed,
        },
        from,
        to,
        kind: kind(if to.is_some() { after } else { before }),
        text: words(&text_of(before), &text_of(after)),
        fields: entries(&other_fields(before), &other_fields(after)),
    }
}

/// A message's text; that of several parts as indented JSON.
fn text_of(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        parts => format!("{parts:#}"),
    }
}

fn other_fields(message: &Value) -> Map<String, Value> {
    let fields = message.as_object().cloned().unwrap_or_default();
    let other = |name: &str| !matches!(name, "content" | "role" | "placeholder");
    fields.into_iter().filter(|(name, _)| other(name)).collect()
}

#[cfg(test)]
mod tests;
