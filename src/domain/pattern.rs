//! Regular expressions that operators write.

use regex::bytes::{Regex, RegexBuilder};

/// The most memory one compiled pattern may take, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// Compiles a pattern; matching takes time linear in the text, whatever the pattern.
///
/// # Errors
/// What is wrong with it: its syntax, its size, or that it matches the empty text.
pub fn compile(text: &str) -> Result<Regex, String> {
    let regex = RegexBuilder::new(text).size_limit(SIZE_LIMIT).build();
    let regex = regex.map_err(|error| {
        let text = error.to_string();
        // Errors of syntax come with a drawing of several lines; the last says what is wrong.
        let last = text.lines().last().unwrap_or_default();
        last.strip_prefix("error: ").unwrap_or(last).to_owned()
    })?;
    if regex.is_match(b"") {
        return Err("it matches the empty text, and so everywhere".to_owned());
    }
    Ok(regex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_cannot_be_used_say_why() {
        for (text, why) in [
            ("(", "unclosed group"),
            ("a*", "it matches the empty text, and so everywhere"),
            (r"(\w{500}){500}", "exceeds size limit"),
        ] {
            let error = compile(text).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
        assert!(compile(r"\d{4}").is_ok());
    }
}
