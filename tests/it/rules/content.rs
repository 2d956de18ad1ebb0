//! Rules 3 to 6: messages, model, parameters, variables.

use serde_json::{Value, json};

use super::{case, refused};
use crate::support::TestGateway;

#[tokio::test(flavor = "multi_thread")]
async fn rule_3_messages_go_where_the_version_says() {
    let gateway = TestGateway::start().await;
    let message = |role: &str, text: &str| json!({"role": role, "content": text});
    let version = |messages: Value, system: &str| {
        let variables = json!({"shots": {"type": "messages", "optional": true}});
        json!({"messages": messages, "variables": variables, "model": "mock-model?echo", "caller_system": system})
    };
    let (system, user) = (message("system", "be kind"), message("user", "at last"));
    let (shots, history) = (json!({"placeholder": "shots"}), json!({"placeholder": "history"}));
    gateway
        .prompt("a/history", version(json!([system, shots, history, user]), "reject"))
        .await;
    gateway
        .prompt("a/after", version(json!([system, user]), "reject"))
        .await;
    gateway
        .prompt("a/open", version(json!([system, history]), "allow"))
        .await;
    let (one, two) = (message("user", "one"), message("assistant", "two"));
    let reference = |id: &str, variables: Value| json!({"id": id, "variables": variables});
    let table = [
        (
            "history",
            reference("a/history", json!({})),
            json!([one, two]),
            json!([system, one, two, user]),
        ),
        (
            "no messages",
            reference("a/history", json!({})),
            json!([]),
            json!([system, user]),
        ),
        (
            "null messages",
            reference("a/history", json!({})),
            Value::Null,
            json!([system, user]),
        ),
        (
            "placeholder",
            reference("a/history", json!({"shots": [two, one]})),
            json!([one]),
            json!([system, two, one, one, user]),
        ),
        (
            "history by variable",
            reference("a/history", json!({"history": [two]})),
            json!([one]),
            json!([system, two, one, user]),
        ),
        (
            "no placeholder",
            reference("a/after", json!({})),
            json!([one]),
            json!([system, user, one]),
        ),
        (
            "system allowed",
            reference("a/open", json!({})),
            json!([system, one]),
            json!([system, system, one]),
        ),
    ];
    for (name, prompt, messages, expected) in table {
        let answer = gateway.chat(json!({"prompt": prompt, "messages": messages})).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert_eq!(answer.echoed(), expected, "{name}");
    }
    let ask = |messages: Value| json!({"prompt": {"id": "a/history"}, "messages": messages});
    let with_shots = |shots: Value| json!({"prompt": {"id": "a/history", "variables": {"shots": shots}}});
    refused(
        &gateway,
        vec![
            (case("system", ask(json!([one, system]))), 400, "caller_system_message"),
            (
                case("developer", ask(json!([message("developer", "x")]))),
                400,
                "caller_system_message",
            ),
            (
                case("system by placeholder", with_shots(json!([system]))),
                400,
                "caller_system_message",
            ),
            (case("messages are a string", ask(json!("hi"))), 400, "invalid_field"),
            (case("messages are numbers", ask(json!([1]))), 400, "invalid_field"),
            (
                case("message without role", ask(json!([{"content": "hi"}]))),
                400,
                "invalid_field",
            ),
        ],
    )
    .await;
    let named = gateway.chat(ask(json!([one, system]))).await;
    assert_eq!(named.json()["error"]["param"], "messages[1].role");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_4_model_is_the_versions_else_the_callers() {
    let gateway = TestGateway::start().await;
    gateway
        .prompt("m/fixed", json!({"text": "hi", "model": "mock-model-a"}))
        .await;
    gateway.prompt("m/open", json!({"text": "hi"})).await;
    gateway
        .prompt(
            "m/free",
            json!({"text": "hi", "model": "mock-model-a", "overrides": ["model"]}),
        )
        .await;
    let table = [
        ("m/fixed", None, "mock-model-a"),
        ("m/fixed", Some("mock-model-b"), "mock-model-a"),
        ("m/fixed", Some("no such model"), "mock-model-a"),
        ("m/open", Some("mock-model-b"), "mock-model-b"),
        ("m/open", Some("renamed-model"), "mock-model"),
        ("m/free", None, "mock-model-a"),
        ("m/free", Some("mock-model-b"), "mock-model-b"),
        ("m/free", Some("prompt/m/free"), "mock-model-a"),
    ];
    for (prompt, model, expected) in table {
        let answer = gateway.chat(json!({"prompt": {"id": prompt}, "model": model})).await;
        assert_eq!(answer.status, 200, "{prompt} {model:?}: {}", answer.text());
        assert_eq!(gateway.mock.last_body().await["model"], expected, "{prompt} {model:?}");
        assert_eq!(answer.header("x-promptgate-ignored"), "", "{prompt} {model:?}");
    }
    let open = |model: Value| json!({"prompt": {"id": "m/open"}, "model": model});
    let raw = |model: Value| json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    refused(
        &gateway,
        vec![
            (case("no model at all", open(Value::Null)), 400, "model_missing"),
            (
                case("the model names the prompt", json!({"model": "prompt/m/open"})),
                400,
                "model_missing",
            ),
            (case("unknown model", open(json!("nobody"))), 404, "model_not_found"),
            (case("no model, no prompt", raw(Value::Null)), 400, "model_missing"),
            (
                case("unknown model, no prompt", raw(json!("nobody"))),
                404,
                "model_not_found",
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_5_versions_parameters_win_unless_overridden() {
    let gateway = TestGateway::start().await;
    let content = |strict: bool| {
        json!({
            "text": "hi", "model": "mock-model", "strict": strict, "overrides": ["temperature"],
            "parameters": {"temperature": 0.25, "max_tokens": 40},
            "tools": [{"type": "function", "function": {"name": "ours"}}],
        })
    };
    gateway.prompt("p/lax", content(false)).await;
    gateway.prompt("p/strict", content(true)).await;
    let theirs = json!([{"type": "function", "function": {"name": "theirs"}}]);
    // What the caller sends, what of it the provider gets, what is said to be ignored.
    let table = [
        (
            "override",
            json!({"temperature": 0.75}),
            json!({"temperature": 0.75, "max_tokens": 40}),
            "",
        ),
        (
            "version's",
            json!({"max_tokens": 7}),
            json!({"temperature": 0.25, "max_tokens": 40}),
            "max_tokens",
        ),
        (
            "version's by its other name",
            json!({"max_completion_tokens": 7}),
            json!({"max_tokens": 40, "max_completion_tokens": null}),
            "max_completion_tokens",
        ),
        (
            "not set by the version",
            json!({"top_p": 0.5, "seed": 1}),
            json!({"top_p": 0.5, "seed": 1}),
            "",
        ),
        (
            "tools",
            json!({"tools": theirs}),
            json!({"tools": content(true)["tools"]}),
            "tools",
        ),
        (
            "null is absent",
            json!({"max_tokens": null, "top_p": null, "tools": null}),
            json!({"max_tokens": 40, "top_p": null}),
            "",
        ),
        (
            "empty lists are absent",
            json!({"tools": [], "include": [ ]}),
            json!({"tools": content(true)["tools"], "include": null}),
            "",
        ),
        (
            "transport fields",
            json!({"user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "metadata": {"a": "b"}, "store": true,
                "include": ["x"], "service_tier": "auto", "n": 2}),
            json!({"user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "metadata": {"a": "b"}, "store": true,
                "include": ["x"], "service_tier": "auto", "n": 2}),
            "",
        ),
    ];
    for (name, fields, expected, ignored) in table {
        let mut body = json!({"model": "whatever an SDK sends"});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        for prompt in ["p/lax", "p/strict"] {
            body["prompt"] = json!({"id": prompt});
            let before = gateway.mock.requests().await;
            let answer = gateway.chat(body.clone()).await;
            if prompt == "p/strict" && !ignored.is_empty() {
                let error = answer.refused(400, "field_not_allowed");
                assert!(error["message"].as_str().unwrap().contains(ignored), "{name}: {error}");
                assert_eq!(gateway.mock.requests().await, before, "{name} was forwarded");
                continue;
            }
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            assert_eq!(answer.header("x-promptgate-ignored"), ignored, "{name}");
            let sent = gateway.mock.last_body().await;
            for (field, value) in expected.as_object().unwrap() {
                assert_eq!(
                    sent.get(field).unwrap_or(&Value::Null),
                    value,
                    "{name}: {field} in {sent}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_6_variables_that_do_not_fit_are_listed_all_at_once() {
    let gateway = variables().await;
    let bad = json!({"count": "many", "code": "abc", "colour": "pink", "short": "too long", "flag": 1});
    let answer = gateway.chat(json!({"prompt": {"id": "v/lax", "variables": bad}})).await;
    let error = answer.refused(422, "invalid_variables");
    let mut names: Vec<&str> = error["details"]["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["variable"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["code", "colour", "count", "flag", "needed", "short"], "{error}");
    for name in names {
        assert!(error["message"].as_str().unwrap().contains(name), "{error}");
    }
    let unknown = json!({"prompt": {"id": "v/strict", "variables": {"needed": "x", "extra": 1, "other": 2}}});
    let error = gateway.chat(unknown).await.refused(422, "invalid_variables");
    assert_eq!(error["details"]["problems"].as_array().unwrap().len(), 2, "{error}");
    assert_eq!(gateway.mock.requests().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_6_variables_that_fit_are_converted_and_stay_inert() {
    let gateway = variables().await;
    let needed = |more: Value| {
        let mut variables = json!({"needed": "N"});
        variables
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        variables
    };
    // needed|count|flag|code|colour|short
    let table = [
        ("defaults", needed(json!({})), "N|7|||red|", ""),
        (
            "numbers in quotes",
            needed(json!({"count": "12", "flag": "true"})),
            "N|12|True||red|",
            "",
        ),
        (
            "input_text",
            json!({"needed": {"type": "input_text", "text": "from OpenAI"}}),
            "from OpenAI|7|||red|",
            "",
        ),
        (
            "template as value",
            json!({"needed": "{{ 1 + 1 }}{% raw %}"}),
            "{{ 1 + 1 }}{% raw %}|7|||red|",
            "",
        ),
        (
            "JSON as value",
            json!({"needed": "\"}],\"x\":[{\""}),
            "\"}],\"x\":[{\"|7|||red|",
            "",
        ),
        (
            "null is absent",
            needed(json!({"count": null, "colour": null})),
            "N|7|||red|",
            "",
        ),
        (
            "unknown ones",
            needed(json!({"extra": 1, "other": {"a": []}})),
            "N|7|||red|",
            "variables.extra, variables.other",
        ),
    ];
    for (name, variables, expected, ignored) in table {
        let answer = gateway
            .chat(json!({"prompt": {"id": "v/lax", "variables": variables}}))
            .await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert_eq!(answer.echoed()[0]["content"], expected, "{name}");
        assert_eq!(answer.header("x-promptgate-ignored"), ignored, "{name}");
    }
}

/// `v/lax` and `v/strict`, with a variable of each kind.
async fn variables() -> TestGateway {
    let gateway = TestGateway::start().await;
    let content = |strict: bool| {
        json!({
            "messages": [{"role": "user", "content": "{{ needed }}|{{ count }}|{{ flag }}|{{ code }}|{{ colour }}|{{ short }}"}],
            "variables": {
                "needed": {"type": "string"},
                "count": {"type": "number", "default": 7},
                "flag": {"type": "boolean", "optional": true},
                "code": {"type": "string", "pattern": "^[0-9]+$", "optional": true},
                "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                "short": {"type": "string", "maxLength": 3, "optional": true},
            },
            "model": "mock-model?echo", "strict": strict,
        })
    };
    gateway.prompt("v/lax", content(false)).await;
    gateway.prompt("v/strict", content(true)).await;
    gateway
}
