//! Telemetry as a whole, on real folders and files: recorder, spool, shipper, SQLite, store.

mod dead;
mod reading;
mod retention;
mod shipping;

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};
use sqlx::{Connection, Row, SqliteConnection};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use uuid::Uuid;

use super::row::{EXCHANGE_COLUMNS, FEEDBACK_COLUMNS, KIND_EXCHANGE, KIND_REFUSALS, REFUSALS_COLUMNS};
use super::*;
use crate::domain::exchange::{Attempt, ExchangeRecord, FeedbackRecord, RefusalsRecord};
use crate::spool::SpoolFigures;

const DEADLINE: Duration = Duration::from_secs(20);
/// 2026-01-02T03:04:05.000006Z
const START: i64 = 1_767_323_045_000_006;

struct Bench {
    dir: tempfile::TempDir,
    control: Runtime,
}

impl Bench {
    fn new() -> Self {
        let control = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            control,
        }
    }

    fn spool_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("spool")
    }

    fn database(&self) -> std::path::PathBuf {
        self.dir.path().join("data/telemetry.db")
    }

    fn try_start(&self) -> Result<Telemetry, TelemetryError> {
        self.try_start_with(|_| {})
    }

    fn try_start_with(&self, change: impl FnOnce(&mut Sqlite)) -> Result<Telemetry, TelemetryError> {
        let mut sqlite = Sqlite {
            path: self.database(),
            ..Sqlite::default()
        };
        change(&mut sqlite);
        let sink = SinkOptions::Sqlite(sqlite);
        let seal_after = Duration::from_millis(50);
        let options = TelemetryOptions {
            insert_duration: crate::metrics::Metrics::new("test")
                .sink_insert_duration_seconds
                .clone(),
            spool_dir: self.spool_dir(),
            seal_after,
            sink,
            workers: 2,
            limits: SpoolLimits::default(),
        };
        Telemetry::start(options, self.control.handle().clone())
    }

    fn start(&self) -> Telemetry {
        self.try_start().unwrap()
    }

    /// Ends a telemetry as `kill -9` would: the shipper stops wherever it is.
    fn kill(&self, telemetry: Telemetry) {
        let recording = telemetry.recording.unwrap();
        recording.shipper.abort();
        let _ = self.control.block_on(recording.shipper);
    }

    fn drain(&self, telemetry: Telemetry) -> (usize, SpoolFigures) {
        let stats = telemetry.stats();
        (self.control.block_on(telemetry.drain(DEADLINE)), stats.figures())
    }

    /// Drains, and reads what is in the store then.
    fn read<T>(&self, telemetry: Telemetry, read: impl AsyncFnOnce(&Store) -> T) -> T {
        assert_eq!(self.drain(telemetry).0, 0);
        self.control.block_on(async {
            let store = Store::sqlite(&self.database());
            let got = read(&store).await;
            store.close().await;
            got
        })
    }

    fn count(&self, telemetry: Telemetry) -> u64 {
        self.read(telemetry, async |store| {
            store.count(&ExchangeFilter::default()).await.unwrap()
        })
    }

    fn sql(&self, sql: &'static str) {
        self.control.block_on(async {
            let mut connection = SqliteConnection::connect_with(&sqlite::connect_options(&self.database()))
                .await
                .unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        });
    }

    /// Waits until the figures are as wanted.
    fn wait(&self, stats: &SpoolStats, wanted: impl Fn(SpoolFigures) -> bool) {
        let end = std::time::Instant::now() + DEADLINE;
        while !wanted(stats.figures()) {
            assert!(std::time::Instant::now() < end, "not in time: {:?}", stats.figures());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Runs `work` with a worker's recorder; dropping all at the end without `close` is a crash.
fn on_worker<T>(telemetry: &Telemetry, worker: usize, work: impl AsyncFnOnce(&Recorder) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let seed = telemetry.recorder_seed(worker);
    LocalSet::new().block_on(&runtime, async { work(&seed.into_recorder()).await })
}

/// The i-th exchange: ids and times grow with it.
fn record(i: u64) -> ExchangeRecord<'static> {
    let millis = (START / 1000) as u64 + i;
    ExchangeRecord {
        exchange_id: Uuid::from_u64_pair((millis << 16) | 0x7000, 0x8000_0000_0000_0000 | i),
        started_at: START + 1000 * i as i64,
        prompt_id: if i.is_multiple_of(3) {
            "support/greet"
        } else {
            "support/other"
        },
        environment: if i.is_multiple_of(2) { "production" } else { "staging" },
        outcome: "ok",
        ..ExchangeRecord::default()
    }
}

/// Records and waits, as a request does, then closes.
fn record_range(telemetry: &Telemetry, worker: usize, range: std::ops::Range<u64>) {
    on_worker(telemetry, worker, async |recorder| {
        for i in range {
            let ticket = recorder.exchange(&record(i));
            recorder.flushed(ticket).await;
        }
        recorder.close().await;
    });
}

/// Leaves a segment of an earlier boot in the spool, as a process that was killed does.
fn leave(bench: &Bench, boot: &str, schema: u32, frames: &[(u8, &[u8])]) {
    let options = SpoolOptions::new(bench.spool_dir(), boot.to_owned(), schema, 1, Duration::from_secs(1));
    let (spool, _incoming) = Spool::open(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let writer = spool.writer_seed(0).start();
        for (kind, payload) in frames {
            writer
                .flushed(writer.append(*kind, |out| out.extend_from_slice(payload)).unwrap())
                .await;
        }
    });
}

fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
    let boots = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let boots = boots.filter(|p| p.is_dir() && !p.ends_with("pool") && !p.ends_with("dead"));
    boots
        .flat_map(|boot| fs::read_dir(boot).unwrap().map(|e| e.unwrap().path()))
        .collect()
}

#[test]
fn telemetry_records_are_read_back_with_all_fields() {
    let bench = Bench::new();
    let telemetry = bench.start();
    let base = record(0);
    let full = ExchangeRecord {
        node: "n1",
        generation: 42,
        tags: vec![("team", "süd"), ("b", "2")],
        version: 3,
        variant: "b",
        document_ids: vec!["d1", "d2"],
        streaming: true,
        attempts: vec![Attempt {
            target: "openai/gpt",
            status: 503,
            duration_us: 7,
            error: "status",
        }],
        status_code: 200,
        total_us: u64::MAX,
        output_tokens: u32::MAX,
        tokens_estimated: true,
        cost_nanodollars: 12_345,
        variables: br#"{"question": "why?"}"#,
        request: b"not JSON",
        response: b"\xff\xfe",
        response_truncated: true,
        capture: "metadata",
        ..base
    };
    on_worker(&telemetry, 0, async |recorder| {
        assert!(recorder.is_on());
        recorder.exchange(&full);
        let feedback = FeedbackRecord {
            feedback_id: Uuid::from_u128(5),
            number: 0.5,
            ..FeedbackRecord::default()
        };
        recorder.flushed(recorder.feedback(&feedback)).await;
        recorder.close().await;
    });
    let (mut item, none, page) = bench.read(telemetry, async |store| {
        let page = store.exchanges(&ExchangeFilter::default(), 10, None).await.unwrap();
        let item = store.exchange(&full.exchange_id.to_string()).await.unwrap().unwrap();
        (
            item,
            (
                store.exchange("nonsense").await.unwrap(),
                store.exchange(&Uuid::nil().to_string()).await.unwrap(),
            ),
            page,
        )
    });
    assert_eq!(none, (None, None));
    assert_eq!(item.as_object_mut().unwrap().remove("feedback"), Some(json!([])));
    assert_eq!(
        page,
        ExchangePage {
            items: vec![item.clone()],
            next_cursor: None
        }
    );
    let names: Vec<&str> = item.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, EXCHANGE_COLUMNS.iter().map(|c| c.name).collect::<Vec<_>>());
    let wanted = json!({
        "exchange_id": full.exchange_id.to_string(),
        "started_at": "2026-01-02T03:04:05.000006Z",
        "node": "n1",
        "generation": 42,
        "tags": {"team": "süd", "b": "2"},
        "version": 3,
        "variant": "b",
        "document_ids": ["d1", "d2"],
        "streaming": true,
        "attempts": [{"target": "openai/gpt", "status": 503, "duration_us": 7, "error": "status"}],
        "status_code": 200,
        "total_us": i64::MAX,
        "output_tokens": u32::MAX,
        "tokens_estimated": true,
        "cost_nanodollars": 12_345,
        "variables": {"question": "why?"},
        "request": "not JSON",
        "response": "\u{fffd}\u{fffd}",
        "response_truncated": true,
        "user": "",
        "request_truncated": false,
        "capture": "metadata",
    });
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&item[name], value, "{name}");
    }
    bench.sql("DELETE FROM feedback WHERE feedback_id = X'00000000000000000000000000000005' AND number = 0.5");
}

#[test]
fn telemetry_two_workers_drain_leaves_nothing() {
    let bench = Bench::new();
    let telemetry = bench.start();
    std::thread::scope(|scope| {
        scope.spawn(|| record_range(&telemetry, 0, 0..130));
        scope.spawn(|| record_range(&telemetry, 1, 130..260));
    });
    let stats = telemetry.stats();
    assert_eq!(bench.count(telemetry), 260);
    let figures = stats.figures();
    assert_eq!(
        (figures.appended, figures.shipped, figures.lost, figures.unshipped_bytes),
        (260, 260, 0, 0)
    );
    assert_eq!((figures.backlog_segments, figures.oldest_unshipped_at), (0, None));
    assert!(segments(&bench.spool_dir()).is_empty());
}

#[test]
fn telemetry_killed_after_answering_loses_nothing_and_stores_once() {
    let bench = Bench::new();
    for round in 0..4 {
        let telemetry = bench.start();
        on_worker(&telemetry, 0, async |recorder| {
            for i in 0..100 {
                recorder.flushed(recorder.exchange(&record(round * 100 + i))).await;
            }
        });
        bench.kill(telemetry);
    }
    let telemetry = bench.start();
    assert_eq!(bench.count(telemetry), 400);
}

#[test]
fn telemetry_segment_offered_again_is_skipped() {
    let bench = Bench::new();
    bench.drain(bench.start());
    // Without its table the shipper leaves the segment where it is, so that it can be copied.
    bench.sql("ALTER TABLE exchanges RENAME TO away");
    let telemetry = bench.start();
    record_range(&telemetry, 0, 0..5);
    bench.kill(telemetry);
    bench.sql("ALTER TABLE away RENAME TO exchanges");
    let kept: Vec<_> = segments(&bench.spool_dir())
        .into_iter()
        .map(|p| (fs::read(&p).unwrap(), p))
        .collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(bench.count(bench.start()), 5);

    bench.sql("DELETE FROM exchanges");
    for (bytes, path) in &kept {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(
        bench.count(bench.start()),
        0,
        "its token was there, so its rows were not stored again"
    );
    assert!(segments(&bench.spool_dir()).is_empty());
}

#[test]
fn telemetry_sink_none_touches_nothing_and_waits_for_nothing() {
    let bench = Bench::new();
    let options = TelemetryOptions {
        insert_duration: crate::metrics::Metrics::new("test")
            .sink_insert_duration_seconds
            .clone(),
        spool_dir: bench.spool_dir(),
        seal_after: Duration::from_secs(1),
        sink: SinkOptions::None,
        workers: 2,
        limits: SpoolLimits::default(),
    };
    let telemetry = Telemetry::start(options, bench.control.handle().clone()).unwrap();
    on_worker(&telemetry, 0, async |recorder| {
        assert!(!recorder.is_on());
        recorder.flushed(recorder.exchange(&record(1))).await;
        recorder.close().await;
    });
    assert!(telemetry.store().is_none());
    assert_eq!(bench.drain(telemetry), (0, SpoolFigures::default()));
    assert!(!bench.spool_dir().exists());
}

#[test]
fn telemetry_start_errors_name_the_path() {
    let bench = Bench::new();
    let telemetry = bench.start();
    assert!(matches!(
        bench.try_start(),
        Err(TelemetryError::Spool(SpoolError::InUse { .. }))
    ));
    // Also from within a runtime, where blocking on its handle would panic.
    bench.control.block_on(async { bench.try_start().unwrap_err() });
    bench.drain(telemetry);
    bench.sql("PRAGMA user_version = 99");
    let error = bench.try_start().unwrap_err().to_string();
    assert!(
        error.contains("telemetry.db") && error.contains("schema version 99"),
        "{error}"
    );
}
