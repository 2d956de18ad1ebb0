//! Upstream APIs: where they are, what they speak, which credential opens them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Uri};

use super::Env;
use super::limits::Timeouts;
use super::problem::{shown, shown_url};
use super::reader::Reader;
use super::secret::{self, Secret};

/// One of `[[providers]]`: an upstream API.
#[derive(Clone)]
pub struct Provider {
    /// Unique; a label of metrics and a column of records.
    pub name: String,
    pub kind: ProviderKind,
    /// `http` or `https` with a host, without query or credentials. Its path has no slash at its end, except that
    /// [`Uri`] has `/` for an empty one.
    pub base_url: Uri,
    /// None for an upstream that asks for no key.
    pub api_key: Option<Secret>,
    /// PEM certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Those of `[timeouts]`, with this provider's own in their place.
    pub timeouts: Timeouts,
    /// Sent with every request; names in lower case. The values are not printed: some hold credentials.
    pub headers: BTreeMap<String, String>,
}

/// The API that a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// OpenAI, and all that is compatible with it.
    OpenAi,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&String> = self.headers.keys().collect();
        f.debug_struct("Provider")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("base_url", &self.base_url)
            .field("api_key", &self.api_key)
            .field("ca_file", &self.ca_file)
            .field("timeouts", &self.timeouts)
            .field("headers", &headers)
            .finish()
    }
}

/// What the readings of all providers share.
pub(super) struct Shared<'s> {
    pub env: Env<'s>,
    pub timeouts: Timeouts,
    /// Names so far, also of providers with problems.
    pub names: Vec<String>,
}

impl Provider {
    pub(super) fn read(r: &mut Reader<'_>, shared: &mut Shared<'_>) -> Option<Self> {
        // A word without a value is known, but not in this build yet.
        let kinds = [
            ("openai", Some(ProviderKind::OpenAi)),
            ("azure", None),
            ("anthropic", None),
            ("gemini", None),
            ("bedrock", None),
        ];
        r.needs("name", r#""openai""#);
        r.needs("kind", r#""openai""#);
        r.needs("base_url", r#""https://api.openai.com/v1""#);

        let name = r.parsed("name", "openai", parse_name);
        if let Some(name) = &name {
            r.unique("name", name, &mut shared.names);
        }
        let kind = r.choice("kind", ProviderKind::OpenAi, &kinds);
        let base_url = r.parsed("base_url", "https://api.openai.com/v1", parse_base_url);
        let api_key = secret::read(r, shared.env, &secret::API_KEY);
        let ca_file = r.path("ca_file", "/etc/ssl/private-ca.pem");
        if let Some(Err(error)) = ca_file.as_ref().map(fs::File::open) {
            r.problem("ca_file", format!("this file cannot be read ({error})"));
        }
        let timeouts = r.section("timeouts", |r| shared.timeouts.read_upstream(r));
        let headers = r.section("headers", read_headers);
        Some(Provider {
            name: name?,
            kind,
            base_url: base_url?,
            api_key,
            ca_file,
            timeouts,
            headers,
        })
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
        let text = shown(text);
        return Err(format!(
            "{text} is not a provider name: up to 64 letters, digits, '.', '_' and '-'"
        ));
    }
    Ok(text.to_owned())
}

fn parse_base_url(text: &str) -> Result<Uri, String> {
    const EXAMPLE: &str = r#"write e.g. "https://api.openai.com/v1""#;
    const ENDPOINTS: [&str; 4] = ["/chat/completions", "/responses", "/embeddings", "/completions"];

    let shown = shown_url(text);
    let uri: Uri = text
        .parse()
        .map_err(|_| format!("{shown} is not an address, {EXAMPLE}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(format!("{shown} does not begin with http:// or https://, {EXAMPLE}"));
    }
    let (host, authority) = match (uri.host(), uri.authority()) {
        (Some(host), Some(authority)) if !host.is_empty() => (host, authority.as_str()),
        _ => return Err(format!("{shown} has no host, {EXAMPLE}")),
    };
    if authority.contains('@') {
        return Err(format!(
            "{shown} has a user or password before its host: use api_key_env instead"
        ));
    }
    if authority.len() > host.len() && uri.port_u16().is_none_or(|port| port == 0) {
        return Err(format!("{shown} has no usable port, {EXAMPLE}"));
    }
    if text.contains(['?', '#']) {
        return Err(format!("{shown} has a query or fragment, leave it out"));
    }
    let trimmed = text.trim_end_matches('/');
    if let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| trimmed.ends_with(**endpoint)) {
        return Err(format!("{shown} is the address of an endpoint, leave out {endpoint:?}"));
    }
    trimmed
        .parse()
        .map_err(|_| format!("{shown} is not an address, {EXAMPLE}"))
}

fn read_headers(r: &mut Reader<'_>) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    r.strings(|name, value| {
        let (name, value) = parse_header(name, value)?;
        match headers.insert(name, value) {
            Some(_) => Err("is given twice, differing in upper and lower case only".to_owned()),
            None => Ok(()),
        }
    });
    headers
}

/// Checks an extra header; its value may be a credential and is never printed.
fn parse_header(name: &str, value: &str) -> Result<(String, String), String> {
    const CREDENTIALS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];
    /// Each of them is set, or left out, for the connection to the provider.
    const OWN: [&str; 9] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
    ];
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| r#"is not the name of a header, write e.g. "x-team""#.to_owned())?;
    if CREDENTIALS.contains(&name.as_str()) {
        return Err("credentials are not written here, use api_key_env or api_key_file".to_owned());
    }
    if OWN.contains(&name.as_str()) {
        return Err("is set by the gateway, leave it out".to_owned());
    }
    if HeaderValue::from_str(value).is_err() {
        return Err(
            "this value (not shown) cannot be sent in a header: no line breaks or control characters".to_owned(),
        );
    }
    Ok((name.as_str().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use std::time::Duration;

    use super::*;
    use crate::config::tests::{parse, problems, provider};

    #[test]
    fn base_urls_that_cannot_be_called_are_refused() {
        let refused = [
            "ftp://host/v1",
            "https://",
            "https:///v1",
            "https://user:planted@host/v1",
            "https://host/v1?key=planted",
            "https://host:99999/v1",
            "https://host/v1/chat/completions",
            "https://host/a b",
        ];
        let texts = refused.map(|url| {
            problems(&format!(
                "[[providers]]\nname = \"p\"\nkind = \"openai\"\nbase_url = \"{url}\""
            ))
        });
        assert_snapshot!(texts.join("\n"), @r#"
        config/promptgate.toml:4: providers[0].base_url: "ftp://host/v1" does not begin with http:// or https://, write e.g. "https://api.openai.com/v1"
        config/promptgate.toml:4: providers[0].base_url: "https://" is not an address, write e.g. "https://api.openai.com/v1"
        config/promptgate.toml:4: providers[0].base_url: "https:///v1" is not an address, write e.g. "https://api.openai.com/v1"
        config/promptgate.toml:4: providers[0].base_url: this address (not shown, it may hold credentials) has a user or password before its host: use api_key_env instead
        config/promptgate.toml:4: providers[0].base_url: this address (not shown, it may hold credentials) has a query or fragment, leave it out
        config/promptgate.toml:4: providers[0].base_url: "https://host:99999/v1" has no usable port, write e.g. "https://api.openai.com/v1"
        config/promptgate.toml:4: providers[0].base_url: "https://host/v1/chat/completions" is the address of an endpoint, leave out "/chat/completions"
        config/promptgate.toml:4: providers[0].base_url: "https://host/a b" is not an address, write e.g. "https://api.openai.com/v1"
        "#);
    }

    #[test]
    fn base_url_loses_the_slash_at_its_end() {
        let url = |written: &str| {
            let text = provider("").replace("https://api.openai.com/v1", written);
            parse(&text).unwrap().providers[0].base_url.to_string()
        };
        assert_eq!(url("http://[::1]:9090/v1/"), "http://[::1]:9090/v1");
        assert_eq!(url("http://localhost"), "http://localhost/");
    }

    #[test]
    fn provider_timeouts_stand_over_those_of_all() {
        let text = format!(
            "{}[timeouts]\nconnect = \"1s\"\nidle = \"2s\"\n",
            provider("timeouts = { idle = \"7s\" }")
        );
        let config = parse(&text).unwrap();
        let timeouts = config.providers[0].timeouts;
        assert_eq!(timeouts.connect, Duration::from_secs(1));
        assert_eq!(timeouts.idle, Duration::from_secs(7));
        assert_eq!(timeouts.total, Timeouts::default().total);
        assert_eq!(config.timeouts.idle, Duration::from_secs(2));

        assert_snapshot!(problems(&provider("timeouts = { request_head = \"1s\" }")), @r#"
        config/promptgate.toml:5: providers[0].timeouts.request_head: unknown key, known here: connect, first_byte, idle, total
        "#);
    }

    #[test]
    fn unreadable_ca_file_is_a_problem() {
        assert_snapshot!(problems(&provider("ca_file = \"~/ca.pem\"")), @r#"
        config/promptgate.toml:5: providers[0].ca_file: "~/ca.pem" begins with ~, which is not expanded: write the whole path
        "#);
        assert_snapshot!(problems(&provider("ca_file = \"/nonexistent/ca.pem\"")), @r#"
        config/promptgate.toml:5: providers[0].ca_file: this file cannot be read (No such file or directory (os error 2))
        "#);
    }
}
