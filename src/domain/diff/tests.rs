use serde_json::json;

use super::*;

fn content(value: Value) -> Content {
    serde_json::from_value(value).unwrap()
}

#[test]
fn difference_is_told_message_by_message_and_word_by_word() {
    let old = content(json!({
        "messages": [
            {"role": "system", "content": "You are Acme's assistant."},
            {"placeholder": "history"},
            {"role": "user", "content": "{{ question }}"},
        ],
        "variables": {"question": {"type": "string"}, "old": {"type": "string"}},
        "model": "gpt-4o-mini",
        "parameters": {"temperature": 0.2, "max_tokens": 40},
        "tools": [{"type": "function", "function": {"name": "search"}}],
        "overrides": ["temperature"],
    }));
    let new = content(json!({
        "messages": [
            {"role": "system", "content": "You are Example's kind assistant."},
            {"role": "system", "content": "Be brief."},
            {"placeholder": "history"},
            {"role": "user", "content": "{{ question }}", "name": "caller"},
        ],
        "variables": {"question": {"type": "string", "maxLength": 9}, "language": {"type": "string"}},
        "model": "gpt-4o",
        "parameters": {"max_tokens": 40, "temperature": 0.2},
        "tools": [{"type": "function", "function": {"name": "lookup"}}],
        "partials": {"prompt:tone:2": "kindly"},
    }));
    let diff = diff(&old, &new);
    assert!(!diff.same);
    let kinds: Vec<_> = diff.messages.iter().map(|m| (m.change, m.from, m.to)).collect();
    assert_eq!(
        kinds,
        [
            (ChangeKind::Changed, Some(0), Some(0)),
            (ChangeKind::Added, None, Some(1)),
            (ChangeKind::Same, Some(1), Some(2)),
            (ChangeKind::Changed, Some(2), Some(3)),
        ]
    );
    assert_eq!(
        diff.to_string(),
        r#"~ messages[0] system
    You are [-Acme's-]{+Example's kind+} assistant.
+ messages[1] system
    Be brief.
~ messages[3] user
    {{ question }}
+ messages[3].name: "caller"
+ prompt:tone:2
    kindly
~ model: "gpt-4o-mini" → "gpt-4o"
~ variables.question: {"type":"string"} → {"type":"string","maxLength":9}
+ variables.language: {"type":"string"}
- variables.old: {"type":"string"}
+ tools.lookup: {"type":"function","function":{"name":"lookup"}}
- tools.search: {"type":"function","function":{"name":"search"}}
- overrides: temperature
~ parameters: the same in another order
"#
    );
    let json = serde_json::to_value(&diff).unwrap();
    assert_eq!(
        json["messages"][0]["text"][1],
        json!({"op": "removed", "text": "Acme's"})
    );
    assert_eq!(json["variables"][1]["from"], Value::Null);
}

#[test]
fn same_content_has_no_difference_but_notes() {
    let old = content(json!({"messages": [{"role": "user", "content": "a"}], "notes": "x"}));
    let same = diff(&old, &old);
    assert!(same.same && same.to_string().is_empty());
    assert_eq!(same.messages[0].change, ChangeKind::Same);
    let noted = diff(
        &old,
        &Content {
            notes: "y".into(),
            ..old.clone()
        },
    );
    assert!(noted.same);
    assert_eq!(noted.to_string(), "~ notes: \"x\" → \"y\"\n");
}

/// The order of a schema's keys reaches the model.
#[test]
fn order_inside_a_value_is_a_change() {
    let old = content(json!({"response_format": {"a": 1, "b": 2}}));
    let new = content(json!({"response_format": {"b": 2, "a": 1}}));
    assert_eq!(diff(&old, &new).settings.len(), 1);
}
