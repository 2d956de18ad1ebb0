//! Telemetry as a whole, on real folders and files: recorder, spool, shipper, SQLite, store.

mod dead;
mod retention;

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
fn shipper_sink_failing_keeps_records_and_order_until_it_works() {
    let bench = Bench::new();
    let telemetry = bench.start();
    bench.sql("ALTER TABLE exchanges RENAME TO away");
    let stats = telemetry.stats();
    for i in 0..8 {
        record_range(&telemetry, 0, i..i + 1);
    }
    bench.wait(&stats, |f| f.ship_errors >= 2 && f.backlog_segments == 8);
    let figures = stats.figures();
    assert!(figures.oldest_unshipped_at.is_some() && figures.unshipped_bytes > 8 * 4096);
    let mut sizes: Vec<u64> = segments(&bench.spool_dir())
        .iter()
        .map(|p| fs::metadata(p).unwrap().len())
        .collect();
    sizes.sort_unstable();
    assert!(
        sizes[3] < 8192 && sizes[4] == 32 << 20,
        "those that wait are cut: {sizes:?}"
    );

    let left = bench.control.block_on(telemetry.drain(Duration::from_millis(200)));
    assert_eq!(left, 8, "a drain ends at its deadline and says what remains");
    bench.sql("ALTER TABLE away RENAME TO exchanges");
    let telemetry = bench.start();
    assert_eq!(telemetry.stats().figures().recovered_frames, 8);
    assert_eq!(bench.count(telemetry), 8);
}

#[test]
fn shipper_poison_segment_goes_to_dead_and_the_next_is_shipped() {
    let bench = Bench::new();
    let mut row = Vec::new();
    row::encode_exchange(&record(100), &mut row);
    // The last has a good row before the one that is none.
    for (schema, kind, payload) in [
        (2, 9, &row[..]),
        (2, 1, b"no row"),
        (77, 1, &row[..]),
        (2, 1, b"no such row"),
    ] {
        let boot = format!("{schema}-{kind}-{}", payload.len());
        match payload == b"no such row" {
            true => leave(&bench, &boot, schema, &[(kind, &row), (kind, payload)]),
            false => leave(&bench, &boot, schema, &[(kind, payload)]),
        }
    }
    let telemetry = bench.start();
    record_range(&telemetry, 0, 0..5);
    let (stats, shipped) = (telemetry.stats(), telemetry.ship_stats());
    assert_eq!(bench.count(telemetry), 6, "what can be decoded is kept");
    let figures = stats.figures();
    assert_eq!(
        (figures.dead_segments, figures.shipped, figures.unshipped_bytes),
        (1, 6, 0)
    );
    assert_eq!(shipped.dead_rows.load(Relaxed), 3);
    assert_eq!(fs::read_dir(bench.spool_dir().join("dead")).unwrap().count(), 4);
}

#[test]
fn segment_of_an_older_build_ships_into_a_file_that_is_upgraded() {
    let bench = Bench::new();
    fs::create_dir_all(bench.database().parent().unwrap()).unwrap();
    bench.control.block_on(async {
        let options = sqlite::connect_options(&bench.database()).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let made = concat!(include_str!("sqlite/schema_1.sql"), "PRAGMA user_version = 1;");
        sqlx::raw_sql(made).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
    let rows: Vec<Vec<u8>> = (0..70)
        .map(|i| {
            let mut row = Vec::new();
            row::tests::encode_exchange_1(&record(i), &mut row);
            row
        })
        .collect();
    let frames: Vec<(u8, &[u8])> = rows.iter().map(|row| (KIND_EXCHANGE, &row[..])).collect();
    leave(&bench, "0001-a", 1, &frames);
    let telemetry = bench.start();
    record_range(&telemetry, 0, 70..75);
    let stats = telemetry.stats();
    let captures = bench.read(telemetry, async |store| {
        let page = store.exchanges(&ExchangeFilter::default(), 100, None).await.unwrap();
        page.items
            .iter()
            .map(|item| item["capture"].clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(
        (captures.len(), captures.iter().filter(|c| *c == "full").count()),
        (75, 70)
    );
    assert_eq!((stats.figures().shipped, stats.figures().dead_segments), (75, 0));
}

#[test]
fn refusals_are_shipped_alone_and_shown_beside_the_figures() {
    let bench = Bench::new();
    let rows: Vec<Vec<u8>> = [(1, "a", 40), (2, "a", 2), (3, "", 50)]
        .into_iter()
        .map(|(i, key_id, requests)| {
            let mut row = Vec::new();
            let refused = RefusalsRecord {
                refusals_id: Uuid::from_u128(i),
                since: START + i as i64,
                until: START + 900,
                key_id,
                endpoint: "chat_completions",
                error_code: "invalid_api_key",
                status_code: 401,
                requests,
                ..RefusalsRecord::default()
            };
            row::encode_refusals(&refused, &mut row);
            row
        })
        .collect();
    let frames: Vec<(u8, &[u8])> = rows.iter().map(|row| (KIND_REFUSALS, &row[..])).collect();
    leave(&bench, "0001-a", row::EXCHANGE_SCHEMA_ID, &frames);
    let ask = |from, outcome: Option<&str>, prompt: Option<&str>| StatsQuery {
        filter: ExchangeFilter {
            from,
            outcome: outcome.map(str::to_owned),
            prompt: prompt.map(str::to_owned),
            ..ExchangeFilter::default()
        },
        group_by: vec![],
        limit: 1,
    };
    bench.read(bench.start(), async |store| {
        let all = store.stats(&ask(None, None, None)).await.unwrap().to_json();
        let refused = |key, requests| {
            json!({"key_id": key, "endpoint": "chat_completions", "error_code": "invalid_api_key",
                   "status_code": 401, "requests": requests})
        };
        assert_eq!(all["refusals"], json!([refused("", 50), refused("a", 42)]));
        assert_eq!(all["groups"], json!([]));
        let later = store
            .refusals(&ask(Some(START + 2), Some("rejected"), None))
            .await
            .unwrap();
        assert_eq!(later.iter().map(|r| r.requests).collect::<Vec<_>>(), [50, 2]);
        for none in [ask(None, Some("ok"), None), ask(None, None, Some("p"))] {
            assert_eq!(store.refusals(&none).await.unwrap(), []);
        }
    });
}

#[test]
fn shipper_damaged_and_missing_segments_are_counted() {
    let bench = Bench::new();
    bench.drain(bench.start());
    bench.sql("ALTER TABLE exchanges RENAME TO away");
    let telemetry = bench.start();
    record_range(&telemetry, 0, 0..10);
    bench.kill(telemetry);
    bench.sql("ALTER TABLE away RENAME TO exchanges");
    let path = segments(&bench.spool_dir()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 100] ^= 4;
    fs::write(&path, bytes).unwrap();
    let telemetry = bench.start();
    let stats = telemetry.stats();
    assert_eq!(bench.count(telemetry), 9, "a flipped bit costs the record it hit");
    assert_eq!(
        (stats.figures().damaged_segments, stats.figures().damaged_frames),
        (1, 1)
    );

    let telemetry = bench.start();
    bench.sql("ALTER TABLE exchanges RENAME TO away");
    record_range(&telemetry, 0, 10..12);
    let stats = telemetry.stats();
    bench.wait(&stats, |f| f.ship_errors > 0);
    fs::rename(bench.spool_dir(), bench.dir.path().join("away")).unwrap();
    bench.sql("ALTER TABLE away RENAME TO exchanges");
    assert_eq!(bench.count(telemetry), 9, "a vanished segment stops nothing");
    assert_eq!(
        (stats.figures().damaged_frames, stats.figures().unshipped_bytes),
        (2, 0)
    );
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

#[test]
fn store_pages_are_seeks_newest_first() {
    let bench = Bench::new();
    let telemetry = bench.start();
    record_range(&telemetry, 0, 0..60);
    bench.read(telemetry, async |store| {
        type Keep = fn(u64) -> bool;
        let ids = |page: &ExchangePage| {
            page.items
                .iter()
                .map(|i| i["exchange_id"].clone())
                .collect::<Vec<Value>>()
        };
        let wanted = |keep: Keep| -> Vec<Value> {
            (0..60)
                .rev()
                .filter(|i| keep(*i))
                .map(|i| record(i).exchange_id.to_string().into())
                .collect()
        };
        for (prompt, environment, keep) in [
            (None, None, (|_| true) as Keep),
            (Some("support/greet"), None, |i| i.is_multiple_of(3)),
            (None, Some("staging"), |i| !i.is_multiple_of(2)),
            (Some("support/greet"), Some("production"), |i| i.is_multiple_of(6)),
        ] {
            let filter = ExchangeFilter {
                prompt: prompt.map(str::to_owned),
                environment: environment.map(str::to_owned),
                ..ExchangeFilter::default()
            };
            assert_eq!(store.count(&filter).await.unwrap(), wanted(keep).len() as u64);
            let (mut got, mut cursor) = (Vec::new(), None);
            loop {
                let page = store.exchanges(&filter, 5, cursor.as_deref()).await.unwrap();
                assert!(page.items.len() <= 5);
                got.extend(ids(&page));
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(got, wanted(keep));
        }
        let bad = store.exchanges(&ExchangeFilter::default(), 5, Some("x")).await;
        assert!(matches!(bad, Err(StoreError::BadCursor(c)) if c == "x"));
    });
}

#[test]
fn store_variant_summary_is_exact() {
    let bench = Bench::new();
    let telemetry = bench.start();
    on_worker(&telemetry, 0, async |recorder| {
        for i in 0..300 {
            let mut record = record(6 * i);
            record.version = 1 + (i % 3 == 0) as u32;
            record.variant = if record.version == 2 { "b" } else { "control" };
            record.total_us = (i * 7919) % 1000;
            record.streaming = i % 2 == 0;
            record.time_to_first_token_us = if i % 2 == 0 { (i * 31) % 400 } else { 999 };
            record.outcome = if i % 50 == 0 { "timeout" } else { "ok" };
            record.input_tokens = 3;
            record.output_tokens = 2;
            record.cost_nanodollars = 11;
            recorder.exchange(&record);
        }
        recorder.close().await;
    });
    let since = record(6 * 60).started_at;
    let got = bench.read(telemetry, async |store| {
        let none = store.variant_summary("support/greet", "staging", 0).await.unwrap();
        assert_eq!(none, []);
        store
            .variant_summary("support/greet", "production", since)
            .await
            .unwrap()
    });
    let rank = |mut values: Vec<u64>, percent: usize| -> Option<u64> {
        values.sort_unstable();
        let rank = (percent * values.len()).div_ceil(100);
        values.get(rank.checked_sub(1)?).copied()
    };
    let wanted: Vec<VariantSummary> = [(1, "control"), (2, "b")]
        .into_iter()
        .map(|(version, variant)| {
            let taken: Vec<u64> = (60..300).filter(|i| (i % 3 == 0) == (version == 2)).collect();
            let totals: Vec<u64> = taken.iter().map(|i| (i * 7919) % 1000).collect();
            let firsts = taken
                .iter()
                .filter(|i| **i % 2 == 0)
                .map(|i| (i * 31) % 400)
                .filter(|f| *f > 0);
            let firsts: Vec<u64> = firsts.collect();
            let requests = taken.len() as u64;
            VariantSummary {
                version,
                variant: variant.into(),
                requests,
                errors: taken.iter().filter(|i| **i % 50 == 0).count() as u64,
                p50_total_us: rank(totals.clone(), 50).unwrap(),
                p99_total_us: rank(totals, 99).unwrap(),
                p50_time_to_first_token_us: rank(firsts.clone(), 50),
                p99_time_to_first_token_us: rank(firsts, 99),
                input_tokens: 3 * requests,
                output_tokens: 2 * requests,
                cost_nanodollars: 11 * requests,
            }
        })
        .collect();
    assert_eq!(got, wanted);
}

#[test]
fn sqlite_columns_are_those_of_the_rows() {
    let bench = Bench::new();
    bench.drain(bench.start());
    bench.control.block_on(async {
        let mut connection = SqliteConnection::connect_with(&sqlite::connect_options(&bench.database()))
            .await
            .unwrap();
        for (sql, columns) in [
            ("SELECT name FROM pragma_table_info('exchanges')", &EXCHANGE_COLUMNS[..]),
            ("SELECT name FROM pragma_table_info('feedback')", &FEEDBACK_COLUMNS[..]),
            ("SELECT name FROM pragma_table_info('refusals')", &REFUSALS_COLUMNS[..]),
        ] {
            let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
            let mut found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let mut wanted: Vec<String> = columns.iter().map(|c| c.name.to_owned()).collect();
            found.sort();
            wanted.sort();
            assert_eq!(found, wanted);
        }
    });
}
