//! Where the registry is.

use super::problem::shown_url;
use super::reader::Reader;

/// `[registry]`: where prompts, versions, deployments and keys are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// `sqlite:` and a path, relative to the working directory.
    pub url: String,
}

impl Default for Registry {
    fn default() -> Self {
        let url = "sqlite:data/registry.db".to_owned();
        Registry { url }
    }
}

impl Registry {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let default = Registry::default();
        let url = r.parsed("url", &default.url, parse_registry_url);
        Registry {
            url: url.unwrap_or(default.url),
        }
    }
}

fn parse_registry_url(text: &str) -> Result<String, String> {
    const EXAMPLE: &str = r#"write e.g. "sqlite:data/registry.db""#;
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        return Err(format!("PostgreSQL is not supported by this build, {EXAMPLE}"));
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

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use crate::config::tests::problems;

    #[test]
    fn registries_other_than_a_sqlite_file_are_refused() {
        let refused = [
            "postgres://u:planted@db/promptgate",
            "sqlite::memory:",
            "sqlite:",
            "mysql://u:planted@db",
        ];
        let texts = refused.map(|url| problems(&format!("[registry]\nurl = \"{url}\"")));
        assert_snapshot!(texts.join("\n"), @r#"
        config/promptgate.toml:2: registry.url: PostgreSQL is not supported by this build, write e.g. "sqlite:data/registry.db"
        config/promptgate.toml:2: registry.url: "sqlite::memory:" would forget every prompt at a restart, write e.g. "sqlite:data/registry.db"
        config/promptgate.toml:2: registry.url: "sqlite:" names no file, write e.g. "sqlite:data/registry.db"
        config/promptgate.toml:2: registry.url: this address (not shown, it may hold credentials) is not a registry address, write e.g. "sqlite:data/registry.db"
        "#);
    }
}
