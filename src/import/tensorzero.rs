//! TensorZero: `tensorzero.toml` with its MiniJinja templates and JSON schemas. A function is a prompt, a variant one of its versions;
//! the label `weights` is the split that the weights make.
//!
//! Source: <https://www.tensorzero.com/docs/gateway/configure-functions-and-variants>,
//! <https://github.com/tensorzero/tensorzero/blob/main/docs/gateway/configuration-reference.mdx>,
//! <https://www.tensorzero.com/docs/experimentation/run-ab-tests>.

use serde_json::{Map, Value, json};

use super::{Arm, Imported, Prompt, Source, Version, parameters, text_of};
use crate::domain::content::Content;

/// The label that stands for the split.
pub const WEIGHTS: &str = "weights";

/// Fields of a variant that are carried as parameters.
const PARAMETERS: [&str; 9] = [
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "max_tokens",
    "seed",
    "stop_sequences",
    "reasoning_effort",
    "verbosity",
];

/// The files of one configuration, found by paths relative to it.
struct Files<'a> {
    sources: &'a [Source<'a>],
    folder: &'a str,
}

impl<'a> Files<'a> {
    fn text(&self, path: &str) -> Result<&'a str, String> {
        let mut segments: Vec<&str> = self.folder.split('/').filter(|segment| !segment.is_empty()).collect();
        for segment in path.split('/') {
            match segment {
                "" | "." => {}
                ".." => _ = segments.pop(),
                segment => segments.push(segment),
            }
        }
        let wanted = segments.join("/");
        let found = self.sources.iter().find(|source| source.path == wanted);
        found
            .map(|source| source.text)
            .ok_or_else(|| format!("file {path:?} is not in the export"))
    }

    fn json(&self, path: &str) -> Result<Value, String> {
        serde_json::from_str(self.text(path)?).map_err(|why| format!("{path}: is not JSON: {why}"))
    }
}

pub fn import(sources: &[Source<'_>]) -> Imported {
    let mut imported = Imported::default();
    for source in sources.iter().filter(|source| source.path.ends_with(".toml")) {
        let config: Value = match toml::from_str(source.text) {
            Ok(config) => config,
            Err(why) => {
                imported
                    .notes
                    .push(format!("{}: is not TOML: {}", source.path, why.message()));
                continue;
            }
        };
        let files = Files {
            sources,
            folder: source.path.rsplit_once('/').map_or("", |(folder, _)| folder),
        };
        for (section, value) in config.as_object().into_iter().flatten() {
            match section.as_str() {
                "functions" => {}
                "tools" => {}
                other => imported.notes.push(format!(
                    "[{other}] is configuration: write it into promptgate's, {} kept",
                    names(value)
                )),
            }
        }
        for (name, function) in config["functions"].as_object().into_iter().flatten() {
            let prompt = imported.prompt(name);
            read_function(function, &config["tools"], &files, prompt);
        }
    }
    imported
}

fn names(value: &Value) -> String {
    let names: Vec<&str> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    match names.is_empty() {
        true => "nothing of it is".to_owned(),
        false => format!("none of {} is", names.join(", ")),
    }
}

fn read_function(function: &Value, tools: &Value, files: &Files<'_>, prompt: &mut Prompt) {
    prompt.description = text_of(&function["description"]);
    let mut shared = Content::default();
    let mut notes = Vec::new();
    let mut variables = Map::new();
    for (field, value) in function.as_object().into_iter().flatten() {
        match (field.as_str(), value) {
            ("type" | "description" | "variants" | "experimentation", _) => {}
            ("system_schema" | "user_schema", path) => schema(&text_of(path), files, &mut variables, &mut notes),
            ("schemas", Value::Object(schemas)) => {
                for path in schemas.values() {
                    schema(&path_of(path), files, &mut variables, &mut notes);
                }
            }
            ("output_schema", path) => match files.json(&text_of(path)) {
                Ok(schema) => {
                    let named = json!({"name": prompt.source, "schema": schema});
                    shared.response_format = Some(json!({"type": "json_schema", "json_schema": named}));
                }
                Err(why) => notes.push(why),
            },
            ("tools", Value::Array(wanted)) => {
                for name in wanted.iter().filter_map(Value::as_str) {
                    match tool(name, &tools[name], files) {
                        Ok(tool) => shared.tools.push(tool),
                        Err(why) => notes.push(format!("tool {name:?}: {why}")),
                    }
                }
            }
            ("tool_choice", Value::String(choice)) => {
                let choice = if choice == "any" { "required" } else { choice };
                shared.parameters.insert("tool_choice".to_owned(), json!(choice));
            }
            ("tool_choice", choice) if choice["specific"].is_string() => {
                let choice = json!({"type": "function", "function": {"name": choice["specific"]}});
                shared.parameters.insert("tool_choice".to_owned(), choice);
            }
            ("parallel_tool_calls", value) => _ = shared.parameters.insert(field.clone(), value.clone()),
            (field, _) => notes.push(format!("{field} is left out")),
        }
    }
    if !variables.is_empty() {
        shared.variables = Some(variables);
    }
    let variants: Vec<(&String, &Value)> = function["variants"].as_object().into_iter().flatten().collect();
    for (name, variant) in &variants {
        match read_variant(variant, &shared, files, &mut notes, name) {
            Ok(content) => prompt.versions.push(Version {
                name: (*name).clone(),
                content,
                ..Version::default()
            }),
            Err(why) => notes.push(format!("variant {name} is left out: {why}")),
        }
    }
    split(function, &variants, prompt, &mut notes);
    notes.into_iter().for_each(|note| prompt.note(note));
}

fn path_of(value: &Value) -> String {
    match value {
        Value::String(path) => path.clone(),
        value => text_of(&value["path"]),
    }
}

fn schema(path: &str, files: &Files<'_>, variables: &mut Map<String, Value>, notes: &mut Vec<String>) {
    let schema = match files.json(path) {
        Ok(schema) => schema,
        Err(why) => return notes.push(why),
    };
    let required = super::texts_of(&schema["required"]);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let mut property = property.clone();
        if let (Some(fields), false) = (property.as_object_mut(), required.contains(name)) {
            fields.entry("optional").or_insert(json!(true));
        }
        variables.insert(name.clone(), property);
    }
}

fn tool(name: &str, tool: &Value, files: &Files<'_>) -> Result<Value, String> {
    let parameters = files.json(&text_of(&tool["parameters"]))?;
    let name = tool["name"].as_str().unwrap_or(name);
    let mut function = json!({"name": name, "description": tool["description"], "parameters": parameters});
    if tool["strict"] == true {
        function["strict"] = json!(true);
    }
    Ok(json!({"type": "function", "function": function}))
}

fn read_variant(
    variant: &Value,
    shared: &Content,
    files: &Files<'_>,
    notes: &mut Vec<String>,
    name: &str,
) -> Result<Content, String> {
    let kind = variant["type"].as_str().unwrap_or("chat_completion");
    if kind != "chat_completion" && kind != "experimental_chat_completion" {
        return Err(format!("its type {kind:?} makes several requests of one"));
    }
    let mut content = shared.clone();
    let (mut system, mut user) = (None, None);
    for (field, value) in variant.as_object().into_iter().flatten() {
        match (field.as_str(), value) {
            ("type" | "weight" | "active", _) => {}
            ("model", Value::String(model)) => {
                let plain = model.rsplit_once("::").map_or(model.as_str(), |(_, plain)| plain);
                if plain != model {
                    notes.push(format!(
                        "variant {name}: model {model:?} is {plain:?} here, configure it"
                    ));
                }
                content.model = Some(plain.to_owned());
            }
            ("system_template", path) => system = Some(files.text(&path_of(path))?),
            ("user_template", path) => user = Some(files.text(&path_of(path))?),
            ("templates", Value::Object(templates)) => {
                for (template, path) in templates {
                    match template.as_str() {
                        "system" => system = Some(files.text(&path_of(path))?),
                        "user" => user = Some(files.text(&path_of(path))?),
                        other => notes.push(format!("variant {name}: template {other:?} is of no message: left out")),
                    }
                }
            }
            ("system_instructions", Value::String(_)) => {
                notes.push(format!("variant {name}: system_instructions is left out"));
            }
            ("json_mode", Value::String(mode)) => match mode.as_str() {
                "strict" | "on" | "off" => {
                    let format = &mut content.response_format;
                    match (mode.as_str(), format.as_mut()) {
                        ("off", _) => *format = None,
                        ("strict", Some(schema)) => schema["json_schema"]["strict"] = json!(true),
                        ("on", _) => *format = Some(json!({"type": "json_object"})),
                        _ => {}
                    }
                }
                other => notes.push(format!("variant {name}: json_mode {other:?} is left out")),
            },
            (field, value) if PARAMETERS.contains(&field) => {
                let one = Map::from_iter([(field.to_owned(), value.clone())]);
                parameters::carry(&one, "variant", &mut content, notes);
            }
            (field, _) => notes.push(format!("variant {name}: {field} is left out")),
        }
    }
    content
        .messages
        .extend(system.map(|text| json!({"role": "system", "content": text})));
    content
        .messages
        .extend(user.map(|text| json!({"role": "user", "content": text})));
    if content.messages.is_empty() {
        return Err("it has no template: it only chooses a model".to_owned());
    }
    Ok(content)
}

/// Makes a split of weights, of `experimentation`, or of nothing, which is equal shares.
fn split(function: &Value, variants: &[(&String, &Value)], prompt: &mut Prompt, notes: &mut Vec<String>) {
    let experiment = &function["experimentation"];
    let candidates = &experiment["candidate_variants"];
    let weight_of = |name: &str, variant: &Value| -> f64 {
        if let Some(weights) = candidates.as_object() {
            return weights.get(name).and_then(Value::as_f64).unwrap_or_default();
        }
        if let Some(names) = candidates.as_array() {
            return f64::from(u8::from(names.iter().any(|candidate| candidate == name)));
        }
        let weighted = variants.iter().any(|(_, variant)| variant["weight"].is_number());
        let equal = if weighted { 0.0 } else { 1.0 };
        variant["weight"].as_f64().unwrap_or(equal)
    };
    if let Some(kind) = experiment["type"]
        .as_str()
        .filter(|kind| !matches!(*kind, "static_weights" | "uniform" | "static"))
    {
        notes.push(format!(
            "experimentation {kind:?} adapts by itself: the split here stays as it is"
        ));
    }
    let known = |name: &str| prompt.versions.iter().any(|version| version.name == name);
    let weights: Vec<(&str, f64)> = variants
        .iter()
        .map(|(name, variant)| (name.as_str(), weight_of(name, variant)))
        .filter(|(name, weight)| *weight > 0.0 && known(name))
        .collect();
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    if weights.is_empty() || total <= 0.0 {
        return;
    }
    let mut left = 10_000u32;
    let mut arms: Vec<Arm> = Vec::new();
    for (at, (name, weight)) in weights.iter().enumerate() {
        let points = match at + 1 == weights.len() {
            true => left,
            false => ((weight / total * 10_000.0).round() as u32).min(left),
        };
        left -= points;
        arms.push(Arm {
            variant: (*name).to_owned(),
            version: (*name).to_owned(),
            weight: f64::from(points) / 100.0,
        });
    }
    prompt.splits.insert(WEIGHTS.to_owned(), arms);
}
