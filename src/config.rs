//! The configuration: one TOML file to a validated [`Config`].
//!
//! Every key is optional and has its default beside its range ([`Server`], [`Telemetry`] and so on). Reading never
//! stops at the first mistake: a [`ConfigError`] lists all of them, each with its line, key and correction. A key that
//! nobody asked for is a mistake as well, so a typing error never silently means the default.
//!
//! - **Secrets** are named by `*_env` or `*_file`, resolved once at load, and print as `***`; no message shows one.
//! - **Relative paths** stay relative to the working directory, not to the file they are written in.
//! - Nothing here opens a socket or a database: that the file is right does not mean that its addresses answer.
//!
//! `config/promptgate.toml` at the repository's root shows every key with its default; a test holds it to that.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

mod limits;
mod models;
mod prices;
mod problem;
mod providers;
mod reader;
mod registry;
mod secret;
mod server;
mod telemetry;
mod units;
mod webhooks;

#[cfg(test)]
mod tests;

pub use limits::{Limits, Timeouts};
pub use models::{Model, Price, Target};
pub use prices::parse_day;
pub use problem::{ConfigError, Problem};
pub use providers::{Provider, ProviderKind};
pub use registry::Registry;
pub use secret::Secret;
pub use server::{Auth, Server};
pub use telemetry::{Capture, CaptureByPrompt, ClickHouse, Durability, Redaction, Sink, Sqlite, Telemetry, WhenFull};
pub use webhooks::Webhooks;

/// Where environment variables come from: the process, or a test's list.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Read when no file is named, if it exists.
pub const DEFAULT_FILE: &str = "config/promptgate.toml";

/// All that the file says, with defaults filled in, references resolved and cross-checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: Server,
    pub registry: Registry,
    pub telemetry: Telemetry,
    pub webhooks: Webhooks,
    pub limits: Limits,
    /// Defaults of every provider; [`Provider::timeouts`] are the effective ones.
    pub timeouts: Timeouts,
    pub providers: Vec<Provider>,
    /// In the order of the file; a name stands for itself before any pattern does.
    pub models: Vec<Model>,
    /// A price table in place of the built-in one ([`crate::domain::price::PriceTable`]).
    pub prices_file: Option<PathBuf>,
    /// First 16 hexadecimal digits of the text's SHA-256; `default` where there was no text.
    pub hash: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            server: Server::default(),
            registry: Registry::default(),
            telemetry: Telemetry::default(),
            webhooks: Webhooks::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            providers: Vec::new(),
            models: Vec::new(),
            prices_file: None,
            hash: "default".to_owned(),
        }
    }
}

impl Config {
    /// Reads the named file, or [`DEFAULT_FILE`], or nothing: then every default holds.
    ///
    /// # Errors
    /// That the file cannot be read (a named one must exist), or every problem of its text.
    pub fn load(path: Option<&Path>, env: Env<'_>) -> Result<Self, ConfigError> {
        match path {
            Some(path) => Config::read_file(path, env),
            None => Config::read_file_if_any(Path::new(DEFAULT_FILE), env),
        }
    }

    fn read_file(path: &Path, env: Env<'_>) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError::whole_file(&file, format!("cannot be read: {error}")))?;
        Config::parse(&text, &file, env)
    }

    fn read_file_if_any(path: &Path, env: Env<'_>) -> Result<Self, ConfigError> {
        if path.try_exists().is_ok_and(|exists| !exists) {
            let hash = Config::default().hash;
            return Ok(Config {
                hash,
                ..Config::parse("", "", env)?
            });
        }
        Config::read_file(path, env)
    }

    /// Reads a text; `file` is what its problems call it.
    ///
    /// # Errors
    /// Every problem of the text.
    pub fn parse(text: &str, file: &str, env: Env<'_>) -> Result<Self, ConfigError> {
        let config = reader::read(file, text, |r| Config::read(r, env))?;
        Ok(Config {
            hash: hash(text),
            ..config
        })
    }

    fn read(r: &mut reader::Reader<'_>, env: Env<'_>) -> Self {
        let server = r.section("server", |r| Server::read(r, env));
        let registry = r.section("registry", |r| Registry::read(r, env));
        let telemetry = r.section("telemetry", |r| Telemetry::read(r, env));
        let webhooks = r.section("webhooks", Webhooks::read);
        let limits = r.section("limits", Limits::read);
        let timeouts = r.section("timeouts", Timeouts::read);
        let names = Vec::new();
        let mut shared = providers::Shared { env, timeouts, names };
        let providers = r.list("providers", |r| Provider::read(r, &mut shared));
        let mut names = Vec::new();
        let models = r.list("models", |r| Model::read(r, &shared.names, &mut names));
        Config {
            server,
            registry,
            telemetry,
            webhooks,
            limits,
            timeouts,
            providers,
            models,
            prices_file: r.path("prices_file", "config/prices.toml"),
            hash: String::new(),
        }
    }
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes any text");
        hex
    })
}
