//! The demo's table, read back from the store, and lines to try by hand.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::json;

use super::READ_BACK;
use super::prompts::{CHAT, ENVIRONMENT, GREET, SUMMARY};
use super::traffic::Sent;
use crate::telemetry::{Store, VariantSummary};

/// A line of the table.
pub struct Row {
    prompt: &'static str,
    summary: VariantSummary,
}

/// Reads what the store has of the demo's prompts, once all requests are in it.
///
/// # Errors
/// When the store fails, or not all requests turn up.
pub async fn read_back(store: &Store, since: i64, requests: u32) -> anyhow::Result<Vec<Row>> {
    let started = Instant::now();
    loop {
        let mut rows = Vec::new();
        for prompt in [GREET, CHAT, SUMMARY] {
            let summaries = store.variant_summary(prompt, ENVIRONMENT, since).await?;
            rows.extend(summaries.into_iter().map(|summary| Row { prompt, summary }));
        }
        let found: u64 = rows.iter().map(|row| row.summary.requests).sum();
        if found >= u64::from(requests) {
            return Ok(rows);
        }
        if started.elapsed() > READ_BACK {
            bail!("{requests} requests were sent, but only {found} are in the store after {READ_BACK:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Prints the table, and that its counts are those sent.
///
/// # Errors
/// When more was recorded than sent.
pub fn print(rows: &[Row], sent: &Sent, as_json: bool) -> anyhow::Result<()> {
    for (prompt, count) in sent {
        let found: u64 = rows
            .iter()
            .filter(|row| row.prompt == *prompt)
            .map(|row| row.summary.requests)
            .sum();
        if found != u64::from(*count) {
            bail!("{count} requests of {prompt} were sent, {found} were recorded");
        }
    }
    if as_json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| json!({"prompt": row.prompt, "summary": row.summary}))
            .collect();
        println!("{}", json!({"sent": sent, "rows": rows}));
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "prompt",
        "variant",
        "version",
        "requests",
        "share",
        "errors",
        "p50 ms",
        "p99 ms",
        "TTFT p50",
        "TTFT p99",
        "tokens in",
        "tokens out",
        "cost $",
    ]);
    for row in rows {
        let summary = &row.summary;
        let total = sent.get(row.prompt).copied().unwrap_or(1).max(1);
        table.add_row([
            row.prompt.to_owned(),
            summary.variant.clone(),
            summary.version.to_string(),
            summary.requests.to_string(),
            format!("{:.1} %", summary.requests as f64 * 100.0 / f64::from(total)),
            summary.errors.to_string(),
            millis(Some(summary.p50_total_us)),
            millis(Some(summary.p99_total_us)),
            millis(summary.p50_time_to_first_token_us),
            millis(summary.p99_time_to_first_token_us),
            summary.input_tokens.to_string(),
            summary.output_tokens.to_string(),
            format!("{:.6}", summary.cost_nanodollars as f64 / 1e9),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    let count: u32 = sent.values().sum();
    println!("{count} requests sent, {count} recorded, read back from the store.\n");
    Ok(())
}

fn millis(micros: Option<u64>) -> String {
    micros.map_or_else(|| "-".to_owned(), |micros| format!("{:.2}", micros as f64 / 1e3))
}

/// Prints lines to copy.
pub fn recipes(data: SocketAddr, control: SocketAddr, key: &str, token: &str) {
    println!(
        r#"Try it:

  curl -N http://{data}/v1/chat/completions -H 'authorization: Bearer {key}' -H 'content-type: application/json' \
    -d '{{"prompt": {{"id": "support/greet", "variables": {{"question": "Where is my order?"}}}}, "stream": true}}'

  pip install openai && python3 - <<'END'
from openai import OpenAI
client = OpenAI(base_url="http://{data}/v1", api_key="{key}")
answer = client.chat.completions.create(
    model="any", messages=[],
    extra_body={{"prompt": {{"id": "support/greet", "variables": {{"question": "Where is my order?"}}}}}})
print(answer.choices[0].message.content, answer._request_id)
END

Make version 2 of support/greet live for everybody, then undo it:

  curl -X PUT http://{control}/api/v1/prompts/support/greet/deployments/production -H 'authorization: Bearer {token}' \
    -H 'content-type: application/json' -d '{{"split": [{{"variant": "b", "version": 2, "weight": 100}}], "message": "b wins"}}'
  curl -X POST http://{control}/api/v1/prompts/support/greet/deployments/production/rollback \
    -H 'authorization: Bearer {token}' -H 'content-type: application/json' -d '{{"message": "not yet"}}'

Look at what was recorded, and at the metrics:

  curl 'http://{control}/api/v1/exchanges?prompt=support/greet&limit=1' -H 'authorization: Bearer {token}'
  curl http://{control}/metrics

Serving until Ctrl-C."#
    );
}
