use super::*;
use serde_json::json;

fn content(value: Value) -> Content {
    serde_json::from_value::<Content>(value).unwrap().normalise().unwrap()
}

fn rendered(content: &Content, variables: &str) -> String {
    let version = CompiledVersion::compile(content).unwrap();
    let given = serde_json::from_str(variables).unwrap();
    let (values, _) = crate::domain::variables::check(&version.variables, Some(given), false).unwrap();
    let mut renderer = version.renderer(&values, 1 << 20);
    let mut out = Vec::new();
    for message in &version.messages {
        if let Message::Text(segments) = message {
            renderer.render(segments, &mut out).unwrap();
        }
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn plain_template_renders_to_json() {
    let content = content(json!({"messages": [{"role": "user", "content": "Hi \"{{ name }}\"\n{{ n }}"}]}));
    assert_eq!(
        rendered(&content, r#"{"name": "A\"\\é", "n": 3}"#),
        r#"{"role":"user","content":"Hi \"A\"\\é\"\n3"}"#
    );
}

#[test]
fn value_with_template_syntax_stays_text() {
    let content = content(json!({"text": "{{ a }}|{% if a %}{{ a }}{% endif %}"}));
    assert_eq!(
        rendered(&content, r#"{"a": "{{ 7*7 }}{% include 'prompt:x' %}"}"#),
        r#"{"role":"user","content":"{{ 7*7 }}{% include 'prompt:x' %}|{{ 7*7 }}{% include 'prompt:x' %}"}"#
    );
}

#[test]
fn parts_hold_templates() {
    let content = content(json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "{{ a }}"}, {"type": "image_url", "image_url": {"url": "{{ url }}", "detail": "low"}}]}]}));
    assert_eq!(
        rendered(&content, r#"{"a": "x", "url": "https://e/"}"#),
        r#"{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"https://e/","detail":"low"}}]}"#
    );
}

#[test]
fn frozen_partial_is_included() {
    let mut content =
        content(json!({"text": "{% include \"prompt:tone:2\" %} {{ a }}", "variables": {"a": {}, "b": {}}}));
    content.partials = serde_json::from_value(json!({"prompt:tone:2": "Be {{ b }}."})).unwrap();
    assert_eq!(check(&content), Ok(()));
    assert_eq!(
        rendered(&content, r#"{"a": "1", "b": "2"}"#),
        r#"{"role":"user","content":"Be 2. 1"}"#
    );
}

#[test]
fn endless_work_is_stopped() {
    let content =
        content(json!({"text": "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"}));
    let version = CompiledVersion::compile(&content).unwrap();
    let values = Vec::new();
    let Message::Text(segments) = &version.messages[0] else {
        panic!()
    };
    let error = version
        .renderer(&values, 1 << 20)
        .render(segments, &mut Vec::new())
        .unwrap_err();
    assert!(error.message.contains("fuel"), "{error}");
}

#[test]
fn every_problem_is_reported_with_its_path() {
    let content = content(json!({
        "messages": [
            {"role": "user", "content": "{{ quesiton }} {% if %}"},
            {"role": "user", "content": "{{ quesiton }}"},
            {"role": "boss", "content": 7},
            {"placeholder": "question"},
            {"role": "user", "content": "{{ question|shout }}"},
        ],
        "variables": {"question": {"type": "string", "maxLenght": 3}, "n": {"type": "strin"}},
        "parameters": {"stream": true},
    }));
    let problems = CompiledVersion::compile(&content).unwrap_err();
    let text: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
    insta::assert_snapshot!(text.join("\n"), @r#"
    variables.question: keyword "maxLenght" is not known, did you mean "maxLength"?
    variables.n: type "strin" is not known, use one of string, number, integer, boolean, array, object, documents, messages
    messages[0].content: syntax error: unexpected end of block (line 1)
    messages[1].content: variable "quesiton" is not declared, did you mean "question"?
    messages[2].role: must be one of system, developer, user, assistant, tool
    messages[2].content: must be a text or a list of parts
    parameters.stream: is not a generation parameter, a version cannot set it here
    "#);
    let unknown_filter = Content {
        messages: vec![json!({"role": "user", "content": "{{ a|shout }}"})],
        ..Content::default()
    };
    let text: Vec<String> = check(&unknown_filter)
        .unwrap_err()
        .into_iter()
        .map(|p| p.message)
        .collect();
    insta::assert_snapshot!(text.join("\n"), @"unknown filter: filter shout is unknown (line 1)");
}

#[test]
fn hash_is_of_the_effective_content() {
    let a = content(json!({"text": "a", "notes": "x", "response_format": null}));
    let b = content(json!({"messages": [{"role": "user", "content": "a"}], "strict": false}));
    assert_eq!(a.hash(), b.hash());
    assert_ne!(a.hash(), content(json!({"text": "a", "strict": true})).hash());
    assert_eq!(a.hash().len(), 64);
}
