//! A server that is not there, fails, loses answers, or dies: on one of our own.

use std::net::TcpListener;

use serde_json::json;

use super::support::{DEADLINE, Database, Server, record_range, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clickhouse_down_at_boot_and_killed_later_loses_and_doubles_nothing() {
    let (data, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let database = Database::on(&format!("http://127.0.0.1:{port}"));
    let telemetry = database.telemetry(spool.path());
    let stats = telemetry.stats();
    tokio::task::block_in_place(|| record_range(&telemetry, 0, 0..200));
    until("tried in vain", async || stats.figures().ship_errors >= 2).await;
    assert!(
        telemetry
            .store()
            .unwrap()
            .count(&Default::default())
            .await
            .unwrap_err()
            .is_outage()
    );
    assert_eq!(stats.figures().shipped, 0);

    let server = Server::start(data.path(), port);
    until("shipped", async || stats.figures().shipped == 200).await;
    assert_eq!(database.counts().await, (200, 200, 200));

    // Killed while batches come in.
    let killed = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(150));
        server.kill();
    });
    tokio::task::block_in_place(|| record_range(&telemetry, 1, 200..700));
    killed.join().unwrap();
    let _server = Server::start(data.path(), port);
    assert_eq!(telemetry.drain(DEADLINE).await, 0);
    assert_eq!(stats.figures().lost, 0);
    assert_eq!(database.counts().await, (700, 700, 700));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_and_errors_double_nothing() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), 0);
    for fault in [
        json!({"lose_ack": 3, "match": "INTO exchanges"}),
        json!({"error": 3, "match": "INTO exchanges"}),
        json!({"drop": 2, "match": "INTO exchanges"}),
        json!({"error": 2, "code": 252, "lose_ack": 2, "slow": 0.2, "inserts": 1, "match": "INTO exchanges"}),
        // While migrating: recording that a migration was applied is an INSERT as well.
        json!({"lose_ack": 2, "match": "INTO schema_migrations"}),
    ] {
        let (database, spool) = (Database::on(&server.url), tempfile::tempdir().unwrap());
        server.fault(fault.clone()).await;
        let telemetry = database.telemetry(spool.path());
        let stats = telemetry.stats();
        tokio::task::block_in_place(|| record_range(&telemetry, 0, 0..300));
        assert_eq!(telemetry.drain(DEADLINE).await, 0, "{fault}");
        assert!(stats.figures().ship_errors >= 2, "{fault}");
        assert_eq!(
            (stats.figures().shipped, stats.figures().dead_segments),
            (300, 0),
            "{fault}"
        );
        assert_eq!(database.counts().await, (300, 300, 300), "{fault}");
    }
}
