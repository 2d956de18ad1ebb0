//! What is recorded of each exchange, and where it goes.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::Env;
use super::problem::{shown, shown_url};
use super::reader::Reader;
use super::secret::{self, Secret};
use super::units::{self, GIB, MIB};

mod redaction;

pub use redaction::Redaction;

pub use crate::domain::exchange::Capture;

const DEFAULT_SQLITE_PATH: &str = "data/telemetry.db";

/// Smallest limit of the SQLite file.
const SQLITE_BYTES_MIN: u64 = 512 * MIB;

const SEAL_AFTER: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(300);

/// `[telemetry]`: what is recorded of each exchange, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    pub sink: Sink,
    pub durability: Durability,
    pub when_full: WhenFull,
    pub capture: Capture,
    pub capture_by_prompt: CaptureByPrompt,
    /// Bytes kept of each captured field; the rest is cut and flagged.
    pub capture_max_field: u64,
    /// Bytes of answers' text that all open streams of the process hold; what comes beyond is cut and flagged.
    pub capture_budget: u64,
    pub redaction: Redaction,
    /// Folder of the segment files, relative to the working directory.
    pub spool_dir: PathBuf,
    /// Bytes of all segment files together.
    pub spool_max_bytes: u64,
    /// Bytes that the spool leaves free on its disk, but not more than a tenth of it.
    pub spool_min_free: u64,
    /// Age at which a segment goes to the sink, however small.
    pub seal_after: Duration,
    /// Requests without a valid key that are recorded one by one; those beyond are counted in one row a second.
    pub refusals_per_second: u32,
}

/// Where exchange records end up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// A file of this process, relative to the working directory.
    Sqlite(Sqlite),
    /// A ClickHouse server, over HTTP.
    ClickHouse(ClickHouse),
    /// Nowhere: exchanges are counted, not kept.
    None,
}

/// `sqlite_path` and `[telemetry.sqlite]`: the file records go to, and how long it keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sqlite {
    pub path: PathBuf,
    /// Days that records are kept; 0 for ever.
    pub keep_days: u32,
    /// Bytes the file may have; 0 for no limit.
    pub max_bytes: u64,
}

/// `[telemetry.clickhouse]`: the server records go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClickHouse {
    /// At least one; each `http` or `https` with a host, and no path, query or credentials. They lead to the same tables.
    pub urls: Vec<String>,
    /// The cluster whose servers they are: tables are replicated and distributed over it.
    pub cluster: Option<String>,
    /// Made if it is not there. Letters, digits and `_`.
    pub database: String,
    pub user: String,
    /// None for a user without one.
    pub password: Option<Secret>,
    /// Days that exchanges and feedback are kept; 0 for ever.
    pub ttl_days: u32,
}

/// What a finished exchange survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The end of this process, also by `kill -9`; not the loss of power.
    Process,
    /// The loss of power too: it is synced to the disk before its answer ends.
    Disk,
    /// Nothing: it is written a few milliseconds after its answer.
    Relaxed,
}

impl Durability {
    /// Whether what a sink has stored is to survive the loss of power as well.
    pub fn is_on_disk(self) -> bool {
        self == Self::Disk
    }
}

/// What happens to a record when the spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped, counted and alarmed; requests go on.
    Drop,
    /// There is none: requests that might leave one are refused with 503 before anything is forwarded.
    Reject,
}

/// How far a version's own `capture` goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureByPrompt {
    /// It may ask for less than the configuration: where that is `metadata`, no version brings content to the disk.
    Narrow,
    /// It counts in place of the configuration's.
    Any,
}

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry {
            sink: Sink::Sqlite(Sqlite::default()),
            durability: Durability::Process,
            when_full: WhenFull::Drop,
            capture: Capture::Full,
            capture_by_prompt: CaptureByPrompt::Narrow,
            capture_max_field: MIB,
            capture_budget: 256 * MIB,
            redaction: Redaction::default(),
            spool_dir: PathBuf::from("data/spool"),
            spool_max_bytes: 16 * GIB,
            spool_min_free: GIB,
            seal_after: Duration::from_secs(1),
            refusals_per_second: 100,
        }
    }
}

impl Default for Sqlite {
    fn default() -> Self {
        Sqlite {
            path: PathBuf::from(DEFAULT_SQLITE_PATH),
            keep_days: 0,
            max_bytes: 0,
        }
    }
}

impl Default for ClickHouse {
    fn default() -> Self {
        ClickHouse {
            urls: vec!["http://127.0.0.1:8123".to_owned()],
            cluster: None,
            database: "promptgate".to_owned(),
            user: "default".to_owned(),
            password: None,
            ttl_days: 0,
        }
    }
}

impl Telemetry {
    pub(super) fn read(r: &mut Reader<'_>, env: Env<'_>) -> Self {
        /// The words of `sink`; its settings are keys of their own.
        #[derive(Clone, Copy)]
        enum Word {
            Sqlite,
            ClickHouse,
            None,
        }
        // A word without a value is known, but not in this build yet.
        let sinks = [
            ("sqlite", Some(Word::Sqlite)),
            ("clickhouse", Some(Word::ClickHouse)),
            ("none", Some(Word::None)),
        ];
        let durabilities = [
            ("process", Some(Durability::Process)),
            ("disk", Some(Durability::Disk)),
            ("relaxed", Some(Durability::Relaxed)),
        ];
        let fates = [("drop", Some(WhenFull::Drop)), ("reject", Some(WhenFull::Reject))];
        let captures = [("full", Some(Capture::Full)), ("metadata", Some(Capture::Metadata))];
        let reaches = [
            ("narrow", Some(CaptureByPrompt::Narrow)),
            ("any", Some(CaptureByPrompt::Any)),
        ];

        let default = Telemetry::default();
        let word = r.choice("sink", Word::Sqlite, &sinks);
        let sqlite_path = r.path("sqlite_path", DEFAULT_SQLITE_PATH);
        let kept = r.section("sqlite", Sqlite::read);
        let clickhouse = r.section("clickhouse", |r| ClickHouse::read(r, env));
        Telemetry {
            sink: match word {
                Word::Sqlite => Sink::Sqlite(match sqlite_path {
                    Some(path) => Sqlite { path, ..kept },
                    None => kept,
                }),
                Word::ClickHouse => Sink::ClickHouse(clickhouse),
                Word::None => Sink::None,
            },
            durability: r.choice("durability", default.durability, &durabilities),
            when_full: r.choice("when_full", default.when_full, &fates),
            capture: r.choice("capture", default.capture, &captures),
            capture_by_prompt: r.choice("capture_by_prompt", default.capture_by_prompt, &reaches),
            capture_max_field: r.size("capture_max_field", default.capture_max_field, 256..=64 * MIB),
            capture_budget: r.size("capture_budget", default.capture_budget, 0..=1024 * GIB),
            redaction: r.section("redaction", Redaction::read),
            spool_dir: r.path("spool_dir", "data/spool").unwrap_or(default.spool_dir),
            spool_max_bytes: r.size("spool_max_bytes", default.spool_max_bytes, MIB..=1024 * 1024 * GIB),
            spool_min_free: r.size("spool_min_free", default.spool_min_free, 0..=1024 * 1024 * GIB),
            seal_after: r.duration("seal_after", default.seal_after, SEAL_AFTER),
            refusals_per_second: r.integer("refusals_per_second", default.refusals_per_second, 0..=1_000_000),
        }
    }
}

impl Sqlite {
    /// All but the path, whose key is `sqlite_path`.
    fn read(r: &mut Reader<'_>) -> Self {
        let default = Sqlite::default();
        Sqlite {
            keep_days: r.integer("keep_days", default.keep_days, 0..=36_500),
            max_bytes: r
                .parsed("max_bytes", "10GiB", parse_max_bytes)
                .unwrap_or(default.max_bytes),
            path: default.path,
        }
    }
}

impl ClickHouse {
    fn read(r: &mut Reader<'_>, env: Env<'_>) -> Self {
        let default = ClickHouse::default();
        let url = r.parsed("url", &default.urls[0], parse_url).map(|url| vec![url]);
        let urls = r.texts("urls", &default.urls[0], parse_url);
        if r.given("url") && r.given("urls") {
            r.problem("urls", "is given beside url, write all addresses here and remove url");
        }
        let database = r.parsed("database", &default.database, parse_database);
        let user = r.parsed("user", &default.user, parse_user);
        ClickHouse {
            urls: urls.or(url).unwrap_or(default.urls),
            cluster: r.parsed("cluster", "main", parse_cluster),
            database: database.unwrap_or(default.database),
            user: user.unwrap_or(default.user),
            password: secret::read(r, env, &secret::CLICKHOUSE_PASSWORD),
            ttl_days: r.integer("ttl_days", default.ttl_days, 0..=36_500),
        }
    }
}

/// A file's limit leaves room for the batches between two looks at its size.
fn parse_max_bytes(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    match units::parse_size(text)? {
        0 => Ok(0),
        bytes if bytes >= SQLITE_BYTES_MIN => Ok(bytes),
        _ => Err(format!(
            "{} is too small, write at least {:?}, or \"0\" for no limit",
            shown(text),
            units::show_size(&SQLITE_BYTES_MIN)
        )),
    }
}

fn parse_url(text: &str) -> Result<String, String> {
    const EXAMPLE: &str = r#"write e.g. "http://127.0.0.1:8123""#;

    let shown = shown_url(text);
    let uri: Uri = text
        .parse()
        .map_err(|_| format!("{shown} is not an address, {EXAMPLE}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(format!(
            "{shown} does not begin with http:// or https:// and a host, {EXAMPLE}"
        ));
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(format!(
            "{shown} has a user or password before its host: use user and password_env"
        ));
    }
    if !matches!(uri.path(), "" | "/") || text.contains(['?', '#']) {
        return Err(format!("{shown} has more than a host and port, {EXAMPLE}"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Only names that need no quotes, wherever they are written.
fn parse_database(text: &str) -> Result<String, String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let digit_first = text.starts_with(|c: char| c.is_ascii_digit());
    if text.is_empty() || text.len() > 64 || digit_first || !text.chars().all(word) {
        let text = shown(text);
        return Err(format!(
            "{text} is not a database name: up to 64 letters, digits and '_', no digit first"
        ));
    }
    Ok(text.to_owned())
}

/// A name, or a macro such as `{cluster}`.
fn parse_cluster(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.{}".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(fits) {
        return Err(format!(
            "{} is not a cluster name: up to 64 letters, digits, '_', '-' and '.', or a macro such as {{cluster}}",
            shown(text)
        ));
    }
    Ok(text.to_owned())
}

fn parse_user(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("{} is not a user name: visible ASCII, no spaces", shown(text)));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::config::tests::{PLANTED, parse, problems};

    #[test]
    fn clickhouse_table_is_the_sink_when_chosen() {
        let config = parse("[telemetry]\nsink = \"clickhouse\"").unwrap();
        assert_eq!(config.telemetry.sink, Sink::ClickHouse(ClickHouse::default()));

        let text = r#"
            [telemetry]
            sink = "clickhouse"
            [telemetry.clickhouse]
            url = "https://ch.example:8443/"
            database = "records"
            user = "writer"
            password_env = "OPENAI_API_KEY"
            ttl_days = 90
        "#;
        let config = parse(text).unwrap();
        let wanted = ClickHouse {
            urls: vec!["https://ch.example:8443".to_owned()],
            cluster: None,
            database: "records".to_owned(),
            user: "writer".to_owned(),
            password: Some(Secret::new(PLANTED)),
            ttl_days: 90,
        };
        assert!(!format!("{config:?}").contains(PLANTED));
        assert_eq!(config.telemetry.sink, Sink::ClickHouse(wanted));
        assert!(parse(&text.replace("\"clickhouse\"", "\"none\"")).is_ok());

        let several = text.replace(
            "url = \"https://ch.example:8443/\"",
            "urls = [\"http://a:1/\", \"http://b\"]\ncluster = \"{cluster}\"",
        );
        let Sink::ClickHouse(several) = parse(&several).unwrap().telemetry.sink else {
            panic!("not clickhouse");
        };
        assert_eq!(several.urls, ["http://a:1", "http://b"]);
        assert_eq!(several.cluster.as_deref(), Some("{cluster}"));
    }

    #[test]
    fn sqlite_file_is_kept_as_long_as_configured() {
        let sqlite = |text: &str| match parse(text).unwrap().telemetry.sink {
            Sink::Sqlite(sqlite) => sqlite,
            other => panic!("{other:?}"),
        };
        assert_eq!(sqlite(""), Sqlite::default());
        let text = "[telemetry]\nsqlite_path = \"t.db\"\n[telemetry.sqlite]\nkeep_days = 30\nmax_bytes = \"10GiB\"";
        let wanted = Sqlite {
            path: PathBuf::from("t.db"),
            keep_days: 30,
            max_bytes: 10 * GIB,
        };
        assert_eq!(sqlite(text), wanted);
        assert_eq!(sqlite("[telemetry.sqlite]\nmax_bytes = \"0\""), Sqlite::default());
        let lines = ["max_bytes = \"1MiB\"", "max_bytes = 5", "keep_days = -1"];
        let texts = lines.map(|line| problems(&format!("[telemetry.sqlite]\n{line}")));
        assert_snapshot!(texts.join("\n"), @r#"
        config/promptgate.toml:2: telemetry.sqlite.max_bytes: "1MiB" is too small, write at least "512MiB", or "0" for no limit
        config/promptgate.toml:2: telemetry.sqlite.max_bytes: is an integer, write a string such as "10GiB"
        config/promptgate.toml:2: telemetry.sqlite.keep_days: -1 is out of range, write a number from 0 to 36500
        "#);
    }

    #[test]
    fn clickhouse_mistakes_are_named_and_secrets_are_not() {
        let lines = [
            "url = \"127.0.0.1:8123\"",
            "url = \"http://u:planted@ch:8123\"",
            "url = \"http://ch:8123/?database=x\"",
            "url = \"tcp://ch:9000\"",
            "database = \"a-b\"",
            "database = \"1a\"",
            "user = \"\"",
            "password = \"planted\"",
            "password_env = \"NOT_SET\"",
            "ttl_days = -1",
            "urls = []",
            "urls = [\"http://a\", \"b\"]",
            "urls = \"http://a\"",
            "url = \"http://a\"\nurls = [\"http://b\"]",
            "cluster = \"a'b\"",
        ];
        let texts = lines.map(|line| problems(&format!("[telemetry.clickhouse]\n{line}")));
        assert!(!texts.join("").contains("planted"));
        assert_snapshot!(texts.join("\n"), @r#"
        config/promptgate.toml:2: telemetry.clickhouse.url: "127.0.0.1:8123" does not begin with http:// or https:// and a host, write e.g. "http://127.0.0.1:8123"
        config/promptgate.toml:2: telemetry.clickhouse.url: this address (not shown, it may hold credentials) has a user or password before its host: use user and password_env
        config/promptgate.toml:2: telemetry.clickhouse.url: this address (not shown, it may hold credentials) has more than a host and port, write e.g. "http://127.0.0.1:8123"
        config/promptgate.toml:2: telemetry.clickhouse.url: "tcp://ch:9000" does not begin with http:// or https:// and a host, write e.g. "http://127.0.0.1:8123"
        config/promptgate.toml:2: telemetry.clickhouse.database: "a-b" is not a database name: up to 64 letters, digits and '_', no digit first
        config/promptgate.toml:2: telemetry.clickhouse.database: "1a" is not a database name: up to 64 letters, digits and '_', no digit first
        config/promptgate.toml:2: telemetry.clickhouse.user: "" is not a user name: visible ASCII, no spaces
        config/promptgate.toml:2: telemetry.clickhouse.password: unknown key: secrets are not written in this file, use password_env or password_file
        config/promptgate.toml:2: telemetry.clickhouse.password_env: environment variable "NOT_SET" is not set or empty, set it or use password_file
        config/promptgate.toml:2: telemetry.clickhouse.ttl_days: -1 is out of range, write a number from 0 to 36500
        config/promptgate.toml:2: telemetry.clickhouse.urls: is a list, write a list of at least one string such as ["http://127.0.0.1:8123"]
        config/promptgate.toml:2: telemetry.clickhouse.urls: "b" does not begin with http:// or https:// and a host, write e.g. "http://127.0.0.1:8123"
        config/promptgate.toml:2: telemetry.clickhouse.urls: is a string, write a list of at least one string such as ["http://127.0.0.1:8123"]
        config/promptgate.toml:3: telemetry.clickhouse.urls: is given beside url, write all addresses here and remove url
        config/promptgate.toml:2: telemetry.clickhouse.cluster: "a'b" is not a cluster name: up to 64 letters, digits, '_', '-' and '.', or a macro such as {cluster}
        "#);
    }
}
