//! Chat completions as they should be.

use super::*;

#[tokio::test]
async fn plain_answer_has_openai_shape_and_real_usage() {
    let mock = start(Controls::default());
    let response = post(&mock, CHAT, &hello(), &[]).await;
    assert_eq!(response.status(), 200);
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/json");
    assert!(headers["x-request-id"].to_str().unwrap().starts_with("req_"));
    for name in [
        "openai-processing-ms",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
    ] {
        assert!(headers[name].to_str().unwrap().parse::<u64>().is_ok(), "{name}");
    }
    let body: Value = response.json().await.unwrap();
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(
        body["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .split(' ')
            .count(),
        16
    );
    insta::assert_json_snapshot!(without_identity(body), @r#"
    {
      "id": "-",
      "object": "chat.completion",
      "created": "-",
      "model": "mock-model",
      "service_tier": "default",
      "system_fingerprint": "fp_promptgate_mock",
      "choices": [
        {
          "index": 0,
          "message": {
            "role": "assistant",
            "content": "Their bread begins about while the that travellers. Where trees questions moves that distant long bring.",
            "refusal": null,
            "annotations": []
          },
          "logprobs": null,
          "finish_reason": "stop"
        }
      ],
      "usage": {
        "prompt_tokens": 3,
        "completion_tokens": 16,
        "total_tokens": 19,
        "prompt_tokens_details": {
          "cached_tokens": 0
        },
        "completion_tokens_details": {
          "reasoning_tokens": 0
        }
      }
    }
    "#);
}

#[tokio::test]
async fn same_request_gets_same_text_and_new_id() {
    let mock = start_with(Controls::default(), 2);
    let (_, first) = post_json(&mock, CHAT, &hello(), &[]).await;
    let (_, second) = post_json(&mock, "/chat/completions", &hello(), &[]).await;
    assert_ne!(first["id"], second["id"]);
    assert_eq!(first["choices"], second["choices"]);
    let (_, seeded) = post_json(&mock, CHAT, &hello(), &[("x-mock-seed", "1")]).await;
    assert_ne!(first["choices"], seeded["choices"]);
}

#[tokio::test]
async fn stream_says_the_plain_text_word_by_word_then_usage_then_done() {
    let mock = start(Controls::default());
    let (_, plain) = post_json(&mock, CHAT, &hello(), &[]).await;
    let body = hello_with(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let stream = post_stream(&mock, CHAT, &body, &[]).await;
    assert!(stream.ends_with("\n\ndata: [DONE]\n\n"), "{stream}");
    let mut chunks = events(&stream);
    assert_eq!(text_of(&chunks), plain["choices"][0]["message"]["content"]);
    let usage = chunks.pop().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]), (&json!([]), &plain["usage"]));
    // Role, 16 words, finish reason.
    assert_eq!(chunks.len(), 18);
    assert!(chunks.iter().all(|chunk| chunk.as_object().unwrap()["usage"].is_null()));
    assert_eq!(chunks[17]["choices"][0]["finish_reason"], "stop");
    insta::assert_json_snapshot!(without_identity(chunks.swap_remove(0)), @r#"
    {
      "id": "-",
      "object": "chat.completion.chunk",
      "created": "-",
      "model": "mock-model",
      "service_tier": "default",
      "system_fingerprint": "fp_promptgate_mock",
      "choices": [
        {
          "index": 0,
          "delta": {
            "role": "assistant",
            "content": "",
            "refusal": null
          },
          "logprobs": null,
          "finish_reason": null
        }
      ],
      "usage": null
    }
    "#);
}

#[tokio::test]
async fn stream_without_include_usage_has_no_usage_field() {
    let mock = start(Controls::default());
    let chunks = events(&post_stream(&mock, CHAT, &hello_with(json!({"stream": true})), &[]).await);
    assert_eq!(chunks.len(), 18);
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn no_usage_leaves_it_out_everywhere() {
    let mock = start(Controls {
        no_usage: true,
        ..Controls::default()
    });
    let (_, plain) = post_json(&mock, CHAT, &hello(), &[]).await;
    assert_eq!(plain.get("usage"), None);
    let body = hello_with(json!({"stream": true, "stream_options": {"include_usage": true}}));
    assert!(!post_stream(&mock, CHAT, &body, &[]).await.contains("usage"));
}

#[tokio::test]
async fn token_limits_cut_the_text_short() {
    let mock = start(Controls::default());
    let (_, whole) = post_json(&mock, CHAT, &hello(), &[]).await;
    let whole = whole["choices"][0]["message"]["content"].as_str().unwrap();
    for field in ["max_tokens", "max_completion_tokens"] {
        let (_, body) = post_json(&mock, CHAT, &hello_with(json!({field: 5})), &[]).await;
        assert_eq!(body["choices"][0]["finish_reason"], "length");
        assert_eq!(body["usage"]["completion_tokens"], 5);
        assert!(whole.starts_with(body["choices"][0]["message"]["content"].as_str().unwrap()));
        let (_, body) = post_json(&mock, CHAT, &hello_with(json!({field: 16})), &[]).await;
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn choices_differ_and_add_up() {
    let mock = start(Controls::default());
    let (_, body) = post_json(&mock, CHAT, &hello_with(json!({"n": 3})), &[]).await;
    let choices = body["choices"].as_array().unwrap();
    assert_eq!((choices.len(), &body["usage"]["completion_tokens"]), (3, &json!(48)));
    assert_ne!(choices[0]["message"], choices[1]["message"]);
    let stream = post_stream(&mock, CHAT, &hello_with(json!({"n": 3, "stream": true})), &[]).await;
    for (index, choice) in choices.iter().enumerate() {
        let of_choice = events(&stream)
            .into_iter()
            .filter(|chunk| chunk["choices"][0]["index"] == json!(index));
        assert_eq!(text_of(&of_choice.collect::<Vec<_>>()), choice["message"]["content"]);
    }
}

#[tokio::test]
async fn required_tool_is_called_plain_and_in_fragments() {
    let mock = start(Controls::default());
    let tools = json!([{"type": "function", "function": {"name": "look_up", "parameters": {}}}]);
    let body = hello_with(json!({"tools": tools, "tool_choice": "required"}));
    let (_, plain) = post_json(&mock, CHAT, &body, &[]).await;
    let choice = &plain["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    let function = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(*function, json!({"name": "look_up", "arguments": "{}"}));

    let body = hello_with(json!({"tools": tools, "stream": true}));
    let chunks = events(&post_stream(&mock, CHAT, &body, &[("x-mock-tool-call", "true")]).await);
    let calls: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0])
        .filter(|call| !call.is_null())
        .collect();
    assert_eq!(calls[0]["function"]["name"], "look_up");
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
    assert_eq!(
        calls
            .iter()
            .filter_map(|call| call["function"]["arguments"].as_str())
            .collect::<String>(),
        "{}"
    );
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn echo_gives_back_the_messages_byte_for_byte() {
    let mock = start(Controls::default());
    let messages = r#"[ {"role":"user",  "content":"Gr\u00fc\u00dfe \"€\"\n"} ]"#;
    let request = format!(r#"{{"messages":{messages},"model":"m?echo"}}"#);
    let url = format!("http://{}{CHAT}", mock.local_addr());
    let response = reqwest::Client::new()
        .post(&url)
        .body(request.clone())
        .send()
        .await
        .unwrap();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], messages);
    assert_eq!(body["model"], "m");
    let request = request.replacen('{', r#"{"stream":true,"#, 1);
    let stream = reqwest::Client::new()
        .post(&url)
        .body(request)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(text_of(&events(&stream)), messages);
}

#[tokio::test]
async fn text_and_size_are_exact() {
    let mock = start(Controls::default());
    let limited = hello_with(json!({"max_tokens": 1}));
    let (_, body) = post_json(&mock, CHAT, &limited, &[("x-mock-text", "gr%C3%BCn%20%26 blau")]).await;
    assert_eq!(body["choices"][0]["message"]["content"], "grün & blau");
    assert_eq!(body["usage"]["completion_tokens"], 3);
    let (_, body) = post_json(&mock, CHAT, &hello(), &[("x-mock-size", "100000")]).await;
    assert_eq!(
        body["choices"][0]["message"]["content"].as_str().unwrap().len(),
        100_000
    );
}

#[tokio::test]
async fn latency_delays_the_head() {
    let mock = start(Controls::default());
    let before = std::time::Instant::now();
    let response = post(&mock, CHAT, &hello(), &[("x-mock-latency", "60ms")]).await;
    assert!(before.elapsed() >= Duration::from_millis(60));
    let reported: u64 = response.headers()["openai-processing-ms"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(reported >= 60, "{reported}");
}

#[tokio::test]
async fn chunk_interval_spaces_the_chunks() {
    let mock = start(Controls::default());
    let body = hello_with(json!({"stream": true, "model": "m?chunk-interval=5ms&tokens=4"}));
    let before = std::time::Instant::now();
    let raw = send_raw(&mock, CHAT, &body, &[("connection", "close")]).await;
    let response = read_to_end(raw).await;
    // Role, four words, finish reason, [DONE]: six intervals between them.
    assert!(before.elapsed() >= Duration::from_millis(30));
    let (chunks, complete) = http_chunks(&response);
    assert!(complete);
    assert_eq!(chunks.len(), 7);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk.starts_with(b"data: ") && chunk.ends_with(b"\n\n"))
    );
}
