//! Batches into the real engine: each once, whatever happens to the attempts.

use promptgate::domain::exchange::RefusalsRecord;
use promptgate::telemetry::clickhouse::ClickHouseSink;
use promptgate::telemetry::row::{encode_exchange, encode_feedback, encode_refusals};
use promptgate::telemetry::sink::{Batch, Stored};
use promptgate::telemetry::sqlite::SqliteSink;
use promptgate::telemetry::{ExchangeFilter, StatsQuery, Store};

use super::records::{START, feedback, record};
use super::support::{DEADLINE, Database, on_worker, record_range, sqlite};

const DAY: u64 = 86_400;

pub fn rows(range: impl Iterator<Item = u64>) -> Vec<Vec<u8>> {
    let encode = |i| {
        let mut row = Vec::new();
        encode_exchange(&record(i), &mut row);
        row
    };
    range.map(encode).collect()
}

pub fn batch<'a>(token: &str, rows: &'a [Vec<u8>]) -> Batch<'a> {
    Batch {
        token: token.to_owned(),
        exchanges: rows.iter().map(Vec::as_slice).collect(),
        ..Batch::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_one_row_and_counts_once_in_the_rollup() {
    let (database, spool) = (Database::new(), tempfile::tempdir().unwrap());
    let telemetry = database.telemetry(spool.path());
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| record_range(&telemetry, 0, 0..700));
            scope.spawn(|| record_range(&telemetry, 1, 700..1500));
        });
    });
    let stats = telemetry.stats();
    assert_eq!(telemetry.drain(DEADLINE).await, 0);
    assert_eq!((stats.figures().shipped, stats.figures().lost), (1500, 0));
    assert!(stats.figures().shipped_segments > 4);
    assert_eq!(database.counts().await, (1500, 1500, 1500));
    let table = "SELECT toStartOfMinute(toDateTime(started_at, 'UTC')) AS minute, prompt_id, version, variant, environment, \
                 endpoint, model, provider, count(), countIf(outcome != 'ok'), sum(input_tokens), \
                 sum(cached_input_tokens), sum(output_tokens), sum(reasoning_tokens), sum(total_tokens), \
                 sum(cost_nanodollars) FROM exchanges GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8";
    let rollup = "SELECT minute, prompt_id, version, variant, environment, endpoint, model, provider, sum(requests), sum(errors), \
                  sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), sum(reasoning_tokens), \
                  sum(total_tokens), sum(cost_nanodollars) FROM rollup_minute GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 \
                  ORDER BY 1, 2, 3, 4, 5, 6, 7, 8";
    let (table, rollup) = (database.sql(table).await, database.sql(rollup).await);
    assert!(table.lines().count() > 100);
    assert_eq!(table, rollup);
    let quantiles = database
        .sql(
            "SELECT arrayMap(x -> round(x / 1000), quantilesTDigestMerge(0.5, 0.95, 0.99)(latency)) FROM rollup_minute",
        )
        .await;
    assert_eq!(quantiles, "[50,95,99]");
    database.drop().await;
}

#[tokio::test]
async fn repeated_token_is_stored_and_counted_once() {
    let database = Database::new();
    let mut sink = ClickHouseSink::new(&database.server, "node-1", false);
    let rows = rows(0..100);
    let mut given = Vec::new();
    encode_feedback(&feedback(4), &mut given);
    let mut batch = batch("boot/0-1", &rows);
    batch.feedback.push(&given);
    for _ in 0..3 {
        assert_eq!(sink.store(&batch).await.unwrap(), Stored::Now);
        assert_eq!(database.counts().await, (100, 100, 100));
        assert_eq!(database.sql("SELECT count() FROM feedback").await, "1");
    }
    // Another node's segment of the same name is another batch.
    let mut other = ClickHouseSink::new(&database.server, "node-2", false);
    other.store(&batch).await.unwrap();
    assert_eq!(database.counts().await, (200, 100, 200));
    database.drop().await;
}

#[tokio::test]
async fn refusals_alone_are_a_batch_and_read_alike_in_both_stores() {
    let (database, folder) = (Database::new(), tempfile::tempdir().unwrap());
    let rows: Vec<Vec<u8>> = (0..12)
        .map(|i: u64| {
            let mut row = Vec::new();
            let refused = RefusalsRecord {
                refusals_id: uuid::Uuid::from_u128(i.into()),
                since: START + i as i64,
                until: START + 60_000_000,
                node: "node-1",
                key_id: ["key_1", ""][i as usize % 2],
                endpoint: "chat_completions",
                error_code: ["rate_limited", "invalid_api_key", "invalid_api_key"][i as usize % 3],
                status_code: 429,
                requests: i * 1000,
            };
            encode_refusals(&refused, &mut row);
            row
        })
        .collect();
    let batch = Batch {
        token: "boot/0-1".to_owned(),
        refusals: rows.iter().map(Vec::as_slice).collect(),
        ..Batch::default()
    };
    let path = folder.path().join("telemetry.db");
    let mut sqlite = SqliteSink::open(&sqlite(&path), false).await.unwrap();
    let mut clickhouse = ClickHouseSink::new(&database.server, "node-1", false).with_memory(-1);
    for _ in 0..2 {
        sqlite.store(&batch).await.unwrap();
        clickhouse.store(&batch).await.unwrap();
    }
    let in_doubt = Batch {
        token: "boot/0-2".to_owned(),
        doubt_since: Some(0),
        ..batch
    };
    assert_eq!(clickhouse.store(&in_doubt).await.unwrap(), Stored::Before);
    let [one, other] = [Store::sqlite(&path), Store::clickhouse(&database.server)];
    for (from, total) in [(None, 66_000), (Some(START + 6), 51_000)] {
        let query = StatsQuery {
            filter: ExchangeFilter {
                from,
                ..ExchangeFilter::default()
            },
            group_by: vec![],
            limit: 10,
        };
        let refused = one.refusals(&query).await.unwrap();
        assert_eq!(refused.iter().map(|r| r.requests).sum::<u64>(), total);
        assert_eq!((refused.len(), &refused), (4, &other.refusals(&query).await.unwrap()));
    }
    database.drop().await;
}

#[tokio::test]
async fn rows_of_schema_1_are_stored_under_their_token_with_the_columns_they_have() {
    let database = Database::new();
    let mut sink = ClickHouseSink::new(&database.server, "node-1", false);
    // As a build of schema 1 wrote them: without the last column.
    let mut old = rows(0..20);
    for row in &mut old {
        row.truncate(row.len() - 1 - record(0).capture.len());
    }
    let of_schema_1 = || Batch {
        schema: 1,
        ..batch("boot/0-1", &old)
    };
    sink.store(&of_schema_1()).await.unwrap();
    sink.store(&of_schema_1()).await.unwrap();
    sink.store(&batch("boot/0-2", &rows(20..30))).await.unwrap();
    assert_eq!(database.counts().await, (30, 30, 30));
    let captures = "SELECT capture, count() FROM exchanges GROUP BY capture ORDER BY capture";
    assert_eq!(database.sql(captures).await, "full\t20\nmetadata\t10");
    let unknown = Batch {
        schema: 99,
        ..of_schema_1()
    };
    let error = sink.store(&unknown).await.unwrap_err();
    assert!(!error.is_poison() && error.is_certain(), "{error}");
    database.drop().await;
}

#[tokio::test]
async fn batch_long_in_doubt_is_asked_for_and_only_missing_days_are_sent() {
    let database = Database::new();
    let mut sink = ClickHouseSink::new(&database.server, "node-1", false).with_memory(-1);
    // Two days, the second in between as well: the times of a segment are not sorted.
    let rows = rows((0..40).map(|i| if i % 3 == 0 { DAY + i } else { i }));
    let in_doubt = |token: &str| Batch {
        doubt_since: Some(0),
        ..batch(token, &rows)
    };
    assert_eq!(sink.store(&in_doubt("boot/0-1")).await.unwrap(), Stored::Now);
    // Under another token, as if the table had forgotten it.
    assert_eq!(sink.store(&in_doubt("boot/0-2")).await.unwrap(), Stored::Before);
    assert_eq!(database.counts().await, (40, 40, 40));

    let partitions = "SELECT DISTINCT partition FROM system.parts WHERE database = currentDatabase() \
                      AND table = 'exchanges' AND active ORDER BY partition";
    let partitions = database.sql(partitions).await;
    let second = partitions.lines().nth(1).unwrap();
    database
        .sql(&format!("ALTER TABLE exchanges DROP PARTITION '{second}'"))
        .await;
    assert_eq!(database.counts().await.0, 26);
    assert_eq!(sink.store(&in_doubt("boot/0-3")).await.unwrap(), Stored::Now);
    assert_eq!(
        database.counts().await,
        (40, 40, 54),
        "the rollup had counted the dropped day before"
    );
    database.drop().await;
}

#[tokio::test]
async fn table_that_has_gone_is_made_again_and_is_no_poison() {
    let database = Database::new();
    let mut sink = ClickHouseSink::new(&database.server, "node-1", false);
    let rows = rows(0..10);
    let batch = batch("boot/0-1", &rows);
    sink.store(&batch).await.unwrap();
    database
        .sql(&format!("DROP DATABASE {}", database.server.database))
        .await;
    let error = sink.store(&batch).await.unwrap_err();
    assert!(!error.is_poison() && error.is_absent(), "{error}");
    sink.store(&batch).await.unwrap();
    assert_eq!(database.counts().await, (10, 10, 10));
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_of_a_killed_process_are_stored_once() {
    let (database, spool) = (Database::new(), tempfile::tempdir().unwrap());
    for round in 0..3 {
        let telemetry = database.telemetry(spool.path());
        tokio::task::block_in_place(|| {
            on_worker(&telemetry, 0, async |recorder| {
                for i in round * 100..(round + 1) * 100 {
                    recorder.flushed(recorder.exchange(&record(i))).await;
                }
            });
        });
        // Dropped without a drain: whatever was in flight is cut off, as far as one process can do that to itself.
        drop(telemetry);
    }
    let telemetry = database.telemetry(spool.path());
    assert_eq!(telemetry.drain(DEADLINE).await, 0);
    assert_eq!(database.counts().await, (300, 300, 300));
    database.drop().await;
}
