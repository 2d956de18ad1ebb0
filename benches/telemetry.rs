//! What recording costs: a worker's append and flush, and the SQLite sink's time a row; also with a limit to the file that
//! has the sink remove as many rows as it stores.
//!
//! `cargo bench --bench telemetry [-- ROWS]`. Prints figures, asserts nothing about time.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use promptgate::config::Sqlite;
use promptgate::domain::exchange::{Attempt, ExchangeRecord};
use promptgate::metrics::Metrics;
use promptgate::telemetry::{SinkOptions, SpoolLimits, Telemetry, TelemetryOptions};
use tokio::task::LocalSet;

/// Records a tick, as a busy worker has.
const TICK: u64 = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows: u64 = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(200_000);
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(700));
    for (sink, max_bytes) in [("none", 0), ("sqlite", 0), ("sqlite, limited", 64 << 20)] {
        let dir = tempfile::tempdir()?;
        let sink_options = match sink {
            "none" => SinkOptions::None,
            _ => SinkOptions::Sqlite(Sqlite {
                path: dir.path().join("telemetry.db"),
                max_bytes,
                ..Sqlite::default()
            }),
        };
        let insert_duration = Metrics::new("bench").sink_insert_duration_seconds.clone();
        let options = TelemetryOptions {
            insert_duration: insert_duration.clone(),
            spool_dir: dir.path().join("spool"),
            seal_after: Duration::from_secs(1),
            sink: sink_options,
            workers: 1,
            limits: SpoolLimits::default(),
        };
        let telemetry = Telemetry::start(options, control.handle().clone())?;
        let begun = Instant::now();
        let shipped = telemetry.ship_stats();
        let took = record(&telemetry, rows, body.as_bytes())?;
        let stats = telemetry.stats();
        let left = control.block_on(telemetry.drain(Duration::from_secs(600)));
        let figures = stats.figures();
        println!(
            "sink {sink}: {rows} records of {} B bodies, {TICK} a tick",
            2 * body.len()
        );
        println!(
            "  worker: {:.2} µs a record, {} flushes, {} lost",
            per_row(took, rows),
            figures.flushes,
            figures.lost
        );
        println!(
            "  sink:   {:.2} µs a row, {left} segments left",
            insert_duration.get_sample_sum() * 1e6 / rows as f64
        );
        let file = std::fs::metadata(dir.path().join("telemetry.db")).map_or(0, |file| file.len());
        println!(
            "  all:    {:.2} µs a row until the spool was empty, {} rows removed, file {} MiB",
            per_row(begun.elapsed(), rows),
            shipped.pruned.load(Relaxed),
            file >> 20
        );
    }
    Ok(())
}

/// Appends in ticks and waits for each, as requests do.
fn record(telemetry: &Telemetry, rows: u64, body: &[u8]) -> std::io::Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seed = telemetry.recorder_seed(0);
    Ok(LocalSet::new().block_on(&runtime, async {
        let recorder = seed.into_recorder();
        let begun = Instant::now();
        for tick in 0..rows / TICK {
            let mut last = None;
            for i in tick * TICK..(tick + 1) * TICK {
                last = Some(recorder.exchange(&exchange(i, body)));
            }
            if let Some(ticket) = last {
                recorder.flushed(ticket).await;
            }
        }
        let took = begun.elapsed();
        recorder.close().await;
        took
    }))
}

fn exchange(i: u64, body: &[u8]) -> ExchangeRecord<'_> {
    ExchangeRecord {
        exchange_id: uuid::Uuid::from_u64_pair((1_767_323_045_000 + i / 8) << 16 | 0x7000, i | 1 << 63),
        started_at: 1_767_323_045_000_000 + 125 * i as i64,
        node: "node-1",
        generation: 42,
        config_hash: "0123456789abcdef",
        key_id: "key_1",
        environment: "production",
        unit: "5f3c9a7e",
        prompt_id: "support/greet",
        version: 3,
        variant: "control",
        assignment: "split",
        deployment: 7,
        endpoint: "/v1/chat/completions",
        request_model: "gpt-4o-mini",
        model: "gpt-4o-mini",
        response_model: "gpt-4o-mini-2024-07-18",
        provider: "openai",
        target: "openai/gpt-4o-mini",
        attempts: vec![Attempt {
            target: "openai/gpt-4o-mini",
            status: 200,
            duration_us: 900,
            error: "",
        }],
        outcome: "ok",
        status_code: 200,
        finish_reason: "stop",
        response_id: "chatcmpl-0123456789abcdef",
        total_us: 1000,
        upstream_us: 900,
        overhead_us: 100,
        input_tokens: 100,
        output_tokens: 50,
        total_tokens: 150,
        cost_nanodollars: 45_000,
        variables: br#"{"question": "why?"}"#,
        request: body,
        response: body,
        ..ExchangeRecord::default()
    }
}

fn per_row(took: Duration, rows: u64) -> f64 {
    took.as_secs_f64() * 1e6 / rows as f64
}
