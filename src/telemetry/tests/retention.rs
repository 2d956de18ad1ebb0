//! What the SQLite file keeps: by age, by size, and for how long its bookkeeping.

use super::*;
use crate::telemetry::row::{KIND_FEEDBACK, encode_exchange, encode_feedback, encode_refusals};
use crate::telemetry::sink::Batch;
use crate::telemetry::sqlite::{SqliteSink, Tidied};

const DAY: i64 = 86_400_000_000;

/// Rows of three kinds at some times, each with bodies of so many bytes.
fn rows(times: impl Iterator<Item = i64>, body: usize) -> Vec<(u8, Vec<u8>)> {
    let body = vec![b'x'; body];
    let mut rows = Vec::new();
    for (i, at) in times.enumerate() {
        let id = Uuid::from_u64_pair((at as u64 / 1000) << 16 | 0x7000, 1 << 63 | i as u64);
        let (mut exchange, mut feedback, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
        let record = ExchangeRecord {
            exchange_id: id,
            started_at: at,
            response: &body,
            ..ExchangeRecord::default()
        };
        encode_exchange(&record, &mut exchange);
        let score = FeedbackRecord {
            feedback_id: id,
            at,
            ..FeedbackRecord::default()
        };
        encode_feedback(&score, &mut feedback);
        let refused = RefusalsRecord {
            refusals_id: id,
            since: at,
            ..RefusalsRecord::default()
        };
        encode_refusals(&refused, &mut refusals);
        rows.extend([
            (KIND_EXCHANGE, exchange),
            (KIND_FEEDBACK, feedback),
            (KIND_REFUSALS, refusals),
        ]);
    }
    rows
}

fn batch<'a>(token: &str, rows: &'a [(u8, Vec<u8>)]) -> Batch<'a> {
    let of = |kind| rows.iter().filter(|row| row.0 == kind).map(|row| &row.1[..]).collect();
    Batch {
        token: token.to_owned(),
        exchanges: of(KIND_EXCHANGE),
        feedback: of(KIND_FEEDBACK),
        refusals: of(KIND_REFUSALS),
        ..Batch::default()
    }
}

/// Counts of exchanges, feedback, refusals and tokens.
async fn counts(path: &Path) -> [i64; 4] {
    let mut connection = SqliteConnection::connect_with(&sqlite::connect_options(path))
        .await
        .unwrap();
    let mut counts = [0; 4];
    for (count, sql) in counts.iter_mut().zip([
        "SELECT count(*) FROM exchanges",
        "SELECT count(*) FROM feedback",
        "SELECT count(*) FROM refusals",
        "SELECT count(*) FROM batches",
    ]) {
        *count = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    }
    counts
}

async fn tidy_all(sink: &mut SqliteSink, quiet: bool) -> u64 {
    let mut exchanges = 0;
    loop {
        let tidied = sink.tidy(quiet).await.unwrap();
        exchanges += tidied.exchanges;
        if !tidied.more {
            return exchanges;
        }
    }
}

#[tokio::test]
async fn records_older_than_configured_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let now = jiff::Timestamp::now().as_microsecond();
    let times = (0..1500)
        .map(|i| now - 3 * DAY + i)
        .chain((0..7).map(|i| now - DAY + i));
    let rows = rows(times, 10);
    let keeps = |keep_days| Sqlite {
        path: path.clone(),
        keep_days,
        max_bytes: 0,
    };
    let mut sink = SqliteSink::open(&keeps(0), true).await.unwrap();
    sink.store(&batch("b/0-1", &rows)).await.unwrap();
    assert_eq!(sink.tidy(true).await.unwrap(), Tidied::default());
    assert_eq!(counts(&path).await, [1507, 1507, 1507, 1]);
    sink.close().await;

    let mut sink = SqliteSink::open(&keeps(2), false).await.unwrap();
    let first = sink.tidy(true).await.unwrap();
    assert!(first.more && first.exchanges == 500, "a step is short: {first:?}");
    assert_eq!(tidy_all(&mut sink, true).await, 1000);
    assert_eq!(counts(&path).await, [7, 7, 7, 1]);
    // A token is forgotten after a day, and only when nothing waits.
    let aged = format!("UPDATE batches SET stored_at = {}", now - 2 * DAY);
    let mut other = SqliteConnection::connect_with(&sqlite::connect_options(&path))
        .await
        .unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(aged))
        .execute(&mut other)
        .await
        .unwrap();
    tidy_all(&mut sink, false).await;
    assert_eq!(counts(&path).await[3], 1);
    tidy_all(&mut sink, true).await;
    assert_eq!(counts(&path).await, [7, 7, 7, 0]);
}

#[tokio::test]
async fn file_stays_within_its_limit_and_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let max_bytes = 4 << 20;
    let mut sink = SqliteSink::open(
        &Sqlite {
            path: path.clone(),
            keep_days: 0,
            max_bytes,
        },
        false,
    )
    .await
    .unwrap();
    let mut removed = 0;
    for i in 0..60 {
        // 100 rows of 2 KiB: 12 MiB in all.
        let rows = rows((0..100).map(|j| START + (i * 100 + j) * 1000), 2000);
        sink.store(&batch(&format!("b/0-{i}"), &rows)).await.unwrap();
        removed += tidy_all(&mut sink, false).await;
    }
    let [exchanges, feedback, refusals, _] = counts(&path).await;
    assert_eq!(exchanges as u64 + removed, 6000);
    assert!((1000..2000).contains(&exchanges), "{exchanges}");
    // What belongs to a second before the oldest may be there still.
    assert!(feedback >= exchanges && feedback <= exchanges + 1100, "{feedback}");
    assert!(refusals >= exchanges && refusals <= exchanges + 1100, "{refusals}");
    sink.close().await;
    let size = fs::metadata(&path).unwrap().len();
    assert!(size <= max_bytes, "{size}");
    let mut connection = SqliteConnection::connect_with(&sqlite::connect_options(&path))
        .await
        .unwrap();
    let newest: i64 = sqlx::query_scalar("SELECT max(started_at) FROM exchanges")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(newest, START + 5999 * 1000);
}

#[test]
fn shipper_removes_old_records_in_the_background() {
    let bench = Bench::new();
    let now = jiff::Timestamp::now().as_microsecond();
    let old = rows((0..600).map(|i| now - 9 * DAY + i), 10);
    let frames: Vec<(u8, &[u8])> = old.iter().map(|(kind, row)| (*kind, &row[..])).collect();
    leave(&bench, "0001-a", row::EXCHANGE_SCHEMA_ID, &frames);
    let telemetry = bench.try_start_with(|sqlite| sqlite.keep_days = 1).unwrap();
    let shipped = telemetry.ship_stats();
    let end = std::time::Instant::now() + DEADLINE;
    while shipped.pruned.load(Relaxed) < 600 {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    record_range(&telemetry, 0, 0..1);
    assert_eq!(bench.count(telemetry), 1);
}
