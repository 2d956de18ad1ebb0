//! Where the registry is, and how this process follows it.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Env;
use super::problem::{shown, shown_url, write_one_of};
use super::reader::Reader;
use super::secret::{self, Secret};

/// `[registry]`: where prompts, versions, deployments and keys are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// `sqlite:` and a path, relative to the working directory; or `postgres://user@host:port/database`, without a password.
    pub url: String,
    pub password: Option<Secret>,
    /// How often PostgreSQL is asked for changes that no notification told of.
    pub poll: Duration,
    /// Keeps what is served, to start from while PostgreSQL is away.
    pub snapshot_path: PathBuf,
    /// How long ago PostgreSQL must have confirmed that file for a start from it; zero never starts from it.
    pub snapshot_max_age: Duration,
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            url: "sqlite:data/registry.db".to_owned(),
            password: None,
            poll: Duration::from_secs(1),
            snapshot_path: PathBuf::from("data/registry-snapshot"),
            snapshot_max_age: Duration::from_secs(24 * 3600),
        }
    }
}

impl Registry {
    pub(super) fn read(r: &mut Reader<'_>, env: Env<'_>) -> Self {
        let default = Registry::default();
        let url = r.parsed("url", &default.url, parse_registry_url);
        let path = r.path("snapshot_path", "data/registry-snapshot");
        let longest = Duration::from_secs(30 * 24 * 3600);
        let registry = Registry {
            url: url.unwrap_or(default.url),
            password: secret::read(r, env, &secret::REGISTRY_PASSWORD),
            poll: r.duration(
                "poll",
                default.poll,
                Duration::from_millis(50)..=Duration::from_secs(300),
            ),
            snapshot_path: path.unwrap_or(default.snapshot_path),
            snapshot_max_age: r.duration("snapshot_max_age", default.snapshot_max_age, Duration::ZERO..=longest),
        };
        if registry.password.is_some() && !registry.is_postgres() {
            r.problem(
                "url",
                "is a file, which has no password: remove password_env or password_file",
            );
        }
        registry
    }

    /// Says whether other processes may serve the same registry.
    pub fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }

    /// Returns the address to connect to, with the password in it.
    pub fn connect_url(&self) -> Secret {
        let Some(password) = &self.password else {
            return Secret::new(&*self.url);
        };
        let mark = if self.url.contains('?') { '&' } else { '?' };
        let password = utf8_percent_encode(password.expose(), NON_ALPHANUMERIC);
        Secret::new(format!("{}{mark}password={password}", self.url))
    }
}

const EXAMPLE: &str = r#"write e.g. "sqlite:data/registry.db" or "postgres://promptgate@db.internal/promptgate""#;

/// What may follow the `?` of PostgreSQL's address: what libpq calls these settings.
const PARAMETERS: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "port",
    "user",
    "dbname",
    "application_name",
    "statement-cache-capacity",
    "options",
];

const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

fn parse_registry_url(text: &str) -> Result<String, String> {
    let postgres = ["postgres:", "postgresql:"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    if postgres {
        return parse_postgres_url(text);
    }
    let Some(path) = text.strip_prefix("sqlite:") else {
        return Err(format!("{} is not a registry address, {EXAMPLE}", shown_url(text)));
    };
    if path.contains(":memory:") || path.contains("mode=memory") {
        return Err(format!("{text:?} would forget every prompt at a restart, {EXAMPLE}"));
    }
    if path.trim_start_matches('/').is_empty() {
        return Err(format!("{text:?} names no file, {EXAMPLE}"));
    }
    Ok(text.to_owned())
}

fn parse_postgres_url(text: &str) -> Result<String, String> {
    let (address, parameters) = text.split_once('?').unwrap_or((text, ""));
    let rest = address.split_once("://").map(|(_, rest)| rest);
    let Some((authority, database)) = rest.and_then(|rest| rest.split_once('/')) else {
        return Err(format!(
            "this PostgreSQL address (not shown) names no database, {EXAMPLE}"
        ));
    };
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    if user.contains(':') {
        return Err("has a password in it (not shown): take it out and use password_env or password_file".to_owned());
    }
    let strange = |c: char| c.is_whitespace() || c.is_control();
    if text.contains(strange) || authority.contains('#') {
        return Err(format!("this PostgreSQL address (not shown) cannot be read, {EXAMPLE}"));
    }
    let mut named = !database.trim_matches('/').is_empty();
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name {
            "password" => {
                return Err(
                    "has a password in it (not shown): take it out and use password_env or password_file".to_owned(),
                );
            }
            "sslmode" if !SSL_MODES.contains(&value) => {
                return Err(format!("its sslmode is not a known one, {}", write_one_of(SSL_MODES)));
            }
            "dbname" => named = true,
            _ if PARAMETERS.contains(&name) || (name.starts_with("options[") && name.ends_with(']')) => {}
            _ => {
                return Err(format!(
                    "{} is not a setting of a PostgreSQL address, {}",
                    shown(name),
                    write_one_of(PARAMETERS)
                ));
            }
        }
    }
    if !named {
        return Err(format!(
            "this PostgreSQL address (not shown) names no database, {EXAMPLE}"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use crate::config::tests::{PLANTED, parse, problems};

    #[test]
    fn registries_other_than_a_file_or_postgres_are_refused() {
        let refused = [
            "postgres://u:planted@db/promptgate",
            "postgres://u@db/promptgate?password=planted",
            "postgres://u@db",
            "postgresql://u@db/?sslmode=require",
            "postgres://u@db/x?sslmode=yes",
            "postgres://u@db/x?sslmod=require",
            "sqlite::memory:",
            "sqlite:",
            "mysql://u:planted@db",
        ];
        let texts = refused.map(|url| problems(&format!("[registry]\nurl = \"{url}\"")));
        assert_snapshot!(texts.join("\n"), @r#"
        config/promptgate.toml:2: registry.url: has a password in it (not shown): take it out and use password_env or password_file
        config/promptgate.toml:2: registry.url: has a password in it (not shown): take it out and use password_env or password_file
        config/promptgate.toml:2: registry.url: this PostgreSQL address (not shown) names no database, write e.g. "sqlite:data/registry.db" or "postgres://promptgate@db.internal/promptgate"
        config/promptgate.toml:2: registry.url: this PostgreSQL address (not shown) names no database, write e.g. "sqlite:data/registry.db" or "postgres://promptgate@db.internal/promptgate"
        config/promptgate.toml:2: registry.url: its sslmode is not a known one, write one of "disable", "allow", "prefer", "require", "verify-ca", "verify-full"
        config/promptgate.toml:2: registry.url: "sslmod" is not a setting of a PostgreSQL address, write one of "sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "user", "dbname", "application_name", "statement-cache-capacity", "options"
        config/promptgate.toml:2: registry.url: "sqlite::memory:" would forget every prompt at a restart, write e.g. "sqlite:data/registry.db" or "postgres://promptgate@db.internal/promptgate"
        config/promptgate.toml:2: registry.url: "sqlite:" names no file, write e.g. "sqlite:data/registry.db" or "postgres://promptgate@db.internal/promptgate"
        config/promptgate.toml:2: registry.url: this address (not shown, it may hold credentials) is not a registry address, write e.g. "sqlite:data/registry.db" or "postgres://promptgate@db.internal/promptgate"
        "#);
    }

    #[test]
    fn password_of_postgres_goes_into_the_address_and_nowhere_else() {
        let text = "[registry]\nurl = \"postgres://pg@db.internal:6432/prompts?sslmode=verify-full\"\npassword_env = \"OPENAI_API_KEY\"";
        let config = parse(text).unwrap();
        assert!(
            config
                .registry
                .connect_url()
                .expose()
                .ends_with("&password=sk%2Dplanted%2Dsecret"),
            "{}",
            config.registry.connect_url().expose()
        );
        assert!(!format!("{config:?}").contains(PLANTED));
        let without = parse("[registry]\nurl = \"postgres:///prompts?host=/run/postgresql\"")
            .unwrap()
            .registry;
        assert!(without.is_postgres());
        assert_eq!(
            without.connect_url().expose(),
            "postgres:///prompts?host=/run/postgresql"
        );
        let file = problems("[registry]\npassword_env = \"OPENAI_API_KEY\"");
        assert!(file.contains("is a file, which has no password"), "{file}");
    }
}
