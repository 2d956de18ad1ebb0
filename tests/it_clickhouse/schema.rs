//! Migrations, on a database that nobody has made yet.

use std::process::Command;
use std::time::{Duration, Instant};

use promptgate::telemetry::clickhouse::ClickHouseError;
use promptgate::telemetry::clickhouse::schema::{self, Schema};
use promptgate::telemetry::row::{EXCHANGE_COLUMNS, FEEDBACK_COLUMNS, REFUSALS_COLUMNS};

use super::support::{DEADLINE, Database};

const MIGRATIONS: usize = schema::MIGRATIONS.len();

#[tokio::test]
async fn migrations_make_the_columns_of_the_rows_and_run_once() {
    let database = Database::new();
    assert_eq!(database.schema().plan().await.unwrap().pending.len(), MIGRATIONS);
    assert_eq!(database.schema().migrate().await.unwrap(), MIGRATIONS);
    assert_eq!(database.schema().migrate().await.unwrap(), 0);
    assert!(database.schema().plan().await.unwrap().is_empty());
    for (table, columns) in [
        ("exchanges", &EXCHANGE_COLUMNS[..]),
        ("feedback", &FEEDBACK_COLUMNS[..]),
        ("refusals", &REFUSALS_COLUMNS[..]),
    ] {
        let found = database
            .sql(&format!(
                "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = '{table}' \
                 ORDER BY position FORMAT TSVRaw"
            ))
            .await;
        let wanted: Vec<String> = columns
            .iter()
            .map(|c| format!("{}\t{}", c.name, c.ty.clickhouse()))
            .collect();
        assert_eq!(found.lines().collect::<Vec<_>>(), wanted);
    }
    let locks = "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'schema_lock'";
    assert_eq!(database.sql(locks).await, "0");

    database
        .sql("INSERT INTO schema_migrations VALUES (99, 'later', 'x', now())")
        .await;
    let newer = database.schema().migrate().await.unwrap_err();
    assert!(
        matches!(newer, ClickHouseError::Newer { found: 99, known } if known as usize == MIGRATIONS),
        "{newer}"
    );
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_of_many_nodes_at_once_are_recorded_once() {
    let database = Database::new();
    let nodes: Vec<_> = (0..6)
        .map(|_| {
            let server = database.server.clone();
            tokio::spawn(async move {
                let end = Instant::now() + DEADLINE;
                while let Err(error) = Schema::new(&server, &server.urls[0], false).migrate().await {
                    assert!(matches!(error, ClickHouseError::Locked { .. }), "{error}");
                    assert!(Instant::now() < end, "not in time");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        })
        .collect();
    for node in nodes {
        node.await.unwrap();
    }
    let recorded = database
        .sql("SELECT count(), uniqExact(version) FROM schema_migrations")
        .await;
    assert_eq!(recorded, format!("{MIGRATIONS}\t{MIGRATIONS}"));
    database.drop().await;
}

#[tokio::test]
async fn expiry_follows_the_configuration() {
    let mut database = Database::new();
    let engine = "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'exchanges'";
    for (days, wanted) in [
        (30, Some("TTL toDateTime(started_at) + toIntervalDay(30)")),
        (7, Some("Day(7)")),
        (0, None),
    ] {
        database.server.ttl_days = days;
        database.schema().migrate().await.unwrap();
        let found = database.sql(engine).await;
        assert_eq!(found.contains(" TTL "), wanted.is_some(), "{found}");
        assert!(wanted.is_none_or(|wanted| found.contains(wanted)), "{found}");
        assert!(database.schema().plan().await.unwrap().is_empty(), "{days}");
    }
    database.drop().await;
}

#[tokio::test]
async fn durability_follows_the_configuration() {
    let database = Database::new();
    let durable = "SELECT name FROM system.tables WHERE database = currentDatabase() \
                   AND engine_full LIKE '%fsync_after_insert = 1, fsync_part_directory = 1%' ORDER BY name";
    for (wanted, tables) in [
        (false, ""),
        (true, "exchanges\nfeedback\nrefusals\nrollup_minute"),
        (false, ""),
    ] {
        let schema = Schema::new(&database.server, &database.server.urls[0], wanted);
        schema.migrate().await.unwrap();
        assert_eq!(database.sql(durable).await, tables);
        assert!(schema.plan().await.unwrap().is_empty());
    }
    database.drop().await;
}

#[tokio::test]
async fn migrate_command_shows_then_runs() {
    let database = Database::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.toml");
    let (url, name, user) = (
        &database.server.urls[0],
        &database.server.database,
        &database.server.user,
    );
    let mut text = format!(
        "[telemetry]\nsink = \"clickhouse\"\n[telemetry.clickhouse]\nurl = {url:?}\ndatabase = {name:?}\nuser = {user:?}\n"
    );
    if database.server.password.is_some() {
        text.push_str("password_env = \"CLICKHOUSE_PASSWORD\"\n");
    }
    std::fs::write(&file, text).unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_promptgate"));
        let output = command
            .arg("migrate")
            .arg("--config")
            .arg(&file)
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = run(&["--dry-run"]);
    for part in [
        &format!("CREATE DATABASE IF NOT EXISTS {name};"),
        "-- 0001 exchanges, checksum",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS rollup_minute_of_exchanges",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(run(&[]).contains(&format!("{MIGRATIONS} migrations applied")));
    assert!(run(&["--dry-run"]).contains("is up to date"));
    database.drop().await;
}
