//! `promptgate environments …`

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::prompt::list;
use super::{Server, block_on, encode, table, text};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List environments, in their order
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Add an environment, last in order
    Create {
        name: String,
        #[command(flatten)]
        server: Server,
    },
    /// Change an environment: promptgate environments set production --protected true --approvals 2
    Set {
        name: String,
        /// What people call it
        #[arg(long)]
        label: Option<String>,
        /// Its place in lists, from 1; the others move
        #[arg(long)]
        position: Option<u32>,
        /// Whether going live needs approval
        #[arg(long)]
        protected: Option<bool>,
        /// How many others must approve
        #[arg(long)]
        approvals: Option<u32>,
        #[command(flatten)]
        server: Server,
    },
    /// Delete an environment that was never used
    Delete {
        name: String,
        #[command(flatten)]
        server: Server,
    },
}

pub fn run(args: Args) -> anyhow::Result<()> {
    block_on(work(args.command))
}

async fn work(command: Command) -> anyhow::Result<()> {
    let path = |name: &str| format!("/environments/{}", encode(name));
    match command {
        Command::List { server } => {
            let mut remote = server.connect()?;
            let items = remote.all("/environments").await?;
            let header = ["environment", "label", "protected", "approvals", "checks"];
            table::print(remote.json, &items, header, |environment| {
                [
                    text(&environment["name"]),
                    text(&environment["label"]),
                    text(&environment["protected"]),
                    text(&environment["approvals"]),
                    list(&environment["required_checks"]),
                ]
            });
        }
        Command::Create { name, server } => {
            let mut remote = server.connect()?;
            let made = remote.send(Method::PUT, &path(&name), &json!({})).await?;
            remote.done(&made, || format!("{name} is there"));
        }
        Command::Set {
            name,
            label,
            position,
            protected,
            approvals,
            server,
        } => {
            let mut body = json!({});
            for (field, value) in [
                ("label", label.map(Value::from)),
                ("position", position.map(Value::from)),
                ("protected", protected.map(Value::from)),
                ("approvals", approvals.map(Value::from)),
            ] {
                if let Some(value) = value {
                    body[field] = value;
                }
            }
            let mut remote = server.connect()?;
            let made = remote.send(Method::PATCH, &path(&name), &body).await?;
            remote.done(&made, || format!("changed {name}"));
        }
        Command::Delete { name, server } => {
            let mut remote = server.connect()?;
            let gone = remote.send(Method::DELETE, &path(&name), &json!({})).await?;
            remote.done(&gone, || format!("deleted {name}"));
        }
    }
    Ok(())
}
