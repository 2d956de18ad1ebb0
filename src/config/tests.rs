use insta::assert_snapshot;

use super::*;

const EXAMPLE: &str = include_str!("../../config/promptgate.toml");

pub(super) const PLANTED: &str = "sk-planted-secret";

pub(super) fn no_env(_: &str) -> Option<String> {
    None
}

fn planted_env(name: &str) -> Option<String> {
    (name == "OPENAI_API_KEY").then(|| format!("{PLANTED}\n"))
}

pub(super) fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "config/promptgate.toml", &planted_env)
}

pub(super) fn problems(text: &str) -> String {
    parse(text).expect_err("the text has problems").to_string()
}

/// A provider named `openai`, with further lines.
pub(super) fn provider(lines: &str) -> String {
    format!("[[providers]]\nname = \"openai\"\nkind = \"openai\"\nbase_url = \"https://api.openai.com/v1\"\n{lines}\n")
}

fn keep_defaults(config: &Config) {
    let default = Config::default();
    let (node, workers) = (config.server.node.clone(), config.server.workers);
    assert_eq!(
        config.server,
        Server {
            node,
            workers,
            ..default.server
        }
    );
    assert_eq!(config.registry, default.registry);
    assert_eq!(config.telemetry, default.telemetry);
    assert_eq!(config.limits, default.limits);
    assert_eq!(config.timeouts, default.timeouts);
}

#[test]
fn empty_text_is_every_default() {
    let config = parse("").unwrap();
    keep_defaults(&config);
    assert!(config.providers.is_empty() && config.models.is_empty());
    assert_eq!(config.hash, "e3b0c44298fc1c14");
}

#[test]
fn many_mistakes_are_reported_at_once() {
    let text = r#"
listen = "127.0.0.1:9000"
[server]
listen = "127.0.0.1:80800"
admin_listn = "127.0.0.1:8081"
auth = "of"
workers = 0
drain = 30
[telemetry]
sink = "clickhose"
capture_max_field = "1 megabyte"
seal_after = "1h"
[telemetry.clickhouse]
url = "127.0.0.1:8123"
[[providers]]
name = "openai"
kind = "anthropic"
base_url = "api.openai.com/v1"
api_key_env = "NOT_SET"
[[providers]]
name = "openai"
kind = "openai"
[[models]]
name = "gpt-*-mini"
targets = [
  { provider = "opnai", weight = 100 },
  { provider = "elsewhere", weight = 1.5 },
]
[[models]]
name = "none"
targets = []
[[models]]
name = "none"
"#;
    assert_snapshot!(problems(text), @r#"
    config/promptgate.toml:2: listen: unknown key, known here: server, registry, telemetry, webhooks, limits, timeouts, providers, models, prices_file
    config/promptgate.toml:4: server.listen: "127.0.0.1:80800" is not an address and port, write e.g. "127.0.0.1:8080"
    config/promptgate.toml:5: server.admin_listn: unknown key, did you mean admin_listen?
    config/promptgate.toml:6: server.auth: "of" is not a known word, did you mean "off"? write one of "required", "off"
    config/promptgate.toml:7: server.workers: 0 is out of range, write a number from 1 to 1024
    config/promptgate.toml:8: server.drain: is an integer, write a string such as "30s"
    config/promptgate.toml:10: telemetry.sink: "clickhose" is not a known word, did you mean "clickhouse"? write one of "sqlite", "clickhouse", "none"
    config/promptgate.toml:11: telemetry.capture_max_field: "1 megabyte" is not a size, write e.g. "64MiB" (units: B, KiB, MiB, GiB, TiB, or kB, MB, GB, TB)
    config/promptgate.toml:12: telemetry.seal_after: "1h" is out of range, write "1ms" to "5m"
    config/promptgate.toml:14: telemetry.clickhouse.url: "127.0.0.1:8123" does not begin with http:// or https:// and a host, write e.g. "http://127.0.0.1:8123"
    config/promptgate.toml:17: providers[0].kind: "anthropic" is not available in this build yet, write "openai"
    config/promptgate.toml:18: providers[0].base_url: "api.openai.com/v1" is not an address, write e.g. "https://api.openai.com/v1"
    config/promptgate.toml:19: providers[0].api_key_env: environment variable "NOT_SET" is not set or empty, set it or use api_key_file
    config/promptgate.toml:20: providers[1].base_url: is missing, write e.g. base_url = "https://api.openai.com/v1"
    config/promptgate.toml:21: providers[1].name: "openai" is used twice, names must differ
    config/promptgate.toml:24: models[0].name: "gpt-*-mini" has a * before its end, write "*", "gpt-*" or a whole name
    config/promptgate.toml:26: models[0].targets[0].provider: "opnai" is not a provider, did you mean "openai"?
    config/promptgate.toml:27: models[0].targets[1].provider: "elsewhere" is not a provider, write "openai"
    config/promptgate.toml:27: models[0].targets[1].weight: is a float, write a whole number such as 100
    config/promptgate.toml:31: models[1].targets: is empty, write e.g. targets = [{ provider = "openai" }]
    config/promptgate.toml:32: models[2].targets: is missing, write e.g. targets = [{ provider = "openai" }]
    config/promptgate.toml:33: models[2].name: "none" is used twice, names must differ
    "#);
}

#[test]
fn syntax_errors_are_reported_alone() {
    assert_snapshot!(problems("[server]\nlisten = 127.0.0.1\nauth = \"off\nworkers = 0\n"), @r#"
    config/promptgate.toml:2: not TOML: invalid float
    config/promptgate.toml:3: not TOML: invalid basic string, expected `"`
    "#);
}

#[test]
fn values_of_the_wrong_type_say_what_to_write() {
    let text = "server = 3\nproviders = { name = \"openai\" }\nmodels = [\"gpt\", { name = \"m\", targets = [], price = 1 }]\n[limits]\nmax_json_depth = \"deep\"\n";
    assert_snapshot!(problems(text), @r#"
    config/promptgate.toml:1: server: is an integer, write a table
    config/promptgate.toml:2: providers: is a table, write a list of tables
    config/promptgate.toml:3: models[0]: is a string, write a table
    config/promptgate.toml:3: models[1].targets: is empty, write e.g. targets = [{ provider = "openai" }]
    config/promptgate.toml:3: models[1].price: is an integer, write a table
    config/promptgate.toml:5: limits.max_json_depth: is a string, write a whole number such as 64
    "#);
}

#[test]
fn named_file_that_is_missing_is_an_error() {
    let path = Path::new("/nonexistent/promptgate.toml");
    assert_snapshot!(Config::load(Some(path), &no_env).unwrap_err(), @r#"
    /nonexistent/promptgate.toml: cannot be read: No such file or directory (os error 2)
    "#);
}

#[test]
fn default_file_that_is_missing_is_every_default() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::read_file_if_any(&folder.path().join("p.toml"), &no_env).unwrap();
    keep_defaults(&config);
    assert_eq!(config.hash, "default");
    Config::read_file_if_any(folder.path(), &no_env).expect_err("a folder is not a file");
}

#[test]
fn named_file_is_read_with_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.toml");
    fs::write(&path, "[server]\nnode = \"n1\"\n").unwrap();
    let config = Config::load(Some(&path), &no_env).unwrap();
    assert_eq!(config.server.node, "n1");
    assert_eq!(config.hash, hash("[server]\nnode = \"n1\"\n"));
    assert_eq!(config.hash.len(), 16);
}

#[test]
fn example_file_changes_no_default() {
    let config = parse(EXAMPLE).unwrap();
    keep_defaults(&config);
    assert!(config.providers.is_empty() && config.models.is_empty() && config.prices_file.is_none());
}

#[test]
fn example_file_uncommented_is_valid_and_shows_the_defaults() {
    let uncommented = |line: &str| match line.strip_prefix('#') {
        // Prose has a space after its "#"; a continued list has two.
        Some(code) if !code.starts_with(' ') || code.starts_with("  ") => format!("{code}\n"),
        _ => format!("{line}\n"),
    };
    let text: String = EXAMPLE.lines().map(uncommented).collect();
    let text = text
        .replace("/run/secrets/inference", "Cargo.toml.key")
        // One of the two ways, with the variable that is set here.
        .replace("CLICKHOUSE_PASSWORD", "OPENAI_API_KEY")
        .replace("password_file = \"/run/secrets/clickhouse\"\n", "")
        // What the default registry, a file, has no use for.
        .replace("password_env = \"PROMPTGATE_REGISTRY_PASSWORD\"\n", "")
        .replace("password_file = \"/run/secrets/registry\"\n", "")
        .replace("urls = [\"http://ch-1:8123\", \"http://ch-2:8123\"]\n", "")
        .replace("/etc/ssl/private-ca.pem", "Cargo.toml");
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, PLANTED).unwrap();
    let text = text.replace("Cargo.toml.key", key.to_str().unwrap());

    let config = parse(&text).unwrap();
    keep_defaults(&config);
    assert_eq!(config.prices_file.as_deref(), Some(Path::new("config/prices.toml")));
    let providers: Vec<_> = config.providers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(providers, ["openai", "ollama", "inference", "mock"]);
    let models: Vec<_> = config.models.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(models, ["gpt-4o-mini", "small", "house-model", "mock-model", "gpt-*"]);
    assert_eq!(config.models[1].targets[1].weight, 10);
    assert_eq!(config.models[2].price.unwrap().rates().cached_input, 50_000_000);
}

#[test]
fn example_file_names_every_key() {
    for section in [
        "server",
        "registry",
        "telemetry",
        "telemetry.sqlite",
        "telemetry.redaction",
        "telemetry.clickhouse",
        "limits",
        "timeouts",
    ] {
        // A key that nobody knows makes the reader list those it does.
        let text = problems(&format!("[{section}]\nqqq = 1"));
        let (_, known) = text.split_once("known here: ").expect("a list of the known keys");
        let (_, example) = EXAMPLE.split_once(&format!("\n[{section}]")).expect("the section");
        let example = example.split("\n[").next().unwrap_or_default();
        // A table within the table has a heading of its own.
        for key in known
            .split(", ")
            .filter(|key| !["clickhouse", "redaction", "sqlite"].contains(key))
        {
            assert!(example.contains(&format!("\n#{key} = ")), "{section}.{key}");
        }
    }
}
