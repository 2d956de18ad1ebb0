//! `promptgate audit …`: through the control plane, or on the registry's file itself, when there is none to ask or it is
//! not to be trusted.

use std::io::Write;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Remote, Server, block_on, table, text, when, with_query};
use crate::admin::audit::view;
use crate::registry::{AuditFilter, MAX_PAGE, PageOf, Registry};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Where the log is read.
#[derive(Debug, clap::Args)]
struct Place {
    /// Read the registry itself, for instance sqlite:data/registry.db, instead of asking the control plane
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    #[command(flatten)]
    server: Server,
}

/// Which entries.
#[derive(Debug, clap::Args)]
struct Filter {
    /// The user who did it
    #[arg(long, default_value = "", hide_default_value = true)]
    actor: String,
    /// deployment.deploy, or deployment for all of that kind
    #[arg(long, default_value = "", hide_default_value = true)]
    action: String,
    /// What it was done to: a prompt, a key, an environment, a change
    #[arg(long, default_value = "", hide_default_value = true)]
    subject: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    environment: String,
    /// Not before this time: 2026-01-31T12:00:00Z
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TIME")]
    since: String,
    /// Before this time
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TIME")]
    until: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// One JSON object a line, with everything that the hash covers
    Jsonl,
    /// For spreadsheets
    Csv,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List entries, newest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        from: Place,
    },
    /// Follow the chain of hashes, and say at which entry it breaks; exit code 1 if it does
    Verify {
        /// The head that an earlier run printed, kept elsewhere: shows when the end was cut off
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
        #[command(flatten)]
        from: Place,
    },
    /// Print all entries, oldest first
    Export {
        #[command(flatten)]
        filter: Filter,
        #[arg(long, value_enum, default_value = "jsonl")]
        format: Format,
        #[command(flatten)]
        from: Place,
    },
}

/// Where entries come from.
enum Source {
    Api(Remote),
    File(Registry),
}

impl Place {
    async fn open(&self) -> anyhow::Result<Source> {
        match &self.registry {
            None => Ok(Source::Api(self.server.connect()?)),
            Some(url) => {
                let opened = Registry::open_read_only(url).await;
                Ok(Source::File(
                    opened.context("cannot read the registry named by --registry")?,
                ))
            }
        }
    }
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { filter, limit, from } => block_on(list(&filter, limit, &from)),
        Command::Verify { head, from } => block_on(verify(head.as_deref(), &from)),
        Command::Export { filter, format, from } => block_on(export(&filter, format, &from)),
    }
}

async fn list(filter: &Filter, limit: usize, from: &Place) -> anyhow::Result<()> {
    let mut source = from.open().await?;
    let (mut entries, mut cursor) = (Vec::new(), None);
    while entries.len() < limit {
        let size = u32::try_from(limit - entries.len()).unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let (page, next) = source.page(filter, false, size, cursor.as_deref()).await?;
        entries.extend(page);
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    let header = ["entry", "when", "who", "action", "subject", "why"];
    table::print(from.server.json, &entries, header, |entry| {
        [
            text(&entry["id"]),
            when(&entry["at"]),
            text(&entry["actor"]),
            text(&entry["action"]),
            text(&entry["subject"]),
            text(&entry["detail"]["message"]),
        ]
    });
    Ok(())
}

async fn verify(head: Option<&str>, from: &Place) -> anyhow::Result<()> {
    if let Some(head) = head
        && (head.len() != 64 || !head.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        bail!("{head:?} is not a head, which has 64 hexadecimal digits (--head)");
    }
    let result = match from.open().await? {
        Source::Api(mut remote) => {
            remote
                .get(&with_query("/audit/verify", &[("head", head.unwrap_or_default())]))
                .await?
        }
        Source::File(registry) => {
            let result = registry.verify_audit(head).await?;
            let broken = result.broken.as_ref();
            json!({
                "ok": broken.is_none(),
                "entries": result.entries,
                "head": result.head,
                "broken": broken.map(|broken| json!({"entry": broken.entry, "message": broken.message})),
            })
        }
    };
    if from.server.json {
        println!("{result}");
    } else if result["ok"] == true {
        println!("whole: {} entries\nhead:  {}", result["entries"], text(&result["head"]));
    }
    if result["ok"] != true {
        let broken = &result["broken"];
        bail!(
            "the audit log breaks at entry {}: {}",
            broken["entry"],
            text(&broken["message"])
        );
    }
    Ok(())
}

async fn export(filter: &Filter, format: Format, from: &Place) -> anyhow::Result<()> {
    let mut source = from.open().await?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if matches!(format, Format::Csv) {
        writeln!(out, "{}", CSV_COLUMNS.join(","))?;
    }
    let mut cursor = None;
    loop {
        let (entries, next) = source.page(filter, true, MAX_PAGE, cursor.as_deref()).await?;
        for entry in &entries {
            match format {
                Format::Jsonl => writeln!(out, "{entry}")?,
                Format::Csv => writeln!(out, "{}", csv_row(entry))?,
            }
        }
        cursor = next;
        if cursor.is_none() {
            return Ok(out.flush()?);
        }
    }
}

impl Source {
    /// Returns a page of entries as the API shows them, and the cursor of the next.
    async fn page(
        &mut self,
        filter: &Filter,
        oldest_first: bool,
        limit: u32,
        cursor: Option<&str>,
    ) -> anyhow::Result<(Vec<Value>, Option<String>)> {
        match self {
            Self::Api(remote) => {
                let mut page = remote.get(&filter.path(oldest_first, limit, cursor)).await?;
                let Value::Array(items) = page["items"].take() else {
                    bail!("the answer has no list of entries");
                };
                Ok((items, page["next_cursor"].as_str().map(str::to_owned)))
            }
            Self::File(registry) => {
                let page = registry
                    .list_audit(&filter.read(oldest_first)?, PageOf { limit, cursor })
                    .await?;
                Ok((page.items.iter().map(view).collect(), page.next_cursor))
            }
        }
    }
}

impl Filter {
    fn path(&self, oldest_first: bool, limit: u32, cursor: Option<&str>) -> String {
        let limit = limit.to_string();
        let parameters = [
            ("actor", self.actor.as_str()),
            ("action", &self.action),
            ("subject", &self.subject),
            ("environment", &self.environment),
            ("from", &self.since),
            ("to", &self.until),
            ("order", if oldest_first { "oldest" } else { "" }),
            ("limit", &limit),
            ("cursor", cursor.unwrap_or_default()),
        ];
        with_query("/audit", &parameters)
    }

    fn read(&self, oldest_first: bool) -> anyhow::Result<AuditFilter> {
        let instant = |text: &str, option: &str| -> anyhow::Result<Option<i64>> {
            if text.is_empty() {
                return Ok(None);
            }
            let at: jiff::Timestamp = text
                .parse()
                .with_context(|| format!("{text:?} is not a time like 2026-01-31T12:00:00Z ({option})"))?;
            Ok(Some(at.as_microsecond()))
        };
        Ok(AuditFilter {
            actor: self.actor.clone(),
            action: self.action.clone(),
            subject: self.subject.clone(),
            environment: self.environment.clone(),
            from_us: instant(&self.since, "--since")?,
            to_us: instant(&self.until, "--until")?,
            oldest_first,
        })
    }
}

const CSV_COLUMNS: [&str; 14] = [
    "id",
    "at",
    "actor",
    "actor_id",
    "token_id",
    "request_id",
    "action",
    "subject",
    "environment",
    "from",
    "to",
    "message",
    "detail",
    "hash",
];

fn csv_row(entry: &Value) -> String {
    let cell = |name: &&str| {
        let value = match *name {
            "from" | "to" | "message" => &entry["detail"][*name],
            name => &entry[name],
        };
        csv_cell(&text(value))
    };
    CSV_COLUMNS.iter().map(cell).collect::<Vec<_>>().join(",")
}

/// Quotes where needed. Source: RFC 4180.
///
/// What a spreadsheet would take for a formula begins with an apostrophe: callers' texts are among these.
fn csv_cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_and_runs_no_formula() {
        let entry = json!({
            "id": 1, "at": "t", "actor": "@ada", "subject": "a,b", "hash": "h",
            "detail": {"message": "=HYPERLINK(\"x\")", "to": {"deployment": 2}},
        });
        assert_eq!(
            csv_row(&entry),
            "1,t,'@ada,,,,,\"a,b\",,,\"{\"\"deployment\"\":2}\",\"'=HYPERLINK(\"\"x\"\")\",\
             \"{\"\"message\"\":\"\"=HYPERLINK(\\\"\"x\\\"\")\"\",\"\"to\"\":{\"\"deployment\"\":2}}\",h"
        );
    }
}
