//! Helicone: prompt versions with their bodies, as `POST /v1/prompt-2025/query/versions` with `includePromptBody` answers, and
//! prompts' names, as `POST /v1/prompt-2025/query` does. A file that is a body alone is a prompt of the file's name.
//!
//! Source: <https://docs.helicone.ai/rest/prompts/post-v1prompt-2025-query-versions>,
//! <https://docs.helicone.ai/features/advanced-usage/prompts/overview>.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::text::{Template, name};
use super::{Imported, Source, Version, all_objects, parameters, stem, text_of, texts_of};
use crate::domain::content::Content;

pub fn import(sources: &[Source<'_>]) -> Imported {
    let mut imported = Imported::default();
    let all = all_objects(sources, &mut imported);
    let is_version = |value: &Value| value["prompt_id"].is_string() || value["messages"].is_array();
    let (mut versions, about): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, value)| is_version(value));
    let number = |value: &Value, name: &str| value[name].as_f64().unwrap_or_default();
    versions.sort_by(|(_, a), (_, b)| {
        let key = |value| (number(value, "major_version"), number(value, "minor_version"));
        key(a).partial_cmp(&key(b)).unwrap_or(std::cmp::Ordering::Equal)
    });
    for (path, value) in versions {
        let id = match text_of(&value["prompt_id"]) {
            id if id.is_empty() => stem(&path).to_owned(),
            id => id,
        };
        let prompt = imported.prompt(&id);
        let label = match value["prompt_id"].is_string() {
            true => format!(
                "{}.{}",
                number(&value, "major_version"),
                number(&value, "minor_version")
            ),
            false => (prompt.versions.len() + 1).to_string(),
        };
        let body = if value["messages"].is_array() {
            &value
        } else {
            &value["prompt_body"]
        };
        let Some(body) = body.as_object() else {
            prompt.note(format!(
                "version {label} has no prompt_body: export it with includePromptBody"
            ));
            continue;
        };
        let mut labels = texts_of(&value["environments"]);
        labels.extend(Some(text_of(&value["environment"])).filter(|label| !label.is_empty()));
        let mut notes = Vec::new();
        let content = content(body, &text_of(&value["model"]), &mut notes);
        notes
            .into_iter()
            .for_each(|note| prompt.note(format!("version {label}: {note}")));
        prompt.versions.push(Version {
            name: label,
            message: text_of(&value["commit_message"]),
            labels,
            content,
        });
    }
    for (path, value) in about {
        let (id, called) = (text_of(&value["id"]), text_of(&value["name"]));
        match imported.prompts.iter_mut().find(|prompt| prompt.source == id) {
            Some(prompt) => {
                if !called.is_empty() {
                    prompt.id = super::prompt_id(&called);
                }
                prompt.tags = texts_of(&value["tags"]);
            }
            None if !id.is_empty() => imported.prompt(&id).note("there is no version of it in the export"),
            None => imported
                .notes
                .push(format!("{path}: an object is neither a prompt nor a version: left out")),
        }
    }
    imported
}

fn content(body: &Map<String, Value>, model: &str, notes: &mut Vec<String>) -> Content {
    let mut content = Content::default();
    let mut variables: BTreeMap<String, Value> = BTreeMap::new();
    for message in body.get("messages").and_then(Value::as_array).into_iter().flatten() {
        let mut message = message.clone();
        if let Some(part) = message.get_mut("content") {
            convert(part, &mut variables, notes);
        }
        content.messages.push(message);
    }
    let settings: Map<String, Value> = body
        .iter()
        .filter(|(name, _)| {
            !matches!(
                name.as_str(),
                "messages" | "prompt_id" | "id" | "environment" | "environments"
            )
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for (name, value) in &settings {
        if value.to_string().contains("{{hc:") {
            notes.push(format!(
                "{name}: variables are only put into messages, {{{{hc:…}}}} stays as it is there"
            ));
        }
    }
    if !model.is_empty() {
        content.model = Some(model.to_owned());
    }
    parameters::carry(&settings, "prompt_body", &mut content, notes);
    if !variables.is_empty() {
        content.variables = Some(variables.into_iter().collect());
    }
    content
}

/// Converts every text of a message's content.
fn convert(value: &mut Value, variables: &mut BTreeMap<String, Value>, notes: &mut Vec<String>) {
    match value {
        Value::String(text) => *text = template(text, variables, notes),
        Value::Array(items) => items.iter_mut().for_each(|item| convert(item, variables, notes)),
        Value::Object(fields) => {
            for (name, field) in fields {
                if name != "type" {
                    convert(field, variables, notes);
                }
            }
        }
        _ => {}
    }
}

/// Converts `{{hc:name:type}}`.
fn template(text: &str, variables: &mut BTreeMap<String, Value>, notes: &mut Vec<String>) -> String {
    let mut template = Template::default();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        template.literal(&rest[..open]);
        let tail = &rest[open..];
        let inside = tail[2..].split_once("}}");
        let Some((variable, after)) =
            inside.and_then(|(inside, after)| Some((inside.trim().strip_prefix("hc:")?, after)))
        else {
            if tail.starts_with("{{hcp:") {
                notes.push(
                    "a part of another prompt ({{hcp:…}}) stays as text: write {% include \"prompt:…\" %}".to_owned(),
                );
            }
            template.literal("{{");
            rest = &tail[2..];
            continue;
        };
        let (called, kind) = variable.split_once(':').unwrap_or((variable, "string"));
        let called = name(called.trim(), notes);
        let schema = match kind.trim() {
            kind @ ("string" | "number" | "boolean") => json!({"type": kind}),
            other => {
                notes.push(format!(
                    "variable {called:?} has the type {other:?}: any value is taken"
                ));
                json!({})
            }
        };
        variables.insert(called.clone(), schema);
        template.expression(&called);
        rest = after;
    }
    template.literal(rest);
    template.finish()
}
