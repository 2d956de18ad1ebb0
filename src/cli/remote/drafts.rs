//! `promptgate prompt draft …`

use std::path::PathBuf;

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::prompt::read_content;
use super::{Server, block_on, encode, table, text, when, with_query};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List everybody's drafts of a prompt
    List {
        id: String,
        #[command(flatten)]
        server: Server,
    },
    /// Show a draft, with what is wrong with it
    Show {
        #[command(flatten)]
        draft: Name,
        #[command(flatten)]
        server: Server,
    },
    /// Save a file as a draft, broken or not
    Save {
        #[command(flatten)]
        draft: Name,
        /// As for prompt push
        file: PathBuf,
        /// The revision you saw; without it the draft must be new
        #[arg(long)]
        revision: Option<u32>,
        #[command(flatten)]
        server: Server,
    },
    /// Make a draft the next version
    Commit {
        #[command(flatten)]
        draft: Name,
        /// Why it changed
        #[arg(long, short)]
        message: String,
        /// The latest version, if there are newer ones than the draft began with and you have looked at them
        #[arg(long, value_name = "VERSION")]
        onto: Option<u32>,
        #[command(flatten)]
        server: Server,
    },
    /// Throw a draft away
    Delete {
        #[command(flatten)]
        draft: Name,
        #[command(flatten)]
        server: Server,
    },
}

/// Which draft.
#[derive(Debug, clap::Args)]
pub struct Name {
    id: String,
    name: String,
    /// Whose [default: yours]
    #[arg(long, default_value = "")]
    user: String,
}

impl Name {
    fn path(&self, rest: &str) -> String {
        let path = format!("/prompts/{}/drafts/{}{rest}", encode(&self.id), encode(&self.name));
        with_query(&path, &[("user", &self.user)])
    }
}

pub fn run(command: Command) -> anyhow::Result<()> {
    block_on(work(command))
}

async fn work(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { id, server } => {
            let mut remote = server.connect()?;
            let items = remote.all(&format!("/prompts/{}/drafts", encode(&id))).await?;
            let header = ["user", "draft", "revision", "began with", "latest", "saved", "by"];
            table::print(remote.json, &items, header, |draft| {
                [
                    text(&draft["user"]),
                    text(&draft["name"]),
                    text(&draft["revision"]),
                    text(&draft["base_version"]),
                    text(&draft["latest_version"]),
                    when(&draft["updated_at"]),
                    text(&draft["updated_by"]),
                ]
            });
        }
        Command::Show { draft, server } => {
            let mut remote = server.connect()?;
            let shown = remote.get(&draft.path("")).await?;
            remote.done(&shown, || {
                format!("{}{}", super::diff::written_out(&shown["content"]), state(&shown))
            });
        }
        Command::Save {
            draft,
            file,
            revision,
            server,
        } => {
            let mut remote = server.connect()?;
            let body = json!({"content": read_content(&file)?});
            let etag = format!("\"{}\"", revision.unwrap_or(0));
            let saved = remote
                .with(Method::PUT, &draft.path(""), ("if-match", &etag), &body)
                .await?;
            let saved: Value = serde_json::from_str(&saved)?;
            remote.done(&saved, || format!("saved {}", state(&saved)));
        }
        Command::Commit {
            draft,
            message,
            onto,
            server,
        } => {
            let mut remote = server.connect()?;
            let mut body = json!({"message": message});
            if let Some(onto) = onto {
                body["onto"] = json!(onto);
            }
            let version = remote.send(Method::POST, &draft.path("/commit"), &body).await?;
            remote.done(&version, || format!("stored {}:{}", draft.id, version["version"]));
        }
        Command::Delete { draft, server } => {
            let mut remote = server.connect()?;
            let gone = remote.send(Method::DELETE, &draft.path(""), &Value::Null).await?;
            remote.done(&gone, || format!("deleted {}", draft.name));
        }
    }
    Ok(())
}

/// Says how a draft stands.
fn state(draft: &Value) -> String {
    let mut lines = format!("revision {}", draft["revision"]);
    if draft["stale"] == true {
        let (base, latest) = (&draft["base_version"], &draft["latest_version"]);
        lines.push_str(&format!(", begun with version {base}, the latest is {latest}"));
    }
    for problem in draft["problems"].as_array().into_iter().flatten() {
        lines.push_str(&format!(
            "\n  {}: {}",
            text(&problem["path"]),
            text(&problem["message"])
        ));
    }
    lines
}
