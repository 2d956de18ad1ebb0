//! Langfuse: the answers of `GET /api/public/v2/prompts/{name}?version=N`, one object a version.
//!
//! Source: <https://langfuse.com/docs/prompt-management/data-model>,
//! <https://langfuse.com/docs/prompt-management/features/message-placeholders>,
//! <https://langfuse.com/docs/prompt-management/features/composability>.

use serde_json::{Value, json};

use super::text::{Template, mustache, name};
use super::{Imported, Source, Version, all_objects, parameters, prompt_id, text_of, texts_of};
use crate::domain::content::Content;

/// How a prompt names another one in its text.
const REFERENCE: &str = "@@@langfusePrompt:";

pub fn import(sources: &[Source<'_>]) -> Imported {
    let mut imported = Imported::default();
    let mut all = all_objects(sources, &mut imported);
    all.sort_by_key(|(_, value)| value["version"].as_u64());
    for (path, value) in all {
        let source = text_of(&value["name"]);
        if source.is_empty() {
            imported
                .notes
                .push(format!("{path}: an object without a name is no prompt: left out"));
            continue;
        }
        let prompt = imported.prompt(&source);
        if value["prompt"].is_null() {
            let versions = value["versions"].to_string();
            prompt.note(format!(
                "the list names versions {versions} without their text: export each with its version"
            ));
            continue;
        }
        prompt.tags = texts_of(&value["tags"]);
        let mut content = Content::default();
        let mut notes = Vec::new();
        match &value["prompt"] {
            Value::String(text) => content
                .messages
                .push(json!({"role": "user", "content": convert(text, &mut notes)})),
            Value::Array(messages) => {
                content.messages = messages.iter().map(|one| message(one, &mut notes)).collect();
            }
            _ => notes.push("prompt is neither a text nor a list of messages".to_owned()),
        }
        match &value["config"] {
            Value::Object(config) => parameters::carry(config, "config", &mut content, &mut notes),
            Value::Null => {}
            _ => notes.push("config is not an object: left out".to_owned()),
        }
        let version = text_of(&value["version"]);
        notes
            .into_iter()
            .for_each(|note| prompt.note(format!("version {version}: {note}")));
        prompt.versions.push(Version {
            message: text_of(&value["commitMessage"]),
            labels: texts_of(&value["labels"]),
            name: version,
            content,
        });
    }
    imported
}

fn message(message: &Value, notes: &mut Vec<String>) -> Value {
    if message["type"] == "placeholder" {
        return json!({"placeholder": name(&text_of(&message["name"]), notes)});
    }
    let mut out = message.clone();
    if let Some(fields) = out.as_object_mut() {
        // "chatmessage", which says nothing more than that it is no placeholder.
        fields.remove("type");
    }
    if let Some(text) = message["content"].as_str() {
        out["content"] = json!(convert(text, notes));
    }
    out
}

/// Converts variables, and references to other prompts.
fn convert(text: &str, notes: &mut Vec<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(REFERENCE) {
        let Some((reference, tail)) = after.split_once("@@@") else {
            break;
        };
        out.push_str(&mustache(before, notes));
        let fields: Vec<(&str, &str)> = reference.split('|').filter_map(|field| field.split_once('=')).collect();
        let field = |wanted: &str| fields.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        let mut tag = Template::default();
        tag.tag(&format!(
            "include \"prompt:{}\"",
            prompt_id(field("name").unwrap_or_default())
        ));
        out.push_str(&tag.finish());
        if let Some(label) = field("label").or(field("version")) {
            notes.push(format!("{reference}: the newest version is included, not {label:?}"));
        }
        rest = tail;
    }
    out.push_str(&mustache(rest, notes));
    out
}
