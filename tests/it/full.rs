//! The spool has little room, or none: what is left out, what is dropped, what is refused, and that it is all counted.

use promptgate::config::{Durability, WhenFull};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};

use crate::support::{Answer, TestGateway, until};

/// The smallest cap there is; with it, half a mebibyte of records may wait.
const CAP: u64 = 1 << 20;

/// A gateway with a small spool, whose sink is locked by the returned connection.
async fn locked(when_full: WhenFull) -> (TestGateway, SqliteConnection) {
    let gateway = TestGateway::with(|config| {
        config.telemetry.spool_max_bytes = CAP;
        config.telemetry.when_full = when_full;
        config.server.workers = 1;
    })
    .await;
    let url = format!("sqlite:{}", gateway.file("telemetry.db").display());
    let mut lock = SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut lock).await.unwrap();
    (gateway, lock)
}

async fn unlock(mut lock: SqliteConnection) {
    sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.unwrap();
    lock.close().await.unwrap();
}

async fn ask(gateway: &TestGateway, letters: usize) -> Answer {
    let message = json!({"role": "user", "content": "x".repeat(letters)});
    gateway
        .chat(json!({"model": "mock-model", "messages": [message]}))
        .await
}

/// A metric's value; 0 if there is none.
async fn metric(gateway: &TestGateway, series: &str) -> f64 {
    metric_of(&gateway.metrics().await, series)
}

fn metric_of(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(&format!("{series} ")));
    line.map_or(0.0, |line| line[series.len() + 1..].parse().unwrap())
}

const SHED: &str = r#"promptgate_records_total{result="shed",stage="spool"}"#;
const DROPPED: &str = r#"promptgate_records_total{result="dropped_full",stage="spool"}"#;
const LOST: &str = r#"promptgate_records_total{result="lost",stage="spool"}"#;

#[tokio::test]
async fn drop_leaves_out_content_then_records_and_counts_both() {
    let (gateway, lock) = locked(WhenFull::Drop).await;
    let mut sent = 0;
    while metric(&gateway, DROPPED).await < 3.0 {
        ask(&gateway, 40_000).await.expect(200);
        sent += 1;
        assert!(sent < 2_000, "a full spool takes no more");
    }
    assert_eq!(metric(&gateway, "promptgate_spool_level").await, 2.0);
    assert!(metric(&gateway, "promptgate_spool_bytes").await <= CAP as f64);
    assert_eq!(metric(&gateway, LOST).await, metric(&gateway, DROPPED).await);
    let shed = metric(&gateway, SHED).await;
    unlock(lock).await;
    // A worker notices within a fifth of a second.
    let mut shed = shed;
    let last = until("content is kept again", async || {
        let answer = ask(&gateway, 40_000).await.expect(200);
        sent += 1;
        let before = std::mem::replace(&mut shed, metric(&gateway, SHED).await);
        (before == shed).then(|| answer.id().to_owned())
    })
    .await;
    assert_eq!(metric(&gateway, "promptgate_spool_level").await, 0.0);

    let metrics = gateway.metrics().await;
    let records = gateway.stop().await.exchanges;
    let dropped = metric_of(&metrics, DROPPED);
    assert_eq!(records.len(), sent - dropped as usize);
    let without: Vec<&Value> = records.iter().filter(|record| record["capture"] == "shed").collect();
    // What was dropped had been left without its content before.
    assert_eq!(without.len(), (shed - dropped) as usize);
    assert!(
        without
            .iter()
            .all(|r| r["request"] == "" && r["request_truncated"] == true)
    );
    let last = records.iter().find(|record| record["exchange_id"] == last).unwrap();
    assert_eq!(last["capture"], "full");
}

#[tokio::test]
async fn reject_refuses_before_forwarding_and_counts_in_one_row() {
    let (gateway, lock) = locked(WhenFull::Reject).await;
    let mut answered = 0;
    let refused = loop {
        let answer = ask(&gateway, 40_000).await;
        if answer.status != 200 {
            break answer;
        }
        answered += 1;
        assert!(answered < 2_000, "a full spool takes no more");
    };
    let forwarded = gateway.mock.requests().await;
    assert_eq!(forwarded, answered);
    assert_eq!(refused.json()["error"]["code"], "recording_full");
    assert_eq!(refused.header("retry-after"), "1");
    ask(&gateway, 1).await.expect(503);
    ask(&gateway, 1).await.expect(503);
    assert_eq!(gateway.mock.requests().await, forwarded);
    assert_eq!(metric(&gateway, LOST).await, 0.0);
    unlock(lock).await;
    until("requests are taken again", async || {
        (ask(&gateway, 1).await.status == 200).then_some(())
    })
    .await;
    let stats = until("the refusals are stored", async || {
        let stats = gateway
            .admin(Method::GET, "/stats", &Value::Null)
            .await
            .expect(200)
            .json();
        let refused = stats["refusals"][0]["requests"].as_u64();
        refused.is_some_and(|requests| requests >= 3).then_some(stats)
    })
    .await;
    assert_eq!(stats["refusals"][0]["error_code"], "recording_full");
    let records = gateway.stop().await.exchanges;
    assert_eq!(
        records.len() as u64,
        answered + 1,
        "every answered request has its record"
    );
}

#[tokio::test]
async fn flood_of_unknown_keys_is_counted_in_rows_of_refusals() {
    let gateway = TestGateway::with(|config| config.telemetry.refusals_per_second = 0).await;
    let body = json!({"model": "mock-model", "messages": []});
    for _ in 0..20 {
        gateway.chat_as("pg_unknown", &body).await.expect(401);
    }
    until("they are counted", async || {
        let stats = gateway
            .admin(Method::GET, "/stats", &Value::Null)
            .await
            .expect(200)
            .json();
        let rows = stats["refusals"].as_array().unwrap();
        let requests: u64 = rows.iter().map(|row| row["requests"].as_u64().unwrap()).sum();
        assert!(
            rows.iter()
                .all(|row| row["error_code"] == "invalid_api_key" && row["key_id"] == "")
        );
        (requests == 20).then_some(())
    })
    .await;
    assert_eq!(gateway.stop().await.exchanges.len(), 0);
}

#[tokio::test]
async fn every_durability_records_every_exchange() {
    for durability in [Durability::Disk, Durability::Relaxed] {
        let gateway = TestGateway::with(|config| config.telemetry.durability = durability).await;
        for _ in 0..50 {
            ask(&gateway, 10).await.expect(200);
        }
        let streamed = json!({"model": "mock-model", "messages": [{"role": "user", "content": "hi"}], "stream": true});
        gateway.chat(streamed).await.expect(200);
        assert_eq!(gateway.stop().await.exchanges.len(), 51, "{durability:?}");
    }
}
