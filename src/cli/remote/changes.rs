//! `promptgate changes …`

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use http::Method;
use serde_json::{Value, json};

use super::deploy::parse_split;
use super::shift::parse_step;
use super::{Remote, Server, block_on, encode, split, table, text, when, with_query};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Which change, and why.
#[derive(Debug, clap::Args)]
struct Act {
    /// Its number
    id: u64,
    /// Why
    #[arg(long, short, default_value = "", hide_default_value = true)]
    message: String,
    #[command(flatten)]
    server: Server,
}

/// Which change, which revision of it, and why.
#[derive(Debug, clap::Args)]
struct Decide {
    #[command(flatten)]
    act: Act,
    /// The revision you looked at: refused if there is another by now
    #[arg(long, value_name = "N")]
    revision: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CheckState {
    Pending,
    Pass,
    Fail,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List changes, newest first
    List {
        /// draft, open, approved, rejected, applied or withdrawn
        #[arg(long, default_value = "", hide_default_value = true)]
        state: String,
        #[arg(long, default_value = "", hide_default_value = true)]
        environment: String,
        #[arg(long, default_value = "", hide_default_value = true)]
        prompt: String,
        #[command(flatten)]
        server: Server,
    },
    /// Show a change and what it lacks
    Show {
        id: u64,
        #[command(flatten)]
        server: Server,
    },
    /// Propose deployments in an environment
    Propose {
        environment: String,
        /// Prompt and version, or arms: support/greet=3, support/greet=control=1:80,b=2:20 (repeat for several prompts)
        #[arg(required = true, value_name = "PROMPT=VERSION|ARMS")]
        deployments: Vec<String>,
        /// What changes, and why
        #[arg(long, short)]
        message: String,
        /// Step by step, in percent, each with how long after the one before, or when: 5,10m:25,1h:100
        #[arg(long, value_delimiter = ',')]
        steps: Vec<String>,
        /// Not yet for others
        #[arg(long)]
        draft: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Open a draft for review
    Submit(Act),
    /// Approve a change
    Approve(Decide),
    /// Reject a change, with a message that says what should be different
    Reject(Decide),
    /// Comment on a change
    Comment {
        id: u64,
        text: String,
        #[command(flatten)]
        server: Server,
    },
    /// Report a check, as CI does
    Check {
        id: u64,
        name: String,
        state: CheckState,
        #[arg(long)]
        url: Option<String>,
        #[arg(long, default_value = "", hide_default_value = true)]
        summary: String,
        /// The revision that was checked
        #[arg(long, value_name = "N")]
        revision: Option<u32>,
        #[command(flatten)]
        server: Server,
    },
    /// Put a change on top of what is live by now; it needs approval anew
    Refresh(Act),
    /// Make an approved change live
    Apply(Act),
    /// Take a change back
    Withdraw(Act),
    /// How long reviews take
    Stats {
        #[arg(long, default_value = "", hide_default_value = true)]
        environment: String,
        #[command(flatten)]
        server: Server,
    },
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List {
            state,
            environment,
            prompt,
            server,
        } => block_on(async {
            let mut remote = server.connect()?;
            let parameters = [
                ("state", state.as_str()),
                ("environment", &environment),
                ("prompt", &prompt),
            ];
            let changes = remote.all(&with_query("/changes", &parameters)).await?;
            let header = ["change", "state", "environment", "prompts", "by", "when", "message"];
            table::print(remote.json, &changes, header, |change| {
                let items = change["deployments"].as_array().into_iter().flatten();
                [
                    text(&change["id"]),
                    state_of(change),
                    text(&change["environment"]),
                    items.map(|item| text(&item["prompt"])).collect::<Vec<_>>().join(", "),
                    text(&change["proposer"]),
                    when(&change["created_at"]),
                    text(&change["message"]),
                ]
            });
            Ok(())
        }),
        Command::Show { id, server } => block_on(async {
            let mut remote = server.connect()?;
            let change = remote.get(&format!("/changes/{id}")).await?;
            show(&remote, &change);
            Ok(())
        }),
        Command::Propose {
            environment,
            deployments,
            message,
            steps,
            draft,
            server,
        } => {
            let steps = steps.iter().map(|step| parse_step(step));
            let steps = steps.collect::<anyhow::Result<Vec<Value>>>()?;
            let items = deployments.iter().map(|text| parse_deployment(text, &steps));
            let items = items.collect::<anyhow::Result<Vec<Value>>>()?;
            let body = json!({"environment": environment, "deployments": items, "message": message, "draft": draft});
            send(&server, Method::POST, "/changes", &body)
        }
        Command::Submit(act) => act.send("submit", None),
        Command::Refresh(act) => act.send("refresh", None),
        Command::Apply(act) => act.send("apply", None),
        Command::Withdraw(act) => {
            let body = json!({"message": act.message});
            act.send("withdraw", Some(body))
        }
        Command::Approve(decide) => decide.send("approve"),
        Command::Reject(decide) => decide.send("reject"),
        Command::Comment { id, text, server } => send(
            &server,
            Method::POST,
            &format!("/changes/{id}/comments"),
            &json!({"body": text}),
        ),
        Command::Check {
            id,
            name,
            state,
            url,
            summary,
            revision,
            server,
        } => {
            let state = match state {
                CheckState::Pending => "pending",
                CheckState::Pass => "pass",
                CheckState::Fail => "fail",
            };
            let body = json!({"state": state, "url": url, "summary": summary, "revision": revision});
            send(
                &server,
                Method::PUT,
                &format!("/changes/{id}/checks/{}", encode(&name)),
                &body,
            )
        }
        Command::Stats { environment, server } => block_on(async {
            let mut remote = server.connect()?;
            let stats = remote
                .get(&with_query("/changes/stats", &[("environment", environment.as_str())]))
                .await?;
            if remote.json {
                println!("{stats}");
                return Ok(());
            }
            println!("{} changes: {}", stats["count"], stats["by_state"]);
            for (label, name) in [
                ("to the first approval", "time_to_first_approval"),
                ("to going live", "time_to_apply"),
            ] {
                let time = &stats[name];
                let span = |name: &str| time[name].as_f64().map_or_else(|| "-".to_owned(), duration);
                println!(
                    "{label}: median {}, p90 {} ({} changes)",
                    span("median_seconds"),
                    span("p90_seconds"),
                    time["count"]
                );
            }
            Ok(())
        }),
    }
}

impl Act {
    fn send(&self, what: &str, body: Option<Value>) -> anyhow::Result<()> {
        let body = body.unwrap_or_else(|| json!({}));
        send(
            &self.server,
            Method::POST,
            &format!("/changes/{}/{what}", self.id),
            &body,
        )
    }
}

impl Decide {
    fn send(&self, what: &str) -> anyhow::Result<()> {
        let body = json!({"message": self.act.message, "revision": self.revision});
        self.act.send(what, Some(body))
    }
}

/// Does something to a change, and shows it afterwards.
fn send(server: &Server, method: Method, path: &str, body: &Value) -> anyhow::Result<()> {
    block_on(async {
        let mut remote = server.connect()?;
        let change = remote.send(method, path, body).await?;
        show(&remote, &change);
        Ok(())
    })
}

/// Reads `support/greet=3` or `support/greet=control=1:80,b=2:20`; steps lead to a version.
fn parse_deployment(text: &str, steps: &[Value]) -> anyhow::Result<Value> {
    let (prompt, arms) = text
        .split_once('=')
        .with_context(|| format!("{text:?} is not of the form prompt=version, for instance support/greet=3"))?;
    let version = arms.parse::<u32>();
    if !steps.is_empty() {
        let version = version.with_context(|| format!("{text:?}: --steps lead to one version, not to arms"))?;
        return Ok(json!({"prompt": prompt, "to_version": version, "steps": steps}));
    }
    let split = match version {
        Ok(version) => json!([{"variant": "control", "version": version, "weight": 100}]),
        Err(_) => parse_split(arms.split(','))?,
    };
    if prompt.is_empty() {
        bail!("{text:?} names no prompt");
    }
    Ok(json!({"prompt": prompt, "split": split}))
}

fn state_of(change: &Value) -> String {
    let stale = change["stale"].as_array().is_some_and(|stale| !stale.is_empty());
    let state = text(&change["state"]);
    if stale { format!("{state}, stale") } else { state }
}

fn show(remote: &Remote, change: &Value) {
    if remote.json {
        return println!("{change}");
    }
    println!(
        "change {} in {}: {} (revision {}, by {}): {}",
        change["id"],
        text(&change["environment"]),
        state_of(change),
        change["revision"],
        text(&change["proposer"]),
        text(&change["message"])
    );
    let list = |name: &str| change[name].as_array().cloned().unwrap_or_default();
    for item in list("deployments") {
        let made = match (item["deployment"].as_u64(), item["shift"].as_str()) {
            (Some(number), _) => format!(", deployment {number}"),
            (None, Some(shift)) => format!(", shift {shift}"),
            (None, None) => String::new(),
        };
        println!("  {}: {}{made}", text(&item["prompt"]), split(&item["split"]));
        for step in item["steps"].as_array().into_iter().flatten() {
            let due = match (step["at"].as_str(), step["after_seconds"].as_u64()) {
                (Some(at), _) => format!("at {at}"),
                (None, after) => format!("after {} s", after.unwrap_or_default()),
            };
            println!("    {due}: {}", split(&step["split"]));
        }
    }
    let approvals = &change["approvals"];
    println!("  approvals: {} of {}", approvals["given"], approvals["needed"]);
    for check in list("checks") {
        let required = if check["required"] == true { ", required" } else { "" };
        let summary = text(&check["summary"]);
        println!(
            "  check {}: {}{required} {summary}",
            text(&check["name"]),
            text(&check["state"])
        );
    }
    if let Some(summary) = change["preflight"]["summary"].as_str() {
        println!("  preflight {}: {summary}", text(&change["preflight"]["state"]));
        for prompt in change["preflight"]["prompts"].as_array().into_iter().flatten() {
            let arms = prompt["arms"].as_array().into_iter().flatten();
            for finding in arms.flat_map(|arm| arm["findings"].as_array().into_iter().flatten()) {
                println!("    {}: {}", text(&finding["level"]), text(&finding["message"]));
            }
        }
    }
    for prompt in list("stale") {
        println!(
            "  stale: something else went live for {} since, refresh it",
            text(&prompt)
        );
    }
    for review in list("reviews") {
        let message = text(&review["message"]);
        println!(
            "  {} {}: {} (revision {}) {message}",
            when(&review["at"]),
            text(&review["by"]),
            text(&review["verdict"]),
            review["revision"]
        );
    }
    for comment in list("comments") {
        println!(
            "  {} {}: {}",
            when(&comment["at"]),
            text(&comment["by"]),
            text(&comment["body"])
        );
    }
    if change["ready"] == true {
        println!("  ready: promptgate changes apply {}", change["id"]);
    }
}

/// Shows seconds as people say them.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployment_is_a_version_or_arms() {
        assert_eq!(
            parse_deployment("support/greet=3", &[]).unwrap(),
            json!({"prompt": "support/greet", "split": [{"variant": "control", "version": 3, "weight": 100}]})
        );
        let arms = parse_deployment("a=x=1:80,y=2:20", &[]).unwrap();
        assert_eq!(arms["split"][1], json!({"variant": "y", "version": 2, "weight": 20.0}));
        for bad in ["a", "=3", "a=x", "a=", "a=x=1"] {
            assert!(parse_deployment(bad, &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(
            [5.2, 300.0, 10_800.0, 259_200.0].map(duration),
            ["5 s", "5 min", "3.0 h", "3.0 days"]
        );
    }
}
