//! `promptgate prices`

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::anyhow;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::remote::table;
use crate::config::{self, Config};
use crate::domain::price::{NANODOLLARS, PriceTable, Rates};
use crate::snapshot::Routing;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model as applications and prompts name it [default: every model of the price table]
    model: Option<String>,
    /// Configuration file [default: config/promptgate.toml if it exists, else built-in defaults]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The prices of another day, e.g. 2025-01-01 [default: today's]
    #[arg(long, value_name = "DAY")]
    at: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let at = match &args.at {
        Some(day) => config::parse_day(day).map_err(|why| anyhow!("--at: {why}"))?,
        None => Timestamp::now().as_second(),
    };
    let config = Config::load(args.config.as_deref(), &super::environment)?;
    let prices = match &config.prices_file {
        None => PriceTable::builtin(),
        Some(path) => PriceTable::load(path)?,
    };
    let items = match &args.model {
        None => all(&prices, at),
        Some(model) => of_model(model, &Routing::new(&config)?, &prices, at),
    };
    let header = ["MODEL", "TARGET", "INPUT", "CACHED", "OUTPUT", "REASONING", "SOURCE"];
    table::print(args.json, &items, header, |item| {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let dollars = |name: &str| {
            item[name]
                .as_f64()
                .map_or_else(String::new, |dollars| dollars.to_string())
        };
        [
            text("model"),
            text("target"),
            dollars("input"),
            dollars("cached_input"),
            dollars("output"),
            dollars("reasoning"),
            text("source"),
        ]
    });
    Ok(())
}

/// What holds at a time, a row a model.
fn all(prices: &PriceTable, at: i64) -> Vec<Value> {
    let mut last = BTreeMap::new();
    for entry in prices.entries().filter(|entry| entry.from <= at) {
        last.insert(entry.model.clone(), entry);
    }
    let day = |seconds| {
        Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.strftime("%F").to_string())
    };
    last.into_values()
        .map(|entry| {
            row(
                &entry.model,
                "",
                Some(entry.rates),
                &format!("table, from {}", day(entry.from)),
            )
        })
        .collect()
}

/// What a request for a model would be charged, a row a target. As the data plane does it, without the provider's answer.
fn of_model(name: &str, routing: &Routing, prices: &PriceTable, at: i64) -> Vec<Value> {
    let listed = |target: &str, upstream: &str| match prices.rates(upstream, at) {
        Some(rates) => row(name, target, Some(rates), &format!("table, as {upstream}")),
        None => row(name, target, None, "no price: counts 0"),
    };
    let Some(model) = routing.model(name) else {
        return vec![listed("not in [[models]]", name)];
    };
    let rows = model.targets.iter().map(|target| {
        let upstream = target.model.as_deref().unwrap_or(name);
        let label = target.label(upstream);
        match model.rates {
            Some(rates) => row(name, &label, Some(rates), "[[models]]"),
            None => listed(&label, upstream),
        }
    });
    rows.collect()
}

/// Prices in dollars per million tokens.
fn row(model: &str, target: &str, rates: Option<Rates>, source: &str) -> Value {
    let dollars = |rate: fn(&Rates) -> u64| rates.as_ref().map(|rates| rate(rates) as f64 / NANODOLLARS as f64);
    json!({
        "model": model,
        "target": target,
        "input": dollars(|rates| rates.input),
        "cached_input": dollars(|rates| rates.cached_input),
        "output": dollars(|rates| rates.output),
        "reasoning": dollars(|rates| rates.reasoning),
        "source": source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
[[providers]]
name = "p"
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
[[models]]
name = "own"
targets = [{ provider = "p", model = "gpt-4o" }]
price = { input = 1, output = 2, reasoning = 3 }
[[models]]
name = "small"
targets = [{ provider = "p", model = "gpt-4o-mini" }, { provider = "p", model = "llama" }]
[[models]]
name = "*"
targets = [{ provider = "p" }]
"#;

    #[test]
    fn model_shows_each_targets_price_and_where_it_comes_from() {
        let config = Config::parse(CONFIG, "test", &|_| None).unwrap();
        let (routing, prices) = (Routing::new(&config).unwrap(), PriceTable::builtin());
        let rows = |name: &str| -> Vec<String> {
            let rows = of_model(name, &routing, &prices, 1_767_225_600).into_iter();
            let text = |row: Value| {
                let parts = ["target", "input", "cached_input", "output", "reasoning", "source"];
                parts.map(|part| row[part].to_string().replace('"', "")).join(" | ")
            };
            rows.map(text).collect()
        };
        assert_eq!(rows("own"), ["p/gpt-4o | 1.0 | 1.0 | 2.0 | 3.0 | [[models]]"]);
        assert_eq!(
            rows("small"),
            [
                "p/gpt-4o-mini | 0.15 | 0.075 | 0.6 | 0.6 | table, as gpt-4o-mini",
                "p/llama | null | null | null | null | no price: counts 0"
            ]
        );
        assert_eq!(rows("o3"), ["p/o3 | 2.0 | 0.5 | 8.0 | 8.0 | table, as o3"]);
    }

    #[test]
    fn table_shows_what_holds_on_a_day() {
        let prices = PriceTable::builtin();
        let input = |at: &str| {
            let rows = all(&prices, config::parse_day(at).unwrap());
            let row = rows.into_iter().find(|row| row["model"] == "o3");
            row.map(|row| {
                (
                    row["input"].as_f64().unwrap(),
                    row["source"].as_str().unwrap().to_owned(),
                )
            })
        };
        assert_eq!(input("2025-04-15"), None);
        assert_eq!(input("2025-06-09"), Some((10.0, "table, from 2025-04-16".to_owned())));
        assert_eq!(input("2026-01-01"), Some((2.0, "table, from 2025-06-10".to_owned())));
    }
}
