//! `promptgate users …`, `promptgate tokens …` and `promptgate whoami`

use anyhow::Context;
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::{Server, block_on, encode, table, text, when, with_query};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// A role, and where it holds.
#[derive(Debug, clap::Args)]
struct RoleAt {
    /// viewer, editor, reviewer, deployer, checker, content_reader or admin
    role: String,
    /// Only in this environment
    #[arg(long, default_value = "*", hide_default_value = true)]
    environment: String,
    /// Only for prompts of this folder
    #[arg(long, default_value = "*", hide_default_value = true)]
    folder: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a user; make a token next
    Create {
        /// Lowercase, for instance ada@example.com; never changes
        name: String,
        /// It is a program, not a person
        #[arg(long)]
        service: bool,
        #[arg(long, default_value = "", hide_default_value = true)]
        display_name: String,
        /// Roles it has everywhere
        #[arg(long = "role", value_delimiter = ',', value_name = "ROLES")]
        roles: Vec<String>,
        #[command(flatten)]
        server: Server,
    },
    /// List users and what they are granted
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Grant a user a role
    Grant {
        user: String,
        #[command(flatten)]
        grant: RoleAt,
        #[command(flatten)]
        server: Server,
    },
    /// Take a grant away
    Ungrant {
        user: String,
        #[command(flatten)]
        grant: RoleAt,
        #[command(flatten)]
        server: Server,
    },
    /// Let none of a user's tokens work
    Disable {
        user: String,
        #[command(flatten)]
        server: Server,
    },
    /// Let them work again
    Enable {
        user: String,
        #[command(flatten)]
        server: Server,
    },
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Create {
            name,
            service,
            display_name,
            roles,
            server,
        } => {
            let roles: Vec<Value> = roles.iter().map(|role| json!({"role": role})).collect();
            let kind = if service { "service" } else { "person" };
            let body = json!({"name": name, "kind": kind, "display_name": display_name, "grants": roles});
            change(&server, Method::POST, "/users", &body)
        }
        Command::List { server } => block_on(async {
            let mut remote = server.connect()?;
            let users = remote.all("/users").await?;
            let header = ["name", "kind", "grants", "created", "disabled"];
            table::print(remote.json, &users, header, |user| {
                [
                    text(&user["name"]),
                    text(&user["kind"]),
                    grants(user),
                    when(&user["created_at"]),
                    when(&user["disabled_at"]),
                ]
            });
            Ok(())
        }),
        Command::Grant { user, grant, server } => {
            let body = json!({"role": grant.role, "environment": grant.environment, "folder": grant.folder});
            change(
                &server,
                Method::POST,
                &format!("/users/{}/grants", encode(&user)),
                &body,
            )
        }
        Command::Ungrant { user, grant, server } => {
            let parameters = [
                ("role", grant.role.as_str()),
                ("environment", grant.environment.as_str()),
                ("folder", grant.folder.as_str()),
            ];
            let path = with_query(&format!("/users/{}/grants", encode(&user)), &parameters);
            change(&server, Method::DELETE, &path, &json!({}))
        }
        Command::Disable { user, server } => disable(&server, &user, true),
        Command::Enable { user, server } => disable(&server, &user, false),
    }
}

fn disable(server: &Server, user: &str, disabled: bool) -> anyhow::Result<()> {
    let path = format!("/users/{}", encode(user));
    change(server, Method::PUT, &path, &json!({"disabled": disabled}))
}

/// Makes a change and shows the user afterwards.
fn change(server: &Server, method: Method, path: &str, body: &Value) -> anyhow::Result<()> {
    block_on(async {
        let mut remote = server.connect()?;
        let user = remote.send(method, path, body).await?;
        if remote.json {
            println!("{user}");
        } else {
            say(&user);
        }
        Ok(())
    })
}

fn say(user: &Value) {
    let state = if user["disabled_at"].is_null() {
        String::new()
    } else {
        format!(", disabled since {}", when(&user["disabled_at"]))
    };
    let grants = grants(user);
    let grants = if grants.is_empty() { "nothing" } else { &grants };
    println!("{} ({}{state}): {grants}", text(&user["name"]), text(&user["kind"]));
}

/// Shows grants as `editor, deployer@staging:support`.
fn grants(user: &Value) -> String {
    let grant = |grant: &Value| {
        let limit = |name: &str, mark: &str| match grant[name].as_str() {
            None | Some("*") => String::new(),
            Some(name) => format!("{mark}{name}"),
        };
        format!(
            "{}{}{}",
            text(&grant["role"]),
            limit("environment", "@"),
            limit("folder", ":")
        )
    };
    let grants = user["grants"].as_array().into_iter().flatten();
    grants.map(grant).collect::<Vec<_>>().join(", ")
}

#[derive(Debug, clap::Args)]
pub struct WhoamiArgs {
    #[command(flatten)]
    server: Server,
}

pub fn whoami(args: WhoamiArgs) -> anyhow::Result<()> {
    block_on(async {
        let mut remote = args.server.connect()?;
        let who = remote.get("/whoami").await?;
        if remote.json {
            println!("{who}");
            return Ok(());
        }
        say(&who["user"]);
        let permissions: Vec<String> = who["permissions"].as_array().into_iter().flatten().map(text).collect();
        println!("may, somewhere: {}", permissions.join(", "));
        let end = when(&who["token"]["expires_at"]);
        let end = if end.is_empty() { "never".to_owned() } else { end };
        println!("token {}, ends: {end}", text(&who["token"]["name"]));
        Ok(())
    })
}

#[derive(Debug, clap::Args)]
pub struct TokensArgs {
    #[command(subcommand)]
    command: TokensCommand,
}

#[derive(Debug, Subcommand)]
enum TokensCommand {
    /// Make a token; it is shown once
    Create {
        /// What it is for
        name: String,
        /// Whose it is; one's own by default
        #[arg(long, default_value = "me", hide_default_value = true)]
        user: String,
        /// When it ends: 12h, 90d or a time like 2027-01-31T12:00:00Z [default: never]
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// List tokens, never their secrets
    List {
        #[arg(long, default_value = "me", hide_default_value = true)]
        user: String,
        #[command(flatten)]
        server: Server,
    },
    /// Make a token useless
    Revoke {
        /// Its id: tok_…
        id: String,
        #[arg(long, default_value = "me", hide_default_value = true)]
        user: String,
        #[command(flatten)]
        server: Server,
    },
}

pub fn tokens(args: TokensArgs) -> anyhow::Result<()> {
    let path = |user: &str| format!("/users/{}/tokens", encode(user));
    match args.command {
        TokensCommand::Create {
            name,
            user,
            expires,
            server,
        } => {
            let mut body = json!({"name": name});
            match expires.as_deref().map(seconds) {
                None => {}
                Some(Some(seconds)) => body["expires_in_seconds"] = json!(seconds),
                Some(None) => body["expires_at"] = json!(expires),
            }
            block_on(async {
                let mut remote = server.connect()?;
                let token = remote.send(Method::POST, &path(&user), &body).await?;
                if remote.json {
                    println!("{token}");
                } else {
                    println!(
                        "{} (id {}, of {}; shown once, keep it)",
                        text(&token["secret"]),
                        text(&token["id"]),
                        text(&token["user"])
                    );
                }
                Ok(())
            })
        }
        TokensCommand::List { user, server } => block_on(async {
            let mut remote = server.connect()?;
            let tokens = remote.all(&path(&user)).await?;
            let header = ["id", "name", "created", "last used", "ends", "revoked"];
            table::print(remote.json, &tokens, header, |token| {
                [
                    text(&token["id"]),
                    text(&token["name"]),
                    when(&token["created_at"]),
                    when(&token["last_used_at"]),
                    when(&token["expires_at"]),
                    when(&token["revoked_at"]),
                ]
            });
            Ok(())
        }),
        TokensCommand::Revoke { id, user, server } => block_on(async {
            let mut remote = server.connect()?;
            let path = format!("{}/{}", path(&user), encode(&id));
            let token = remote.send(Method::DELETE, &path, &json!({})).await?;
            if remote.json {
                println!("{token}");
            } else {
                println!("revoked {id} ({})", token["name"].as_str().context("no name")?);
            }
            Ok(())
        }),
    }
}

/// Reads `90s`, `30m`, `12h` or `90d`.
fn seconds(text: &str) -> Option<u32> {
    let unit = text.chars().last()?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    text[..text.len() - 1].parse::<u32>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_a_duration_or_left_to_the_server() {
        assert_eq!(seconds("90d"), Some(7_776_000));
        assert_eq!(seconds("30m"), Some(1_800));
        for time in ["2027-01-31T12:00:00Z", "d", "", "-1d", "99999999d", "5é"] {
            assert_eq!(seconds(time), None, "{time}");
        }
    }

    #[test]
    fn grants_are_short() {
        let user = json!({"grants": [
            {"role": "editor", "environment": "*", "folder": "*"},
            {"role": "deployer", "environment": "staging", "folder": "support"},
        ]});
        assert_eq!(grants(&user), "editor, deployer@staging:support");
    }
}
