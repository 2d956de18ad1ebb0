//! Secrets: named in the file by an environment variable or a file, never written there.

use std::fmt;
use std::fs;

use http::HeaderValue;

use super::Env;
use super::problem::shown;
use super::reader::Reader;

/// A credential; prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The credential itself: for the header it goes into, and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The keys one secret is named by.
pub(super) struct Keys {
    pub env: &'static str,
    pub file: &'static str,
    /// What people write by mistake.
    pub plain: &'static str,
    pub env_example: &'static str,
    pub file_example: &'static str,
}

pub(super) const API_KEY: Keys = Keys {
    env: "api_key_env",
    file: "api_key_file",
    plain: "api_key",
    env_example: "OPENAI_API_KEY",
    file_example: "/run/secrets/openai",
};

pub(super) const CLICKHOUSE_PASSWORD: Keys = Keys {
    env: "password_env",
    file: "password_file",
    plain: "password",
    env_example: "CLICKHOUSE_PASSWORD",
    file_example: "/run/secrets/clickhouse",
};

pub(super) const REGISTRY_PASSWORD: Keys = Keys {
    env: "password_env",
    file: "password_file",
    plain: "password",
    env_example: "PROMPTGATE_REGISTRY_PASSWORD",
    file_example: "/run/secrets/registry",
};

/// Resolves a secret named by a variable or a file; none when neither is given.
pub(super) fn read(r: &mut Reader<'_>, env: Env<'_>, keys: &Keys) -> Option<Secret> {
    let from_env = r.parsed(keys.env, keys.env_example, |name| from_env(name, env, keys));
    let from_file = r.parsed(keys.file, keys.file_example, from_file);
    let (env, file) = (keys.env, keys.file);
    r.refuse(
        keys.plain,
        &format!("unknown key: secrets are not written in this file, use {env} or {file}"),
    );
    if r.given(env) && r.given(file) {
        r.problem(file, format!("is given together with {env}, keep one of them"));
    }
    from_env.or(from_file)
}

fn from_env(name: &str, env: Env<'_>, keys: &Keys) -> Result<Secret, String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(word) {
        let example = keys.env_example;
        return Err(format!(
            "is not the name of an environment variable (not shown), write e.g. {example:?}"
        ));
    }
    // Someone may have put the secret itself here: only what looks like a variable's name is printed.
    let shown = match name.contains(|c: char| c.is_ascii_lowercase()) {
        true => "(not shown, as names are usually upper case)".to_owned(),
        false => shown(name),
    };
    let Some(text) = env(name).filter(|text| !text.trim().is_empty()) else {
        let file = keys.file;
        return Err(format!(
            "environment variable {shown} is not set or empty, set it or use {file}"
        ));
    };
    checked(&text).ok_or_else(|| {
        format!("the value of environment variable {shown} cannot be sent in a header: only visible ASCII can")
    })
}

fn from_file(path: &str) -> Result<Secret, String> {
    // The path is not printed either: the line is named, and it may be the secret in the wrong place.
    let text = fs::read_to_string(path).map_err(|error| {
        format!("this file cannot be read ({error}); a relative path starts at the working directory")
    })?;
    match text.trim() {
        "" => Err("this file is empty, write the key into it".to_owned()),
        _ => checked(&text).ok_or_else(|| {
            "the text of this file cannot be sent in a header: it must be one line of visible ASCII".to_owned()
        }),
    }
}

/// The text without white space around it, when a header can carry it.
fn checked(text: &str) -> Option<Secret> {
    let text = text.trim();
    HeaderValue::from_str(text).ok()?.to_str().ok()?;
    Some(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::config::Config;
    use crate::config::tests::{PLANTED, no_env, parse, problems, provider};

    #[test]
    fn secret_from_environment_or_file_is_resolved_and_trimmed() {
        let config = parse(&provider("api_key_env = \"OPENAI_API_KEY\"")).unwrap();
        assert_eq!(config.providers[0].api_key.as_ref().unwrap().expose(), PLANTED);

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, format!("{PLANTED}\r\n")).unwrap();
        let config = parse(&provider(&format!("api_key_file = {file:?}"))).unwrap();
        assert_eq!(config.providers[0].api_key.as_ref().unwrap().expose(), PLANTED);
    }

    #[test]
    fn secret_in_any_place_is_never_printed() {
        let loaded = provider(&format!(
            "api_key_env = \"OPENAI_API_KEY\"\nheaders = {{ \"X-Gateway-Key\" = \"{PLANTED}\" }}"
        ));
        let config = parse(&loaded).unwrap();
        assert_eq!(config.providers[0].headers["x-gateway-key"], PLANTED);
        assert!(!format!("{config:?} {:#?}", config.providers).contains(PLANTED));
        assert_eq!(config.providers[0].api_key.as_ref().unwrap().to_string(), "***");

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, format!("{PLANTED}\n{PLANTED}")).unwrap();
        let misplaced = [
            format!("api_key = \"{PLANTED}\""),
            format!("api_key = {{ value = \"{PLANTED}\" }}"),
            format!("api_key_env = \"{PLANTED}\""),
            format!("api_key_env = \"{}\"", PLANTED.replace('-', "_")),
            format!("api_key_file = \"{PLANTED}\""),
            format!("api_key_file = {file:?}"),
            format!("apikey = \"{PLANTED}\""),
            format!("api_key_env = \"OPENAI_API_KEY\"\napi_key_file = \"{PLANTED}\""),
            format!("headers = {{ Authorization = \"Bearer {PLANTED}\" }}"),
            format!("headers = {{ x-key = \"{PLANTED}\\n\" }}"),
            format!("headers = {{ x-key = [\"{PLANTED}\"] }}"),
            format!("headers = {{ Host = \"{PLANTED}\" }}"),
            format!("headers = {{ x-key = \"{PLANTED}\", X-Key = \"{PLANTED}\" }}"),
        ];
        let texts = misplaced.map(|lines| problems(&provider(&lines))).join("\n");
        assert!(
            !texts.contains(PLANTED) && !texts.contains(&PLANTED.replace('-', "_")),
            "{texts}"
        );
        assert_snapshot!(texts, @r#"
        config/promptgate.toml:5: providers[0].api_key: unknown key: secrets are not written in this file, use api_key_env or api_key_file
        config/promptgate.toml:5: providers[0].api_key: unknown key: secrets are not written in this file, use api_key_env or api_key_file
        config/promptgate.toml:5: providers[0].api_key_env: is not the name of an environment variable (not shown), write e.g. "OPENAI_API_KEY"
        config/promptgate.toml:5: providers[0].api_key_env: environment variable (not shown, as names are usually upper case) is not set or empty, set it or use api_key_file
        config/promptgate.toml:5: providers[0].api_key_file: this file cannot be read (No such file or directory (os error 2)); a relative path starts at the working directory
        config/promptgate.toml:5: providers[0].api_key_file: the text of this file cannot be sent in a header: it must be one line of visible ASCII
        config/promptgate.toml:5: providers[0].apikey: unknown key, did you mean api_key_env?
        config/promptgate.toml:6: providers[0].api_key_file: this file cannot be read (No such file or directory (os error 2)); a relative path starts at the working directory
        config/promptgate.toml:6: providers[0].api_key_file: is given together with api_key_env, keep one of them
        config/promptgate.toml:5: providers[0].headers.Authorization: credentials are not written here, use api_key_env or api_key_file
        config/promptgate.toml:5: providers[0].headers.x-key: this value (not shown) cannot be sent in a header: no line breaks or control characters
        config/promptgate.toml:5: providers[0].headers.x-key: is a list, write a string
        config/promptgate.toml:5: providers[0].headers.Host: is set by the gateway, leave it out
        config/promptgate.toml:5: providers[0].headers.x-key: is given twice, differing in upper and lower case only
        "#);
    }

    #[test]
    fn secret_missing_everywhere_names_its_variable() {
        let text = provider("api_key_env = \"OPENAI_API_KEY\"");
        let error = Config::parse(&text, "p.toml", &no_env).unwrap_err();
        assert_snapshot!(error, @r#"
        p.toml:5: providers[0].api_key_env: environment variable "OPENAI_API_KEY" is not set or empty, set it or use api_key_file
        "#);
    }
}
