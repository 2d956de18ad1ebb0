//! `promptgate prompt preflight`

use http::Method;
use serde_json::{Value, json};

use super::deploy::parse_split;
use super::{Remote, Server, block_on, split, text};

#[derive(Debug, clap::Args)]
pub struct Args {
    id: String,
    #[arg(long, default_value = "production")]
    environment: String,
    /// The candidate, for everybody
    #[arg(long, conflicts_with = "split", required_unless_present = "split")]
    version: Option<u32>,
    /// Arms as variant=version:weight, for instance control=1:80,b=2:20
    #[arg(long, value_delimiter = ',', value_name = "ARMS")]
    split: Vec<String>,
    /// How many recorded requests to look at, at most 200
    #[arg(long, value_name = "N", default_value_t = 50)]
    sample: u32,
    #[command(flatten)]
    server: Server,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let mut body = json!({"environment": args.environment, "sample": args.sample});
    match args.version {
        Some(version) => body["version"] = json!(version),
        None => body["split"] = parse_split(args.split.iter().map(String::as_str))?,
    }
    block_on(async {
        let mut remote: Remote = args.server.connect()?;
        let path = format!("/prompts/{}/preflight", args.id);
        let found = remote.send(Method::POST, &path, &body).await?;
        if remote.json {
            println!("{found}");
        } else {
            print(&found);
        }
        if found["state"] == "fail" {
            anyhow::bail!("the preflight failed");
        }
        Ok(())
    })
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn print(found: &Value) {
    println!("{}: {}", text(&found["state"]), text(&found["summary"]));
    let requests = &found["requests"];
    println!(
        "{} of {} recorded requests compared",
        requests["compared"], requests["looked_at"]
    );
    for (why, count) in requests["not_comparable"].as_object().into_iter().flatten() {
        if *count != 0 {
            println!("  not comparable, {}: {count}", why.replace('_', " "));
        }
    }
    for arm in list(&found["arms"]) {
        print_arm("candidate", arm);
    }
    if !found["rollback_target"].is_null() {
        let target = &found["rollback_target"];
        println!(
            "going back: deployment {}, {}",
            target["deployment"],
            split(&target["split"])
        );
        for arm in list(&found["rollback"]) {
            print_arm("going back", arm);
        }
    }
    if found["content_hidden"] == true {
        println!("texts are hidden: they need the role content_reader");
    }
}

fn print_arm(what: &str, arm: &Value) {
    println!(
        "{what} {}={}: {} refused, {} failed",
        text(&arm["variant"]),
        arm["version"],
        arm["refused"],
        arm["failed"]
    );
    for finding in list(&arm["findings"]) {
        println!("  {}: {}", text(&finding["level"]), text(&finding["message"]));
    }
    for refusal in list(&arm["refusals"]) {
        println!(
            "  {} {}: {} requests",
            text(&refusal["variable"]),
            text(&refusal["kind"]).replace('_', " "),
            refusal["requests"]
        );
    }
    for against in list(&arm["against"]) {
        println!(
            "  against live {}={}: {} same, {} changed, tokens {} -> {}, input cost {} -> {} nano-dollars",
            text(&against["variant"]),
            against["version"],
            against["same"],
            against["changed"],
            against["tokens_before"],
            against["tokens_after"],
            against["cost_before_nanodollars"],
            against["cost_after_nanodollars"]
        );
        for example in list(&against["examples"]) {
            println!("    {} {}", text(&example["exchange_id"]), text(&example["verdict"]));
            for problem in list(&example["problems"]) {
                println!("      {} {}", text(&problem["path"]), text(&problem["message"]));
            }
            let pieces = list(&example["diff"]).map(|piece| match piece["op"].as_str() {
                Some("removed") => format!("[-{}-]", text(&piece["text"])),
                Some("added") => format!("{{+{}+}}", text(&piece["text"])),
                _ => text(&piece["text"]),
            });
            for line in pieces.collect::<String>().lines() {
                println!("      {line}");
            }
        }
    }
}
