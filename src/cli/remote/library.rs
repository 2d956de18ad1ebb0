//! `promptgate prompt list|search|folders|edit|rename|…`: the library.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::prompt::{list, live};
use super::{Server, block_on, encode, table, text, with_query};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List prompts and what is live of them
    List {
        /// Only those with this text in their id, alias, description, tags, owner, or latest or live version
        #[arg(long, short)]
        query: Option<String>,
        /// Only those of a folder: support
        #[arg(long)]
        folder: Option<String>,
        /// With --folder: also those further down
        #[arg(long, requires = "folder")]
        recursive: bool,
        #[arg(long)]
        tag: Option<String>,
        #[arg(long)]
        owner: Option<String>,
        /// Also those that are archived
        #[arg(long)]
        archived: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Find a text in prompts and their versions, and show where it is
    Search {
        text: String,
        #[command(flatten)]
        server: Server,
    },
    /// Count what is in a folder
    Folders {
        /// [default: the top]
        #[arg(default_value = "")]
        folder: String,
        #[command(flatten)]
        server: Server,
    },
    /// Change description, owner or tags
    Edit {
        id: String,
        #[arg(long, short)]
        description: Option<String>,
        #[arg(long)]
        owner: Option<String>,
        /// Replaces all tags; may be given several times
        #[arg(long = "tag", value_name = "TAG")]
        tags: Option<Vec<String>>,
        #[command(flatten)]
        server: Server,
    },
    /// Give a prompt another id; applications that use the present one go on being served
    Rename {
        id: String,
        to: String,
        /// Why
        #[arg(long, short)]
        message: String,
        #[command(flatten)]
        server: Server,
    },
    /// Let another name lead to a prompt, or take it away
    Alias {
        id: String,
        alias: String,
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Put a prompt away; refused, with what needs it, as long as it is live anywhere
    Archive {
        id: String,
        #[arg(long, short, default_value = "")]
        message: String,
        #[command(flatten)]
        server: Server,
    },
    /// Take a prompt out of the archive
    Restore {
        id: String,
        #[arg(long, short, default_value = "")]
        message: String,
        #[command(flatten)]
        server: Server,
    },
    /// List which partials each version includes
    Uses {
        id: String,
        #[command(flatten)]
        server: Server,
    },
    /// List the versions that include a prompt, and where they are live
    UsedBy {
        id: String,
        #[command(flatten)]
        server: Server,
    },
    /// List the versions whose partials have newer versions
    Updates {
        id: String,
        #[command(flatten)]
        server: Server,
    },
    /// Store an earlier version's text again, with its partials as they are today
    Refresh {
        id: String,
        #[arg(long)]
        from: u32,
        #[arg(long, short)]
        message: String,
        #[command(flatten)]
        server: Server,
    },
}

pub fn run(command: Command) -> anyhow::Result<()> {
    block_on(work(command))
}

async fn work(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List {
            query,
            folder,
            recursive,
            tag,
            owner,
            archived,
            server,
        } => {
            let switch = |on| if on { "true" } else { "" };
            let filter = [
                ("q", query.as_deref().unwrap_or_default()),
                ("folder", folder.as_deref().unwrap_or_default()),
                ("recursive", switch(recursive)),
                ("tag", tag.as_deref().unwrap_or_default()),
                ("owner", owner.as_deref().unwrap_or_default()),
                ("archived", switch(archived)),
            ];
            show_list(&server, &with_query("/prompts", &filter)).await
        }
        Command::Search { text, server } => search(&server, &text).await,
        Command::Folders { folder, server } => folders(&server, &folder).await,
        Command::Edit {
            id,
            description,
            owner,
            tags,
            server,
        } => {
            let mut body = json!({});
            for (name, value) in [("description", description), ("owner", owner)] {
                if let Some(value) = value {
                    body[name] = json!(value);
                }
            }
            if let Some(tags) = tags {
                body["tags"] = json!(tags);
            }
            change(&server, Method::PATCH, &id, "", body, "changed").await
        }
        Command::Rename {
            id,
            to,
            message,
            server,
        } => {
            let body = json!({"to": to, "message": message});
            change(&server, Method::POST, &id, "/rename", body, "renamed to").await
        }
        Command::Alias {
            id,
            alias,
            remove,
            server,
        } => {
            let rest = format!("/aliases/{}", encode(&alias));
            let method = if remove { Method::DELETE } else { Method::PUT };
            change(&server, method, &id, &rest, Value::Null, "changed the names of").await
        }
        Command::Archive { id, message, server } => {
            change(
                &server,
                Method::POST,
                &id,
                "/archive",
                json!({"message": message}),
                "archived",
            )
            .await
        }
        Command::Restore { id, message, server } => {
            change(
                &server,
                Method::POST,
                &id,
                "/restore",
                json!({"message": message}),
                "restored",
            )
            .await
        }
        Command::Uses { id, server } => uses(&server, &id).await,
        Command::UsedBy { id, server } => used_by(&server, &id).await,
        Command::Updates { id, server } => updates(&server, &id).await,
        Command::Refresh {
            id,
            from,
            message,
            server,
        } => {
            let mut remote = server.connect()?;
            let body = json!({"from": from, "refresh_partials": true, "message": message});
            let path = format!("/prompts/{}/versions", encode(&id));
            let version = remote.send(Method::POST, &path, &body).await?;
            remote.done(&version, || format!("stored {id}:{}", version["version"]));
            Ok(())
        }
    }
}

/// Sends a change of one prompt, and says what it is called then.
async fn change(server: &Server, method: Method, id: &str, rest: &str, body: Value, what: &str) -> anyhow::Result<()> {
    let mut remote = server.connect()?;
    let path = format!("/prompts/{}{rest}", encode(id));
    let prompt = remote.send(method, &path, &body).await?;
    remote.done(&prompt, || format!("{what} {}", text(&prompt["id"])));
    Ok(())
}

async fn show_list(server: &Server, path: &str) -> anyhow::Result<()> {
    let mut remote = server.connect()?;
    let items = remote.all(path).await?;
    let header = ["prompt", "latest", "live", "owner", "tags", "description"];
    table::print(remote.json, &items, header, |prompt| {
        [
            text(&prompt["id"]),
            text(&prompt["latest_version"]),
            live(prompt),
            text(&prompt["owner"]),
            list(&prompt["tags"]),
            text(&prompt["description"]),
        ]
    });
    Ok(())
}

async fn search(server: &Server, query: &str) -> anyhow::Result<()> {
    let mut remote = server.connect()?;
    let items = remote.all(&with_query("/prompts", &[("q", query)])).await?;
    table::print(remote.json, &items, ["prompt", "where", "text"], |prompt| {
        let found = &prompt["match"];
        let place = match found["version"].as_u64() {
            Some(version) => format!("version {version}, {}", text(&found["path"])),
            None => text(&found["in"]),
        };
        [text(&prompt["id"]), place, text(&found["snippet"])]
    });
    Ok(())
}

async fn folders(server: &Server, folder: &str) -> anyhow::Result<()> {
    let mut remote = server.connect()?;
    let inside = remote.get(&with_query("/folders", &[("folder", folder)])).await?;
    if remote.json {
        println!("{inside}");
        return Ok(());
    }
    let folders = inside["folders"].as_array().cloned().unwrap_or_default();
    table::print(false, &folders, ["folder", "prompts"], |folder| {
        [text(&folder["folder"]), text(&folder["prompts"])]
    });
    println!(
        "{} prompts, {} of them directly inside",
        inside["prompts"], inside["direct"]
    );
    Ok(())
}

async fn uses(server: &Server, id: &str) -> anyhow::Result<()> {
    let mut remote = server.connect()?;
    let items = remote.all(&format!("/prompts/{}/uses", encode(id))).await?;
    table::print(remote.json, &items, ["version", "uses"], |item| {
        let uses = item["uses"].as_array().into_iter().flatten();
        let uses: Vec<String> = uses
            .map(|used| {
                format!(
                    "{}:{} (latest {})",
                    text(&used["prompt"]),
                    used["version"],
                    used["latest"]
                )
            })
            .collect();
        [text(&item["version"]), uses.join("\n")]
    });
    Ok(())
}

async fn used_by(server: &Server, id: &str) -> anyhow::Result<()> {
    let mut remote = server.connect()?;
    let items = remote.all(&format!("/prompts/{}/used-by", encode(id))).await?;
    table::print(remote.json, &items, ["by", "uses version", "live in"], |item| {
        [
            format!("{}:{}", text(&item["prompt"]), item["version"]),
            text(&item["uses_version"]),
            list(&item["live"]),
        ]
    });
    Ok(())
}

async fn updates(server: &Server, id: &str) -> anyhow::Result<()> {
    let mut remote = server.connect()?;
    let items = remote.all(&format!("/prompts/{}/updates", encode(id))).await?;
    table::print(remote.json, &items, ["version", "live in", "would change"], |item| {
        let partials = item["diff"]["partials"].as_array().into_iter().flatten();
        let partials: Vec<String> = partials
            .map(|partial| format!("{} {}", text(&partial["change"]), text(&partial["name"])))
            .collect();
        let problems = item["problems"].as_array().into_iter().flatten();
        let problems = problems.map(|problem| format!("{}: {}", text(&problem["path"]), text(&problem["message"])));
        let all: Vec<String> = partials.into_iter().chain(problems).collect();
        [text(&item["version"]), list(&item["live"]), all.join("\n")]
    });
    Ok(())
}
