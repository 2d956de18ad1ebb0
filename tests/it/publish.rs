//! Publishing under load: a request sees the old version or the new one, never a mix, and none fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, TestGateway, until};

const CONNECTIONS: u64 = 200;
/// Of each connection.
const REQUESTS: u64 = 20;
const PUBLISHES: u64 = 20;

/// Text, variable and parameter carry the version's number: parts of two versions would not agree.
fn content(version: u64) -> Value {
    json!({
        "messages": [
            {"role": "system", "content": format!("marker {version} for {{{{ name }}}}")},
            {"placeholder": "history"},
            {"role": "user", "content": format!("{{% if name %}}again {version}{{% endif %}}")},
        ],
        "variables": {"name": {"type": "string"}},
        "model": "mock-model?echo",
    })
}

fn reference(version: Option<u64>) -> Value {
    json!({"prompt": {"id": "load/test", "version": version, "variables": {"name": "Ada"}}})
}

/// The version of an answer, once its header and both of its messages agree on it.
fn version_of(answer: &Answer) -> u64 {
    let version: u64 = answer.header("x-promptgate-version").parse().unwrap();
    let expected = json!([
        {"role": "system", "content": format!("marker {version} for Ada")},
        {"role": "user", "content": format!("again {version}")},
    ]);
    assert_eq!(answer.echoed(), expected);
    version
}

/// What publisher and senders share.
#[derive(Default)]
struct Progress {
    /// The version whose publishing was answered last.
    live: AtomicU64,
    answered: AtomicU64,
}

/// One connection's requests; every tenth connection names version 1.
async fn send(url: String, key: String, connection: u64, progress: Arc<Progress>) {
    let http = reqwest::Client::new();
    let pinned = connection.is_multiple_of(10).then_some(1);
    let (mut generation, mut version) = (0, 0);
    for _ in 0..REQUESTS {
        let live = progress.live.load(Ordering::SeqCst);
        let request = http.post(&url).bearer_auth(&key).json(&reference(pinned));
        let answer = Answer::read(request.send().await.expect("an answer")).await.expect(200);
        let found = version_of(&answer);
        match pinned {
            Some(pinned) => assert_eq!((found, answer.header("x-promptgate-variant")), (pinned, "pinned")),
            None => assert!(
                found >= live.max(version),
                "{found} after {live} was published and {version} seen"
            ),
        }
        let now: u64 = answer.header("x-promptgate-generation").parse().unwrap();
        assert!(now >= generation, "generation {now} after {generation}");
        (generation, version) = (now, found);
        progress.answered.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_while_200_connections_send_mixes_and_fails_nothing() {
    let gateway = TestGateway::start().await;
    gateway.prompt("load/test", content(1)).await;
    for version in 2..=PUBLISHES + 1 {
        assert_eq!(gateway.version("load/test", content(version)).await, version);
    }
    let progress = Arc::new(Progress::default());
    progress.live.store(1, Ordering::SeqCst);
    let url = format!("http://{}/v1/chat/completions", gateway.address());
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|n| tokio::spawn(send(url.clone(), gateway.key.clone(), n, Arc::clone(&progress))))
        .collect();
    for version in 2..=PUBLISHES + 1 {
        let due = (version - 1) * CONNECTIONS * REQUESTS / (PUBLISHES + 2);
        until("enough requests are answered, or one failed", async || {
            let enough = progress.answered.load(Ordering::SeqCst) >= due;
            (enough || senders.iter().any(|sender| sender.is_finished())).then_some(())
        })
        .await;
        gateway
            .deploy("load/test", "production", json!([["control", version, 100]]))
            .await;
        progress.live.store(version, Ordering::SeqCst);
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let records = gateway.stop().await.exchanges;
    assert_eq!(records.len() as u64, CONNECTIONS * REQUESTS);
    assert!(records.iter().all(|record| record["outcome"] == "ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_and_rollback_are_live_before_they_are_answered() {
    let gateway = TestGateway::start().await;
    gateway.prompt("load/test", content(1)).await;
    gateway.version("load/test", content(2)).await;
    let rollback = "/prompts/load/test/deployments/production/rollback";
    for _ in 0..10 {
        let generation = gateway
            .deploy("load/test", "production", json!([["control", 2, 100]]))
            .await;
        let answer = gateway.chat(reference(None)).await.expect(200);
        assert_eq!(version_of(&answer), 2);
        assert_eq!(answer.header("x-promptgate-generation"), generation.to_string());
        gateway
            .admin(Method::POST, rollback, &json!({"message": "back"}))
            .await
            .expect(200);
        let answer = gateway.chat(reference(None)).await.expect(200);
        assert_eq!(version_of(&answer), 1);
        assert_eq!(version_of(&gateway.chat(reference(Some(2))).await.expect(200)), 2);
    }
}
