//! A chat-shaped prompt in the form of the Responses API.

use serde_json::{Map, Value, json};

/// Turns rendered chat messages (a JSON array) into the items of `input`, without brackets.
///
/// # Errors
/// A sentence that names what has no counterpart.
pub fn input(messages: &[u8]) -> Result<String, String> {
    let messages: Vec<Value> =
        serde_json::from_slice(messages).map_err(|error| format!("the rendered messages are not JSON: {error}"))?;
    let mut items = Vec::with_capacity(messages.len());
    for message in messages {
        item(message, &mut items)?;
    }
    let items: Vec<String> = items.iter().map(Value::to_string).collect();
    Ok(items.join(","))
}

/// A message becomes one item, and one more for each tool call it has.
fn item(message: Value, items: &mut Vec<Value>) -> Result<(), String> {
    // What is no chat message (the caller's own input items) passes as it is.
    let Some(role) = message["role"].as_str().map(str::to_owned) else {
        items.push(message);
        return Ok(());
    };
    if role == "tool" {
        items.push(json!({
            "type": "function_call_output",
            "call_id": message["tool_call_id"],
            "output": text_of(&message["content"]),
        }));
        return Ok(());
    }
    let content = match &message["content"] {
        Value::Null => None,
        Value::Array(parts) => Some(Value::Array(
            parts.iter().map(|p| part(&role, p)).collect::<Result<_, _>>()?,
        )),
        text => Some(text.clone()),
    };
    if let Some(content) = content {
        items.push(json!({"role": role, "content": content}));
    }
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        items.push(json!({
            "type": "function_call",
            "call_id": call["id"],
            "name": call["function"]["name"],
            "arguments": call["function"]["arguments"],
        }));
    }
    Ok(())
}

fn part(role: &str, part: &Value) -> Result<Value, String> {
    Ok(match part["type"].as_str() {
        Some("text") if role == "assistant" => json!({"type": "output_text", "text": part["text"]}),
        Some("text") => json!({"type": "input_text", "text": part["text"]}),
        Some("image_url") => {
            let image = &part["image_url"];
            let mut item = json!({"type": "input_image", "image_url": image["url"]});
            if let Some(detail) = image.get("detail") {
                item["detail"] = detail.clone();
            }
            item
        }
        Some("file") => {
            let mut item = part["file"].clone();
            item["type"] = json!("input_file");
            item
        }
        Some(kind) if kind.starts_with("input_") || kind.starts_with("output_") => part.clone(),
        Some(kind) => {
            return Err(format!(
                "a content part of type {kind:?} has no counterpart in the Responses API"
            ));
        }
        None => return Err("a content part has no type".to_owned()),
    })
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// Chat parameters that the Responses API has under the same name.
const SAME: [&str; 12] = [
    "temperature",
    "top_p",
    "top_logprobs",
    "metadata",
    "store",
    "service_tier",
    "parallel_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "user",
    "include",
    "prompt_cache_retention",
];

/// Turns one of a version's parameters into a field of the Responses API.
///
/// # Errors
/// A sentence that names a parameter without counterpart.
pub fn parameter(name: &str, json: &str) -> Result<(&'static str, String), String> {
    let tree = || serde_json::from_str::<Value>(json).unwrap_or(Value::Null);
    if let Some(same) = SAME.iter().find(|same| **same == name) {
        return Ok((same, json.to_owned()));
    }
    Ok(match name {
        "max_tokens" | "max_completion_tokens" => ("max_output_tokens", json.to_owned()),
        "max_output_tokens" => ("max_output_tokens", json.to_owned()),
        "reasoning" => ("reasoning", json.to_owned()),
        "text" => ("text", json.to_owned()),
        "truncation" => ("truncation", json.to_owned()),
        "reasoning_effort" => ("reasoning", json!({ "effort": tree() }).to_string()),
        "response_format" => ("text", json!({ "format": format(tree()) }).to_string()),
        "tools" => {
            let tools: Vec<Value> = tree().as_array().into_iter().flatten().cloned().map(flat).collect();
            ("tools", Value::Array(tools).to_string())
        }
        "tool_choice" => ("tool_choice", flat(tree()).to_string()),
        _ => {
            return Err(format!(
                "this prompt sets {name:?}, which has no counterpart in the Responses API; use /v1/chat/completions"
            ));
        }
    })
}

/// `{"type": "function", "function": {…}}` has its inner fields at the outside here.
fn flat(tool: Value) -> Value {
    match tool.get("function") {
        Some(Value::Object(function)) => {
            let mut flat = Map::new();
            flat.insert("type".to_owned(), json!("function"));
            flat.extend(function.clone());
            Value::Object(flat)
        }
        _ => tool,
    }
}

fn format(format: Value) -> Value {
    match format.get("json_schema") {
        Some(Value::Object(schema)) => {
            let mut flat = Map::new();
            flat.insert("type".to_owned(), json!("json_schema"));
            flat.extend(schema.clone());
            Value::Object(flat)
        }
        _ => format,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_items() {
        let messages = json!([
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "u", "detail": "low"}}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "r"},
            {"type": "item_reference", "id": "i"},
        ]);
        let items: Value =
            serde_json::from_str(&format!("[{}]", input(messages.to_string().as_bytes()).unwrap())).unwrap();
        assert_eq!(
            items,
            json!([
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "input_text", "text": "t"}, {"type": "input_image", "image_url": "u", "detail": "low"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "r"},
                {"type": "item_reference", "id": "i"},
            ])
        );
    }

    #[test]
    fn parameters_are_renamed_or_refused() {
        let shaped = |name, value: Value| parameter(name, &value.to_string());
        assert_eq!(
            shaped("max_tokens", json!(5)),
            Ok(("max_output_tokens", "5".to_owned()))
        );
        assert_eq!(
            shaped("reasoning_effort", json!("low")),
            Ok(("reasoning", r#"{"effort":"low"}"#.to_owned()))
        );
        let schema = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {}}});
        assert_eq!(
            shaped("response_format", schema),
            Ok((
                "text",
                r#"{"format":{"type":"json_schema","name":"n","schema":{}}}"#.to_owned()
            ))
        );
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}, {"type": "web_search"}]);
        assert_eq!(
            shaped("tools", tools),
            Ok((
                "tools",
                r#"[{"type":"function","name":"f","parameters":{}},{"type":"web_search"}]"#.to_owned()
            ))
        );
        assert!(shaped("stop", json!(["x"])).unwrap_err().contains("\"stop\""));
    }
}
