//! `promptgate keys …`

use clap::Subcommand;
use http::Method;
use serde_json::json;

use super::{Server, block_on, encode, table, text, when};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key for an application; it is shown once
    Create {
        name: String,
        /// Where its requests go
        #[arg(long, default_value = "production")]
        environment: String,
        /// Further environments it may name
        #[arg(long, value_delimiter = ',', value_name = "NAMES")]
        environments: Vec<String>,
        /// Models it may use [default: all]
        #[arg(long, value_delimiter = ',', value_name = "NAMES")]
        models: Vec<String>,
        /// It may not send requests without a prompt
        #[arg(long)]
        no_raw: bool,
        /// It may not name a version
        #[arg(long)]
        no_pin: bool,
        /// It may choose its variant (for tests)
        #[arg(long)]
        force_variant: bool,
        #[command(flatten)]
        server: Server,
    },
    /// List keys, never their secrets
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Make a key useless
    Revoke {
        /// Its id: key_…
        id: String,
        #[command(flatten)]
        server: Server,
    },
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Create {
            name,
            environment,
            environments,
            models,
            no_raw,
            no_pin,
            force_variant,
            server,
        } => block_on(async {
            let mut remote = server.connect()?;
            let mut body = json!({
                "name": name, "environment": environment, "raw": !no_raw, "pin": !no_pin, "force_variant": force_variant,
            });
            if !environments.is_empty() {
                body["environments"] = json!(environments);
            }
            if !models.is_empty() {
                body["models"] = json!(models);
            }
            let key = remote.send(Method::POST, "/keys", &body).await?;
            if remote.json {
                println!("{key}");
            } else {
                println!("{} (id {}; shown once, keep it)", text(&key["key"]), text(&key["id"]));
            }
            Ok(())
        }),
        Command::List { server } => block_on(async {
            let mut remote = server.connect()?;
            let keys = remote.all("/keys").await?;
            let header = [
                "id",
                "name",
                "environment",
                "models",
                "raw",
                "pin",
                "created",
                "revoked",
            ];
            table::print(remote.json, &keys, header, |key| {
                let models = key["models"]
                    .as_array()
                    .map(|models| models.iter().map(text).collect::<Vec<_>>().join(", "));
                [
                    text(&key["id"]),
                    text(&key["name"]),
                    text(&key["environment"]),
                    models.unwrap_or_else(|| "all".to_owned()),
                    text(&key["raw"]),
                    text(&key["pin"]),
                    when(&key["created_at"]),
                    when(&key["revoked_at"]),
                ]
            });
            Ok(())
        }),
        Command::Revoke { id, server } => block_on(async {
            let mut remote = server.connect()?;
            let key = remote
                .send(Method::DELETE, &format!("/keys/{}", encode(&id)), &json!({}))
                .await?;
            if remote.json {
                println!("{key}");
            } else {
                println!("revoked {id}");
            }
            Ok(())
        }),
    }
}
