//! `promptgate prompt …`

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::{Remote, Server, block_on, diff, encode, split, table, text, when, with_query};
use crate::domain::prompt::PromptName;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a prompt, without a version yet
    Create {
        /// Its id, for instance support/greet
        id: String,
        #[arg(long, short, default_value = "")]
        description: String,
        /// May be given several times
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Store a file as the next version of a prompt
    Push {
        id: String,
        /// YAML or JSON with the version's content; - reads standard input; a .txt or .jinja file is one user message
        file: PathBuf,
        /// Why it changed
        #[arg(long, short)]
        message: String,
        /// Create the prompt if it is not there
        #[arg(long)]
        create: bool,
        #[command(flatten)]
        server: Server,
    },
    /// List prompts and what is live of them
    List {
        /// Only ids that contain this
        #[arg(long, short)]
        query: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Show a prompt, or with id:version or id@environment its content
    Show {
        name: String,
        #[command(flatten)]
        server: Server,
    },
    /// Rehearse a deployment on recorded requests, without calling a model
    Preflight(super::preflight::Args),
    /// Show what changed between two versions
    Diff {
        id: String,
        /// [default: the one before --to]
        #[arg(long)]
        from: Option<u32>,
        /// [default: the latest]
        #[arg(long)]
        to: Option<u32>,
        #[command(flatten)]
        server: Server,
    },
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Preflight(args) => super::preflight::run(args),
        Command::Create {
            id,
            description,
            tags,
            server,
        } => block_on(async {
            let mut remote = server.connect()?;
            let body = json!({"id": id, "description": description, "tags": tags});
            let prompt = remote.send(Method::POST, "/prompts", &body).await?;
            done(&remote, &prompt, || format!("created {id}"))
        }),
        Command::Push {
            id,
            file,
            message,
            create,
            server,
        } => block_on(async {
            let mut remote = server.connect()?;
            let content = read_content(&file)?;
            if create && remote.get(&format!("/prompts/{id}")).await.is_err() {
                remote.send(Method::POST, "/prompts", &json!({"id": id})).await?;
            }
            let body = json!({"content": content, "message": message});
            let version = remote
                .send(Method::POST, &format!("/prompts/{id}/versions"), &body)
                .await?;
            done(&remote, &version, || format!("stored {id}:{}", version["version"]))
        }),
        Command::List { query, server } => block_on(async {
            let mut remote = server.connect()?;
            let items = remote
                .all(&with_query(
                    "/prompts",
                    &[("query", query.as_deref().unwrap_or_default())],
                ))
                .await?;
            table::print(
                remote.json,
                &items,
                ["prompt", "latest", "live", "description"],
                |prompt| {
                    [
                        text(&prompt["id"]),
                        text(&prompt["latest_version"]),
                        live(prompt),
                        text(&prompt["description"]),
                    ]
                },
            );
            Ok(())
        }),
        Command::Show { name, server } => block_on(async {
            let mut remote = server.connect()?;
            show(&mut remote, &name).await
        }),
        Command::Diff { id, from, to, server } => block_on(async {
            let mut remote = server.connect()?;
            compare(&mut remote, &id, from, to).await
        }),
    }
}

fn done(remote: &Remote, value: &Value, say: impl FnOnce() -> String) -> anyhow::Result<()> {
    println!("{}", if remote.json { value.to_string() } else { say() });
    Ok(())
}

fn live(prompt: &Value) -> String {
    let live = prompt["live"].as_object().into_iter().flatten();
    let live: Vec<String> = live
        .map(|(name, state)| format!("{name}: {}", split(&state["split"])))
        .collect();
    live.join("\n")
}

async fn show(remote: &mut Remote, name: &str) -> anyhow::Result<()> {
    let PromptName {
        id,
        environment,
        version,
    } = PromptName::parse(name);
    if let Some(version) = version {
        return show_version(remote, id, version).await;
    }
    if let Some(environment) = environment {
        let deployment = remote
            .get(&format!("/prompts/{id}/deployments/{}", encode(environment)))
            .await?;
        for arm in deployment["split"].as_array().into_iter().flatten() {
            if !remote.json {
                println!(
                    "{} % {}",
                    arm["weight"].as_f64().unwrap_or_default(),
                    text(&arm["variant"])
                );
            }
            show_version(remote, id, &text(&arm["version"])).await?;
        }
        return Ok(());
    }
    let prompt = remote.get(&format!("/prompts/{id}")).await?;
    let versions = remote.all(&format!("/prompts/{id}/versions")).await?;
    if remote.json {
        println!("{}", json!({"prompt": prompt, "versions": versions}));
        return Ok(());
    }
    println!("{}\n{}", text(&prompt["id"]), text(&prompt["description"]));
    println!("{}\n", live(&prompt));
    table::print(
        false,
        &versions,
        ["version", "when", "author", "message", "hash"],
        |version| {
            let hash: String = text(&version["hash"]).chars().take(12).collect();
            [
                text(&version["version"]),
                when(&version["created_at"]),
                text(&version["author"]),
                text(&version["message"]),
                hash,
            ]
        },
    );
    Ok(())
}

async fn show_version(remote: &mut Remote, id: &str, version: &str) -> anyhow::Result<()> {
    let version = remote.get(&format!("/prompts/{id}/versions/{version}")).await?;
    if remote.json {
        println!("{version}");
        return Ok(());
    }
    println!(
        "{}:{} by {} on {}: {}\n{}",
        text(&version["prompt"]),
        version["version"],
        text(&version["author"]),
        when(&version["created_at"]),
        text(&version["message"]),
        diff::written_out(&version["content"])
    );
    Ok(())
}

async fn compare(remote: &mut Remote, id: &str, from: Option<u32>, to: Option<u32>) -> anyhow::Result<()> {
    let to = match to {
        Some(to) => to,
        None => remote.get(&format!("/prompts/{id}")).await?["latest_version"]
            .as_u64()
            .unwrap_or(0) as u32,
    };
    let from = from.unwrap_or(to.saturating_sub(1));
    if from == 0 || to == 0 {
        bail!("{id} has no two versions to compare, give --from and --to");
    }
    let old = remote.get(&format!("/prompts/{id}/versions/{from}")).await?;
    let new = remote.get(&format!("/prompts/{id}/versions/{to}")).await?;
    let text = diff::unified(
        &old["content"],
        &new["content"],
        &format!("{id}:{from}"),
        &format!("{id}:{to}"),
    );
    if remote.json {
        println!(
            "{}",
            json!({"prompt": id, "from": from, "to": to, "same": text.is_empty(), "diff": text})
        );
    } else if text.is_empty() {
        println!("{id}:{from} and {id}:{to} are the same");
    } else {
        print!("{text}");
    }
    Ok(())
}

/// Reads a version's content. JSON is YAML, so one reader does for both.
fn read_content(file: &Path) -> anyhow::Result<Value> {
    let name = file.display();
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    }
    let extension = file
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    if matches!(extension, "txt" | "jinja" | "j2") {
        return Ok(json!({ "text": text }));
    }
    let value: Value =
        serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{name} is not valid YAML: {error}"))?;
    if !value.is_object() {
        bail!("{name} must be a mapping with messages, variables, model, …; name it .txt if it is one message's text");
    }
    Ok(value)
}
