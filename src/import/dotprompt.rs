//! dotprompt: `.prompt` files, a YAML head and a Handlebars template. `_name.prompt` is a partial, `name.variant.prompt` a variant.
//!
//! Source: <https://google.github.io/dotprompt/reference/frontmatter>,
//! <https://google.github.io/dotprompt/reference/picoschema>, <https://google.github.io/dotprompt/reference/template>.

use serde_json::{Map, Value, json};

use super::handlebars::{self, Piece};
use super::{Imported, Source, Version, parameters, prompt_id, text_of};
use crate::domain::content::Content;

pub fn import(sources: &[Source<'_>]) -> Imported {
    let mut imported = Imported::default();
    let mut files: Vec<&Source<'_>> = sources
        .iter()
        .filter(|source| source.path.ends_with(".prompt"))
        .collect();
    files.sort_by_key(|source| source.path);
    let ids: Vec<(String, String)> = files
        .iter()
        .map(|source| (partial_name(source.path), prompt_id(&called(source.path))))
        .collect();
    for source in files {
        let (head, body) = split_head(source.text);
        let head: Value = match serde_saphyr::from_str(head) {
            Ok(Value::Null) => json!({}),
            Ok(head @ Value::Object(_)) => head,
            Ok(_) => json!({}),
            Err(why) => {
                imported.notes.push(format!(
                    "{}: the head is not YAML: {}",
                    source.path,
                    why.without_snippet()
                ));
                continue;
            }
        };
        let prompt = imported.prompt(&called(source.path));
        let declared = text_of(&head["name"]);
        if !declared.is_empty() && declared != prompt.source {
            prompt.aliases.push(declared);
        }
        prompt.description = text_of(&head["description"]);
        let mut notes = Vec::new();
        let mut content = Content::default();
        read_head(&head, &mut content, &mut notes);
        let partial = |name: &str| {
            let known = ids.iter().find(|(partial, _)| partial == name);
            known.map_or_else(|| prompt_id(name), |(_, id)| id.clone())
        };
        match handlebars::convert(body, partial, &mut notes) {
            Ok(pieces) => content.messages = messages(pieces),
            Err(why) => {
                notes.push(format!("version 1 is left out: {why}"));
                content.messages.clear();
            }
        }
        let broken = content.messages.is_empty();
        notes.into_iter().for_each(|note| prompt.note(note));
        if !broken {
            prompt.versions.push(Version {
                name: "1".to_owned(),
                content,
                ..Version::default()
            });
        }
    }
    imported
}

/// The name of a prompt's file: folders and all, without `.prompt` and the underscore of a partial.
fn called(path: &str) -> String {
    let path = path.strip_suffix(".prompt").unwrap_or(path);
    match path.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/{}", name.trim_start_matches('_')),
        None => path.trim_start_matches('_').to_owned(),
    }
}

/// What templates call a partial.
fn partial_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".prompt")
        .unwrap_or(name)
        .trim_start_matches('_')
        .to_owned()
}

/// Splits off what is between `---` lines at the beginning.
fn split_head(text: &str) -> (&str, &str) {
    let mut offset = 0;
    let mut start = None;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        match start {
            // Licence comments may stand before it.
            None if bare.is_empty() || bare.starts_with('#') => {}
            None if bare == "---" => start = Some(offset + line.len()),
            None => return ("", text),
            Some(from) if bare == "---" => return (&text[from..offset], &text[offset + line.len()..]),
            Some(_) => {}
        }
        offset += line.len();
    }
    ("", text)
}

fn read_head(head: &Value, content: &mut Content, notes: &mut Vec<String>) {
    for (field, value) in head.as_object().into_iter().flatten() {
        match (field.as_str(), value) {
            ("name" | "description", _) | (_, Value::Null) => {}
            ("model", Value::String(model)) => content.model = Some(model.clone()),
            ("config", Value::Object(config)) => parameters::carry(config, "config", content, notes),
            ("input", input) => {
                content.variables = variables(&input["schema"], &input["default"], notes);
            }
            ("output", output) => content.response_format = output_format(output, notes),
            ("tools", Value::Array(tools)) => {
                for tool in tools {
                    let name = tool.as_str().map_or_else(|| tool["name"].to_string(), str::to_owned);
                    notes.push(format!("tool {name:?} is defined in code: add its definition to tools"));
                }
            }
            (field, _) => notes.push(format!("{field} is left out")),
        }
    }
}

/// Makes variables of an input's schema, Picoschema or JSON Schema.
fn variables(schema: &Value, defaults: &Value, notes: &mut Vec<String>) -> Option<Map<String, Value>> {
    let schema = picoschema(schema, notes);
    let properties = schema["properties"].as_object()?;
    let required = super::texts_of(&schema["required"]);
    let mut variables = Map::new();
    for (name, property) in properties {
        let mut property = property.clone();
        if let (Some(fields), Some(default)) = (property.as_object_mut(), defaults.get(name)) {
            fields.insert("default".to_owned(), default.clone());
        } else if let (Some(fields), false) = (property.as_object_mut(), required.contains(name)) {
            fields.insert("optional".to_owned(), json!(true));
        }
        variables.insert(name.clone(), property);
    }
    Some(variables)
}

fn output_format(output: &Value, notes: &mut Vec<String>) -> Option<Value> {
    let schema = &output["schema"];
    if !schema.is_null() {
        let schema = picoschema(schema, notes);
        return Some(json!({"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}));
    }
    match output["format"].as_str() {
        Some("json") => Some(json!({"type": "json_object"})),
        None | Some("text") => None,
        Some(other) => {
            notes.push(format!("output.format {other:?} is left out"));
            None
        }
    }
}

/// Turns Picoschema into JSON Schema; JSON Schema stays.
fn picoschema(schema: &Value, notes: &mut Vec<String>) -> Value {
    const TYPES: [&str; 6] = ["string", "number", "integer", "boolean", "null", "any"];
    match schema {
        Value::String(text) => {
            let (kind, about) = text.split_once(',').unwrap_or((text, ""));
            let (kind, about) = (kind.trim(), about.trim());
            if !TYPES.contains(&kind) {
                notes.push(format!("schema {kind:?} is named elsewhere: any value is taken"));
            }
            let mut out = Map::new();
            if TYPES.contains(&kind) && kind != "any" {
                out.insert("type".to_owned(), json!(kind));
            }
            if !about.is_empty() {
                out.insert("description".to_owned(), json!(about));
            }
            Value::Object(out)
        }
        Value::Object(fields) => {
            let json_schema = fields.get("type").and_then(Value::as_str);
            if json_schema.is_some_and(|kind| TYPES.contains(&kind) || matches!(kind, "object" | "array")) {
                return schema.clone();
            }
            if fields.get("properties").is_some_and(Value::is_object) {
                let mut out = fields.clone();
                out.insert("type".to_owned(), json!("object"));
                return Value::Object(out);
            }
            let (mut properties, mut required) = (Map::new(), Vec::new());
            let mut additional = json!(false);
            for (key, value) in fields {
                let (key, parenthesis) = match key.strip_suffix(')').and_then(|key| key.split_once('(')) {
                    Some((key, inside)) => (key, Some(inside)),
                    None => (key.as_str(), None),
                };
                if key.is_empty() {
                    additional = picoschema(value, notes);
                    continue;
                }
                let name = key.trim_end_matches('?');
                if name == key {
                    required.push(json!(name));
                }
                properties.insert(name.to_owned(), property(value, parenthesis, notes));
            }
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": additional})
        }
        _ => json!({}),
    }
}

/// One field: `tags(array, all of them): string`.
fn property(value: &Value, parenthesis: Option<&str>, notes: &mut Vec<String>) -> Value {
    let (kind, about) = parenthesis.map_or(("", ""), |inside| inside.split_once(',').unwrap_or((inside, "")));
    let mut out = match kind.trim() {
        "array" => json!({"type": "array", "items": picoschema(value, notes)}),
        "enum" => json!({"enum": value}),
        _ => picoschema(value, notes),
    };
    if let (Some(fields), false) = (out.as_object_mut(), about.trim().is_empty()) {
        fields.insert("description".to_owned(), json!(about.trim()));
    }
    out
}

/// Puts pieces together to messages: text before the first role is the user's; empty messages are none.
fn messages(pieces: Vec<Piece>) -> Vec<Value> {
    let mut messages: Vec<Value> = Vec::new();
    let (mut role, mut parts): (String, Vec<Value>) = ("user".to_owned(), Vec::new());
    let mut end = |role: &str, parts: &mut Vec<Value>, placeholder: bool| {
        let parts = std::mem::take(parts);
        match parts.as_slice() {
            [] => {}
            [one] if one["type"] == "text" => messages.push(json!({"role": role, "content": one["text"]})),
            _ => messages.push(json!({"role": role, "content": parts})),
        }
        if placeholder {
            messages.push(json!({"placeholder": "history"}));
        }
    };
    for piece in pieces {
        match piece {
            Piece::Text(text) => {
                let text = text.trim();
                if !text.is_empty() {
                    parts.push(json!({"type": "text", "text": text}));
                }
            }
            Piece::Media(url) => parts.push(json!({"type": "image_url", "image_url": {"url": url}})),
            Piece::Role(next) => {
                end(&role, &mut parts, false);
                role = match next.as_str() {
                    "model" => "assistant".to_owned(),
                    other => other.to_owned(),
                };
            }
            // What follows the history is the user's, unless it says otherwise.
            Piece::History => {
                end(&role, &mut parts, true);
                role = "user".to_owned();
            }
        }
    }
    end(&role, &mut parts, false);
    messages
}
