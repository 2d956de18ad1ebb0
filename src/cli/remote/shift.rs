//! `promptgate shift …`

use anyhow::Context;
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::{Server, block_on, encode, split, table, text, when, with_query};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Move everybody to a version in growing shares; it goes on when this command has ended
    ///
    /// promptgate shift start support/greet production --version 4 --steps 5,10m:25,1h:100
    Start {
        id: String,
        environment: String,
        /// The version to move to
        #[arg(long)]
        version: u32,
        /// Its shares in percent, each with how long after the one before, or when: 5,10m:25,2030-01-31T08:00:00Z:100
        #[arg(long, value_delimiter = ',', default_value = "5,10m:25,10m:100")]
        steps: Vec<String>,
        /// Why
        #[arg(long, short, default_value = "")]
        message: String,
        #[command(flatten)]
        server: Server,
    },
    /// List shifts, newest first
    List {
        /// Of this prompt only
        id: Option<String>,
        /// Only those under way
        #[arg(long)]
        running: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Show a shift, step by step
    Show {
        /// shf_…
        shift: String,
        #[command(flatten)]
        server: Server,
    },
    /// Stop a shift before its next step; what is live stays
    Cancel {
        /// shf_…
        shift: String,
        #[arg(long, short, default_value = "")]
        message: String,
        #[command(flatten)]
        server: Server,
    },
}

/// Reads `25`, `10m:25` or `2030-01-31T08:00:00Z:25`.
pub(super) fn parse_step(step: &str) -> anyhow::Result<Value> {
    let (when, percent) = step.rsplit_once(':').unwrap_or(("", step));
    let percent: f64 = percent
        .parse()
        .with_context(|| format!("{step:?} is not a step, write for instance 25, 10m:25 or 2030-01-31T08:00:00Z:25"))?;
    Ok(match when {
        "" => json!({"percent": percent}),
        at if at.contains('T') => json!({"percent": percent, "at": at}),
        after => json!({"percent": percent, "after": after}),
    })
}

pub fn run(args: Args) -> anyhow::Result<()> {
    block_on(work(args.command))
}

async fn work(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Start {
            id,
            environment,
            version,
            steps,
            message,
            server,
        } => {
            let steps: Vec<Value> = steps
                .iter()
                .map(|step| parse_step(step))
                .collect::<anyhow::Result<_>>()?;
            let mut remote = server.connect()?;
            let body = json!({"environment": environment, "to_version": version, "steps": steps, "message": message});
            let path = format!("/prompts/{}/shifts", encode(&id));
            let shift = remote.send(Method::POST, &path, &body).await?;
            remote.done(&shift, || written(&shift));
        }
        Command::List { id, running, server } => {
            let mut remote = server.connect()?;
            let path = match id {
                Some(id) => format!("/prompts/{}/shifts", encode(&id)),
                None => "/shifts".to_owned(),
            };
            let state = if running { "running" } else { "" };
            let items = remote.all(&with_query(&path, &[("state", state)])).await?;
            let header = [
                "shift",
                "prompt",
                "environment",
                "state",
                "done",
                "next",
                "by",
                "reason",
            ];
            table::print(remote.json, &items, header, |shift| {
                let steps = shift["steps"].as_array().map_or(&[][..], Vec::as_slice);
                let done = steps.iter().filter(|step| !step["deployment"].is_null()).count();
                [
                    text(&shift["id"]),
                    text(&shift["prompt"]),
                    text(&shift["environment"]),
                    text(&shift["state"]),
                    format!("{done} of {}", steps.len()),
                    when(&shift["next_at"]),
                    text(&shift["created_by"]),
                    text(&shift["reason"]),
                ]
            });
        }
        Command::Show { shift, server } => {
            let mut remote = server.connect()?;
            let shift = remote.get(&format!("/shifts/{}", encode(&shift))).await?;
            remote.done(&shift, || written(&shift));
        }
        Command::Cancel { shift, message, server } => {
            let mut remote = server.connect()?;
            let path = format!("/shifts/{}/cancel", encode(&shift));
            let shift = remote.send(Method::POST, &path, &json!({"message": message})).await?;
            remote.done(&shift, || written(&shift));
        }
    }
    Ok(())
}

fn written(shift: &Value) -> String {
    let (id, state, reason) = (text(&shift["id"]), text(&shift["state"]), text(&shift["reason"]));
    let (prompt, environment) = (text(&shift["prompt"]), text(&shift["environment"]));
    let reason = if reason.is_empty() {
        reason
    } else {
        format!(": {reason}")
    };
    let mut lines = format!("{id} of {prompt} in {environment} is {state}{reason}");
    for step in shift["steps"].as_array().into_iter().flatten() {
        let due = match (step["applied_at"].as_str(), step["at"].as_str()) {
            (Some(_), _) => format!("done {}", when(&step["applied_at"])),
            (None, Some(_)) => format!("at {}", when(&step["at"])),
            (None, None) => format!("{} s after the step before", step["after_seconds"]),
        };
        lines.push_str(&format!("\n  {}   {due}", split(&step["split"])));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_is_read_or_refused_with_the_form() {
        assert_eq!(parse_step("5").unwrap(), json!({"percent": 5.0}));
        assert_eq!(parse_step("10m:25").unwrap(), json!({"percent": 25.0, "after": "10m"}));
        let at = parse_step("2030-01-31T08:00:00Z:100").unwrap();
        assert_eq!(at, json!({"percent": 100.0, "at": "2030-01-31T08:00:00Z"}));
        for bad in ["", "x", "10m:", "10m:x"] {
            assert!(parse_step(bad).is_err(), "{bad}");
        }
    }
}
