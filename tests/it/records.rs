//! One record for every request whose head was parsed, whatever became of it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Row;

use crate::support::{Answer, TestGateway};

const CHAT: &str = "/v1/chat/completions";

async fn greeting() -> TestGateway {
    let gateway = TestGateway::start().await;
    let content = json!({"text": "hi {{ name }}", "variables": {"name": {"type": "string"}}, "model": "mock-model"});
    gateway.prompt("a/b", content).await;
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_leaves_exactly_one_record() {
    let gateway = greeting().await;
    let raw = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let prompt = |name: Value| json!({"prompt": {"id": "a/b", "variables": {"name": name}}}).to_string();
    let streamed = |model: &str| {
        json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": true}).to_string()
    };
    // Key, method, path, body; then status, endpoint, outcome.
    let table = [
        (
            true,
            Method::POST,
            CHAT,
            prompt(json!("x")),
            200,
            "chat_completions",
            "ok",
        ),
        (
            true,
            Method::POST,
            CHAT,
            raw("mock-model"),
            200,
            "chat_completions",
            "ok",
        ),
        (
            true,
            Method::POST,
            CHAT,
            streamed("mock-model"),
            200,
            "chat_completions",
            "ok",
        ),
        (
            true,
            Method::POST,
            CHAT,
            streamed("mock-model?cut=3"),
            200,
            "chat_completions",
            "upstream_error",
        ),
        (
            true,
            Method::POST,
            CHAT,
            raw("mock-model?status=500"),
            500,
            "chat_completions",
            "upstream_error",
        ),
        (
            true,
            Method::POST,
            CHAT,
            raw("mock-model?status=400"),
            400,
            "chat_completions",
            "client_error",
        ),
        (
            true,
            Method::POST,
            CHAT,
            raw("nobody"),
            404,
            "chat_completions",
            "rejected",
        ),
        (
            true,
            Method::POST,
            CHAT,
            prompt(json!(1)),
            422,
            "chat_completions",
            "rejected",
        ),
        (
            true,
            Method::POST,
            CHAT,
            "{".to_owned(),
            400,
            "chat_completions",
            "rejected",
        ),
        (
            true,
            Method::POST,
            CHAT,
            "x".repeat(9 << 20),
            413,
            "chat_completions",
            "rejected",
        ),
        (
            false,
            Method::POST,
            CHAT,
            raw("mock-model"),
            401,
            "chat_completions",
            "rejected",
        ),
        (false, Method::GET, "/nowhere", String::new(), 401, "other", "rejected"),
        (true, Method::GET, "/nowhere", String::new(), 404, "other", "rejected"),
        (
            true,
            Method::GET,
            CHAT,
            String::new(),
            405,
            "chat_completions",
            "rejected",
        ),
        (
            true,
            Method::DELETE,
            "/v1/models",
            String::new(),
            405,
            "models",
            "rejected",
        ),
        (true, Method::GET, "/v1/models", String::new(), 200, "models", "ok"),
        (
            true,
            Method::POST,
            "/v1/prompts/a/b/render",
            r#"{"inputs":{"name":"x"}}"#.to_owned(),
            200,
            "prompt_render",
            "ok",
        ),
        (
            true,
            Method::POST,
            "/v1/prompts/a/b/completions",
            r#"{"inputs":{"name":"x"}}"#.to_owned(),
            200,
            "prompt_completions",
            "ok",
        ),
        (
            true,
            Method::POST,
            "/v1/prompts/a/c/render",
            String::new(),
            404,
            "prompt_render",
            "rejected",
        ),
        (
            true,
            Method::POST,
            "/v1/feedback",
            r#"{"response_id":"r","name":"n","value":1}"#.to_owned(),
            200,
            "feedback",
            "ok",
        ),
        (
            true,
            Method::POST,
            "/v1/feedback",
            r#"{"name":"n","value":1}"#.to_owned(),
            400,
            "feedback",
            "rejected",
        ),
    ];
    let mut sent = BTreeSet::new();
    for round in 0..3 {
        for (with_key, method, path, body, status, endpoint, outcome) in &table {
            let request = match with_key {
                true => gateway.request(method.clone(), path),
                false => gateway.anonymous(method.clone(), path),
            };
            let answer = Answer::read(request.body(body.clone()).send().await.unwrap()).await;
            let what = format!("{method} {path} {}", &body[..body.len().min(80)]);
            assert_eq!(answer.status, *status, "{what}: {}", answer.text());
            assert!(sent.insert(answer.id().to_owned()), "{} twice", answer.id());
            if round == 0 {
                let record = gateway.record(answer.id()).await;
                let found = (&record["status_code"], &record["endpoint"], &record["outcome"]);
                assert_eq!(
                    found,
                    (&(*status).into(), &(*endpoint).into(), &(*outcome).into()),
                    "{what}"
                );
            }
        }
    }
    let records = gateway.stop().await.exchanges;
    let stored: BTreeSet<String> = records
        .iter()
        .map(|r| r["exchange_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(records.len(), sent.len());
    assert_eq!(stored, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_method_is_told_the_right_one() {
    let gateway = TestGateway::start().await;
    for (method, path, allow) in [
        (Method::DELETE, "/v1/models", "GET"),
        (Method::POST, "/v1/models", "GET"),
        (Method::GET, CHAT, "POST"),
        (Method::PUT, "/v1/feedback", "POST"),
        (Method::GET, "/v1/prompts/a/b/render", "POST"),
    ] {
        let answer = Answer::read(gateway.request(method, path).send().await.unwrap()).await;
        answer.refused(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), allow, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_stored_with_its_exchange() {
    let gateway = greeting().await;
    let answer = gateway
        .post("/v1/prompts/a/b/completions", &json!({"inputs": {"name": "x"}}))
        .await
        .expect(200);
    let exchange = answer.id().to_owned();
    let response = answer.json()["id"].as_str().unwrap().to_owned();
    for (value, comment) in [(json!(true), "good"), (json!(0.5), ""), (json!("ok"), "")] {
        let body = json!({"exchange_id": exchange, "name": "helpful", "value": value, "comment": comment});
        let taken = gateway.post("/v1/feedback", &body).await.expect(200);
        assert!(taken.json()["feedback_id"].is_string());
    }
    let by_response = json!({"response_id": response, "name": "helpful", "value": false});
    gateway.post("/v1/feedback", &by_response).await.expect(200);
    for bad in [
        json!({"name": "n", "value": 1}),
        json!({"exchange_id": exchange, "response_id": "r", "name": "n", "value": 1}),
        json!({"exchange_id": "not an id", "name": "n", "value": 1}),
        json!({"exchange_id": exchange, "name": "", "value": 1}),
        json!({"exchange_id": exchange, "name": "n", "value": [1]}),
        json!({"exchange_id": exchange, "name": "n", "value": 1, "extra": 1}),
    ] {
        gateway.post("/v1/feedback", &bad).await.refused(400, "invalid_field");
    }
    let records = gateway.stop().await;
    let url = format!("sqlite:{}", records.path.display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let sql = "SELECT exchange_id, response_id, name, kind, number, text, comment FROM feedback ORDER BY feedback_id";
    let rows = sqlx::query(sql).fetch_all(&pool).await.unwrap();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let id = uuid::Uuid::from_slice(row.get("exchange_id")).unwrap();
            let texts = ["response_id", "name", "kind", "text", "comment"].map(|column| row.get::<String, _>(column));
            (id.to_string(), texts.join("|"), row.get::<f64, _>("number"))
        })
        .collect();
    let nobody = uuid::Uuid::nil().to_string();
    assert_eq!(
        rows,
        [
            (exchange.clone(), "|helpful|boolean||good".to_owned(), 1.0),
            (exchange.clone(), "|helpful|number||".to_owned(), 0.5),
            (exchange, "|helpful|text|ok|".to_owned(), 0.0),
            (nobody, format!("{response}|helpful|boolean||"), 0.0),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn capture_metadata_keeps_no_content_anywhere() {
    for capture in [promptgate::config::Capture::Full, promptgate::config::Capture::Metadata] {
        let gateway = TestGateway::with(|config| config.telemetry.capture = capture).await;
        let content = json!({"text": "confidential-text about {{ secret }}", "model": "mock-model?echo"});
        gateway.prompt("a/b", content).await;
        for streamed in [false, true] {
            let variables = json!({"secret": "confidential-variable"});
            let messages = json!([{"role": "user", "content": "confidential-message"}]);
            let body =
                json!({"prompt": {"id": "a/b", "variables": variables}, "messages": messages, "stream": streamed});
            gateway.chat(body).await.expect(200);
        }
        let body = json!({"model": "mock-model?size=2000000", "messages": [{"role": "user", "content": "confidential-large"}]});
        gateway.chat(body).await.expect(200);
        let records = gateway.stop().await;
        assert_eq!(records.exchanges.len(), 3);
        let kept = capture == promptgate::config::Capture::Full;
        for record in &records.exchanges {
            assert!(
                record["request_bytes"].as_u64() > Some(0) && record["response_bytes"].as_u64() > Some(0),
                "{record}"
            );
            assert_eq!(record["request"] != "", kept, "{record}");
            assert_eq!(record["response"] != "", kept);
            for field in ["variables_truncated", "request_truncated"] {
                assert_eq!(record[field], false, "{record}");
            }
            assert!(
                record["outcome"] == "ok" && (kept || record["response_truncated"] == false),
                "{record}"
            );
        }
        let telemetry = |path: &std::path::Path| !path.to_string_lossy().contains("registry");
        let files: Vec<_> = records
            .files()
            .into_iter()
            .filter(|(path, _)| telemetry(path))
            .collect();
        let found = files
            .iter()
            .any(|(_, bytes)| memchr::memmem::find(bytes, b"confidential-").is_some());
        assert_eq!(found, kept);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_is_recorded_as_pseudonyms() {
    let gateway = greeting().await;
    let body = json!({"prompt": {"id": "a/b", "variables": {"name": "x"}}, "user": "ada@example.com", "metadata": {"team": "blue"}});
    let mut records = Vec::new();
    for unit in ["ada@example.com", "session-7"] {
        let request = gateway
            .request(Method::POST, CHAT)
            .json(&body)
            .header("x-promptgate-unit", unit);
        let request = request.header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let answer = Answer::read(request.send().await.unwrap()).await.expect(200);
        records.push(gateway.record(answer.id()).await);
    }
    assert_eq!(records[0]["user"], records[1]["user"]);
    assert_eq!(records[0]["unit"], records[0]["user"]);
    assert_ne!(records[0]["unit"], records[1]["unit"]);
    assert!(
        records
            .iter()
            .all(|record| record["user"].as_str().unwrap().len() == 32)
    );
    assert_eq!(records[0]["tags"], json!({"team": "blue"}));
    assert_eq!(records[0]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(records[0]["span_id"], "b7ad6b7169203331");
}
