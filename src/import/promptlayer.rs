//! PromptLayer: prompt templates as `GET /prompt-templates/{name}?version=N` and the pages of `GET /prompt-templates` have them.
//!
//! Source: <https://docs.promptlayer.com/reference/templates-get-raw>,
//! <https://docs.promptlayer.com/reference/list-prompt-templates>,
//! <https://docs.promptlayer.com/running-requests/prompt-blueprints>.

use serde_json::{Map, Value, json};

use super::text::{fstring, name};
use super::{Imported, Source, Version, all_objects, parameters, prompt_id, text_of, texts_of};
use crate::domain::content::Content;

pub fn import(sources: &[Source<'_>]) -> Imported {
    let mut imported = Imported::default();
    let mut all = all_objects(sources, &mut imported);
    all.sort_by_key(|(_, value)| value["version"].as_u64());
    for (path, value) in all {
        let source = text_of(&value["prompt_name"]);
        if source.is_empty() || !value["prompt_template"].is_object() {
            imported.notes.push(format!(
                "{path}: an object without prompt_name and prompt_template: left out"
            ));
            continue;
        }
        let prompt = imported.prompt(&source);
        prompt.tags = texts_of(&value["tags"]);
        // Callers may name it by its number.
        let number = text_of(&value["id"]);
        if !number.is_empty() && !prompt.aliases.contains(&number) {
            prompt.aliases.push(number);
        }
        let (mut notes, template) = (Vec::new(), &value["prompt_template"]);
        let mut content = content(template, &mut notes);
        let metadata = value["metadata"].as_object().cloned().unwrap_or_default();
        for (field, about) in &metadata {
            match (field.as_str(), about) {
                ("model", Value::Object(model)) => settings(model, &mut content, &mut notes),
                (_, Value::Null) => {}
                (field, _) => notes.push(format!("metadata.{field} is left out")),
            }
        }
        let version = text_of(&value["version"]);
        notes
            .into_iter()
            .for_each(|note| prompt.note(format!("version {version}: {note}")));
        let labels = value["release_labels"].as_array().or(value["labels"].as_array());
        let label = |label: &Value| match label {
            Value::Object(fields) => text_of(&fields.get("name").cloned().unwrap_or_default()),
            other => text_of(other),
        };
        prompt.versions.push(Version {
            name: version,
            message: text_of(&value["commit_message"]),
            labels: labels.into_iter().flatten().map(label).collect(),
            content,
        });
    }
    imported
}

fn settings(model: &Map<String, Value>, content: &mut Content, notes: &mut Vec<String>) {
    for (field, value) in model {
        match (field.as_str(), value) {
            ("name", Value::String(model)) => content.model = Some(model.clone()),
            ("parameters", Value::Object(settings)) => {
                parameters::carry(settings, "metadata.model.parameters", content, notes);
            }
            ("provider" | "api_type" | "display_params", _) | (_, Value::Null) => {}
            (field, _) => notes.push(format!("metadata.model.{field} is left out")),
        }
    }
}

fn content(template: &Value, notes: &mut Vec<String>) -> Content {
    let mut content = Content::default();
    let format = text_of(&template["template_format"]);
    match &template["messages"] {
        Value::Array(messages) => {
            content.messages = messages.iter().filter_map(|one| message(one, &format, notes)).collect();
        }
        _ => {
            let parts = parts(&template["content"], &format, notes);
            content.messages.push(json!({"role": "user", "content": parts}));
        }
    }
    for (field, value) in template.as_object().into_iter().flatten() {
        match (field.as_str(), value) {
            ("messages" | "content" | "template_format" | "type" | "input_variables" | "dataset_examples", _) => {}
            (_, Value::Null) => {}
            ("tools" | "functions", Value::Array(items)) => {
                parameters::tools(items, "prompt_template", &mut content, notes)
            }
            ("tool_choice" | "function_call", choice) => {
                content.parameters.insert("tool_choice".to_owned(), choice.clone());
            }
            (field, _) => notes.push(format!("prompt_template.{field} is left out")),
        }
    }
    content
}

fn message(message: &Value, format: &str, notes: &mut Vec<String>) -> Option<Value> {
    let format = match message["template_format"]
        .as_str()
        .or(message["prompt"]["template_format"].as_str())
    {
        Some(own) => own,
        None => format,
    };
    let role = text_of(&message["role"]);
    if role == "placeholder" {
        return Some(json!({"placeholder": name(&text_of(&message["name"]), notes)}));
    }
    // The older form keeps a message's text in `prompt.template`.
    let text = if message["prompt"].is_object() {
        &message["prompt"]["template"]
    } else {
        &message["content"]
    };
    let mut out = json!({"role": role, "content": parts(text, format, notes)});
    for (field, value) in message.as_object().into_iter().flatten() {
        match (field.as_str(), value) {
            ("role" | "content" | "prompt" | "input_variables" | "template_format" | "raw_request_display_role", _) => {
            }
            (_, Value::Null) => {}
            (_, Value::Array(items)) if items.is_empty() => {}
            (_, Value::Object(fields)) if fields.is_empty() => {}
            ("name" | "tool_calls" | "tool_call_id", value) => out[field] = value.clone(),
            (field, _) => notes.push(format!("a message's {field} is left out")),
        }
    }
    Some(out)
}

/// Texts that are all there is become one text.
fn parts(content: &Value, format: &str, notes: &mut Vec<String>) -> Value {
    let mut out = Vec::new();
    match content {
        Value::String(text) => return json!(convert(text, format, notes)),
        Value::Null => return Value::Null,
        Value::Array(items) => {
            for item in items {
                match item["type"].as_str() {
                    Some("text") | None => {
                        out.push(json!({"type": "text", "text": convert(&text_of(&item["text"]), format, notes)}));
                    }
                    Some("image_url") => {
                        let url = text_of(&item["image_url"]["url"]);
                        out.push(json!({"type": "image_url", "image_url": {"url": convert(&url, format, notes)}}));
                        if !item["image_variable"].is_null() {
                            notes.push(format!(
                                "image_variable {}: a list of pictures is left out",
                                item["image_variable"]
                            ));
                        }
                    }
                    Some(other) => notes.push(format!("a content part of type {other:?} is left out")),
                }
            }
        }
        other => return other.clone(),
    }
    match out.as_slice() {
        [one] if one["type"] == "text" => one["text"].clone(),
        _ => Value::Array(out),
    }
}

/// Converts variables in their format, and snippets (`@@@name@@@`) into includes.
fn convert(text: &str, format: &str, notes: &mut Vec<String>) -> String {
    let plain = |text: &str, notes: &mut Vec<String>| match format {
        "jinja2" => text.to_owned(),
        _ => fstring(text, notes),
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("@@@") {
        let Some((snippet, tail)) = after.split_once("@@@").filter(|(name, _)| !name.contains('\n')) else {
            break;
        };
        out.push_str(&plain(before, notes));
        let (named, selector) = snippet.split_once('@').unwrap_or((snippet, ""));
        out.push_str(&format!("{{% include \"prompt:{}\" %}}", prompt_id(named)));
        if !selector.is_empty() {
            notes.push(format!(
                "snippet {snippet:?}: the newest version is included, not {selector:?}"
            ));
        }
        rest = tail;
    }
    out.push_str(&plain(rest, notes));
    out
}
