//! The endpoints beside chat completions.

use super::*;

async fn get(mock: &MockProvider, path: &str) -> (u16, Value) {
    let response = reqwest::get(format!("http://{}{path}", mock.local_addr()))
        .await
        .unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn models_and_health_answer_and_other_paths_do_not() {
    let mock = start(Controls::default());
    let (status, body) = get(&mock, "/v1/models").await;
    assert_eq!(
        (status, &body["object"], &body["data"][0]["id"]),
        (200, &json!("list"), &json!("mock-model"))
    );
    assert_eq!(get(&mock, "/models").await.0, 200);
    assert_eq!(get(&mock, "/healthz").await, (200, json!({"status": "ok"})));
    assert_eq!(get(&mock, "/v1/nothing").await.1["error"]["code"], "unknown_url");
    assert_eq!(get(&mock, CHAT).await.0, 405);
}

#[tokio::test]
async fn embeddings_answer_each_input_as_floats_or_base64() {
    let mock = start(Controls::default());
    let path = "/v1/embeddings";
    for (input, expected) in [
        (json!("one"), 1),
        (json!(["one", "two"]), 2),
        (json!([1, 2, 3]), 1),
        (json!([[1], [2]]), 2),
    ] {
        let (status, body) = post_json(&mock, path, &json!({"model": "e", "input": input}), &[]).await;
        assert_eq!(
            (status, body["data"].as_array().unwrap().len()),
            (200, expected),
            "{input}"
        );
        assert_eq!(body["data"][0]["embedding"].as_array().unwrap().len(), 16);
        assert_eq!(body["usage"]["prompt_tokens"], body["usage"]["total_tokens"]);
    }
    let request = json!({"model": "e", "input": "one", "dimensions": 3, "encoding_format": "base64"});
    let (_, body) = post_json(&mock, path, &request, &[]).await;
    assert_eq!(body["data"][0]["embedding"].as_str().unwrap().len(), 16);
    assert_eq!(post_json(&mock, path, &json!({"model": "e"}), &[]).await.0, 400);
}

#[tokio::test]
async fn completions_answer_plain_and_streamed() {
    let mock = start(Controls::default());
    let request = json!({"model": "m", "prompt": "Once upon a time", "max_tokens": 4});
    let (_, plain) = post_json(&mock, "/v1/completions", &request, &[]).await;
    assert_eq!(
        (&plain["object"], &plain["choices"][0]["finish_reason"]),
        (&json!("text_completion"), &json!("length"))
    );
    assert_eq!(plain["usage"]["completion_tokens"], 4);
    let request = json!({"model": "m", "prompt": "Once upon a time", "max_tokens": 4, "stream": true,
        "stream_options": {"include_usage": true}});
    let stream = post_stream(&mock, "/v1/completions", &request, &[]).await;
    assert!(stream.ends_with("data: [DONE]\n\n"));
    let chunks = events(&stream);
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(text, plain["choices"][0]["text"]);
    assert_eq!(chunks.last().unwrap()["usage"], plain["usage"]);
}

#[tokio::test]
async fn responses_stream_has_its_typed_events_in_order() {
    let mock = start(Controls {
        tokens: 2,
        ..Controls::default()
    });
    let request = json!({"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]});
    let (_, plain) = post_json(&mock, "/v1/responses", &request, &[]).await;
    assert_eq!(
        (&plain["object"], &plain["status"]),
        (&json!("response"), &json!("completed"))
    );
    let text = plain["output"][0]["content"][0]["text"].as_str().unwrap();

    let request = json!({"model": "m", "input": request["input"], "stream": true});
    let stream = post_stream(&mock, "/v1/responses", &request, &[]).await;
    let events = events(&stream);
    let names: Vec<&str> = stream.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(
        names,
        events
            .iter()
            .map(|event| event["type"].as_str().unwrap())
            .collect::<Vec<_>>()
    );
    insta::assert_json_snapshot!(names, @r#"
    [
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
      "response.output_text.delta",
      "response.output_text.delta",
      "response.output_text.done",
      "response.content_part.done",
      "response.output_item.done",
      "response.completed"
    ]
    "#);
    for (position, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], position);
    }
    assert_eq!(
        events
            .iter()
            .filter_map(|event| event["delta"].as_str())
            .collect::<String>(),
        text
    );
    let last = &events.last().unwrap()["response"];
    assert_eq!(last["usage"], plain["usage"]);
    assert_eq!(last["output"][0]["content"], plain["output"][0]["content"]);
    assert_eq!(plain["usage"]["total_tokens"], 3);
}

#[tokio::test]
async fn responses_limit_and_error_have_their_own_events() {
    let mock = start(Controls::default());
    let request = json!({"model": "m", "input": "Hi", "max_output_tokens": 3, "stream": true});
    let last = events(&post_stream(&mock, "/v1/responses", &request, &[]).await)
        .pop()
        .unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"]["reason"], "max_output_tokens");
    let stream = post_stream(&mock, "/v1/responses", &request, &[("x-mock-error-in-stream", "3")]).await;
    assert!(stream.contains("event: error\n"), "{stream}");
    let error = events(&stream).pop().unwrap();
    assert_eq!(
        (&error["type"], &error["sequence_number"]),
        (&json!("error"), &json!(3))
    );
}
