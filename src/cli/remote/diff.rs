//! A version's content written out for people.

use serde_json::Value;

/// Writes content so that a line is a line: texts unescaped, everything else as indented JSON.
pub fn written_out(content: &Value) -> String {
    let mut out = String::new();
    for message in content["messages"].as_array().into_iter().flatten() {
        match (&message["placeholder"], &message["content"]) {
            (Value::String(name), _) => out.push_str(&format!("[placeholder {name}]\n")),
            (_, Value::String(text)) => out.push_str(&format!("[{}]\n{text}\n", super::text(&message["role"]))),
            _ => out.push_str(&format!("[message]\n{message:#}\n")),
        }
    }
    for (name, value) in content.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("messages", _) => {}
            ("partials", Value::Object(partials)) => {
                for (name, text) in partials {
                    out.push_str(&format!("[{name}]\n{}\n", super::text(text)));
                }
            }
            (_, Value::String(text)) => out.push_str(&format!("{name}: {text}\n")),
            (_, value) => out.push_str(&format!("{name}: {value:#}\n")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn content_shows_lines_of_text_not_of_json() {
        let content = json!({"messages": [{"role": "user", "content": "a\n\"b\""}], "model": "m"});
        assert_eq!(written_out(&content), "[user]\na\n\"b\"\nmodel: m\n");
    }
}
