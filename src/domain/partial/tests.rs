use super::*;

fn names(template: &str) -> Vec<(&str, Option<u32>)> {
    let references = references(template).unwrap_or_else(|problems| panic!("{template}: {problems:?}"));
    for reference in &references {
        assert!(template[reference.place.clone()].starts_with("prompt:"), "{template}");
    }
    references.into_iter().map(|r| (r.id, r.version)).collect()
}

#[test]
fn references_are_found_in_every_spelling() {
    for template in [
        r#"{% include "prompt:a/b" %}"#,
        r#"{%include "prompt:a/b"%}"#,
        r#"{%- include 'prompt:a/b' -%}"#,
        r#"{%+ include "prompt:a/b" +%}"#,
        "Hello {\n{%\n  include\n  \"prompt:a/b\"\n%} and so on",
        r#"{% include "prompt:a/b" ignore missing %}"#,
        r#"{% include "prompt:a/b" with context %}"#,
        r#"{% import "prompt:a/b" as tone %}"#,
        r#"{% from "prompt:a/b" import greet %}"#,
        r#"{% extends "prompt:a/b" %}"#,
        r#"ä{{ {"a": {"b": "}}"}} }}ö{% include "prompt:a/b" %}"#,
    ] {
        assert_eq!(names(template), [("a/b", None)], "{template}");
    }
    assert_eq!(
        names(r#"{% include "prompt:a:3" %}{% if x %}{% include "prompt:b" %}{% endif %}"#),
        [("a", Some(3)), ("b", None)]
    );
    assert_eq!(names(r#"{% include "prompt:pmpt:abc" %}"#), [("pmpt:abc", None)]);
    assert_eq!(names(r#"{% include "prompt:a@staging" %}"#), [("a@staging", None)]);
}

#[test]
fn text_that_only_looks_like_a_tag_is_left_alone() {
    for template in [
        "",
        "{",
        "{%",
        "{{",
        "plain { text } include \"x\"",
        r#"{# {% include "x" %} #}"#,
        r#"{% raw %}{% include "x" %}{% endraw %}"#,
        r#"{%- raw -%}{% include "x" %}{%- endraw -%}"#,
        r#"{{ "{% include 'x' %}" }}"#,
        r#"{% set x = "{% include 'x' %}" %}"#,
        r#"{% include_me %}"#,
        r#"{% set include = 1 %}{{ include }}"#,
        r#"{% include "prompt:a"#,
        r#"{% include "prompt:a" "#,
        "{% include \"prompt:a\\",
    ] {
        assert_eq!(names(template), [], "{template}");
    }
}

#[test]
fn loading_anything_else_is_refused() {
    for template in [
        r#"{% include "header.txt" %}"#,
        r#"{% include name %}"#,
        r#"{% include ["prompt:a", "prompt:b"] %}"#,
        r#"{% include "prompt:a" ~ name %}"#,
        r#"{% include "prompt:" ~ name %}"#,
        r#"{% include "prompt:a" if x else "prompt:b" %}"#,
        r#"{% include "prompt:a\x62" %}"#,
        r#"{% include "prompt:a"|upper %}"#,
        r#"{% include ("prompt:a") %}"#,
        r#"{% include "prompt:a:99999999999" %}"#,
        r#"{% include %}"#,
        r#"{% import "x" as y %}"#,
        r#"{% from x import y %}"#,
        r#"{% extends "/etc/passwd" %}"#,
        r#"{%- include 'x' -%}"#,
        r#"{% raw %}{% endraw %}{% include 'x' %}"#,
    ] {
        let problems = references(template).expect_err(template);
        assert_eq!(problems.len(), 1, "{template}");
        assert!(
            problems[0].contains("includes from disk or computed names are not available"),
            "{problems:?}"
        );
    }
}

#[test]
fn rewriting_changes_the_names_and_nothing_else() {
    let template = "ä {%- include 'prompt:a' -%} ö {% include \"prompt:b:7\" ignore missing %} ü";
    let found = references(template).unwrap();
    let rewritten = rewrite(template, &found, |r| frozen_name(r.id, r.version.unwrap_or(3)));
    assert_eq!(
        rewritten,
        "ä {%- include 'prompt:a:3' -%} ö {% include \"prompt:b:7\" ignore missing %} ü"
    );
    let again = references(&rewritten).unwrap();
    assert_eq!(
        rewrite(&rewritten, &again, |r| frozen_name(r.id, r.version.unwrap())),
        rewritten
    );
}

#[test]
fn every_string_of_the_messages_is_visited_with_its_path() {
    let mut content: Content = serde_json::from_value(serde_json::json!({"messages": [
        {"role": "system", "content": "one"},
        {"placeholder": "history"},
        {"role": "user", "content": [
            {"type": "text", "text": "two"},
            {"type": "image_url", "image_url": {"url": "three"}},
        ]},
    ]}))
    .unwrap();
    let mut seen = Vec::new();
    visit_templates(&mut content, &mut |path, text| seen.push(format!("{path}={text}")));
    assert_eq!(
        seen,
        [
            "messages[0].content=one",
            "messages[2].content[0].type=text",
            "messages[2].content[0].text=two",
            "messages[2].content[1].type=image_url",
            "messages[2].content[1].image_url.url=three",
        ]
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_without_panic_and_rewritten_to_itself(
        template in r#"(\{%|%\}|\{\{|\}\}|\{#|#\}|"|'|\\|raw|endraw|include|prompt:a|[ \-+ä(){}\[\]])*"#,
    ) {
        if let Ok(found) = references(&template) {
            let rewritten = rewrite(&template, &found, |r| template[r.place.clone()].to_owned());
            proptest::prop_assert_eq!(rewritten, template);
        }
    }
}
