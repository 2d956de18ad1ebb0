//! OpenAI's prompt objects (`pmpt_…`).
//!
//! OpenAI documents how a prompt is used, and no call that exports one; what is read here is what its dashboard shows, in the
//! field names of the Responses API: `id`, `version`, `name`, `model`, `instructions`, `input` or `messages`, `tools`, `text.format`,
//! `reasoning` and the parameters. The id stays as an alias, so that `{"prompt": {"id": "pmpt_…"}}` works unchanged.
//!
//! Source: <https://developers.openai.com/api/docs/guides/prompting>,
//! <https://developers.openai.com/api/docs/guides/prompting/migrate-from-prompt-object>,
//! <https://platform.openai.com/docs/api-reference/responses/create>.

use serde_json::{Map, Value, json};

use super::text::mustache;
use super::{Imported, Source, Version, all_objects, parameters, text_of};
use crate::domain::content::Content;

/// Fields that say something else than what is sent.
const ABOUT: [&str; 14] = [
    "id",
    "prompt_id",
    "object",
    "version",
    "name",
    "description",
    "created_at",
    "updated_at",
    "is_default",
    "variables",
    "instructions",
    "input",
    "messages",
    "default",
];

pub fn import(sources: &[Source<'_>]) -> Imported {
    let mut imported = Imported::default();
    let mut all = all_objects(sources, &mut imported);
    all.sort_by_key(|(_, value)| text_of(&value["version"]).parse::<u64>().unwrap_or_default());
    for (path, value) in all {
        let id = [&value["id"], &value["prompt_id"]]
            .into_iter()
            .map(text_of)
            .find(|id| !id.is_empty());
        let Some(id) = id else {
            imported
                .notes
                .push(format!("{path}: an object without an id is no prompt: left out"));
            continue;
        };
        let called = text_of(&value["name"]);
        let prompt = imported.prompt(&id);
        if !called.is_empty() {
            prompt.id = super::prompt_id(&called);
        }
        prompt.description = text_of(&value["description"]);
        let (mut content, mut notes) = (Content::default(), Vec::new());
        match &value["instructions"] {
            Value::String(text) => {
                content
                    .messages
                    .push(json!({"role": "developer", "content": mustache(text, &mut notes)}));
            }
            Value::Array(items) => messages(items, &mut content, &mut notes),
            _ => {}
        }
        for field in ["messages", "input"] {
            match &value[field] {
                Value::String(text) => content
                    .messages
                    .push(json!({"role": "user", "content": mustache(text, &mut notes)})),
                Value::Array(items) => messages(items, &mut content, &mut notes),
                _ => {}
            }
        }
        let fields = value.as_object().cloned().unwrap_or_default();
        let mut settings: Map<String, Value> = fields
            .into_iter()
            .filter(|(name, _)| !ABOUT.contains(&name.as_str()))
            .collect();
        if let Some(text) = settings.remove("text") {
            content.response_format = parameters::response_format(&text["format"]);
            if let Some(verbosity) = text["verbosity"].as_str() {
                settings.insert("verbosity".to_owned(), json!(verbosity));
            }
        }
        if let Some(reasoning) = settings.remove("reasoning") {
            for (name, value) in reasoning
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(_, value)| !value.is_null())
            {
                match name.as_str() {
                    "effort" => _ = settings.insert("reasoning_effort".to_owned(), value.clone()),
                    other => notes.push(format!("reasoning.{other} has no place in a chat: left out")),
                }
            }
        }
        parameters::carry(&settings, "prompt", &mut content, &mut notes);
        let version = match text_of(&value["version"]) {
            version if version.is_empty() => (prompt.versions.len() + 1).to_string(),
            version => version,
        };
        notes
            .into_iter()
            .for_each(|note| prompt.note(format!("version {version}: {note}")));
        let default = value["is_default"] == true;
        prompt.versions.push(Version {
            name: version,
            message: String::new(),
            labels: default.then(|| "default".to_owned()).into_iter().collect(),
            content,
        });
    }
    imported
}

fn messages(items: &[Value], content: &mut Content, notes: &mut Vec<String>) {
    for item in items {
        if !matches!(item["type"].as_str(), None | Some("message")) {
            notes.push(format!(
                "an input item of type {} is no message: left out",
                item["type"]
            ));
            continue;
        }
        let text = match &item["content"] {
            Value::String(text) => json!(mustache(text, notes)),
            Value::Array(parts) => parts_of(parts, notes),
            other => other.clone(),
        };
        content
            .messages
            .push(json!({"role": text_of(&item["role"]), "content": text}));
    }
}

/// Texts that are all there is become one text.
fn parts_of(parts: &[Value], notes: &mut Vec<String>) -> Value {
    let mut out = Vec::new();
    for part in parts {
        match part["type"].as_str() {
            Some("input_text" | "output_text" | "text") => {
                out.push(json!({"type": "text", "text": mustache(&text_of(&part["text"]), notes)}));
            }
            Some("input_image") if part["image_url"].is_string() => {
                let url = mustache(&text_of(&part["image_url"]), notes);
                out.push(json!({"type": "image_url", "image_url": {"url": url}}));
            }
            Some("image_url") => out.push(part.clone()),
            _ => notes.push(format!("a content part of type {} is left out", part["type"])),
        }
    }
    match out.as_slice() {
        [one] if one["type"] == "text" => one["text"].clone(),
        _ => Value::Array(out),
    }
}
