//! Model settings under their many names: what is a generation parameter goes into `parameters`, the rest is noted.

use serde_json::{Map, Value, json};

use crate::domain::content::Content;

/// Generation parameters that providers of OpenAI's dialect know.
const KNOWN: [&str; 24] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "parallel_tool_calls",
    "tool_choice",
    "reasoning_effort",
    "reasoning",
    "verbosity",
    "modalities",
    "prediction",
    "web_search_options",
    "thinking",
];

/// Other systems' spellings.
const SPELLINGS: [(&str, &str); 14] = [
    ("maxtokens", "max_tokens"),
    ("maxoutputtokens", "max_tokens"),
    ("maxcompletiontokens", "max_completion_tokens"),
    ("topp", "top_p"),
    ("topk", "top_k"),
    ("minp", "min_p"),
    ("stopsequences", "stop"),
    ("presencepenalty", "presence_penalty"),
    ("frequencypenalty", "frequency_penalty"),
    ("reasoningeffort", "reasoning_effort"),
    ("responseformat", "response_format"),
    ("toolchoice", "tool_choice"),
    ("modelname", "model"),
    ("logitbias", "logit_bias"),
];

/// Puts settings where a version has them; `place` names where they were.
pub fn carry(settings: &Map<String, Value>, place: &str, content: &mut Content, notes: &mut Vec<String>) {
    for (name, value) in settings {
        if value.is_null() {
            continue;
        }
        let plain: String = name.chars().filter(|c| *c != '_' && *c != '-').collect();
        let spelling = SPELLINGS.iter().find(|(other, _)| *other == plain.to_ascii_lowercase());
        let ours = match spelling {
            Some((_, ours)) if !KNOWN.contains(&name.as_str()) => ours,
            _ => name.as_str(),
        };
        match (ours, value) {
            ("model", Value::String(model)) => content.model = Some(model.clone()),
            ("tools" | "functions", Value::Array(items)) => tools(items, place, content, notes),
            ("response_format", format) => content.response_format = Some(format.clone()),
            (ours, value) if KNOWN.contains(&ours) => _ = content.parameters.insert(ours.to_owned(), value.clone()),
            _ => notes.push(format!("{place}.{name} is no generation parameter: left out")),
        }
    }
}

/// Puts tools into the form of a chat completion; what only another API has is noted.
pub fn tools(items: &[Value], place: &str, content: &mut Content, notes: &mut Vec<String>) {
    for item in items {
        if item["function"].is_object() {
            content.tools.push(item.clone());
        } else if item["name"].is_string() && matches!(item["type"].as_str(), None | Some("function")) {
            let mut function = item.clone();
            if let Some(fields) = function.as_object_mut() {
                fields.remove("type");
            }
            content.tools.push(json!({"type": "function", "function": function}));
        } else {
            let name = item["type"].as_str().or(item.as_str()).unwrap_or("one of the tools");
            notes.push(format!("{place}: tool {name:?} is not a function: left out"));
        }
    }
}

/// Makes a response format of the form that the Responses API has (`text.format`).
pub fn response_format(format: &Value) -> Option<Value> {
    match format["type"].as_str()? {
        "text" => None,
        "json_schema" if format["json_schema"].is_null() => {
            let mut schema = Map::new();
            for name in ["name", "description", "schema", "strict"] {
                if !format[name].is_null() {
                    schema.insert(name.to_owned(), format[name].clone());
                }
            }
            Some(json!({"type": "json_schema", "json_schema": schema}))
        }
        _ => Some(format.clone()),
    }
}
