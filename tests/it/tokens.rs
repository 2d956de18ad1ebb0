//! Tokens and cost of answers that break off: estimated, flagged, and never counted twice.

use std::time::Duration;

use promptgate::config::{Capture, Price};
use promptgate::tokenizer::{self, Method};
use reqwest::Method as Verb;
use serde_json::{Value, json};

use crate::support::{Mock, Process, TestGateway, Wire, config_text, content_of, head, scripted, until};

const QUESTION: &str = "Tell me about gateways, please.";

fn streamed(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": QUESTION}], "stream": true})
}

/// A gateway whose models all have a price, with the vocabulary loaded.
async fn gateway() -> TestGateway {
    gateway_with(Capture::Full).await
}

async fn gateway_with(capture: Capture) -> TestGateway {
    let gateway = TestGateway::with(|config| {
        config.providers[0].timeouts.idle = Duration::from_millis(300);
        config.telemetry.capture = capture;
        for model in &mut config.models {
            model.price = Some(Price {
                input: 1.0,
                cached_input: None,
                output: 10.0,
                reasoning: None,
            });
        }
    })
    .await;
    vocabulary().await;
    gateway
}

/// Waits until texts are counted with the vocabulary, where one is built in.
async fn vocabulary() {
    if cfg!(feature = "tokenizer") {
        tokenizer::prepare("mock-model");
        until("the vocabulary is loaded", async || {
            (tokenizer::count("mock-model", &["a"]).1 == Method::Tokenizer).then_some(())
        })
        .await;
    }
}

fn tokens_of(text: &str) -> u64 {
    tokenizer::count("mock-model", &[text]).0
}

/// The question, the frame of its message and that of the answer.
fn input_tokens() -> u64 {
    tokens_of(QUESTION) + 4 + 3
}

fn number(record: &Value, field: &str) -> u64 {
    record[field].as_u64().unwrap_or_else(|| panic!("{field}: {record}"))
}

/// Checks a record's tokens and that its cost follows from them.
#[track_caller]
fn assert_estimated(record: &Value, input: u64, output: u64) {
    assert_eq!(record["tokens_estimated"], true, "{record}");
    let found = (number(record, "input_tokens"), number(record, "output_tokens"));
    assert_eq!(found, (input, output), "{record}");
    assert_eq!(number(record, "total_tokens"), input + output, "{record}");
    assert_eq!(
        number(record, "cost_nanodollars"),
        input * 1_000 + output * 10_000,
        "{record}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_breaks_off_counts_what_came() {
    let gateway = gateway().await;
    for control in ["cut=21", "cut=body", "stall=21", "stall=body", "error-in-stream=21"] {
        let answer = gateway
            .chat(streamed(&format!("mock-model?tokens=40&{control}")))
            .await
            .expect(200);
        let record = gateway.record(answer.id()).await;
        assert_ne!(record["outcome"], "ok", "{control}");
        let said = content_of(answer.text());
        assert_estimated(&record, input_tokens(), tokens_of(&said));
        assert_eq!(
            record["response"]["content"].as_str().unwrap_or_default(),
            said,
            "{control}"
        );
        // The mock counts a token a word, and so knows the truth.
        let words = said.split_whitespace().count() as u64;
        assert_eq!(words == 0, control.ends_with("body"), "{control}: {said}");
        let output = number(&record, "output_tokens");
        assert!(
            (words..=3 * words).contains(&output),
            "{output} for {words} words: {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_cut_anywhere_is_estimated_only_until_its_usage_came() {
    let gateway = gateway().await;
    let whole = gateway.chat(streamed("mock-model?tokens=3")).await.expect(200);
    let whole = gateway.record(whole.id()).await;
    assert_eq!(whole["tokens_estimated"], false);
    assert_eq!(
        (number(&whole, "output_tokens"), &whole["outcome"]),
        (3, &"ok".into()),
        "{whole}"
    );
    // Role, three words, finish reason, usage.
    for chunks in 0..=6 {
        let answer = gateway
            .chat(streamed(&format!("mock-model?tokens=3&cut={chunks}")))
            .await
            .expect(200);
        let record = gateway.record(answer.id()).await;
        if chunks == 6 {
            assert_eq!(record["tokens_estimated"], false, "{record}");
            for field in ["input_tokens", "output_tokens", "total_tokens", "cost_nanodollars"] {
                assert_eq!(record[field], whole[field], "{field} after {chunks} chunks");
            }
        } else {
            assert_estimated(&record, input_tokens(), tokens_of(&content_of(answer.text())));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_that_runs_along_is_completed_when_the_stream_breaks_off() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let chunk = |text: &str, output: u64| {
        let usage = json!({"prompt_tokens": 9, "completion_tokens": output, "total_tokens": 9 + output});
        let choices = json!([{"index": 0, "delta": {"content": text}}]);
        format!(
            "data: {}\n\n",
            json!({"id": "c", "model": "mock-model", "choices": choices, "usage": usage})
        )
    };
    vocabulary().await;
    // What the provider had counted of "one two three", and what is recorded.
    for (counted, output) in [(1, tokens_of("one two three")), (7, 7)] {
        let stream = chunk("one", 1) + &chunk(" two three", counted);
        let url = scripted(format!("{HEAD}{stream}")).await;
        let gateway = TestGateway::with(|config| config.providers[0].base_url = url.parse().unwrap()).await;
        let answer = gateway.chat(streamed("mock-model")).await.expect(200);
        let record = gateway.record(answer.id()).await;
        assert_eq!(record["outcome"], "upstream_error");
        assert_eq!(record["tokens_estimated"], true, "{record}");
        let found = (number(&record, "input_tokens"), number(&record, "output_tokens"));
        assert_eq!(found, (9, output), "{record}");
        assert_eq!(number(&record, "total_tokens"), 9 + output);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_leaves_while_streaming_is_charged_for_what_came() {
    let gateway = gateway().await;
    let body = streamed("mock-model?text=one%20two%20three&stall=4").to_string();
    let mut wire = Wire::chat(&gateway, &body).await;
    wire.read_until("three").await;
    drop(wire);
    let record = gateway.only_record("chat_completions").await;
    assert_eq!(record["outcome"], "client_disconnected");
    assert_eq!(record["response"]["content"], "one two three", "{record}");
    assert_estimated(&record, input_tokens(), tokens_of("one two three"));
    assert_eq!(gateway.stop().await.exchanges.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_leaves_before_the_head_is_charged_for_the_input() {
    let gateway = gateway().await;
    let wire = Wire::chat(&gateway, &streamed("mock-model?latency=1h").to_string()).await;
    gateway.mock.reaches("requests", 1).await;
    drop(wire);
    let record = gateway.only_record("chat_completions").await;
    assert_eq!(record["outcome"], "client_disconnected");
    assert_estimated(&record, input_tokens(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_without_usage_is_estimated() {
    let gateway = gateway().await;
    for stream in [false, true] {
        let mut body = streamed("mock-model?text=one%20two%20three&no-usage");
        body["stream"] = stream.into();
        let answer = gateway.chat(body).await.expect(200);
        let record = gateway.record(answer.id()).await;
        assert_eq!(record["outcome"], "ok");
        assert_estimated(&record, input_tokens(), tokens_of("one two three"));
    }
    let body = json!({"model": "mock-model?text=one%20two&no-usage", "input": QUESTION, "stream": true});
    let answer = gateway.post("/v1/responses", &body).await.expect(200);
    let record = gateway.record(answer.id()).await;
    assert_estimated(&record, tokens_of(QUESTION), tokens_of("one two"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tool_call_that_breaks_off_counts() {
    let gateway = gateway().await;
    let mut body = streamed("mock-model?tool-call&no-usage");
    body["tools"] = json!([{"type": "function", "function": {"name": "look_up", "parameters": {}}}]);
    let tools = tokens_of(&body["tools"].to_string());
    let answer = gateway.chat(body).await.expect(200);
    let record = gateway.record(answer.id()).await;
    let output = tokens_of("look_up") + tokens_of("{}");
    assert_estimated(&record, input_tokens() + tools, output);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_count_nothing() {
    let gateway = gateway().await;
    for model in ["mock-model?status=429", "mock-model?status=500", "unknown-model"] {
        let answer = gateway.chat(streamed(model)).await;
        let record = gateway.record(answer.id()).await;
        let found = (
            &record["tokens_estimated"],
            number(&record, "total_tokens"),
            number(&record, "cost_nanodollars"),
        );
        assert_eq!(found, (&false.into(), 0, 0), "{model}: {record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_whose_text_is_not_kept_is_counted_by_characters() {
    let gateway = gateway_with(Capture::Metadata).await;
    let answer = gateway
        .chat(streamed("mock-model?text=one%20two%20three&cut=4"))
        .await
        .expect(200);
    let record = gateway.record(answer.id()).await;
    assert_estimated(&record, input_tokens(), "one two three".len().div_ceil(4) as u64);
    assert!(record["response"].is_null() || record["response"] == "", "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_of_an_answer_too_large_to_hold_is_the_providers() {
    let gateway = gateway().await;
    let body = json!({"model": "mock-model", "input": vec![QUESTION; 200], "dimensions": 1536});
    let answer = gateway.post("/v1/embeddings", &body).await.expect(200);
    assert!(answer.body.len() > 1 << 20, "{}", answer.body.len());
    let usage: Value = serde_json::from_str(answer.text()).unwrap();
    let record = gateway.record(answer.id()).await;
    assert_eq!(record["tokens_estimated"], false, "{}", record["endpoint"]);
    assert_eq!(record["input_tokens"], usage["usage"]["prompt_tokens"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn real_binary_estimates_and_counts_estimates_and_missing_prices() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    std::fs::write(
        folder.path().join("gateway.toml"),
        config_text(folder.path(), &mock.url()),
    )
    .unwrap();
    let gateway = Process::serve(folder.path());
    let key = gateway.new_key().await;
    // The mock's name in its answer has a price, the name with its controls has none.
    let leave = async |model: &str, seen: &str| {
        let body = streamed(model).to_string();
        let mut wire = Wire::open(&gateway.data).await;
        wire.send(format!("{}{body}", head(&key, body.len())).as_bytes()).await;
        wire.read_until(seen).await;
    };
    leave("mock-model?text=one%20two%20three&stall=4", "three").await;
    leave("mock-model?stall=body", "\r\n\r\n").await;
    let metrics = async || {
        let url = format!("http://{}/metrics", gateway.control);
        reqwest::get(url).await.unwrap().text().await.unwrap()
    };
    let sum = |text: &str, family: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(family));
        lines
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum()
    };
    let text = until("two estimates are counted", async || {
        let text = metrics().await;
        (sum(&text, "promptgate_token_estimates_total") == 2.0).then_some(text)
    })
    .await;
    assert_eq!(sum(&text, "promptgate_requests_unpriced_total"), 1.0, "{text}");
    assert!(sum(&text, "promptgate_cost_dollars_total") > 0.0, "{text}");
    let records = until("both are recorded", async || {
        let page = gateway
            .admin(Verb::GET, "/exchanges", &Value::Null)
            .await
            .expect(200)
            .json();
        let items = page["items"].as_array().unwrap().clone();
        (items.len() == 2).then_some(items)
    })
    .await;
    for record in &records {
        assert_eq!(record["outcome"], "client_disconnected");
        assert_eq!(record["tokens_estimated"], true, "{record}");
        let came = record["response"]["content"] == "one two three";
        assert_eq!(number(record, "output_tokens") > 0, came, "{record}");
        assert_eq!(number(record, "cost_nanodollars") > 0, came, "{record}");
        let input = number(record, "input_tokens");
        assert!((8..=20).contains(&input), "{record}");
    }
}
