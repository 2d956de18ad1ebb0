//! The whole gateway with ClickHouse behind it, asked through the control plane.

use promptgate::app::App;
use promptgate::config::{Config, Sink};
use promptgate::mock_provider::{Controls, MockProvider, MockProviderOptions};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::support::{Database, until};

const TOKEN: &str = "pga_test_token";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_sent_are_listed_and_counted_by_the_control_plane() {
    let (database, folder) = (Database::new(), tempfile::tempdir().unwrap());
    let mock = MockProvider::start(MockProviderOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        workers: 1,
        defaults: Controls::default(),
    })
    .unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nworkers = 2\n\
         [registry]\nurl = \"sqlite:{}\"\n[telemetry]\nspool_dir = {:?}\nseal_after = \"50ms\"\n\
         [[providers]]\nname = \"mock\"\nkind = \"openai\"\nbase_url = \"http://{}/v1\"\n\
         [[models]]\nname = \"mock-model*\"\ntargets = [{{ provider = \"mock\" }}]\n",
        path("registry.db"),
        path("spool"),
        mock.local_addr(),
    );
    let mut config = Config::parse(&text, "the test's configuration", &|_| None).unwrap();
    config.telemetry.sink = Sink::ClickHouse(database.server.clone());
    let app = App::start(config, Some(TOKEN)).await.unwrap();
    let http = Client::new();
    let api = format!("http://{}/api/v1", app.control_address);
    let get = async |path: &str| {
        let answer = http
            .get(format!("{api}{path}"))
            .bearer_auth(TOKEN)
            .send()
            .await
            .unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    let key = http
        .post(format!("{api}/keys"))
        .bearer_auth(TOKEN)
        .json(&json!({"name": "t", "environment": "production"}));
    let key: Value = key.send().await.unwrap().json().await.unwrap();
    let mut last = String::new();
    for i in 0..60 {
        let model = if i % 6 == 5 { "nope" } else { "mock-model" };
        let body =
            json!({"model": model, "stream": i % 2 == 0, "messages": [{"role": "user", "content": format!("n{i}")}]});
        let request = http.post(format!("http://{}/v1/chat/completions", app.data_address));
        let answer = request
            .bearer_auth(key["key"].as_str().unwrap())
            .json(&body)
            .send()
            .await
            .unwrap();
        last = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        answer.bytes().await.unwrap();
    }
    refused_and_left(
        &http,
        &api,
        &format!("http://{}", app.data_address),
        key["key"].as_str().unwrap(),
    )
    .await;
    let scored = http
        .post(format!("http://{}/v1/feedback", app.data_address))
        .bearer_auth(key["key"].as_str().unwrap())
        .json(&json!({"exchange_id": last, "name": "helpful", "value": true}));
    assert_eq!(scored.send().await.unwrap().status(), StatusCode::OK);

    until("all are recorded", async || {
        get("/stats").await.1["groups"][0]["requests"].as_u64() >= Some(80)
    })
    .await;
    until("feedback is recorded", async || {
        !get(&format!("/exchanges/{last}")).await.1["feedback"][0].is_null()
    })
    .await;
    let (_, stats) = get("/stats?group_by=outcome,model&from=2020-01-01T00:00:00Z").await;
    let figures: Vec<_> = stats["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| (&g["outcome"], &g["model"], &g["requests"]))
        .collect();
    assert_eq!(
        figures,
        [
            (&json!("client_disconnected"), &json!("mock-model*"), &json!(5)),
            // The call that brought the feedback is an exchange as well.
            (&json!("ok"), &json!(""), &json!(1)),
            (&json!("ok"), &json!("mock-model*"), &json!(50)),
            (&json!("rejected"), &json!(""), &json!(25))
        ]
    );
    let (_, page) = get("/exchanges?outcome=rejected&limit=4").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 4);
    assert!(page["next_cursor"].is_string());
    let (_, found) = get("/exchanges?text=n42").await;
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    let (_, scored) = get("/stats?outcome=rejected").await;
    assert_eq!(
        scored["groups"][0]["feedback"]["helpful"],
        json!({"count": 1, "mean": 1.0})
    );
    for wrong in [
        "/stats?group_by=colour",
        "/stats?group_by=time:1h,time:1d",
        "/stats?cursor=x",
        "/stats?from=yesterday",
        "/exchanges?group_by=prompt",
        "/exchanges?outcome=good",
        "/exchanges?cursor=x",
        "/exchanges?min_latency_us=-1",
    ] {
        assert_eq!(get(wrong).await.0, StatusCode::BAD_REQUEST, "{wrong}");
    }
    assert_eq!(app.stop().await.unshipped_segments, 0);
    assert_eq!(database.counts().await, (81, 81, 81));
    database.drop().await;
    mock.stop();
}

/// Sends 20 more requests: of a stranger (401), for a prompt that is not there (404), without its variable (422), and five
/// whose caller leaves while the answer is streamed.
async fn refused_and_left(http: &Client, api: &str, data: &str, key: &str) {
    let admin = async |path: &str, body: Value| {
        let answer = http
            .post(format!("{api}{path}"))
            .bearer_auth(TOKEN)
            .json(&body)
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    };
    admin("/prompts", json!({"id": "greet"})).await;
    let content = json!({"text": "Hi {{ name }}", "model": "mock-model"});
    admin(
        "/prompts/greet/versions",
        json!({"content": content, "message": "first"}),
    )
    .await;
    let chat = async |key: &str, body: Value| {
        let request = http
            .post(format!("{data}/v1/chat/completions"))
            .bearer_auth(key)
            .json(&body);
        request.send().await.unwrap()
    };
    for _ in 0..5 {
        let stranger = chat("pg_nobody", json!({"model": "mock-model", "messages": []})).await;
        let nowhere = chat(key, json!({"prompt": {"id": "nope"}})).await;
        let lacking = chat(key, json!({"prompt": {"id": "greet", "version": 1}})).await;
        assert_eq!(
            [stranger.status(), nowhere.status(), lacking.status()].map(|s| s.as_u16()),
            [401, 404, 422]
        );
        let slow = json!({"role": "user", "content": "slowly"});
        let body = json!({"model": "mock-model?chunk-interval=50ms&tokens=500", "stream": true, "messages": [slow]});
        let mut left = http
            .post(format!("{data}/v1/chat/completions"))
            .bearer_auth(key)
            .json(&body)
            .send()
            .await
            .unwrap();
        assert!(left.chunk().await.unwrap().is_some());
        drop(left);
    }
}
