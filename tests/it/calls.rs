//! The other calls of OpenAI's API: responses (with prompts), completions and embeddings.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, TestGateway};

async fn gateway() -> TestGateway {
    let gateway = TestGateway::start().await;
    let content = json!({
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"placeholder": "history"},
            {"role": "user", "content": [{"type": "text", "text": "{{ question }}"}]},
        ],
        "variables": {"question": {"type": "string"}},
        "model": "mock-model",
        "parameters": {"max_tokens": 12, "temperature": 0.2},
    });
    gateway.prompt("support/greet", content).await;
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_get_the_prompt_in_their_own_form() {
    let gateway = gateway().await;
    let body = json!({
        "prompt": {"id": "support/greet", "version": null, "variables": {"question": {"type": "input_text", "text": "Where?"}}},
        "input": [{"role": "user", "content": "earlier"}, {"type": "item_reference", "id": "msg_1"}],
        "include": [],
        "max_output_tokens": 99,
        "metadata": {"team": "a"},
    });
    let answer = gateway.post("/v1/responses", &body).await.expect(200);
    assert_eq!(answer.json()["object"], "response");
    assert_eq!(answer.header("x-promptgate-version"), "1");
    assert_eq!(answer.header("x-promptgate-ignored"), "max_output_tokens");
    let sent = gateway.mock.last_body().await;
    assert_eq!(
        sent,
        json!({
            "model": "mock-model",
            "input": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "earlier"},
                {"type": "item_reference", "id": "msg_1"},
                {"role": "user", "content": [{"type": "input_text", "text": "Where?"}]},
            ],
            "max_output_tokens": 12,
            "temperature": 0.2,
            "metadata": {"team": "a"},
        })
    );
    let record = gateway.record(answer.id()).await;
    let usage = &answer.json()["usage"];
    assert_eq!(record["endpoint"], "responses");
    assert_eq!(
        (&record["input_tokens"], &record["output_tokens"]),
        (&usage["input_tokens"], &usage["output_tokens"])
    );
    assert_eq!(record["model"], "mock-model*");
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_response_passes_as_it_is_and_is_recorded_whole() {
    let gateway = gateway().await;
    let body = json!({"model": "mock-model", "input": "Where?", "stream": true});
    let answer = gateway.post("/v1/responses", &body).await.expect(200);
    let text = answer.text().to_owned();
    assert!(
        text.contains("response.output_text.delta") && text.contains("response.completed"),
        "{text}"
    );
    let record = gateway.record(answer.id()).await;
    assert_eq!((&record["outcome"], &record["streaming"]), (&json!("ok"), &json!(true)));
    assert_eq!(record["finish_reason"], "completed");
    assert!(record["output_tokens"].as_u64() > Some(0), "{record}");
    assert!(record["time_to_first_token_us"].as_u64() > Some(0), "{record}");
    assert_eq!(record["response"]["object"], "response");

    let cut = json!({"model": "mock-model?cut=6", "input": "Where?", "stream": true});
    let answer = gateway.post("/v1/responses", &cut).await.expect(200);
    assert!(
        answer.text().contains("event: error\ndata: {\"type\":\"error\""),
        "{}",
        answer.text()
    );
    assert_eq!(gateway.record(answer.id()).await["outcome"], "upstream_error");
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_refuse_what_the_prompt_or_the_call_does_not_have() {
    let gateway = gateway().await;
    let asked = |more: Value| {
        let mut body = json!({"prompt": {"id": "support/greet", "variables": {"question": "?"}}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for more in [
        json!({"instructions": "Obey me"}),
        json!({"input": [{"role": "developer", "content": "x"}]}),
    ] {
        gateway
            .post("/v1/responses", &asked(more))
            .await
            .refused(400, "caller_system_message");
    }
    let content = json!({"text": "hi", "model": "mock-model", "parameters": {"stop": ["x"]}});
    gateway.prompt("stops", content).await;
    gateway
        .post("/v1/responses", &json!({"prompt": {"id": "stops"}}))
        .await
        .refused(400, "invalid_field");
    assert_eq!(gateway.mock.requests().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_embeddings_keep_their_prompt_and_input() {
    let gateway = gateway().await;
    let body = json!({"model": "mock-model", "prompt": "Once upon", "variables": 1});
    let answer = gateway.post("/v1/completions", &body).await.expect(200);
    assert_eq!(
        gateway.mock.last_body().await,
        body,
        "nothing is removed: these are ordinary fields"
    );
    let record = gateway.record(answer.id()).await;
    assert_eq!(record["endpoint"], "completions");
    assert!(record["output_tokens"].as_u64() > Some(0), "{record}");

    let streamed = json!({"model": "mock-model", "prompt": "Once upon", "stream": true});
    let answer = gateway.post("/v1/completions", &streamed).await.expect(200);
    assert!(answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
    let record = gateway.record(answer.id()).await;
    assert!(record["output_tokens"].as_u64() > Some(0), "{record}");
    assert!(
        record["response"]["content"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{record}"
    );

    let body = json!({"model": "mock-model", "input": ["a", "b"]});
    let answer = gateway.post("/v1/embeddings", &body).await.expect(200);
    assert_eq!(answer.json()["data"].as_array().map(Vec::len), Some(2));
    let record = gateway.record(answer.id()).await;
    assert_eq!(record["endpoint"], "embeddings");
    assert_eq!(record["input_tokens"], answer.json()["usage"]["prompt_tokens"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn prompt_is_read_by_applications_that_render_it_themselves() {
    let gateway = gateway().await;
    let read = async |path: &str, etag: &str| {
        let request = gateway.request(Method::GET, path).header("if-none-match", etag);
        Answer::read(request.header("x-promptgate-unit", "ada").send().await.unwrap()).await
    };
    let first = read("/v1/prompts/support/greet", "").await.expect(200);
    let body = first.json();
    assert_eq!((&body["id"], &body["version"]), (&json!("support/greet"), &json!(1)));
    assert_eq!(
        (&body["variant"], &body["environment"]),
        (&json!("control"), &json!("production"))
    );
    assert_eq!(
        body["content"]["messages"][0],
        json!({"role": "system", "content": "Be brief."})
    );
    assert_eq!(body["content"]["model"], "mock-model");
    let etag = first.header("etag").to_owned();
    for known in [etag.as_str(), &format!("\"other\", W/{etag}")] {
        let unchanged = read("/v1/prompts/support%2Fgreet@production", known).await.expect(304);
        assert_eq!((unchanged.header("etag"), unchanged.body.len()), (etag.as_str(), 0));
        assert_eq!(unchanged.header("x-promptgate-version"), "1");
    }
    let version = gateway.version("support/greet", json!({"text": "Hello"})).await;
    gateway
        .deploy("support/greet", "production", json!([["control", version, 100]]))
        .await;
    let next = read("/v1/prompts/support/greet", &etag).await.expect(200);
    assert_eq!(next.json()["version"], 2);
    assert_ne!(next.header("etag"), etag);
    let pinned = read("/v1/prompts/support/greet:1", &etag).await.expect(200).json();
    assert_eq!(
        (&pinned["variant"], &pinned["deployment"]),
        (&json!("pinned"), &json!(null))
    );
    read("/v1/prompts/support/nobody", "").await.expect(404);
    let wrong = gateway.post("/v1/prompts/support/greet", &json!({})).await.expect(405);
    assert_eq!(wrong.header("allow"), "GET");
}
