//! Batches whose fate was unknown for long: the table has forgotten their token, and is asked for their ids.

use std::time::Duration;

use promptgate::telemetry::clickhouse::ClickHouseSink;
use promptgate::telemetry::sink::{Batch, Stored};
use serde_json::json;

use super::sink::{batch, rows};
use super::support::{Database, Server};

/// A table that has forgotten every token, as after 10,000 blocks of other nodes.
async fn forget(database: &Database) {
    for table in ["exchanges", "rollup_minute"] {
        let sql = format!("ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 0");
        database.sql(&sql).await;
    }
}

#[tokio::test]
async fn batch_stored_without_an_acknowledgement_is_found_by_its_ids() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), 0);
    let database = Database::on(&server.url);
    let rows = rows(0..50);
    let batch_of = |token: &str, doubt_since| Batch {
        doubt_since,
        ..batch(token, &rows)
    };
    // The same process: in doubt for longer than it relies on tokens.
    let mut sink = ClickHouseSink::new(&database.server, "node-1", false)
        .with_patience(Duration::ZERO)
        .with_memory(-1);
    sink.prepare().await.unwrap();
    forget(&database).await;
    server.fault(json!({"lose_ack": 1, "match": "INTO exchanges"})).await;
    let error = sink.store(&batch_of("boot/0-1", None)).await.unwrap_err();
    assert!(!error.is_certain(), "{error}");
    assert_eq!(sink.store(&batch_of("boot/0-1", None)).await.unwrap(), Stored::Before);
    assert_eq!(database.counts().await, (50, 50, 50));

    // Another process, to which the segment was left.
    let mut other = ClickHouseSink::new(&database.server, "node-1", false).with_memory(-1);
    assert_eq!(
        other.store(&batch_of("boot/0-1", Some(0))).await.unwrap(),
        Stored::Before
    );
    // One that was never sent is sent.
    server.fault(json!({"drop": 1, "match": "INTO exchanges"})).await;
    let fresh = super::sink::rows(50..80);
    let fresh = Batch {
        doubt_since: Some(0),
        ..batch("boot/0-2", &fresh)
    };
    other.store(&fresh).await.unwrap_err();
    assert_eq!(other.store(&fresh).await.unwrap(), Stored::Now);
    assert_eq!(database.counts().await, (80, 80, 80));
}

#[tokio::test]
async fn batch_that_the_rollup_lacks_is_counted_there_as_long_as_its_token_is_remembered() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), 0);
    let database = Database::on(&server.url);
    let rows = rows(0..50);
    let mut sink = ClickHouseSink::new(&database.server, "node-1", false);
    sink.prepare().await.unwrap();
    sink.store(&batch("boot/0-1", &rows)).await.unwrap();
    // As if the server had been killed between the two, and had been away for long.
    database.sql("TRUNCATE TABLE rollup_minute").await;
    assert_eq!(database.counts().await, (50, 50, 0));
    let again = Batch {
        doubt_since: Some(jiff::Timestamp::now().as_microsecond() - 600_000_000),
        ..batch("boot/0-1", &rows)
    };
    assert_eq!(sink.store(&again).await.unwrap(), Stored::Now);
    assert_eq!(database.counts().await, (50, 50, 50));
}
