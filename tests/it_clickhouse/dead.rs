//! Rows that the engine refuses: found out, kept as dead letters, resent; also across a crash in the middle.

use std::fs;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

use promptgate::telemetry::clickhouse::ClickHouseSink;
use promptgate::telemetry::dead::DeadLetters;
use promptgate::telemetry::ship::split;
use promptgate::telemetry::sink::{Batch, Sink};
use serde_json::{Value, json};

use super::records::record;
use super::sink::{batch, rows};
use super::support::{DEADLINE, Database, Server, record_range, until};

fn sink(database: &Database) -> Sink {
    Sink::ClickHouse(Box::new(ClickHouseSink::new(&database.server, "node-1", false)))
}

#[tokio::test]
async fn good_rows_are_stored_once_however_often_a_batch_is_split() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), 0);
    let database = Database::on(&server.url);
    let mut rows = rows(0..100);
    rows.insert(50, b"no row".to_vec());
    let batch = batch("boot/0-1", &rows);
    let mut sink = sink(&database);
    let error = sink.store(&batch).await.unwrap_err();
    assert!(error.is_poison(), "{error}");
    // The answer is lost after the good rows are stored: another process splits again, along other lines.
    server.fault(json!({"lose_ack": 1, "match": "INTO exchanges"})).await;
    split(&mut sink, &batch).await.unwrap_err();
    let half = Batch {
        piece: true,
        exchanges: batch.exchanges[..30].to_vec(),
        ..Batch {
            token: batch.token.clone(),
            ..Batch::default()
        }
    };
    let mut other = self::sink(&database);
    other.store(&half).await.unwrap();
    let found = split(&mut other, &batch).await.unwrap();
    assert_eq!(
        (found.stored, found.dead.len(), found.dead[0].row),
        (100, 1, &b"no row"[..])
    );
    assert_eq!(database.counts().await, (100, 100, 100));
}

#[tokio::test]
async fn rows_that_only_the_server_refuses_are_found_by_halving() {
    let database = Database::new();
    let mut sink = sink(&database);
    sink.prepare().await.unwrap();
    // A column that takes less than the rows may hold: what is not in it is a parse error of those rows alone.
    database
        .sql("ALTER TABLE exchanges MODIFY COLUMN finish_reason Enum8('' = 0, 'stop' = 1)")
        .await;
    let encoded: Vec<Vec<u8>> = (0..20).map(|i| encode(i, if i == 7 { 9 } else { 0 })).collect();
    let found = split(&mut sink, &batch("boot/0-1", &encoded)).await.unwrap();
    assert_eq!((found.stored, found.dead.len()), (19, 1));
    assert_eq!(found.dead[0].row, encoded[7]);
    assert!(
        found.dead[0].reason.contains("clickhouse answered: Code: "),
        "{}",
        found.dead[0].reason
    );
    assert_eq!(database.counts().await, (19, 19, 19));

    // A table that takes no row at all is no matter of rows: the batch waits.
    let all: Vec<Vec<u8>> = (20..60).map(|i| encode(i, 9)).collect();
    let error = split(&mut sink, &batch("boot/0-2", &all)).await.unwrap_err();
    assert!(error.is_poison(), "{error}");
    assert_eq!(database.counts().await, (19, 19, 19));
    database.drop().await;
}

/// A row whose `finish_reason` has that many bytes: read as an Enum8 its length is the value.
fn encode(i: u64, len: usize) -> Vec<u8> {
    let mut row = Vec::new();
    let reason = &"xxxxxxxxx"[..len];
    let record = promptgate::domain::exchange::ExchangeRecord {
        finish_reason: reason,
        ..record(i)
    };
    promptgate::telemetry::row::encode_exchange(&record, &mut row);
    row
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_shown_resent_and_dropped_by_command() {
    let (database, spool) = (Database::new(), tempfile::tempdir().unwrap());
    let telemetry = database.telemetry(spool.path());
    let (stats, shipped) = (telemetry.stats(), telemetry.ship_stats());
    tokio::task::block_in_place(|| record_range(&telemetry, 0, 0..3));
    until("stored", async || stats.figures().shipped == 3).await;
    // Refused until the column is put right again.
    database
        .sql("ALTER TABLE exchanges MODIFY COLUMN queue_us UInt128 CODEC(ZSTD(1))")
        .await;
    tokio::task::block_in_place(|| record_range(&telemetry, 1, 3..5));
    until("buried", async || shipped.dead_rows.load(Relaxed) == 2).await;

    let file = spool.path().join("p.toml");
    fs::write(&file, format!("[telemetry]\nspool_dir = {:?}\n", spool.path())).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_promptgate"));
        let output = command
            .arg("dead-letters")
            .args(words)
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    let json = |words: &[&str]| -> Value {
        let (good, out, err) = run(words);
        assert!(good, "{err}");
        serde_json::from_str(&out).unwrap()
    };
    let list = json(&["list", "--json"]);
    let items = list["items"].as_array().unwrap().clone();
    let records: u64 = items.iter().map(|item| item["records"].as_u64().unwrap()).sum();
    assert_eq!(records, 2, "{list}");
    assert!(items[0]["reason"].as_str().unwrap().contains("Code: "), "{list}");
    let name = items[0]["name"].as_str().unwrap();
    let shown = json(&["show", name, "--json"]);
    let first = &shown["items"][0]["record"];
    assert_eq!(first["exchange_id"], record(3).exchange_id.to_string());
    assert!(first.get("request").is_none(), "{first}");
    let whole = json(&["show", name, "--content", "--json"]);
    assert!(whole["items"][0]["record"].get("request").is_some());
    assert!(run(&["list"]).1.contains(name));

    database
        .sql("ALTER TABLE exchanges MODIFY COLUMN queue_us UInt64 CODEC(T64, ZSTD(1))")
        .await;
    let (good, out, _) = run(&["resend", "--all"]);
    assert!(good && out.contains("to be resent"), "{out}");
    until("resent", async || shipped.resent_rows.load(Relaxed) == 2).await;
    until("taken away", async || {
        DeadLetters::of(spool.path()).list().unwrap().is_empty()
    })
    .await;
    assert_eq!(telemetry.drain(DEADLINE).await, 0);
    assert_eq!(database.counts().await, (5, 5, 5));

    let (good, _, err) = run(&["drop", "nothing.seg"]);
    assert!(
        !good && err.contains("there is no dead letter \"nothing.seg\""),
        "{err}"
    );
    assert!(!run(&["drop"]).0, "a name or --all");
    assert_eq!(json(&["drop", "--all", "--json"]), json!({"dropped": []}));
    database.drop().await;
}
