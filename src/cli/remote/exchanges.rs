//! `promptgate exchanges …` and `promptgate tail`

mod export;

use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

use super::{Remote, Server, block_on, encode, table, text, when, with_query};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Which exchanges.
#[derive(Debug, clap::Args)]
pub struct Filter {
    #[arg(long)]
    prompt: Option<String>,
    #[arg(long)]
    environment: Option<String>,
    /// Any other filter of the API, as name=value: outcome=timeout, model=…, from=2026-01-31T00:00:00Z
    #[arg(long = "where", value_name = "NAME=VALUE")]
    filters: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List exchanges, newest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        #[command(flatten)]
        server: Server,
    },
    /// Write exchanges to a file, newest first
    Export(Box<export::Args>),
    /// Show everything recorded of one exchange
    Show {
        /// The exchange's id: the answer's x-request-id
        id: String,
        #[command(flatten)]
        server: Server,
    },
}

#[derive(Debug, clap::Args)]
pub struct TailArgs {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    server: Server,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { filter, limit, server } => block_on(async {
            let mut remote = server.connect()?;
            let mut page = remote.get(&filter.path(limit, "", remote.json)?).await?;
            let items = match page["items"].take() {
                Value::Array(items) => items,
                _ => Vec::new(),
            };
            let header = [
                "when", "exchange", "prompt", "variant", "model", "outcome", "ms", "tokens",
            ];
            table::print(remote.json, &items, header, |item| {
                [
                    when(&item["started_at"]),
                    text(&item["exchange_id"]),
                    prompt(item),
                    text(&item["variant"]),
                    text(&item["model"]),
                    text(&item["outcome"]),
                    millis(item),
                    text(&item["total_tokens"]),
                ]
            });
            Ok(())
        }),
        Command::Export(args) => export::run(*args),
        Command::Show { id, server } => block_on(async {
            let mut remote = server.connect()?;
            let exchange = remote.get(&format!("/exchanges/{}", encode(&id))).await?;
            if remote.json {
                println!("{exchange}");
            } else {
                println!("{exchange:#}");
            }
            Ok(())
        }),
    }
}

/// Prints exchanges as they are recorded, until interrupted.
pub fn tail(args: TailArgs) -> anyhow::Result<()> {
    block_on(async {
        let mut remote = args.server.connect()?;
        // Ids sort by time, so the newest one seen says what is new.
        let mut seen = newest(&mut remote, &args.filter).await?;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let mut new = since(&mut remote, &args.filter, &seen, false).await?;
            if remote.json && !new.is_empty() {
                // Asked for once there is some: each look at content is in the audit log.
                new = since(&mut remote, &args.filter, &seen, true).await?;
            }
            for item in new {
                seen = text(&item["exchange_id"]);
                if remote.json {
                    println!("{item}");
                    continue;
                }
                println!(
                    "{} {} {} {} {} {} ms {} tokens",
                    when(&item["started_at"]),
                    seen,
                    prompt(&item),
                    text(&item["endpoint"]),
                    text(&item["outcome"]),
                    millis(&item),
                    item["total_tokens"]
                );
            }
        }
    })
}

async fn newest(remote: &mut Remote, filter: &Filter) -> anyhow::Result<String> {
    let page = remote.get(&filter.path(1, "", false)?).await?;
    Ok(text(&page["items"][0]["exchange_id"]))
}

/// Returns what is newer than `seen`, oldest first.
async fn since(remote: &mut Remote, filter: &Filter, seen: &str, content: bool) -> anyhow::Result<Vec<Value>> {
    let mut new = Vec::new();
    let mut cursor = String::new();
    'pages: loop {
        let mut page = remote.get(&filter.path(100, &cursor, content)?).await?;
        if let Value::Array(items) = page["items"].take() {
            for item in items {
                if text(&item["exchange_id"]).as_str() <= seen {
                    break 'pages;
                }
                new.push(item);
            }
        }
        match page["next_cursor"].as_str() {
            Some(next) if !seen.is_empty() => next.clone_into(&mut cursor),
            _ => break,
        }
    }
    new.reverse();
    Ok(new)
}

impl Filter {
    /// Tables show no content, so they do not ask for any.
    fn path(&self, limit: u32, cursor: &str, content: bool) -> anyhow::Result<String> {
        let limit = limit.to_string();
        let mut parameters = vec![
            ("prompt", self.prompt.as_deref().unwrap_or_default()),
            ("environment", self.environment.as_deref().unwrap_or_default()),
            ("limit", &limit),
            ("cursor", cursor),
            ("content", if content { "" } else { "false" }),
        ];
        for filter in &self.filters {
            let Some(parameter) = filter.split_once('=') else {
                anyhow::bail!("{filter:?} is not of the form name=value (--where)");
            };
            parameters.push(parameter);
        }
        Ok(with_query("/exchanges", &parameters))
    }
}

fn prompt(item: &Value) -> String {
    match text(&item["prompt_id"]) {
        id if id.is_empty() => "-".to_owned(),
        id => format!("{id}:{}", item["version"]),
    }
}

fn millis(item: &Value) -> String {
    format!("{:.1}", item["total_us"].as_f64().unwrap_or_default() / 1e3)
}
