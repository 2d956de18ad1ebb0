//! Answers in one piece: what passes, what is turned into an error of ours, who learns which secret.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, PROVIDER_KEY, TestGateway, scripted};

fn raw(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_error_passes_with_its_status_and_body() {
    let gateway = TestGateway::start().await;
    let table = [
        (400, "client_error"),
        (401, "upstream_error"),
        (403, "upstream_error"),
        (404, "client_error"),
        (409, "upstream_error"),
        (413, "client_error"),
        (422, "client_error"),
        (429, "upstream_error"),
        (500, "upstream_error"),
        (503, "upstream_error"),
    ];
    for (status, outcome) in table {
        for streamed in [false, true] {
            let mut body = raw(&format!("mock-model?status={status}&retry-after=7"));
            body["stream"] = streamed.into();
            let answer = gateway.chat(body.clone()).await;
            let direct = Answer::read(gateway.mock.chat(&body).await).await;
            assert_eq!((answer.status, &answer.body), (status, &direct.body), "{status}");
            assert_eq!(answer.header("retry-after"), direct.header("retry-after"), "{status}");
            assert_eq!(answer.header("retry-after") == "7", matches!(status, 429 | 503));
            let record = gateway.record(answer.id()).await;
            assert_eq!(
                (&record["outcome"], &record["status_code"]),
                (&outcome.into(), &status.into()),
                "{status}"
            );
            assert_eq!(record["error_kind"], "upstream_rejected");
            assert_eq!(record["response"], direct.json(), "{status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_that_fails_is_an_error_of_ours_and_recorded() {
    let gateway = TestGateway::with(|config| {
        let timeouts = &mut config.providers[0].timeouts;
        timeouts.first_byte = Duration::from_millis(400);
        timeouts.idle = Duration::from_millis(300);
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut closed = config.providers[0].clone();
        closed.name = "closed".to_owned();
        closed.base_url = format!("http://{port}/v1").parse().unwrap();
        config.providers.push(closed);
        let mut model = config.models[1].clone();
        model.name = "closed-model".to_owned();
        model.targets[0].provider = "closed".to_owned();
        config.models.push(model);
    })
    .await;
    let table = [
        ("closed-model", 502, "upstream_unreachable", "upstream_error"),
        ("mock-model?cut=head", 502, "upstream_invalid", "upstream_error"),
        ("mock-model?cut=body", 502, "upstream_invalid", "upstream_error"),
        ("mock-model?cut=1", 502, "upstream_invalid", "upstream_error"),
        ("mock-model?malformed=1", 502, "upstream_invalid", "upstream_error"),
        ("mock-model?stall=head", 504, "upstream_timeout", "timeout"),
        ("mock-model?stall=body", 504, "upstream_timeout", "timeout"),
        ("mock-model?stall=1", 504, "upstream_timeout", "timeout"),
    ];
    for (model, status, code, outcome) in table {
        let answer = gateway.chat(raw(model)).await;
        let error = answer.refused(status, code);
        let message = error["message"].as_str().unwrap();
        assert!(!message.contains("127.0.0.1"), "{model}: an address in {message:?}");
        assert_eq!(answer.header("x-promptgate-attempts"), "1", "{model}");
        let record = gateway.record(answer.id()).await;
        let found = (&record["outcome"], &record["error_code"], &record["status_code"]);
        assert_eq!(
            found,
            (&outcome.into(), &code.into(), &status.into()),
            "{model}: {record}"
        );
        assert_eq!(
            record["attempts"].as_array().map(Vec::len),
            Some(1),
            "{model}: {record}"
        );
    }
    gateway.chat(raw("mock-model")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirect_of_a_provider_is_not_followed() {
    let elsewhere = crate::support::Mock::start();
    let head = format!(
        "HTTP/1.1 307 x\r\nlocation: {}/chat/completions\r\ncontent-length: 0\r\n\r\n",
        elsewhere.url()
    );
    let url = crate::support::scripted(head).await;
    let gateway = TestGateway::with(|config| config.providers[0].base_url = url.parse().unwrap()).await;
    gateway.chat(raw("mock-model")).await.refused(502, "upstream_invalid");
    assert_eq!(elsewhere.requests().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answer_is_relayed_whole_and_its_record_cut() {
    let gateway = TestGateway::start().await;
    let size = 5 << 20;
    let body = raw(&format!("mock-model?size={size}"));
    let answer = gateway.chat(body.clone()).await.expect(200);
    let direct = Answer::read(gateway.mock.chat(&body).await).await;
    // Id and time come before it, and differ.
    let message = |answer: &Answer| {
        answer
            .body
            .slice(memchr::memmem::find(&answer.body, b"\"choices\"").unwrap()..)
    };
    assert!(message(&answer).len() > size);
    assert!(message(&answer) == message(&direct), "the bytes differ");
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let record = gateway.record(answer.id()).await;
    assert_eq!(
        (&record["outcome"], &record["response_truncated"]),
        (&"ok".into(), &true.into())
    );
    assert_eq!(record["response_bytes"], answer.body.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answer_that_breaks_off_is_seen_to_be_incomplete() {
    let gateway = TestGateway::start().await;
    let request = gateway.request(Method::POST, "/v1/chat/completions");
    let response = request
        .json(&raw("mock-model?size=5242880&cut=1"))
        .send()
        .await
        .unwrap();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
    let record = gateway.record(&id).await;
    assert_eq!(
        (&record["outcome"], &record["error_code"]),
        (&"upstream_error".into(), &"upstream_invalid".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_stay_on_their_side() {
    let gateway = TestGateway::start().await;
    let mut answers = Vec::new();
    for model in ["mock-model?echo", "mock-model?status=500", "mock-model?status=401"] {
        let request = gateway.request(Method::POST, "/v1/chat/completions").json(&raw(model));
        let request = request
            .header("cookie", "session=cookie-secret")
            .header("x-api-key", "header-secret");
        let request = request
            .header("x-promptgate-unit", "unit-secret")
            .header("openai-organization", "org-caller");
        answers.push(Answer::read(request.send().await.unwrap()).await);
        let seen = gateway.mock.stats().await["last_request"]["headers"].clone();
        assert_eq!(seen["authorization"], format!("Bearer {PROVIDER_KEY}"), "{seen}");
        let text = seen.to_string();
        for secret in [
            &gateway.key,
            "cookie-secret",
            "header-secret",
            "unit-secret",
            "org-caller",
            "x-promptgate",
        ] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    for answer in &answers {
        let whole = format!("{:?} {}", answer.headers, answer.text());
        assert!(
            !whole.contains(PROVIDER_KEY) && !whole.contains(&gateway.key),
            "{whole}"
        );
    }
    let key = gateway.key.clone();
    let records = gateway.stop().await;
    assert_eq!(records.exchanges.len(), 3);
    for secret in [PROVIDER_KEY, &key, "cookie-secret", "header-secret", "unit-secret"] {
        for (path, bytes) in records.files() {
            let found = memchr::memmem::find(&bytes, secret.as_bytes());
            assert_eq!(found, None, "{secret} in {}", path.display());
        }
    }
}

/// Providers repeat keys in their errors; those too large to hold are no exception.
#[tokio::test(flavor = "multi_thread")]
async fn providers_key_is_taken_out_of_large_errors() {
    let text: String = (0..40_000)
        .map(|n| format!("{n:05} bad key {PROVIDER_KEY}\n"))
        .collect();
    let clean = text.replace(PROVIDER_KEY, "***");
    let length = text.len();
    assert!(length > 1 << 20);
    let half = &text[..length - PROVIDER_KEY.len() / 2];
    let head = "HTTP/1.1 401 Unauthorized\r\ncontent-type: text/plain\r\n";
    for (what, answer, complete) in [
        (
            "announced",
            format!("{head}content-length: {length}\r\n\r\n{text}"),
            true,
        ),
        (
            "chunked",
            format!("{head}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{text}\r\n0\r\n\r\n"),
            true,
        ),
        ("cut", format!("{head}content-length: {length}\r\n\r\n{half}"), false),
    ] {
        let url = scripted(answer).await;
        let gateway = TestGateway::with(|config| {
            config.providers[0].base_url = url.parse().unwrap();
            config.telemetry.capture_max_field = 4 << 20;
        })
        .await;
        let body = json!({"model": "mock-model", "messages": [{"role": "user", "content": "hi"}]});
        let mut response = gateway
            .request(Method::POST, "/v1/chat/completions")
            .json(&body)
            .send()
            .await
            .expect("an answer");
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(
            (response.status().as_u16(), response.content_length()),
            (401, None),
            "{what}"
        );
        let mut got = Vec::new();
        let ended = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => got.extend_from_slice(&chunk),
                ended => break ended.is_ok(),
            }
        };
        let got = String::from_utf8(got).unwrap();
        assert_eq!(ended, complete, "{what}");
        assert!(
            if complete {
                got == clean
            } else {
                clean.starts_with(&got)
            },
            "{what}: other bytes arrived, {} of them",
            got.len()
        );
        let record = gateway.record(&id).await;
        let kept = record["response"].as_str().unwrap();
        let same = if complete {
            kept == clean
        } else {
            clean.starts_with(kept)
        };
        assert!(
            same && kept.len() > 1 << 19,
            "{what}: other bytes are recorded, {} of them",
            kept.len()
        );
        assert_eq!(record["response_bytes"], kept.len(), "{what}");
        for (path, bytes) in gateway.stop().await.files() {
            assert!(
                memchr::memmem::find(&bytes, PROVIDER_KEY.as_bytes()).is_none(),
                "{what}: in {}",
                path.display()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_describes_itself_in_its_headers() {
    let gateway = TestGateway::start().await;
    gateway
        .prompt("a/b", json!({"text": "hi {{ name }}", "model": "mock-model"}))
        .await;
    let body = json!({"prompt": {"id": "a/b", "variables": {"name": "x"}}, "stream": false});
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    for body in [body, streamed] {
        let answer = gateway.chat(body).await.expect(200);
        let id: uuid::Uuid = answer.id().parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
        let generation = gateway.generation().await.to_string();
        for (name, value) in [
            ("x-promptgate-exchange-id", answer.id()),
            ("x-promptgate-prompt", "a/b"),
            ("x-promptgate-version", "1"),
            ("x-promptgate-variant", "control"),
            ("x-promptgate-environment", "production"),
            ("x-promptgate-generation", &generation),
            ("x-promptgate-provider", "mock"),
            ("x-promptgate-attempts", "1"),
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-remaining-requests", "9999"),
        ] {
            assert_eq!(answer.header(name), value, "{name}");
        }
        let upstream = answer.header("x-upstream-request-id");
        assert!(upstream.starts_with("req_"), "{upstream}");
        let record = gateway.record(answer.id()).await;
        assert_eq!(record["upstream_request_id"], upstream);
        assert_eq!(record["generation"].to_string(), generation);
        assert_eq!(record["deployment"], 1);
    }
    let plain = gateway.chat(raw("mock-model")).await.expect(200);
    for name in ["prompt", "version", "variant", "ignored"] {
        assert_eq!(plain.header(&format!("x-promptgate-{name}")), "", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn min_generation_is_waited_for_and_then_refused() {
    let gateway = TestGateway::start().await;
    let ask = async |generation: String| {
        let request = gateway
            .request(Method::GET, "/v1/models")
            .header("x-promptgate-min-generation", generation);
        Answer::read(request.send().await.unwrap()).await
    };
    let now = gateway.generation().await;
    ask(now.to_string()).await.expect(200);
    let answer = ask((now + 1000).to_string()).await;
    answer.refused(503, "generation_not_reached");
    assert_eq!(answer.header("retry-after"), "1");
    ask("soon".to_owned()).await.refused(400, "invalid_field");
    let publish = gateway.new_key(json!({}));
    let (waited, _) = tokio::join!(ask((now + 1).to_string()), publish);
    waited.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_those_of_the_key() {
    let gateway = TestGateway::start().await;
    let all = Answer::read(gateway.request(Method::GET, "/v1/models").send().await.unwrap()).await;
    assert_eq!(all.json()["data"][0]["id"], "renamed-model");
    let none = gateway.new_key(json!({"models": ["mock-model"]})).await;
    let request = gateway.anonymous(Method::GET, "/v1/models").bearer_auth(none);
    assert_eq!(
        Answer::read(request.send().await.unwrap()).await.json()["data"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_with_prior_knowledge_serves_many_streams_on_one_connection() {
    let gateway = TestGateway::start().await;
    let stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let calls = (0..50).map(|n| {
        let mut sender = sender.clone();
        let mut body = raw(&format!("mock-model?text=answer{n}&chunk-interval=1ms"));
        body["stream"] = (n % 2 == 0).into();
        let request = hyper::Request::post(format!("http://{}/v1/chat/completions", gateway.address()))
            .header("authorization", format!("Bearer {}", gateway.key))
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        tokio::spawn(async move {
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(
                (response.status().as_u16(), response.version()),
                (200, hyper::Version::HTTP_2)
            );
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            assert!(text.contains(&format!("\"answer{n}\"")), "{text}");
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    drop(sender);
    connection.await.unwrap().unwrap();
    let records = gateway.stop().await.exchanges;
    assert_eq!(records.len(), 50);
    assert!(records.iter().all(|record| record["outcome"] == "ok"));
}
