//! Streamed answers: what passes, what is held back, how they end, and who left when.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{Answer, PROVIDER_KEY, TestGateway, Wire, content_of, events, scripted};

fn streamed(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Grüße €"}], "stream": true})
}

/// Sends a streamed chat completion to the gateway and to the mock itself; the latter asks for usage, as the gateway does.
async fn both(gateway: &TestGateway, model: &str) -> (Answer, String) {
    let through = gateway.chat(streamed(model)).await;
    let mut body = streamed(model);
    body["stream_options"] = json!({"include_usage": true});
    let direct = gateway.mock.chat(&body).await.text().await.expect("a stream");
    (through, direct)
}

/// Replaces what differs between two answers of the mock: id and second.
fn without_stamps(stream: &str) -> String {
    let digits = |text: &str, from: usize| {
        text[from..]
            .find(|c: char| !c.is_ascii_hexdigit())
            .map_or(text.len(), |n| from + n)
    };
    let mut out = stream.to_owned();
    for mark in ["chatcmpl-", "\"created\":"] {
        let mut at = 0;
        while let Some(found) = out[at..].find(mark) {
            let start = at + found + mark.len();
            let end = digits(&out, start);
            out.replace_range(start..end, "0");
            at = start;
        }
    }
    out
}

/// Takes the usage chunk out of a stream: the last event before `[DONE]`.
fn without_usage(stream: &str, line_end: &str) -> String {
    let separator = format!("{line_end}{line_end}");
    let is_usage = |event: &str| event.contains("\"choices\":[],\"usage\":{");
    let mut kept: Vec<&str> = stream.split(&separator).collect();
    kept.retain(|event| !is_usage(event));
    kept.join(&separator)
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_passes_byte_for_byte_without_the_usage_nobody_asked_for() {
    let gateway = TestGateway::start().await;
    for (model, line_end) in [
        ("mock-model", "\n"),
        ("mock-model?split=1", "\n"),
        ("mock-model?split=3&crlf", "\r\n"),
        ("mock-model?crlf", "\r\n"),
        ("mock-model?text=%F0%9F%98%80%20%22a%5Cb%22%0A%E2%82%AC&split=1", "\n"),
        ("mock-model?tokens=400&chunk-interval=100us", "\n"),
        ("mock-model?size=20000", "\n"),
    ] {
        let (through, direct) = both(&gateway, model).await;
        assert!(direct.contains("\"usage\":{"), "{model}: {direct}");
        assert_eq!(
            without_stamps(through.text()),
            without_stamps(&without_usage(&direct, line_end)),
            "{model}"
        );
        assert_eq!(through.header("content-type"), "text/event-stream; charset=utf-8");
        let record = gateway.record(through.id()).await;
        assert_eq!(
            (&record["outcome"], &record["streaming"]),
            (&"ok".into(), &true.into()),
            "{model}"
        );
        assert_eq!(record["response"]["content"], content_of(through.text()), "{model}");
        assert!(record["output_tokens"].as_u64() > Some(0), "{model}: {record}");
        assert!(record["time_to_first_token_us"].as_u64() > Some(0), "{model}: {record}");
        assert!(
            record["time_to_first_token_us"].as_u64() <= record["total_us"].as_u64(),
            "{model}: {record}"
        );
        assert_eq!(record["response_bytes"], through.body.len(), "{model}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_comments_pass() {
    let gateway = TestGateway::start().await;
    for model in ["mock-model?pad-comments", "mock-model?pad-comments&split=1&crlf"] {
        let through = gateway.chat(streamed(model)).await.expect(200);
        let plain = gateway.chat(streamed("mock-model")).await.expect(200);
        let data = |answer: &Answer| without_stamps(&events(answer.text()).join("\n"));
        assert_eq!(data(&through), data(&plain), "{model}");
        let comments = through.text().lines().filter(|line| *line == ": keep-alive").count();
        assert!(comments >= events(through.text()).len(), "{model}: {comments}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_usage_passes_when_asked_for() {
    let gateway = TestGateway::start().await;
    let mut body = streamed("mock-model");
    body["stream_options"] = json!({"include_usage": true});
    let through = gateway.chat(body.clone()).await.expect(200);
    let direct = gateway.mock.chat(&body).await.text().await.unwrap();
    assert_eq!(without_stamps(through.text()), without_stamps(&direct));
    let events = events(through.text());
    let usage: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    let record = gateway.record(through.id()).await;
    for (field, column) in [
        ("prompt_tokens", "input_tokens"),
        ("completion_tokens", "output_tokens"),
        ("total_tokens", "total_tokens"),
    ] {
        assert_eq!(usage["usage"][field], record[column], "{record}");
    }
    assert!(record["cost_nanodollars"].as_u64() > Some(0), "{record}");

    body["stream_options"] = json!({"include_usage": false, "include_obfuscation": false});
    let through = gateway.chat(body).await.expect(200);
    assert!(!through.text().contains("\"usage\":{"), "{}", through.text());
    let options = gateway.mock.last_body().await["stream_options"].clone();
    assert_eq!(options, json!({"include_usage": true, "include_obfuscation": false}));
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_fails_ends_with_an_event_and_is_recorded_as_failed() {
    let gateway = TestGateway::with(|config| {
        config.providers[0].timeouts.idle = Duration::from_millis(300);
    })
    .await;
    // Control, what the stream then ends with, outcome, code; after 4 chunks, 3 words have come.
    let table = [
        ("cut=4", "upstream_invalid", "upstream_error", "upstream_invalid"),
        ("cut=body", "upstream_invalid", "upstream_error", "upstream_invalid"),
        ("stall=4", "upstream_timeout", "timeout", "upstream_timeout"),
        ("stall=body", "upstream_timeout", "timeout", "upstream_timeout"),
        ("error-in-stream=4", "", "upstream_error", "upstream_invalid"),
        ("malformed=5", "[DONE]", "upstream_error", "upstream_invalid"),
    ];
    for (control, ending, outcome, code) in table {
        let model = format!("mock-model?tokens=10&{control}");
        let answer = gateway.chat(streamed(&model)).await.expect(200);
        let events = events(answer.text());
        let last = events.last().unwrap();
        match ending {
            "[DONE]" => assert_eq!(last, ending, "{control}"),
            ending => {
                let error: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{control}: {e}: {last}"));
                assert!(error["error"]["message"].is_string(), "{control}: {last}");
                if !ending.is_empty() {
                    assert_eq!(error["error"]["code"], ending, "{control}: {last}");
                }
                assert!(!answer.text().contains("[DONE]"), "{control}");
            }
        }
        let record = gateway.record(answer.id()).await;
        let found = (&record["outcome"], &record["error_code"], &record["status_code"]);
        assert_eq!(found, (&outcome.into(), &code.into(), &200.into()), "{control}");
        let said = content_of(answer.text());
        let kept = record["response"]["content"].as_str().unwrap_or_default();
        assert_eq!(kept, said, "{control}: {record}");
        assert_eq!(said.is_empty(), control.ends_with("body"), "{control}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_without_its_done_event_is_complete_if_it_has_a_finish_reason() {
    let gateway = TestGateway::start().await;
    let answer = gateway.chat(streamed("mock-model?no-done")).await.expect(200);
    assert!(!answer.text().contains("error"), "{}", answer.text());
    assert_eq!(gateway.record(answer.id()).await["outcome"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_whose_last_event_has_no_blank_line_passes_to_the_byte() {
    const CHUNK: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n";
    for (tail, outcome) in [
        ("data: [DONE]\n", "ok"),
        ("data: [DONE]", "ok"),
        ("data: {\"id\":", "upstream_error"),
    ] {
        let stream = format!("{CHUNK}{tail}");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let url = scripted(format!("{head}{stream}")).await;
        let gateway = TestGateway::with(|config| config.providers[0].base_url = url.parse().unwrap()).await;
        let answer = gateway.chat(streamed("mock-model")).await.expect(200);
        if outcome == "ok" {
            assert_eq!(answer.text(), stream);
        } else {
            assert!(answer.text().contains("upstream_invalid"), "{}", answer.text());
        }
        assert_eq!(gateway.record(answer.id()).await["outcome"], outcome, "{tail:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_error_that_names_its_key_reaches_nobody_with_it() {
    let error = format!("{{\"error\":{{\"message\":\"wrong key {PROVIDER_KEY}\"}}}}");
    let event_stream = "content-type: text/event-stream\r\nconnection: close";
    for (head, body) in [
        (format!("200 OK\r\n{event_stream}"), format!("data: {error}\n\n")),
        (
            format!("200 OK\r\n{event_stream}"),
            format!("data: {{{PROVIDER_KEY}\n\n"),
        ),
        (
            format!("401 Unauthorized\r\nx-request-id: {PROVIDER_KEY}\r\nconnection: close"),
            error.clone(),
        ),
    ] {
        let url = scripted(format!("HTTP/1.1 {head}\r\n\r\n{body}")).await;
        let gateway = TestGateway::with(|config| config.providers[0].base_url = url.parse().unwrap()).await;
        let answer = gateway.chat(streamed("mock-model")).await;
        let told = format!("{:?} {}", answer.headers, answer.text());
        assert!(!told.contains(PROVIDER_KEY), "{told}");
        let record = gateway.record(answer.id()).await.to_string();
        assert!(!record.contains(PROVIDER_KEY), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_of_a_tool_call_is_recorded_whole() {
    let gateway = TestGateway::start().await;
    let mut body = streamed("mock-model?tool-call");
    body["tools"] = json!([{"type": "function", "function": {"name": "look_up", "parameters": {}}}]);
    let answer = gateway.chat(body).await.expect(200);
    let record = gateway.record(answer.id()).await;
    let function = &record["response"]["tool_calls"][0]["function"];
    assert_eq!(function, &json!({"name": "look_up", "arguments": "{}"}), "{record}");
    assert_eq!(record["finish_reason"], "tool_calls");
}

const ENDPOINT: &str = "chat_completions";

#[tokio::test(flavor = "multi_thread")]
async fn client_that_leaves_while_uploading_is_recorded_and_nothing_is_sent() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway.address()).await;
    let head = crate::support::head(&gateway.key, 1000);
    wire.send(format!("{head}{{\"model\":").as_bytes()).await;
    drop(wire);
    let record = gateway.only_record(ENDPOINT).await;
    assert_eq!(
        (&record["outcome"], &record["status_code"]),
        (&"client_disconnected".into(), &499.into())
    );
    assert_eq!(gateway.mock.requests().await, 0);
    assert_eq!(exchanges(gateway).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_leaves_before_the_head_cancels_the_provider() {
    let gateway = TestGateway::start().await;
    let body = streamed("mock-model?latency=1h").to_string();
    let wire = Wire::chat(&gateway, &body).await;
    gateway.mock.reaches("requests", 1).await;
    drop(wire);
    gateway.mock.reaches("cancelled", 1).await;
    let record = gateway.only_record(ENDPOINT).await;
    assert_eq!(
        (&record["outcome"], &record["status_code"]),
        (&"client_disconnected".into(), &499.into())
    );
    assert_eq!(record["provider"], "mock");
    assert_eq!(exchanges(gateway).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_leaves_while_streaming_cancels_the_provider_and_keeps_what_came() {
    let gateway = TestGateway::start().await;
    let body = streamed("mock-model?text=one%20two%20three&stall=4").to_string();
    let mut wire = Wire::chat(&gateway, &body).await;
    wire.read_until("three").await;
    gateway.mock.reaches("open_streams", 1).await;
    drop(wire);
    gateway.mock.reaches("cancelled", 1).await;
    gateway.mock.reaches("open_streams", 0).await;
    let record = gateway.only_record(ENDPOINT).await;
    assert_eq!(
        (&record["outcome"], &record["status_code"]),
        (&"client_disconnected".into(), &200.into())
    );
    assert_eq!(record["response"]["content"], "one two three", "{record}");
    assert_eq!(exchanges(gateway).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_resets_an_http2_stream_cancels_the_provider() {
    let gateway = TestGateway::start().await;
    let socket = TcpStream::connect(gateway.address()).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
    let (mut http2, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |model: &str| {
        hyper::Request::post(format!("http://{}/v1/chat/completions", gateway.address()))
            .header("authorization", format!("Bearer {}", gateway.key))
            .body(Full::new(Bytes::from(streamed(model).to_string())))
            .unwrap()
    };
    let waiting = tokio::spawn(http2.send_request(request("mock-model?latency=1h")));
    gateway.mock.reaches("requests", 1).await;
    waiting.abort();
    gateway.mock.reaches("cancelled", 1).await;
    let streaming = http2.send_request(request("mock-model?stall=4")).await.unwrap();
    drop(streaming);
    gateway.mock.reaches("cancelled", 2).await;
    drop(http2);
    connection.await.unwrap().unwrap();
    let records = gateway.stop().await.exchanges;
    let outcomes: Vec<&Value> = records.iter().map(|record| &record["outcome"]).collect();
    assert_eq!(outcomes, ["client_disconnected"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_leaves_right_after_the_last_byte_is_recorded_as_ok() {
    let gateway = TestGateway::start().await;
    let body = streamed("mock-model").to_string();
    for _ in 0..20 {
        let mut wire = Wire::chat(&gateway, &body).await;
        wire.read_until("data: [DONE]\n\n").await;
    }
    assert_eq!(gateway.mock.stats().await["cancelled"], 0);
    let records = gateway.stop().await.exchanges;
    assert_eq!(records.len(), 20);
    assert!(records.iter().all(|record| record["outcome"] == "ok"), "{records:?}");
}

/// Stops, and counts what was recorded in all.
async fn exchanges(gateway: TestGateway) -> usize {
    gateway.stop().await.exchanges.len()
}
