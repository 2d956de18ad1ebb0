//! A readable difference of two versions' content.

use serde_json::Value;
use similar::TextDiff;

/// Returns a unified diff of the contents, written out line by line; empty if they are the same.
pub fn unified(old: &Value, new: &Value, old_name: &str, new_name: &str) -> String {
    let (old, new) = (written_out(old), written_out(new));
    let diff = TextDiff::from_lines(&old, &new);
    diff.unified_diff()
        .context_radius(3)
        .header(old_name, new_name)
        .to_string()
}

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
    fn diff_shows_lines_of_text_not_of_json() {
        let old = json!({"messages": [{"role": "user", "content": "a\nb\n\"c\""}], "model": "m"});
        let new = json!({"messages": [{"role": "user", "content": "a\nB\n\"c\""}], "model": "m"});
        let diff = unified(&old, &new, "x:1", "x:2");
        assert_eq!(
            diff,
            "--- x:1\n+++ x:2\n@@ -1,5 +1,5 @@\n [user]\n a\n-b\n+B\n \"c\"\n model: m\n"
        );
        assert_eq!(unified(&old, &old, "a", "b"), "");
    }
}
