//! The other calls of OpenAI's API: responses (with prompts), completions and embeddings.

use serde_json::{Value, json};

use crate::support::TestGateway;

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
