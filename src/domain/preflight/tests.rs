use serde_json::{Value, json};

use super::*;
use crate::domain::content::Content;

fn version(content: Value) -> CompiledVersion {
    let content: Content = serde_json::from_value(content).unwrap();
    CompiledVersion::compile(&content.normalise().unwrap()).unwrap()
}

fn raw(value: Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(&value).unwrap()
}

fn arm<'a>(version: u32, compiled: &'a CompiledVersion) -> Arm<'a> {
    Arm {
        variant: "control",
        version,
        compiled: Ok(compiled),
    }
}

fn rehearsed(
    candidate: &[Arm<'_>],
    live: &[Arm<'_>],
    requests: &[Value],
    examples: usize,
    goes_on: &dyn Fn() -> bool,
) -> Report {
    let kept: Vec<Box<RawValue>> = requests.iter().cloned().map(raw).collect();
    let requests: Vec<Recorded<'_>> = kept
        .iter()
        .map(|variables| Recorded {
            exchange_id: "x",
            variables,
            model: "",
        })
        .collect();
    let rates = |model: &str| {
        let input = match model {
            "small" => 1_000_000_000,
            "large" => 3_000_000_000,
            _ => return None,
        };
        Some(Rates {
            input,
            cached_input: 0,
            output: 0,
            reasoning: 0,
        })
    };
    let rehearsal = Rehearsal {
        candidate,
        live,
        target: &[],
        requests: &requests,
        limit: 10_000,
        examples,
    };
    let has_model = |model: &str| matches!(model, "small" | "large" | "free");
    rehearse(
        &rehearsal,
        &Node {
            has_model: &has_model,
            rates: &rates,
            goes_on,
        },
    )
}

const ALWAYS: &dyn Fn() -> bool = &|| true;

#[test]
fn same_and_changed_are_told_apart_with_tokens_and_costs_of_both_models() {
    let live = version(json!({"text": "Hello {{ name }}", "model": "small"}));
    let twin = version(json!({"text": "Hello {{ name }}", "model": "small"}));
    let other = version(json!({"text": "Hello dear {{ name }}", "model": "large"}));
    let requests = [json!({"name": "Ada"}), json!({"name": "Bob"})];
    let report = rehearsed(&[arm(2, &twin), arm(3, &other)], &[arm(1, &live)], &requests, 9, ALWAYS);
    assert_eq!((report.compared, report.cut_short), (2, false));
    let [same, changed] = report.arms.as_slice() else {
        panic!()
    };
    assert_eq!((same.against[0].same, same.against[0].examples.len()), (2, 0));
    let against = &changed.against[0];
    assert_eq!((against.changed, against.unpriced), (2, 0));
    assert_eq!((against.tokens_before, against.tokens_after), (6, 8));
    assert_eq!(
        (against.cost_before_nanodollars, against.cost_after_nanodollars),
        (6_000, 24_000)
    );
    let diff = against.examples[0].diff.as_ref().unwrap();
    let added: Vec<&str> = diff
        .iter()
        .filter(|p| p.op == "added")
        .map(|p| p.text.as_str())
        .collect();
    assert_eq!(added, ["dear "]);
    assert!(!same.fails() && !changed.fails());
}

#[test]
fn variables_that_no_caller_sends_refuse_and_those_that_callers_send_are_noted() {
    let live = version(json!({"text": "Hello {{ name }}"}));
    let needy = version(json!({"text": "Hello from {{ city }}"}));
    let strict = version(json!({"text": "Hello", "strict": true, "variables": {}}));
    let requests = [json!({"name": "Ada", "it's secret": 1})];
    let report = rehearsed(
        &[arm(2, &needy), arm(3, &strict)],
        &[arm(1, &live)],
        &requests,
        0,
        ALWAYS,
    );
    let needy = &report.arms[0];
    assert_eq!(
        (needy.refused, needy.newly_refused, &needy.unsent_variables),
        (1, 1, &vec!["city".to_owned()])
    );
    assert_eq!(
        (needy.refusals[0].variable.as_str(), needy.refusals[0].kind),
        ("city", "missing")
    );
    assert!(needy.fails() && needy.against[0].examples.is_empty());
    let names: Vec<(&str, &str)> = report.arms[1]
        .refusals
        .iter()
        .map(|r| (r.variable.as_str(), r.kind))
        .collect();
    assert_eq!(names, [("(other)", "unknown"), ("name", "unknown")]);
    let text = serde_json::to_string(&report).unwrap();
    assert!(!text.contains("Ada") && !text.contains("secret"), "{text}");
}

#[test]
fn what_live_refuses_already_is_no_new_refusal() {
    let live = version(json!({"text": "{{ a }}{{ b }}"}));
    let worse = version(json!({"text": "{{ a }}{{ c }}"}));
    let better = version(json!({"text": "{{ a }}"}));
    let requests = [json!({"a": 1})];
    let report = rehearsed(
        &[arm(2, &worse), arm(3, &better)],
        &[arm(1, &live)],
        &requests,
        9,
        ALWAYS,
    );
    assert_eq!((report.arms[0].refused, report.arms[0].newly_refused), (1, 0));
    assert_eq!(report.arms[1].against[0].accepted, 1);
    let first = rehearsed(&[arm(2, &worse)], &[], &requests, 9, ALWAYS);
    assert_eq!(first.arms[0].newly_refused, 1, "where nothing is live, all are new");
}

#[test]
fn failing_templates_and_unusable_versions_fail_the_arm() {
    let live = version(json!({"text": "{{ list }}"}));
    let fails = version(json!({"text": "{{ list.a.b.c }}"}));
    let gone = Arm {
        variant: "b",
        version: 9,
        compiled: Err("it does not exist"),
    };
    let strange = version(json!({"text": "x", "model": "nobody's"}));
    let free = version(json!({"text": "x", "model": "free"}));
    let candidate = [arm(2, &fails), gone, arm(3, &strange), arm(4, &free)];
    let report = rehearsed(&candidate, &[arm(1, &live)], &[json!({"list": []})], 9, ALWAYS);
    let [fails, gone, strange, free] = report.arms.as_slice() else {
        panic!()
    };
    assert_eq!((fails.failed, fails.newly_refused), (1, 1));
    assert_eq!(gone.findings[0].about, "version");
    assert_eq!(strange.findings[0].about, "model");
    assert!(fails.fails() && gone.fails() && strange.fails());
    assert_eq!((free.findings[0].about, free.fails()), ("price", false));
}

#[test]
fn callers_messages_are_a_marker_and_time_is_kept() {
    let one = version(json!({"messages": [{"role": "system", "content": "Hi"}, {"placeholder": "history"}]}));
    let Rendering::Text { text, tokens, .. } = Rendering::of(&one, &raw(json!({})), 1000) else {
        panic!()
    };
    assert_eq!(
        (text.as_str(), tokens),
        ("[system]\nHi\n[caller]\n(the caller's own messages)\n", 1)
    );
    let report = rehearsed(&[arm(1, &one)], &[], &[json!({})], 9, &|| false);
    assert_eq!((report.compared, report.cut_short), (0, true));
}
