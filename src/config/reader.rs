//! Walks a TOML document table by table and collects what is wrong with it.
//!
//! A reader method takes its key out of the table; what is left when a table's closure returns is unknown, and is
//! reported with the closest key that was asked for. A key with a problem reads as its default (or as none), so that
//! the walk goes on and every problem is found in one run; the value read is then thrown away.

mod values;

use toml::de::{DeTable, DeValue};

use super::problem::{ConfigError, Problems, closest, shown};

/// One table that is being read.
pub(super) struct Reader<'r> {
    table: DeTable<'r>,
    /// Key path of the table; empty for the document.
    path: String,
    /// Byte offset of the table's header.
    at: usize,
    /// Keys asked for, with the byte offset of those that were there.
    asked: Vec<(&'static str, Option<usize>)>,
    problems: &'r mut Problems,
}

/// Reads a document with a closure that asks for its keys.
///
/// # Errors
/// Every problem of the text. Errors of syntax come alone: what follows them would be guesses.
pub(super) fn read<T>(file: &str, text: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> Result<T, ConfigError> {
    let mut problems = Problems::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let root = (document.into_inner(), String::new(), 0);
        let value = Reader::walk(root, &mut problems, read);
        return problems.or(file, value);
    }
    for error in errors {
        let at = error.span().map_or(text.len(), |span| span.start);
        let message = error.message().trim_end_matches(", expected nothing");
        problems.add(at, String::new(), format!("not TOML: {message}"));
    }
    Err(problems.into_error(file))
}

impl Reader<'_> {
    fn walk<T>(
        (table, path, at): (DeTable<'_>, String, usize),
        problems: &mut Problems,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> T {
        let asked = Vec::new();
        let mut reader = Reader {
            table,
            path,
            at,
            asked,
            problems,
        };
        let value = read(&mut reader);
        reader.report_unknown();
        value
    }

    fn report_unknown(&mut self) {
        for (key, _) in std::mem::take(&mut self.table) {
            let known = self.asked.iter().map(|(known, _)| *known);
            let message = match closest(key.get_ref(), known.clone()) {
                Some(word) => format!("unknown key, did you mean {word}?"),
                None => format!("unknown key, known here: {}", known.collect::<Vec<_>>().join(", ")),
            };
            let path = self.path_of(&key.get_ref().escape_debug().to_string());
            self.problems.add(key.span().start, path, message);
        }
    }

    fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    /// Byte offset of a key that was asked for; of its table when the key is absent.
    fn place_of(&self, key: &str) -> usize {
        let asked = self.asked.iter().find(|(known, _)| *known == key);
        asked.and_then(|(_, at)| *at).unwrap_or(self.at)
    }

    /// Reports a problem with a key's value.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        let (at, path) = (self.place_of(key), self.path_of(key));
        self.problems.add(at, path, message.into());
    }

    /// Whether no problem was found with these keys: checks across keys would otherwise report the default's.
    pub fn sound(&self, keys: &[&str]) -> bool {
        !keys.iter().any(|key| self.problems.concern(&self.path_of(key)))
    }

    /// Whether a key was there when it was asked for.
    pub fn given(&self, key: &str) -> bool {
        self.asked.iter().any(|(known, at)| *known == key && at.is_some())
    }

    /// Reports a key that must be there and is not; `example` is TOML.
    pub fn needs(&mut self, key: &'static str, example: &str) {
        if !self.table.contains_key(key) {
            self.problem(key, format!("is missing, write e.g. {key} = {example}"));
        }
    }

    /// Reports a key that is not accepted here, without a look at its value.
    pub fn refuse(&mut self, key: &str, message: &str) {
        if let Some((found, _)) = self.table.remove_entry(key) {
            let path = self.path_of(key);
            self.problems.add(found.span().start, path, message.to_owned());
        }
    }

    /// Reports a word that an earlier table of the same list already has under this key.
    pub fn unique(&mut self, key: &str, word: &str, earlier: &mut Vec<String>) {
        match earlier.iter().any(|other| other == word) {
            true => self.problem(key, format!("{} is used twice, names must differ", shown(word))),
            false => earlier.push(word.to_owned()),
        }
    }
}

impl<'r> Reader<'r> {
    fn take(&mut self, key: &'static str) -> Option<DeValue<'r>> {
        let entry = self.table.remove_entry(key);
        let at = entry.as_ref().map(|(key, _)| key.span().start);
        self.asked.push((key, at));
        Some(entry?.1.into_inner())
    }

    fn table_at(&mut self, key: &'static str) -> Option<DeTable<'r>> {
        match self.take(key)? {
            DeValue::Table(table) => Some(table),
            other => {
                self.wrong_type(key, &other, "a table");
                None
            }
        }
    }

    fn wrong_type(&mut self, key: &str, found: &DeValue<'_>, wanted: &str) {
        let message = wrong_type(found, wanted);
        self.problem(key, message);
    }
}

/// Tables within the table.
impl Reader<'_> {
    /// A table whose keys are all optional: an absent one is read as an empty one.
    pub fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        let table = self.table_at(key).unwrap_or_default();
        let child = (table, self.path_of(key), self.place_of(key));
        Reader::walk(child, self.problems, read)
    }

    /// A table that may be absent, with keys that may not.
    pub fn optional_section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
    ) -> Option<T> {
        let table = self.table_at(key)?;
        let child = (table, self.path_of(key), self.place_of(key));
        Reader::walk(child, self.problems, read)
    }

    /// Each table of a list in order, without those that read as none.
    pub fn list<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Reader<'_>) -> Option<T>) -> Vec<T> {
        let items = match self.take(key) {
            Some(DeValue::Array(items)) => items,
            None => return Vec::new(),
            Some(other) => {
                self.wrong_type(key, &other, "a list of tables");
                return Vec::new();
            }
        };
        let mut values = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let (path, at) = (format!("{}[{index}]", self.path_of(key)), item.span().start);
            match item.into_inner() {
                DeValue::Table(table) => {
                    values.extend(Reader::walk((table, path, at), self.problems, &mut read));
                }
                other => self.problems.add(at, path, wrong_type(&other, "a table")),
            }
        }
        values
    }

    /// Every entry of a table of strings with free keys, without those that `parse` refuses.
    pub fn strings<T>(&mut self, mut parse: impl FnMut(&str, &str) -> Result<T, String>) -> Vec<T> {
        let mut values = Vec::new();
        for (key, value) in std::mem::take(&mut self.table) {
            let parsed = match value.get_ref() {
                DeValue::String(text) => parse(key.get_ref(), text),
                other => Err(wrong_type(other, "a string")),
            };
            match parsed {
                Ok(value) => values.push(value),
                Err(message) => {
                    let path = self.path_of(&key.get_ref().escape_debug().to_string());
                    self.problems.add(key.span().start, path, message);
                }
            }
        }
        values
    }
}

/// The value itself is not repeated: it may be a secret in the wrong place.
fn wrong_type(found: &DeValue<'_>, wanted: &str) -> String {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("is {found}, write {wanted}")
}
