//! `promptgate stats`

use serde_json::Value;

use super::{Server, block_on, table, text, with_query};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to group by: prompt, version, variant, environment, model, provider, outcome, `tag:<name>`
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "prompt,version,variant",
        value_name = "NAMES"
    )]
    group_by: Vec<String>,
    /// Any filter of the API, as name=value: prompt=support/greet, from=2026-01-31T00:00:00Z
    #[arg(long = "where", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    #[command(flatten)]
    server: Server,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let groups = args.group_by.join(",");
    let mut parameters = vec![("group_by", groups.as_str())];
    for filter in &args.filters {
        let Some(parameter) = filter.split_once('=') else {
            anyhow::bail!("{filter:?} is not of the form name=value (--where)");
        };
        parameters.push(parameter);
    }
    block_on(async {
        let mut remote = args.server.connect()?;
        let mut answer = remote.get(&with_query("/stats", &parameters)).await?;
        let items = match answer["groups"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        let header = [
            "group",
            "requests",
            "errors",
            "p50 ms",
            "p99 ms",
            "TTFT p50",
            "tokens in",
            "tokens out",
            "cost $",
        ];
        table::print(remote.json, &items, header, |item| {
            let group: Vec<String> = args.group_by.iter().map(|name| text(&item[name])).collect();
            let millis = |name: &str, quantile: &str| {
                item[name][quantile]
                    .as_f64()
                    .map_or_else(|| "-".to_owned(), |us| format!("{:.1}", us / 1e3))
            };
            [
                group.join(" "),
                text(&item["requests"]),
                text(&item["errors"]),
                millis("latency_us", "p50"),
                millis("latency_us", "p99"),
                millis("time_to_first_token_us", "p50"),
                text(&item["input_tokens"]),
                text(&item["output_tokens"]),
                format!("{:.6}", item["cost_nanodollars"].as_f64().unwrap_or_default() / 1e9),
            ]
        });
        if !remote.json {
            let refusals = answer["refusals"].as_array().map_or(&[][..], Vec::as_slice);
            for refused in refusals {
                let [requests, code, endpoint] =
                    ["requests", "error_code", "endpoint"].map(|name| text(&refused[name]));
                println!("beside these: {requests} requests to {endpoint} refused in a flood ({code})");
            }
        }
        Ok(())
    })
}
