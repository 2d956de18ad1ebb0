//! Looking for a text in what is written about a prompt and in its versions, whatever the case of letters.
//!
//! A database can only look roughly: it folds the case of ASCII letters, and stored JSON escapes some characters. So
//! [`Needle::pattern`] finds everything that may match and [`Needle::find`] decides. Texts folded beforehand, each as a
//! line, have [`Needle::folded`] exactly where [`Needle::find`] finds something.

use serde_json::{Map, Value};

/// How many characters a snippet shows on either side.
const AROUND: usize = 40;

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Needle {
    /// In lower case, its white space single blanks.
    folded: String,
}

impl Needle {
    /// `None` for a blank text, which is everywhere.
    pub fn new(text: &str) -> Option<Self> {
        let folded = fold(text);
        (!folded.is_empty()).then_some(Self { folded })
    }

    /// Returns a LIKE pattern, escaped with `\`, that lowercased text or JSON must match to have the needle in it.
    pub fn pattern(&self) -> String {
        let mut pattern = String::from("%");
        for c in self.folded.chars() {
            match c {
                '%' | '_' => pattern.extend(['\\', c]),
                // Escaped in JSON, or not folded by the database.
                '"' | '\\' | ' ' => pattern.push('%'),
                c if !c.is_ascii() || c.is_ascii_control() => pattern.push('%'),
                c => pattern.push(c),
            }
        }
        pattern.push('%');
        pattern
    }

    /// Returns the text as it is found in what [`fold`] and [`fold_texts`] return.
    pub fn folded(&self) -> &str {
        &self.folded
    }

    /// Returns the surroundings of the first place in `text` that has the needle.
    pub fn find(&self, text: &str) -> Option<String> {
        // Blanks are single on both sides, so a line break between two words does not hide them.
        let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let start = fold(&flat).find(&self.folded)?;
        let mut folded_bytes = 0;
        let mut at = 0usize;
        for c in flat.chars() {
            if folded_bytes >= start {
                break;
            }
            folded_bytes += c.to_lowercase().map(char::len_utf8).sum::<usize>();
            at += 1;
        }
        let length = self.folded.chars().count();
        let (from, to) = (at.saturating_sub(AROUND), at + length + AROUND);
        let shown: String = flat.chars().skip(from).take(to - from).collect();
        let more = flat.chars().nth(to).is_some();
        Some(format!(
            "{}{shown}{}",
            if from > 0 { "…" } else { "" },
            if more { "…" } else { "" }
        ))
    }

    /// Returns the path and the surroundings of the first text in a version's content that has the needle.
    pub fn find_in(&self, content: &Value) -> Option<(String, String)> {
        self.walk("", content)
    }

    fn walk(&self, path: &str, value: &Value) -> Option<(String, String)> {
        match value {
            Value::String(text) => Some((path.to_owned(), self.find(text)?)),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .find_map(|(at, item)| self.walk(&format!("{path}[{at}]"), item)),
            Value::Object(fields) => searched(fields).find_map(|(name, field)| {
                let inside = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                self.walk(&inside, field)
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }
}

/// Returns the texts of a version's content in which [`Needle::find_in`] looks, folded, each as a line.
pub fn fold_texts(content: &Value) -> String {
    let mut lines = String::new();
    fold_into(content, &mut lines);
    lines
}

fn fold_into(value: &Value, lines: &mut String) {
    match value {
        Value::String(text) => {
            lines.push_str(&fold(text));
            lines.push('\n');
        }
        Value::Array(items) => items.iter().for_each(|item| fold_into(item, lines)),
        Value::Object(fields) => searched(fields).for_each(|(_, field)| fold_into(field, lines)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The fields of an object that are searched: some say the same few words in every prompt.
fn searched(fields: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    fields
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "role" | "type"))
}

/// Returns a text in lower case, its white space single blanks: a line.
pub fn fold(text: &str) -> String {
    let lower = text.chars().flat_map(char::to_lowercase).collect::<String>();
    lower.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn needle_is_found_in_any_case_with_its_surroundings() {
        let find = |needle: &str, text: &str| Needle::new(needle).unwrap().find(text);
        assert_eq!(find("ÄRGER  IST", "viel Ärger\nist da").unwrap(), "viel Ärger ist da");
        assert_eq!(find("x", "abc"), None);
        let long = format!("{} Refund {}", "a".repeat(60), "b".repeat(60));
        let snippet = find("refund", &long).unwrap();
        assert_eq!(snippet, format!("…{} Refund {}…", "a".repeat(39), "b".repeat(39)));
        assert!(Needle::new(" \n").is_none());
    }

    #[test]
    fn pattern_lets_through_whatever_may_match() {
        let pattern = |needle: &str| Needle::new(needle).unwrap().pattern();
        assert_eq!(pattern("50% of_it"), "%50\\%%of\\_it%");
        assert_eq!(pattern("say \"Ä\""), "%say%%%%%");
    }

    #[test]
    fn content_is_searched_without_the_words_of_its_form() {
        let content =
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Our Refund policy"}]}]});
        let find = |needle: &str| Needle::new(needle).unwrap().find_in(&content);
        let found = Some(("messages[0].content[0].text".to_owned(), "Our Refund policy".to_owned()));
        assert_eq!(find("refund"), found);
        assert_eq!(find("user"), None);
        assert_eq!(fold_texts(&content), "our refund policy\n");
    }

    proptest! {
        /// What lets a search pass by a prompt without asking the database.
        #[test]
        fn folded_texts_have_the_needle_where_it_is_found(
            needle in "[aÄß .\\n]{1,4}", texts in proptest::collection::vec("[aAÄäßſ .\\n\\t]{0,12}", 0..4),
        ) {
            let content = json!({"messages": texts, "role": "a"});
            let Some(needle) = Needle::new(&needle) else { return Ok(()) };
            prop_assert_eq!(fold_texts(&content).contains(needle.folded()), needle.find_in(&content).is_some());
        }
    }
}
