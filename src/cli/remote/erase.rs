//! `promptgate erase`

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use serde_json::{Value, json};

use super::{Server, block_on, encode, table, text, when};

/// How often to ask whether it is done.
const ASK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The person's id as the application sends it; "-" reads it from standard input, so that no shell remembers it
    #[arg(long, required_unless_present_any = ["user_hash", "list"], conflicts_with = "user_hash")]
    user: Option<String>,
    /// The pseudonym, as a record's user or unit has it
    #[arg(long, value_name = "HASH")]
    user_hash: Option<String>,
    /// Why, for the audit log
    #[arg(long, default_value = "")]
    reason: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
    /// List what was asked for so far
    #[arg(long, conflicts_with_all = ["user", "user_hash"])]
    list: bool,
    #[command(flatten)]
    server: Server,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    block_on(async {
        let mut remote = args.server.connect()?;
        if args.list {
            let erasures = remote.all("/erasures").await?;
            let header = ["id", "requested", "by", "state", "exchanges", "done", "reason"];
            table::print(remote.json, &erasures, header, |erasure| {
                [
                    text(&erasure["id"]),
                    when(&erasure["requested_at"]),
                    text(&erasure["requested_by"]),
                    text(&erasure["state"]),
                    text(&erasure["exchanges"]),
                    when(&erasure["done_at"]),
                    text(&erasure["reason"]),
                ]
            });
            return Ok(());
        }
        let body = match (&args.user, &args.user_hash) {
            (Some(user), _) => json!({"user": id(user)?, "reason": args.reason}),
            (None, hash) => json!({"user_hash": hash, "reason": args.reason}),
        };
        if !args.yes {
            confirm()?;
        }
        let mut erasure = remote.send(Method::POST, "/erasures", &body).await?;
        let path = format!("/erasures/{}", encode(&text(&erasure["id"])));
        while !args.no_wait && erasure["state"] != "done" {
            tokio::time::sleep(ASK_EVERY).await;
            erasure = remote.get(&path).await?;
        }
        if remote.json {
            println!("{erasure}");
        } else {
            println!("{}", told(&erasure));
        }
        Ok(())
    })
}

fn told(erasure: &Value) -> String {
    let id = text(&erasure["id"]);
    match erasure["state"].as_str() {
        Some("done") => format!(
            "{id}: done, the content of {} exchanges is erased",
            erasure["exchanges"]
        ),
        _ => format!("{id}: asked for; promptgate erase --list shows when it is done"),
    }
}

fn id(given: &str) -> anyhow::Result<String> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks on a terminal; anywhere else nobody can answer.
fn confirm() -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("this cannot be undone; say so with --yes");
    }
    print!("Erase what this person's requests and answers said, for good? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("no answer")?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was erased"),
    }
}
