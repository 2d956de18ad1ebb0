//! Answers that go wrong as asked.

use super::*;

const CLOSE: (&str, &str) = ("connection", "close");

fn streamed() -> Value {
    hello_with(json!({"stream": true}))
}

async fn raw(mock: &MockProvider, body: &Value, controls: &[(&str, &str)]) -> Vec<u8> {
    let headers = [&[CLOSE], controls].concat();
    read_to_end(send_raw(mock, CHAT, body, &headers).await).await
}

#[tokio::test]
async fn cut_stream_ends_after_its_chunks_without_the_last_http_chunk() {
    let mock = start(Controls::default());
    for (cut, expected) in [("body", 0), ("0", 0), ("1", 1), ("3", 3), ("18", 18)] {
        let response = raw(&mock, &streamed(), &[("x-mock-cut", cut)]).await;
        let (chunks, complete) = http_chunks(&response);
        let stream = String::from_utf8(chunks.concat()).unwrap();
        assert_eq!(
            (events(&stream).len(), complete),
            (expected, false),
            "cut={cut}: {stream}"
        );
    }
    let stats = stats(&mock).await;
    assert_eq!((&stats["cancelled"], &stats["open_streams"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn cut_beyond_the_stream_changes_nothing() {
    let mock = start(Controls::default());
    let response = raw(&mock, &streamed(), &[("x-mock-cut", "19")]).await;
    let (chunks, complete) = http_chunks(&response);
    assert!(complete && chunks.concat().ends_with(b"data: [DONE]\n\n"));
}

#[tokio::test]
async fn cut_head_sends_no_byte_and_cut_plain_stops_mid_body() {
    let mock = start(Controls::default());
    assert_eq!(raw(&mock, &hello(), &[("x-mock-cut", "head")]).await, b"");
    let error = post(&mock, CHAT, &hello(), &[("x-mock-cut", "1")])
        .await
        .text()
        .await
        .unwrap_err();
    assert!(error.is_body() || error.is_decode(), "{error:?}");
    let response = String::from_utf8(raw(&mock, &hello(), &[("x-mock-cut", "1")]).await).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap() / 2);
    let response = raw(&mock, &hello(), &[("x-mock-cut", "body")]).await;
    assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n") && response.ends_with(b"\r\n\r\n"));
}

#[tokio::test]
async fn stalled_head_is_freed_when_the_client_leaves() {
    let mock = start(Controls::default());
    let connection = send_raw(&mock, CHAT, &hello(), &[("x-mock-stall", "head")]).await;
    wait_for_stats(&mock, "received", |stats| stats["requests"] == 1).await;
    assert_eq!(stats(&mock).await["cancelled"], 0);
    drop(connection);
    wait_for_stats(&mock, "cancelled", |stats| stats["cancelled"] == 1).await;
}

#[tokio::test]
async fn stalled_stream_is_silent_after_its_chunks_until_the_client_leaves() {
    let mock = start(Controls::default());
    let mut connection = send_raw(&mock, CHAT, &streamed(), &[("x-mock-stall", "2")]).await;
    let response = read_until(&mut connection, "\n\n\r\n").await;
    assert_eq!(
        events(&String::from_utf8(http_chunks(&response).0.concat()).unwrap()).len(),
        2
    );
    let mut more = [0; 1];
    assert!(
        timeout(Duration::from_millis(50), connection.read(&mut more))
            .await
            .is_err(),
        "not silent"
    );
    wait_for_stats(&mock, "open", |stats| stats["open_streams"] == 1).await;
    drop(connection);
    wait_for_stats(&mock, "freed", |stats| {
        stats["open_streams"] == 0 && stats["cancelled"] == 1
    })
    .await;
}

#[tokio::test]
async fn stalled_body_has_sent_its_head() {
    let mock = start(Controls::default());
    for body in [hello(), streamed()] {
        let mut connection = send_raw(&mock, CHAT, &body, &[("x-mock-stall", "body")]).await;
        let head = read_until(&mut connection, "\r\n\r\n").await;
        assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn paced_stream_is_cancelled_when_the_client_leaves_midway() {
    let mock = start(Controls::default());
    let controls = [("x-mock-chunk-interval", "1ms"), ("x-mock-tokens", "100000")];
    let mut connection = send_raw(&mock, CHAT, &streamed(), &controls).await;
    read_until(&mut connection, "\n\n\r\n").await;
    assert_eq!(stats(&mock).await["open_streams"], 1);
    drop(connection);
    wait_for_stats(&mock, "cancelled", |stats| {
        stats["open_streams"] == 0 && stats["cancelled"] == 1
    })
    .await;
}

#[tokio::test]
async fn unpaced_stream_is_cancelled_when_the_client_leaves_it_unread() {
    let mock = start(Controls::default());
    let mut connection = send_raw(&mock, CHAT, &streamed(), &[("x-mock-tokens", "100000")]).await;
    let mut some = [0; 1000];
    connection.read_exact(&mut some).await.unwrap();
    assert_eq!(
        stats(&mock).await["open_streams"],
        1,
        "some 25 MB fit into no socket buffer"
    );
    drop(connection);
    wait_for_stats(&mock, "cancelled", |stats| {
        stats["open_streams"] == 0 && stats["cancelled"] == 1
    })
    .await;
}

#[tokio::test]
async fn split_stream_has_the_same_bytes_in_pieces() {
    let mock = start(Controls {
        text: Some("Grüße, 世界 🎉".into()),
        ..Controls::default()
    });
    let identity = |bytes: Vec<u8>| {
        events(&String::from_utf8(bytes).unwrap())
            .into_iter()
            .map(without_identity)
            .collect::<Vec<_>>()
    };
    let whole = raw(&mock, &streamed(), &[]).await;
    let whole = identity(http_chunks(&whole).0.concat());
    for piece_bytes in [1, 7, 300] {
        let split = raw(&mock, &streamed(), &[("x-mock-split", &piece_bytes.to_string())]).await;
        let (chunks, complete) = http_chunks(&split);
        let (last, others) = chunks.split_last().unwrap();
        assert!(complete && last.len() <= piece_bytes);
        assert!(others.iter().all(|chunk| chunk.len() == piece_bytes));
        assert_eq!(identity(chunks.concat()), whole);
    }
}

#[tokio::test]
async fn split_pieces_leave_one_by_one() {
    let mock = start(Controls::default());
    let controls = [("x-mock-split", "4"), ("x-mock-chunk-interval", "30s")];
    let mut connection = send_raw(&mock, CHAT, &streamed(), &controls).await;
    let first = read_until(&mut connection, "4\r\ndata\r\n").await;
    assert_eq!(http_chunks(&first), (vec![&b"data"[..]], false));
}

#[tokio::test]
async fn malformed_breaks_one_chunk_or_the_plain_body() {
    let mock = start(Controls {
        malformed: Some(2.try_into().unwrap()),
        ..Controls::default()
    });
    let stream = post_stream(&mock, CHAT, &streamed(), &[]).await;
    let broken: Vec<usize> = (stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .enumerate())
    .filter(|(_, data)| *data != "[DONE]" && serde_json::from_str::<Value>(data).is_err())
    .map(|(index, _)| index)
    .collect();
    assert_eq!(broken, [1]);
    let plain = post(&mock, CHAT, &hello(), &[]).await.text().await.unwrap();
    assert!(
        plain.starts_with('{') && serde_json::from_str::<Value>(&plain).is_err(),
        "{plain}"
    );
}

#[tokio::test]
async fn error_in_stream_ends_it_with_an_error_event() {
    let mock = start(Controls::default());
    let stream = post_stream(&mock, CHAT, &streamed(), &[("x-mock-error-in-stream", "2")]).await;
    let chunks = events(&stream);
    assert_eq!(chunks.len(), 3);
    assert_eq!(chunks[2]["error"]["type"], "server_error");
    assert!(!stream.contains("[DONE]"));
}

#[tokio::test]
async fn stream_without_done_with_crlf_and_with_comments() {
    let mock = start(Controls::default());
    let stream = post_stream(&mock, CHAT, &streamed(), &[("x-mock-no-done", "")]).await;
    assert!(!stream.contains("[DONE]") && stream.contains(r#""finish_reason":"stop""#));
    let stream = post_stream(&mock, CHAT, &streamed(), &[("x-mock-crlf", "")]).await;
    assert!(stream.ends_with("data: [DONE]\r\n\r\n"));
    assert_eq!(stream.matches('\n').count(), stream.matches("\r\n").count());
    let stream = post_stream(&mock, CHAT, &streamed(), &[("x-mock-pad-comments", "")]).await;
    assert_eq!(stream.matches(": keep-alive\n\ndata: ").count(), 19);
}

#[tokio::test]
async fn error_statuses_have_openai_shape_and_retry_after() {
    let mock = start(Controls::default());
    for status in ["400", "401", "404", "429", "500", "503"] {
        let response = post(
            &mock,
            CHAT,
            &streamed(),
            &[("x-mock-status", status), ("x-mock-retry-after", "7")],
        )
        .await;
        assert_eq!(response.status().as_str(), status);
        let retry_after = response
            .headers()
            .get("retry-after")
            .map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(retry_after.as_deref(), ["429", "503"].contains(&status).then_some("7"));
        let body: Value = response.json().await.unwrap();
        assert!(
            body["error"]["message"].is_string() && body["error"]["type"].is_string(),
            "{body}"
        );
    }
    let response = post(&mock, CHAT, &hello(), &[("x-mock-status", "429")]).await;
    assert_eq!(response.headers()["retry-after"], "1");
}

#[tokio::test]
async fn bad_requests_and_bad_controls_are_400_that_say_why() {
    let mock = start(Controls::default());
    let url = format!("http://{}{CHAT}", mock.local_addr());
    for body in [
        "",
        "{",
        r#"{"model":"m","messages":[]"#,
        "\u{1}",
        r#"{"model":"m","messages":"hi"}"#,
        "{}",
    ] {
        let response = reqwest::Client::new().post(&url).body(body).send().await.unwrap();
        assert_eq!(response.status(), 400, "{body}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["type"], "invalid_request_error");
    }
    let (status, body) = post_json(&mock, CHAT, &json!({"model": "m"}), &[]).await;
    assert_eq!((status, &body["error"]["param"]), (400, &json!("messages")));
    let (status, body) = post_json(&mock, CHAT, &hello(), &[("x-mock-latency", "soon")]).await;
    let expected =
        "mock control `latency` cannot be `soon`: expected a duration up to 1h such as 20ms, 1.5s, 250us or 0";
    assert_eq!((status, &body["error"]["message"]), (400, &json!(expected)));
    let (status, _) = post_json(&mock, CHAT, &hello_with(json!({"model": "m?colour=red"})), &[]).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn required_key_is_asked_for() {
    let mock = start(Controls {
        require_key: Some("sk-right".into()),
        ..Controls::default()
    });
    for (headers, expected) in [
        (&[][..], 401),
        (&[("authorization", "Bearer sk-wrong")], 401),
        (&[("authorization", "Bearer sk-right")], 200),
    ] {
        assert_eq!(
            post_json(&mock, CHAT, &hello(), headers).await.0,
            expected,
            "{headers:?}"
        );
    }
    assert_eq!(
        reqwest::get(format!("http://{}/healthz", mock.local_addr()))
            .await
            .unwrap()
            .status(),
        200
    );
}
