//! Commands that talk to a running promptgate's control plane.

mod diff;
pub(super) mod table;

pub mod audit;
pub mod changes;
pub mod deploy;
mod drafts;
pub mod environments;
pub mod erase;
pub mod exchanges;
mod files;
pub mod import;
pub mod keys;
mod library;
pub mod moves;
pub mod nodes;
mod preflight;
pub mod prompt;
pub mod shift;
pub mod stats;
pub mod users;
pub mod webhooks;

use anyhow::{Context, bail};
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::Client;

/// Where the control plane is, and who asks.
#[derive(Debug, clap::Args)]
pub struct Server {
    /// Control plane
    #[arg(
        long,
        env = "PROMPTGATE_URL",
        default_value = "http://127.0.0.1:8081",
        value_name = "URL"
    )]
    server: String,
    /// File with the API token; otherwise the variable PROMPTGATE_TOKEN or PROMPTGATE_ADMIN_TOKEN is read
    #[arg(long, value_name = "FILE")]
    token_file: Option<std::path::PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A connection to the control plane.
pub struct Remote {
    client: Client,
    pub json: bool,
}

impl Server {
    /// # Errors
    /// When there is no token, or the URL is not one this command speaks.
    pub fn connect(&self) -> anyhow::Result<Remote> {
        let Some(authority) = self.server.trim_end_matches('/').strip_prefix("http://") else {
            bail!("{:?} is not of the form http://host:port (--server)", self.server);
        };
        let authority = if authority.contains(':') {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        let token = match &self.token_file {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the token from {}", path.display()))?
                .trim()
                .to_owned(),
            None => super::environment("PROMPTGATE_TOKEN")
                .or_else(|| super::environment("PROMPTGATE_ADMIN_TOKEN"))
                .context("no token: set PROMPTGATE_TOKEN, or give --token-file")?,
        };
        Ok(Remote {
            client: Client::new(authority, token),
            json: self.json,
        })
    }
}

impl Remote {
    /// Reads `/api/v1` + `path`.
    ///
    /// # Errors
    /// The server's message.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        self.client
            .json(Method::GET, &format!("/api/v1{path}"), &Value::Null)
            .await
    }

    /// Sends `body` to `/api/v1` + `path`.
    ///
    /// # Errors
    /// The server's message.
    pub async fn send(&mut self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.client.json(method, &format!("/api/v1{path}"), body).await
    }

    /// Sends `body` with one header more, and returns the answer's text.
    ///
    /// # Errors
    /// The server's message.
    pub async fn with(
        &mut self,
        method: Method,
        path: &str,
        header: (&str, &str),
        body: &Value,
    ) -> anyhow::Result<String> {
        let path = format!("/api/v1{path}");
        let answer = self.client.checked(method, &path, &[header], body).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Says what was done: the answer as JSON, or a sentence.
    pub fn done(&self, answer: &Value, say: impl FnOnce() -> String) {
        println!("{}", if self.json { answer.to_string() } else { say() });
    }

    /// Reads all pages of a list.
    ///
    /// # Errors
    /// The server's message.
    pub async fn all(&mut self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let mut page = self.get(&with_query(path, &[("cursor", cursor.as_str())])).await?;
            if let Value::Array(more) = page["items"].take() {
                items.extend(more);
            }
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => return Ok(items),
            }
        }
    }
}

/// Runs a command's work.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Adds the parameters that are not empty.
fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    given.fold(path.to_owned(), |path, (name, value)| {
        let separator = if path.contains('?') { '&' } else { '?' };
        format!("{path}{separator}{name}={}", encode(value))
    })
}

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes a text as one segment of a path or one value of a query.
fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// Returns a field as text: a string without its quotes, nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Returns a time to the second.
fn when(value: &Value) -> String {
    let text = text(value);
    text.split_once('.')
        .map_or_else(|| text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// Shows a split as `control=1:80, b=2:20`.
fn split(value: &Value) -> String {
    let arms = value.as_array().into_iter().flatten();
    let arms: Vec<String> = arms
        .map(|arm| {
            format!(
                "{}={}:{}",
                text(&arm["variant"]),
                arm["version"],
                arm["weight"].as_f64().unwrap_or_default()
            )
        })
        .collect();
    arms.join(", ")
}
