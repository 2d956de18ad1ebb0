//! `promptgate webhooks …`

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::{Remote, Server, block_on, encode, table, text, when, with_query};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List webhooks
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Have a URL told of what happens; prints the secret that signs it, once
    ///
    /// promptgate webhooks create URL --event deployment --environment production
    Create {
        url: String,
        #[command(flatten)]
        wanted: Wanted,
        #[command(flatten)]
        server: Server,
    },
    /// Change a webhook
    Set {
        /// whk_…
        webhook: String,
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        wanted: Wanted,
        /// Tell it of nothing until --enable
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        #[arg(long)]
        enable: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Delete a webhook, and what waits for it
    Delete(One),
    /// Sign with another secret from now on; prints it, once
    Rotate(One),
    /// Send a ping, and show what came of it
    Test(One),
    /// Show what was delivered, what waits and what was given up, newest first
    Deliveries {
        /// whk_…
        webhook: String,
        /// waiting, delivered or failed
        #[arg(long, default_value = "", hide_default_value = true)]
        state: String,
        #[command(flatten)]
        server: Server,
    },
    /// Send a delivery once more
    Resend {
        /// whk_…
        webhook: String,
        /// Its number in the list of deliveries
        delivery: u64,
        #[command(flatten)]
        server: Server,
    },
}

#[derive(Debug, clap::Args)]
struct One {
    /// whk_…
    webhook: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
struct Wanted {
    /// An event, or only what is in front of its dot (repeat for several) [default: all]
    #[arg(long = "event", value_name = "EVENT")]
    events: Vec<String>,
    /// Only of this environment
    #[arg(long)]
    environment: Option<String>,
    /// Only about prompts of this folder
    #[arg(long)]
    folder: Option<String>,
    #[arg(long)]
    description: Option<String>,
}

impl Wanted {
    /// What was said of it.
    fn body(self) -> Value {
        let Self {
            events,
            environment,
            folder,
            description,
        } = self;
        let mut body = json!({});
        if !events.is_empty() {
            body["events"] = json!(events);
        }
        for (name, value) in [
            ("environment", environment),
            ("folder", folder),
            ("description", description),
        ] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        body
    }
}

pub fn run(args: Args) -> anyhow::Result<()> {
    block_on(work(args.command))
}

fn path(webhook: &str) -> String {
    format!("/webhooks/{}", encode(webhook))
}

async fn work(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { server } => {
            let mut remote = server.connect()?;
            let webhooks = remote.all("/webhooks").await?;
            let header = [
                "webhook",
                "url",
                "events",
                "environment",
                "folder",
                "state",
                "waiting",
                "failed",
            ];
            table::print(remote.json, &webhooks, header, |webhook| {
                let enabled = webhook["enabled"] == true;
                [
                    text(&webhook["id"]),
                    text(&webhook["url"]),
                    names(&webhook["events"]),
                    text(&webhook["environment"]),
                    text(&webhook["folder"]),
                    if enabled { "enabled" } else { "disabled" }.to_owned(),
                    text(&webhook["waiting"]),
                    text(&webhook["failed"]),
                ]
            });
        }
        Command::Create { url, wanted, server } => {
            let mut remote = server.connect()?;
            let mut body = wanted.body();
            body["url"] = json!(url);
            let made = remote.send(Method::POST, "/webhooks", &body).await?;
            remote.done(&made, || with_secret(&made));
        }
        Command::Set {
            webhook,
            url,
            wanted,
            disable,
            enable,
            server,
        } => {
            let mut remote = server.connect()?;
            let mut body = wanted.body();
            if let Some(url) = url {
                body["url"] = json!(url);
            }
            if disable || enable {
                body["enabled"] = json!(enable);
            }
            let changed = remote.send(Method::PATCH, &path(&webhook), &body).await?;
            remote.done(&changed, || format!("webhook {webhook}: {}", text(&changed["url"])));
        }
        Command::Delete(One { webhook, server }) => {
            let mut remote = server.connect()?;
            let gone = remote.send(Method::DELETE, &path(&webhook), &Value::Null).await?;
            remote.done(&gone, || {
                format!("webhook {webhook} is deleted, {} events with it", gone["waiting"])
            });
        }
        Command::Rotate(One { webhook, server }) => {
            let mut remote = server.connect()?;
            let made = remote
                .send(Method::POST, &format!("{}/secret", path(&webhook)), &Value::Null)
                .await?;
            remote.done(&made, || with_secret(&made));
        }
        Command::Test(One { webhook, server }) => {
            let mut remote = server.connect()?;
            let path = format!("{}/test", path(&webhook));
            let delivery = remote.send(Method::POST, &path, &Value::Null).await?;
            remote.done(&delivery, || told(&delivery));
            if delivery["state"] != "delivered" {
                anyhow::bail!("the ping did not arrive");
            }
        }
        Command::Deliveries { webhook, state, server } => {
            let mut remote = server.connect()?;
            let path = format!("{}/deliveries", path(&webhook));
            let items = remote.all(&with_query(&path, &[("state", &state)])).await?;
            print(&remote, &items);
        }
        Command::Resend {
            webhook,
            delivery,
            server,
        } => {
            let mut remote = server.connect()?;
            let path = format!("{}/deliveries/{delivery}/resend", path(&webhook));
            let again = remote.send(Method::POST, &path, &Value::Null).await?;
            remote.done(&again, || format!("delivery {delivery} is sent once more"));
        }
    }
    Ok(())
}

fn names(events: &Value) -> String {
    let names: Vec<String> = events.as_array().into_iter().flatten().map(text).collect();
    match names.is_empty() {
        true => "all".to_owned(),
        false => names.join(", "),
    }
}

fn with_secret(made: &Value) -> String {
    format!(
        "webhook {} to {}\n{}\nThe secret is shown this once: keep it where the receiver finds it.",
        text(&made["id"]),
        text(&made["url"]),
        text(&made["secret"])
    )
}

fn told(delivery: &Value) -> String {
    let state = text(&delivery["state"]);
    match delivery["status"].as_u64() {
        Some(status) if state == "delivered" => format!("delivered: {status} in {} ms", delivery["took_ms"]),
        _ => format!("{state}: {}", text(&delivery["error"])),
    }
}

fn print(remote: &Remote, items: &[Value]) {
    let header = [
        "delivery", "event", "type", "happened", "state", "attempts", "status", "error",
    ];
    table::print(remote.json, items, header, |item| {
        [
            text(&item["delivery"]),
            text(&item["event"]),
            text(&item["type"]),
            when(&item["happened_at"]),
            text(&item["state"]),
            text(&item["attempts"]),
            text(&item["status"]),
            text(&item["error"]),
        ]
    });
}
