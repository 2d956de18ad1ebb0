//! Rules 1 and 2: which prompt is meant, and what of that the provider sees.

use reqwest::Method;
use serde_json::{Value, json};

use super::{CHAT, Case, GREET, ada, case, greet, refused};
use crate::support::{Answer, TestGateway};

#[tokio::test(flavor = "multi_thread")]
async fn rule_1_every_form_of_a_reference_resolves_the_same() {
    let gateway = greet().await;
    let alias = format!("/prompts/{GREET}/aliases/old%20name");
    gateway.admin(Method::PUT, &alias, &Value::Null).await.expect(200);
    const VARIABLES: (&str, &str) = ("x-promptgate-variables", r#"{"name": "Ada"}"#);
    let flat = || json!({"variables": ada()});
    let (live, pinned, staging) = (
        (1, "control", "production"),
        (2, "pinned", "production"),
        (2, "control", "staging"),
    );
    let table = [
        (
            case("object", json!({"prompt": {"id": GREET, "variables": ada()}})),
            live,
        ),
        (
            case(
                "version",
                json!({"prompt": {"id": GREET, "version": 2, "variables": ada()}}),
            ),
            pinned,
        ),
        (
            case(
                "version in quotes",
                json!({"prompt": {"id": GREET, "version": "2", "variables": ada()}}),
            ),
            pinned,
        ),
        (
            case(
                "environment",
                json!({"prompt": {"id": GREET, "environment": "staging", "variables": ada()}}),
            ),
            staging,
        ),
        (
            case(
                "prompt.prompt_id",
                json!({"prompt": {"prompt_id": GREET, "variables": ada()}}),
            ),
            live,
        ),
        (
            case(
                "prompt.label",
                json!({"prompt": {"id": GREET, "label": "staging", "variables": ada()}}),
            ),
            staging,
        ),
        (
            case(
                "null fields",
                json!({"prompt": {"id": GREET, "version": null, "label": null, "variables": ada()}}),
            ),
            live,
        ),
        (
            case(
                "alias of the prompt",
                json!({"prompt": {"id": "old name", "variables": ada()}}),
            ),
            live,
        ),
        (case("inputs", json!({"prompt_id": GREET, "inputs": ada()})), live),
        (
            case(
                "prompt_variables",
                json!({"prompt_id": GREET, "prompt_variables": ada()}),
            ),
            live,
        ),
        (case("variables", json!({"prompt_id": GREET, "variables": ada()})), live),
        (
            case(
                "flat environment",
                json!({"prompt_id": GREET, "inputs": ada(), "environment": "staging"}),
            ),
            staging,
        ),
        (
            case(
                "prompt_label",
                json!({"prompt_id": GREET, "inputs": ada(), "prompt_label": "staging"}),
            ),
            staging,
        ),
        (
            case(
                "version_id",
                json!({"prompt_id": GREET, "inputs": ada(), "version_id": 2}),
            ),
            pinned,
        ),
        (
            case(
                "prompt_version",
                json!({"prompt_id": GREET, "inputs": ada(), "prompt_version": "2"}),
            ),
            pinned,
        ),
        (
            case("model", json!({"model": "prompt/support/greet", "variables": ada()})),
            live,
        ),
        (
            case(
                "model@env",
                json!({"model": "prompt/support/greet@staging", "variables": ada()}),
            ),
            staging,
        ),
        (
            case(
                "model:version",
                json!({"model": "prompt/support/greet:2", "variables": ada()}),
            ),
            pinned,
        ),
        (
            case("header", json!({})).headers(&[("x-promptgate-prompt", GREET), VARIABLES]),
            live,
        ),
        (
            case("header@env", json!({})).headers(&[("x-promptgate-prompt", "support/greet@staging"), VARIABLES]),
            staging,
        ),
        (
            case("header:version", json!({})).headers(&[("x-promptgate-prompt", "support/greet:2"), VARIABLES]),
            pinned,
        ),
        (
            case("encoded header", json!({})).headers(&[
                ("x-promptgate-prompt", GREET),
                ("x-promptgate-variables", "{\"name\":\"%41da\"}"),
            ]),
            live,
        ),
        (case("path", flat()).path("/v1/prompts/support/greet/completions"), live),
        (
            case("path %2F", flat()).path("/v1/prompts/support%2Fgreet/completions"),
            live,
        ),
        (
            case("path@env", flat()).path("/v1/prompts/support/greet@staging/completions"),
            staging,
        ),
        (
            case("path %40", flat()).path("/v1/prompts/support%2fgreet%40staging/completions"),
            staging,
        ),
        (
            case("path:version", flat()).path("/v1/prompts/support/greet:2/completions"),
            pinned,
        ),
        (
            case(
                "all at once",
                json!({"prompt": {"id": GREET, "variables": ada()}, "prompt_id": GREET, "inputs": ada()}),
            )
            .path("/v1/prompts/support/greet/completions")
            .headers(&[("x-promptgate-prompt", GREET), VARIABLES]),
            live,
        ),
    ];
    for (case, (version, variant, environment)) in table {
        let answer = case.send(&gateway).await;
        assert_eq!(answer.status, 200, "{}: {}", case.name, answer.text());
        let found =
            ["prompt", "version", "variant", "environment"].map(|n| answer.header(&format!("x-promptgate-{n}")));
        assert_eq!(
            found,
            [GREET, &version.to_string(), variant, environment],
            "{}",
            case.name
        );
        let sent = json!([{"role": "system", "content": format!("v{version} for Ada")}]);
        assert_eq!(answer.echoed(), sent, "{}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_1_render_answers_what_would_be_sent_and_sends_nothing() {
    let gateway = greet().await;
    for path in ["/v1/prompts/support/greet/render", "/v1/prompts/support%2Fgreet/render"] {
        let answer = gateway
            .post(path, &json!({"variables": ada()}))
            .await
            .expect(200)
            .json();
        assert_eq!(
            answer["messages"],
            json!([{"role": "system", "content": "v1 for Ada"}]),
            "{path}"
        );
        assert_eq!(answer["model"], "mock-model?echo");
        assert_eq!(answer["prompt"]["version"], 1);
    }
    let staging = gateway
        .post("/v1/prompts/support/greet@staging/render", &json!({"variables": ada()}))
        .await;
    assert_eq!(staging.expect(200).json()["prompt"]["environment"], "staging");
    assert_eq!(gateway.mock.requests().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_1_what_cannot_be_resolved_is_refused_and_never_forwarded() {
    let gateway = greet().await;
    gateway
        .admin(Method::POST, "/prompts", &json!({"id": "support/draft"}))
        .await
        .expect(201);
    gateway.version("support/draft", json!({"text": "not live"})).await;
    // Every request names a model and has messages: as a plain chat completion it would do.
    let with = |fields: Value| {
        let mut body = json!({"model": "mock-model", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        body
    };
    let prompt = |reference: Value| with(json!({"prompt": reference}));
    let bad = |name, body| (case(name, body), 400, "invalid_field");
    let contradiction = |name, body| (case(name, body), 400, "contradiction");
    refused(
        &gateway,
        vec![
            contradiction(
                "version and environment",
                prompt(json!({"id": GREET, "version": 1, "environment": "staging"})),
            ),
            contradiction(
                "flat version and environment",
                with(json!({"prompt_id": GREET, "version_id": 1, "prompt_label": "staging"})),
            ),
            contradiction(
                "version of the path and environment of the body",
                with(json!({"environment": "staging"})),
            )
            .map_case(|case| case.path("/v1/prompts/support/greet:1/completions")),
            contradiction(
                "two ids",
                with(json!({"prompt": {"id": GREET}, "prompt_id": "support/draft"})),
            ),
            contradiction(
                "id and prompt_id",
                prompt(json!({"id": GREET, "prompt_id": "support/draft"})),
            ),
            contradiction(
                "two versions",
                with(json!({"prompt_id": GREET, "version_id": 1, "prompt_version": 2})),
            ),
            contradiction(
                "two environments",
                prompt(json!({"id": GREET, "environment": "staging", "label": "production"})),
            ),
            contradiction(
                "two variables",
                with(json!({"prompt_id": GREET, "inputs": {"name": "a"}, "variables": {"name": "b"}})),
            ),
            contradiction(
                "model and object",
                json!({"model": "prompt/support/draft", "prompt": {"id": GREET}}),
            ),
            contradiction("header and object", prompt(json!({"id": GREET})))
                .map_case(|case| case.headers(&[("x-promptgate-prompt", "support/draft")])),
            bad("prompt is a string", prompt(json!("support/greet"))),
            bad("prompt is a list", prompt(json!([GREET]))),
            bad("prompt is a number", prompt(json!(7))),
            bad("prompt is true", prompt(json!(true))),
            bad("unknown field in prompt", prompt(json!({"id": GREET, "vars": {}}))),
            bad("id is a number", prompt(json!({"id": 7}))),
            bad("version 0", prompt(json!({"id": GREET, "version": 0}))),
            bad("version is a word", prompt(json!({"id": GREET, "version": "latest"}))),
            bad("variables are a list", prompt(json!({"id": GREET, "variables": []}))),
            bad("header's variables are no JSON", json!({}))
                .map_case(|case| case.headers(&[("x-promptgate-prompt", GREET), ("x-promptgate-variables", "{")])),
            (
                case("prompt without id", prompt(json!({"variables": {}}))),
                400,
                "prompt_id_missing",
            ),
            (case("empty prompt", prompt(json!({}))), 400, "prompt_id_missing"),
            (case("empty id", prompt(json!({"id": ""}))), 400, "prompt_id_missing"),
            (
                case("empty model reference", with(json!({"model": "prompt/"}))),
                400,
                "prompt_id_missing",
            ),
            (
                case("unknown prompt", prompt(json!({"id": "support/nobody"}))),
                404,
                "prompt_not_found",
            ),
            (
                case("unknown prompt in the model", with(json!({"model": "prompt/nobody"}))),
                404,
                "prompt_not_found",
            ),
            (
                case("unknown prompt in the path", with(json!({}))).path("/v1/prompts/nobody/completions"),
                404,
                "prompt_not_found",
            ),
            (
                case("unknown version", prompt(json!({"id": GREET, "version": 9}))),
                404,
                "version_not_found",
            ),
            (
                case(
                    "huge version",
                    prompt(json!({"id": GREET, "version": 4_294_967_295u32})),
                ),
                404,
                "version_not_found",
            ),
            (
                case(
                    "unknown environment",
                    prompt(json!({"id": GREET, "environment": "moon"})),
                ),
                404,
                "environment_not_found",
            ),
            (
                case("nothing live", prompt(json!({"id": "support/draft"}))),
                404,
                "nothing_live",
            ),
            (
                case(
                    "nothing live there",
                    prompt(json!({"id": "support/draft", "environment": "staging"})),
                ),
                404,
                "nothing_live",
            ),
        ],
    )
    .await;
}

/// Changes the case of a table's row.
trait MapCase {
    fn map_case(self, change: impl FnOnce(Case) -> Case) -> Self;
}

impl MapCase for (Case, u16, &str) {
    fn map_case(self, change: impl FnOnce(Case) -> Case) -> Self {
        (change(self.0), self.1, self.2)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_2_prompt_fields_never_reach_the_provider() {
    const FIELDS: [&str; 9] = [
        "prompt",
        "prompt_id",
        "inputs",
        "prompt_variables",
        "variables",
        "environment",
        "prompt_label",
        "version_id",
        "prompt_version",
    ];
    let gateway = greet().await;
    let messages = json!([{"role": "user", "content": "hi"}]);
    let table = [
        (
            "with an id",
            json!({"prompt": {"id": GREET}, "prompt_id": GREET, "inputs": ada(), "prompt_variables": ada(), "variables": ada()}),
        ),
        (
            "with an environment",
            json!({"prompt_id": GREET, "inputs": ada(), "environment": "staging", "prompt_label": "staging"}),
        ),
        (
            "with a version",
            json!({"prompt_id": GREET, "inputs": ada(), "version_id": 2, "prompt_version": "2"}),
        ),
        (
            "without an id",
            json!({"model": "mock-model", "inputs": ada(), "variables": ada(), "version_id": 1, "prompt_label": "x"}),
        ),
        (
            "without an id, null",
            json!({"model": "mock-model", "prompt": null, "prompt_id": null, "prompt_variables": 7, "environment": null}),
        ),
        (
            "without an id, streamed",
            json!({"model": "renamed-model", "stream": true, "prompt_version": "x1".len(), "environment": "x"}),
        ),
    ];
    for (name, mut body) in table {
        body["messages"] = messages.clone();
        let answer = gateway.chat(body).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let sent = gateway.mock.last_body().await;
        for field in FIELDS {
            assert!(sent.get(field).is_none(), "{name}: {field} was sent in {sent}");
        }
    }
    let raw = json!({"model": "mock-model", "messages": messages, "inputs": ada()});
    assert_eq!(
        gateway.chat(raw).await.expect(200).header("x-promptgate-ignored"),
        "inputs"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_2_plain_request_is_forwarded_to_the_byte() {
    let gateway = TestGateway::start().await;
    let body =
        r#"{ "model" : "mock-model","messages":[{"role":"user","content":"\u00e9 é 😀"}], "seed":1.0e2, "x":[1,2 ] }"#;
    let request = gateway
        .request(Method::POST, CHAT)
        .header("content-type", "application/json");
    let answer = Answer::read(request.body(body).send().await.unwrap()).await.expect(200);
    assert_eq!(gateway.mock.stats().await["last_request"]["body"], body);
    assert_eq!(gateway.record(answer.id()).await["prompt_id"], "");
}
