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
        /// A person or a team
        #[arg(long, default_value = "")]
        owner: String,
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
    /// Show a prompt, or with id:version or id@environment its content
    Show {
        name: String,
        #[command(flatten)]
        server: Server,
    },
    /// Rehearse a deployment on recorded requests, without calling a model
    Preflight(super::preflight::Args),
    /// Show what changed between versions, a draft, and what is live
    ///
    /// Each side is a version (3), draft:name, draft:user/name, live:environment or live:environment/variant:
    /// promptgate prompt diff support/greet --from live:production --to draft:spring
    Diff {
        id: String,
        /// [default: the one before --to]
        #[arg(long)]
        from: Option<String>,
        /// [default: the latest]
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    #[command(flatten)]
    Files(super::files::Command),
    #[command(flatten)]
    Library(super::library::Command),
    /// Work on a text before it is a version
    #[command(subcommand)]
    Draft(super::drafts::Command),
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Preflight(args) => super::preflight::run(args),
        Command::Create {
            id,
            description,
            tags,
            owner,
            server,
        } => block_on(async {
            let mut remote = server.connect()?;
            let body = json!({"id": id, "description": description, "tags": tags, "owner": owner});
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
        Command::Show { name, server } => block_on(async {
            let mut remote = server.connect()?;
            show(&mut remote, &name).await
        }),
        Command::Diff { id, from, to, server } => block_on(async {
            let mut remote = server.connect()?;
            let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
            let path = with_query(
                &format!("/prompts/{}/diff", encode(&id)),
                &[("from", &from), ("to", &to)],
            );
            let accept = if remote.json { "application/json" } else { "text/plain" };
            let text = remote
                .with(Method::GET, &path, ("accept", accept), &Value::Null)
                .await?;
            println!("{}", text.trim_end());
            Ok(())
        }),
        Command::Files(command) => super::files::run(command),
        Command::Library(command) => super::library::run(command),
        Command::Draft(command) => super::drafts::run(command),
    }
}

fn done(remote: &Remote, value: &Value, say: impl FnOnce() -> String) -> anyhow::Result<()> {
    println!("{}", if remote.json { value.to_string() } else { say() });
    Ok(())
}

pub(super) fn list(values: &Value) -> String {
    let values = values.as_array().into_iter().flatten();
    values.map(text).collect::<Vec<_>>().join(", ")
}

pub(super) fn live(prompt: &Value) -> String {
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
    let prompt = remote.get(&format!("/prompts/{}", encode(id))).await?;
    let versions = remote.all(&format!("/prompts/{id}/versions")).await?;
    if remote.json {
        println!("{}", json!({"prompt": prompt, "versions": versions}));
        return Ok(());
    }
    println!("{}\n{}", text(&prompt["id"]), text(&prompt["description"]));
    for (name, value) in [
        ("owner", text(&prompt["owner"])),
        ("tags", list(&prompt["tags"])),
        ("aliases", list(&prompt["aliases"])),
        ("archived", when(&prompt["archived_at"])),
    ] {
        if !value.is_empty() {
            println!("{name}: {value}");
        }
    }
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

/// Reads a version's content. JSON is YAML, so one reader does for both.
pub(super) fn read_content(file: &Path) -> anyhow::Result<Value> {
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
