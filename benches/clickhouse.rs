//! What a record costs in ClickHouse: rows a second into the server, and bytes a row on its disk.
//!
//! `CLICKHOUSE_URL=http://… cargo bench --bench clickhouse [-- ROWS]`, for example with `tests/clickhouse/server.py`.
//! Makes a database of its own and drops it. Prints figures, asserts nothing about time.

use std::time::{Duration, Instant};

use promptgate::config::ClickHouse;
use promptgate::domain::exchange::{Attempt, ExchangeRecord};
use promptgate::telemetry::clickhouse::ClickHouseSink;
use promptgate::telemetry::row::encode_exchange;
use promptgate::telemetry::sink::Batch;

/// Rows of a batch: about what 32 MiB of segment hold at this size of body.
const BATCH_ROWS: u64 = 10_000;
const WORDS: [&str; 16] = [
    "order", "refund", "when", "arrived", "please", "parcel", "the", "support", "customer", "could", "you", "tomorrow",
    "address", "thanks", "invoice", "number",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted: u64 = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(100_000);
    let url =
        std::env::var("CLICKHOUSE_URL").map_err(|_| "set CLICKHOUSE_URL to a server, see the top of this file")?;
    let server = ClickHouse {
        urls: vec![url],
        database: format!("bench_{}", std::process::id()),
        ..ClickHouse::default()
    };
    let sql = async |text: &str| {
        let request = reqwest::Client::new().post(format!("{}/?database={}", server.urls[0], server.database));
        request
            .body(text.to_owned())
            .send()
            .await?
            .error_for_status()?
            .text()
            .await
    };
    let mut sink = ClickHouseSink::new(&server, "bench", false);
    sink.prepare().await?;
    let (mut rows, mut raw_bytes, mut took, mut slowest) = (0, 0, Duration::ZERO, Duration::ZERO);
    while rows < wanted {
        let encoded: Vec<Vec<u8>> = (rows..rows + BATCH_ROWS).map(encode).collect();
        let batch = Batch {
            token: format!("bench/0-{rows}"),
            exchanges: encoded.iter().map(Vec::as_slice).collect(),
            ..Batch::default()
        };
        let begun = Instant::now();
        sink.store(&batch).await?;
        took += begun.elapsed();
        slowest = slowest.max(begun.elapsed());
        rows += BATCH_ROWS;
        raw_bytes += encoded.iter().map(Vec::len).sum::<usize>();
    }
    let counts =
        sql("SELECT count(), uniqExact(exchange_id), (SELECT sum(requests) FROM rollup_minute) FROM exchanges").await?;
    println!(
        "{rows} rows in batches of {BATCH_ROWS}; count, different ids, rollup: {}",
        counts.trim()
    );
    println!(
        "  into the server: {:.0} rows/s, {:.1} µs a row, slowest batch {slowest:.0?}",
        rows as f64 / took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / rows as f64
    );
    sql("OPTIMIZE TABLE exchanges FINAL").await?;
    let size = "SELECT sum(data_compressed_bytes), sum(data_uncompressed_bytes) FROM system.parts \
                WHERE database = currentDatabase() AND table = 'exchanges' AND active";
    let size = sql(size).await?;
    let stored: f64 = size.split('\t').next().unwrap_or_default().parse()?;
    println!(
        "  on disk: {:.0} B an exchange, {} B as encoded: {:.1} to 1",
        stored / rows as f64,
        raw_bytes as u64 / rows,
        raw_bytes as f64 / stored
    );
    let columns = "SELECT name, round(data_compressed_bytes / (SELECT count() FROM exchanges), 1) AS b FROM system.columns \
                   WHERE database = currentDatabase() AND table = 'exchanges' ORDER BY b DESC LIMIT 6";
    println!(
        "  most of it: {}",
        sql(columns).await?.trim().replace('\t', " ").replace('\n', ", ")
    );
    sql(&format!("DROP DATABASE {}", server.database)).await?;
    Ok(())
}

/// A record with bodies of some 700 bytes, of words in an order that does not repeat.
fn encode(i: u64) -> Vec<u8> {
    let text = |seed: u64| {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            WORDS[(state >> 40) as usize % WORDS.len()]
        };
        (0..100).map(|_| word()).collect::<Vec<_>>().join(" ")
    };
    let request = format!(
        r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{}"}}]}}"#,
        text(2 * i)
    );
    let response = format!(
        r#"{{"id":"chatcmpl-{i:016x}","choices":[{{"message":{{"role":"assistant","content":"{}"}},"finish_reason":"stop"}}]}}"#,
        text(2 * i + 1)
    );
    let (unit, response_id) = (format!("unit-{}", i % 5000), format!("chatcmpl-{i:016x}"));
    let at = 1_767_323_045_000_000 + 1250 * i as i64;
    let prompts = ["support/greet", "support/chat", "docs/summary"];
    let mut row = Vec::new();
    encode_exchange(
        &ExchangeRecord {
            exchange_id: uuid::Uuid::from_u64_pair(
                (at as u64 / 1000) << 16 | 0x7000 | (i & 0xfff),
                i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 2 | 1 << 63,
            ),
            started_at: at,
            node: "node-1",
            generation: 42,
            config_hash: "0123456789abcdef",
            key_id: "key_1",
            environment: "production",
            unit: &unit,
            prompt_id: prompts[(i % 3) as usize],
            version: 1 + (i % 2) as u32,
            variant: if i.is_multiple_of(2) { "control" } else { "b" },
            assignment: "split",
            deployment: 7,
            endpoint: "/v1/chat/completions",
            streaming: i.is_multiple_of(2),
            request_model: "gpt-4o-mini",
            model: "gpt-4o-mini",
            response_model: "gpt-4o-mini-2024-07-18",
            provider: "openai",
            target: "openai/gpt-4o-mini",
            attempts: vec![Attempt {
                target: "openai/gpt-4o-mini",
                status: 200,
                duration_us: 900_000 + i * 7919 % 100_000,
                error: "",
            }],
            outcome: if i.is_multiple_of(100) { "timeout" } else { "ok" },
            status_code: 200,
            finish_reason: "stop",
            response_id: &response_id,
            total_us: 900_100 + i * 7919 % 100_000,
            upstream_us: 900_000 + i * 7919 % 100_000,
            time_to_first_token_us: if i.is_multiple_of(2) {
                200_000 + i * 31 % 50_000
            } else {
                0
            },
            overhead_us: 80 + i % 40,
            input_tokens: 100 + (i % 50) as u32,
            output_tokens: 100,
            total_tokens: 200 + (i % 50) as u32,
            cost_nanodollars: 75_000 + 150 * (i % 50),
            request_bytes: request.len() as u64,
            response_bytes: response.len() as u64,
            variables: br#"{"question": "where is my order?"}"#,
            request: request.as_bytes(),
            response: response.as_bytes(),
            ..ExchangeRecord::default()
        },
        &mut row,
    );
    row
}
