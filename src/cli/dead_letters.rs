//! `promptgate dead-letters`: what could not be stored, to look at, to try again, to throw away.

use std::path::PathBuf;

use anyhow::bail;
use serde_json::{Value, json};

use super::remote::table;
use crate::config::Config;
use crate::telemetry::dead::{DeadLetters, Letter, LetterRow};

/// Look into, resend or drop records that could not be stored.
///
/// A record that the sink can never take, or a segment that cannot be read, is kept under the spool folder in dead/.
/// All of this works on that folder, while a gateway runs as well as with none running.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  promptgate dead-letters list
  promptgate dead-letters show 00001767323045000006-1f-0-00000007-5b1c9f0e5d3a2c11.seg
  promptgate dead-letters resend --all
  promptgate dead-letters drop 00001767323045000006-1f-0-00000007-5b1c9f0e5d3a2c11.seg")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Configuration file, which names the spool folder [default: config/promptgate.toml if it exists, else built-in
    /// defaults]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Chosen {
    /// Names, as `list` shows them
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// Every letter that does not wait to be resent already
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List dead letters: how many records, and why
    #[command(after_help = "Example:\n  promptgate dead-letters list --json")]
    List(Common),
    /// Show the records of one
    #[command(after_help = "Example:\n  promptgate dead-letters show NAME --content --json")]
    Show {
        /// Its name, as `list` shows it
        name: String,
        /// Show captured variables, requests and responses too
        #[arg(long)]
        content: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Try again: a running gateway takes them within seconds, else the next one to start
    #[command(after_help = "What is refused again comes back as a new letter.\n\n\
                            Example:\n  promptgate dead-letters resend --all")]
    Resend(Chosen),
    /// Throw away for ever
    #[command(after_help = "Example:\n  promptgate dead-letters drop NAME")]
    Drop(Chosen),
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    super::start_log(false, "warn");
    match &args.command {
        Command::List(common) => {
            list(&letters(common)?.list()?, common.json);
            Ok(())
        }
        Command::Show { name, content, common } => {
            show(letters(common)?.show(name)?, *content, common.json);
            Ok(())
        }
        Command::Resend(chosen) => {
            let letters = letters(&chosen.common)?;
            let done = each(&letters, chosen, |name| Ok(letters.resend(name)?))?;
            report(
                chosen,
                "resending",
                &done,
                "to be resent: a running gateway takes them within seconds",
            );
            Ok(())
        }
        Command::Drop(chosen) => {
            let letters = letters(&chosen.common)?;
            let done = each(&letters, chosen, |name| Ok(letters.remove(name)?))?;
            report(chosen, "dropped", &done, "dropped");
            Ok(())
        }
    }
}

fn letters(common: &Common) -> anyhow::Result<DeadLetters> {
    let config = Config::load(common.config.as_deref(), &super::environment)?;
    Ok(DeadLetters::of(&config.telemetry.spool_dir))
}

/// Does something with each letter that was chosen; returns their names. The first failure ends it, and says what was
/// done before.
fn each(
    letters: &DeadLetters,
    chosen: &Chosen,
    mut act: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<String>> {
    let names = match chosen.all {
        false => chosen.names.clone(),
        true => {
            let all = letters.list()?.into_iter().filter(|letter| !letter.resending);
            all.map(|letter| letter.name).collect()
        }
    };
    let mut done = Vec::new();
    for name in names {
        if let Err(error) = act(&name) {
            match done.len() {
                0 => return Err(error),
                count => bail!("{error}; {count} others were done before"),
            }
        }
        done.push(name);
    }
    Ok(done)
}

fn report(chosen: &Chosen, key: &str, done: &[String], words: &str) {
    match chosen.common.json {
        true => println!("{}", json!({ key: done })),
        false if done.is_empty() => println!("there are no dead letters"),
        false => println!("{} {words}", done.len()),
    }
}

fn list(letters: &[Letter], as_json: bool) {
    let item = |letter: &Letter| {
        let at = jiff::Timestamp::from_microsecond(letter.created_at)
            .ok()
            .filter(|_| letter.created_at != 0);
        json!({
            "name": letter.name,
            "state": if letter.resending { "resending" } else { "dead" },
            "records": letter.rows,
            "bytes": letter.bytes,
            "created_at": at.map(|at| at.to_string()),
            "reason": letter.reason,
        })
    };
    let items: Vec<Value> = letters.iter().map(item).collect();
    table::print(
        as_json,
        &items,
        ["name", "state", "records", "written", "reason"],
        |item| ["name", "state", "records", "created_at", "reason"].map(|key| text(&item[key])),
    );
}

fn show(rows: Vec<LetterRow>, content: bool, as_json: bool) {
    let item = |row: LetterRow| {
        let mut record = row.record;
        if let Some(fields) = record.as_object_mut()
            && !content
        {
            // Captured conversations are shown to who asks for them.
            fields.retain(|name, _| !["variables", "request", "response"].contains(&name.as_str()));
        }
        json!({"kind": row.kind, "reason": row.reason, "record": record})
    };
    let items: Vec<Value> = rows.into_iter().map(item).collect();
    table::print(as_json, &items, ["kind", "reason", "record"], |item| {
        let record = serde_json::to_string_pretty(&item["record"]).unwrap_or_default();
        [text(&item["kind"]), text(&item["reason"]), record]
    });
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
