//! Prompt ids and how one is named together with a version or an environment.

/// The longest prompt id, in bytes.
pub const MAX_PROMPT_ID_BYTES: usize = 200;

/// Words that routes use behind an id, so that no id can be mistaken for a route.
pub const RESERVED_SEGMENTS: [&str; 4] = ["render", "completions", "versions", "deployments"];

/// Words that routes use behind an id as well, so that no new id has one behind its first segment. A prompt of an earlier
/// release that does is reached with `%2F` in its id.
pub const RESERVED_BEHIND: [&str; 6] = ["diff", "drafts", "shifts", "updates", "used-by", "uses"];

/// Says what is wrong with a prompt id, if anything.
///
/// An id is segments of `[a-z0-9][a-z0-9._-]*` joined by `/`, at most [`MAX_PROMPT_ID_BYTES`] long, none of them one of
/// [`RESERVED_SEGMENTS`], nor one of [`RESERVED_BEHIND`] but the first.
///
/// # Errors
/// A sentence that names the value and the rule.
pub fn validate_prompt_id(id: &str) -> Result<(), String> {
    if id.is_empty() {
        return Err("a prompt id must not be empty, write for instance \"support/greet\"".to_owned());
    }
    if id.len() > MAX_PROMPT_ID_BYTES {
        return Err(format!(
            "the prompt id has {} bytes, at most {MAX_PROMPT_ID_BYTES} are allowed",
            id.len()
        ));
    }
    for (at, segment) in id.split('/').enumerate() {
        validate_segment(segment).map_err(|why| format!("prompt id {id:?}: {why}"))?;
        if at > 0 && RESERVED_BEHIND.contains(&segment) {
            return Err(format!(
                "prompt id {id:?}: segment {segment:?} is reserved for routes behind an id"
            ));
        }
    }
    Ok(())
}

fn validate_segment(segment: &str) -> Result<(), String> {
    let mut bytes = segment.bytes();
    match bytes.next() {
        None => return Err("it has an empty segment".to_owned()),
        Some(b'a'..=b'z' | b'0'..=b'9') => {}
        Some(_) => {
            return Err(format!(
                "segment {segment:?} must start with a lowercase letter or a digit"
            ));
        }
    }
    if !bytes.all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')) {
        return Err(format!(
            "segment {segment:?} may only have lowercase letters, digits, '.', '_' and '-'"
        ));
    }
    if RESERVED_SEGMENTS.contains(&segment) {
        return Err(format!("segment {segment:?} is reserved for routes"));
    }
    Ok(())
}

/// Says what is wrong with an environment's or a variant's name, if anything: `[a-z0-9][a-z0-9._-]*`, at most 64 bytes.
///
/// # Errors
/// A sentence that names the value and the rule.
pub fn validate_name(what: &str, name: &str) -> Result<(), String> {
    if name.len() > 64 {
        return Err(format!(
            "the {what} name has {} bytes, at most 64 are allowed",
            name.len()
        ));
    }
    validate_segment(name).map_err(|why| format!("{what} {name:?}: {why}"))
}

/// A prompt's name with an optional selector, as written in paths, headers and `model`: `id`, `id@environment` or
/// `id:version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptName<'a> {
    pub id: &'a str,
    pub environment: Option<&'a str>,
    pub version: Option<&'a str>,
}

impl<'a> PromptName<'a> {
    /// Splits `text` at its last `@`, or else at its last `:` that is followed by digits only.
    ///
    /// Ids have neither character; aliases may, which is why only the last one counts and a `:` needs a number.
    pub fn parse(text: &'a str) -> Self {
        if let Some((id, environment)) = text.rsplit_once('@') {
            return Self {
                id,
                environment: Some(environment),
                version: None,
            };
        }
        match text.rsplit_once(':') {
            Some((id, version)) if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) => Self {
                id,
                environment: None,
                version: Some(version),
            },
            _ => Self {
                id: text,
                environment: None,
                version: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_id_follows_the_rule() {
        for good in ["a", "support/greet", "a.b_c-d/0x", "updates/weekly", &"a".repeat(200)] {
            assert_eq!(validate_prompt_id(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "A",
            "-a",
            "a b",
            "a@b",
            "a:1",
            "ä",
            "render",
            "a/versions",
            "a/diff",
            "a/drafts/b",
            &"a".repeat(201),
        ] {
            assert!(validate_prompt_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prompt_name_splits_at_the_last_selector() {
        let name = |text| {
            let n = PromptName::parse(text);
            (n.id, n.environment, n.version)
        };
        assert_eq!(name("a/b"), ("a/b", None, None));
        assert_eq!(name("a/b@staging"), ("a/b", Some("staging"), None));
        assert_eq!(name("a/b:12"), ("a/b", None, Some("12")));
        assert_eq!(name("pmpt:abc"), ("pmpt:abc", None, None));
        assert_eq!(name("old@x@staging"), ("old@x", Some("staging"), None));
    }
}
