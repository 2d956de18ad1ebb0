//! `[telemetry.redaction]`: what is taken out of content before anything touches disk.

use crate::config::problem::shown;
use crate::config::reader::Reader;

/// The most names and the most patterns.
const MOST: usize = 1000;

/// What is redacted, besides what looks like a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redaction {
    /// Names of JSON members whose values go, without regard to case.
    pub fields: Vec<String>,
    /// Regular expressions for parts of texts that go; each compiles, and does not match the empty text.
    pub patterns: Vec<String>,
    /// Whether ids of users become pseudonyms also in content.
    pub hash_users: bool,
}

impl Default for Redaction {
    fn default() -> Self {
        Redaction {
            fields: Vec::new(),
            patterns: Vec::new(),
            hash_users: true,
        }
    }
}

impl Redaction {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        Redaction {
            fields: r.words("fields", MOST, |name| match name.trim() {
                "" => Err("is empty, write the name of a JSON member such as \"password\"".to_owned()),
                _ => Ok(()),
            }),
            patterns: r.words("patterns", MOST, |text| {
                let error = crate::domain::pattern::compile(text).err();
                error.map_or(Ok(()), |error| Err(format!("{} cannot be used: {error}", shown(text))))
            }),
            hash_users: r.flag("hash_users", true),
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::config::tests::{parse, problems};

    #[test]
    fn redaction_is_read() {
        let text = "[telemetry.redaction]\nfields = [\"password\"]\npatterns = ['\\d{16}']\nhash_users = false";
        let wanted = Redaction {
            fields: vec!["password".to_owned()],
            patterns: vec![r"\d{16}".to_owned()],
            hash_users: false,
        };
        assert_eq!(parse(text).unwrap().telemetry.redaction, wanted);
        assert_eq!(parse("").unwrap().telemetry.redaction, Redaction::default());
    }

    #[test]
    fn mistakes_are_named() {
        let lines = [
            "fields = \"password\"",
            "fields = [\"a\", \" \", 3]",
            "patterns = [\"a\", \"(\", \"x*\"]",
            "hash_users = \"yes\"",
            "names = []",
        ];
        let texts = lines.map(|line| problems(&format!("[telemetry.redaction]\n{line}")));
        assert_snapshot!(texts.join("\n"), @r#"
        config/promptgate.toml:2: telemetry.redaction.fields: is a string, write a list of strings such as ["one", "two"]
        config/promptgate.toml:2: telemetry.redaction.fields: entry 2: is empty, write the name of a JSON member such as "password"
        config/promptgate.toml:2: telemetry.redaction.fields: is an integer, write a list of strings such as ["one", "two"]
        config/promptgate.toml:2: telemetry.redaction.patterns: entry 2: "(" cannot be used: unclosed group
        config/promptgate.toml:2: telemetry.redaction.patterns: entry 3: "x*" cannot be used: it matches the empty text, and so everywhere
        config/promptgate.toml:2: telemetry.redaction.hash_users: is a string, write true or false
        config/promptgate.toml:2: telemetry.redaction.names: unknown key, known here: fields, patterns, hash_users
        "#);
    }
}
