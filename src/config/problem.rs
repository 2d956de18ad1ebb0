//! What is wrong with a configuration file, where, and what to write instead.

use std::fmt;

/// One thing to correct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1; none when it concerns the file as a whole.
    pub line: Option<usize>,
    /// Path of the key, such as `providers[0].base_url`; empty for a syntax error.
    pub key: String,
    /// Names the value (never a secret) and the correction.
    pub message: String,
}

/// Every problem of one file, in the order of its lines.
///
/// Prints one problem a line: `file:line: key: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as the caller named it.
    pub file: String,
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// A problem with the file as a whole, such as its absence.
    pub(super) fn whole_file(file: &str, message: String) -> Self {
        let problem = Problem {
            line: None,
            key: String::new(),
            message,
        };
        ConfigError {
            file: file.to_owned(),
            problems: vec![problem],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file)?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            if !problem.key.is_empty() {
                write!(f, ": {}", problem.key)?;
            }
            write!(f, ": {}", problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The problems found so far in a text, which knows where its lines begin.
pub(super) struct Problems {
    line_starts: Vec<usize>,
    found: Vec<Problem>,
}

impl Problems {
    pub fn new(text: &str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Problems {
            line_starts: std::iter::once(0).chain(after_newlines).collect(),
            found: Vec::new(),
        }
    }

    /// Notes a problem at a byte offset of the text.
    pub fn add(&mut self, at: usize, key: String, message: String) {
        let line = self.line_starts.partition_point(|start| *start <= at);
        self.found.push(Problem {
            line: Some(line),
            key,
            message,
        });
    }

    /// Whether this key, or one below it, already has a problem.
    pub fn concern(&self, key: &str) -> bool {
        self.found.iter().any(|problem| {
            let rest = problem.key.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// `value` when nothing was found.
    pub fn or<T>(self, file: &str, value: T) -> Result<T, ConfigError> {
        match self.found.is_empty() {
            true => Ok(value),
            false => Err(self.into_error(file)),
        }
    }

    pub fn into_error(mut self, file: &str) -> ConfigError {
        self.found.sort_by_key(|problem| problem.line);
        ConfigError {
            file: file.to_owned(),
            problems: self.found,
        }
    }
}

/// A value as messages show it: quoted, escaped, cut when long.
pub(super) fn shown(value: &str) -> String {
    const LONGEST: usize = 60;
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &value[..end]),
        None => format!("{value:?}"),
    }
}

/// An address as messages show it: withheld where it may hold credentials.
pub(super) fn shown_url(url: &str) -> String {
    if url.contains(['@', '?']) {
        return "this address (not shown, it may hold credentials)".to_owned();
    }
    shown(url)
}

/// The known word that is closest to a mistyped one, if any is close.
pub(super) fn closest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    const CLOSE: f64 = 0.8;
    let word = word.to_lowercase();
    let scored = known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, candidate), candidate))
        .filter(|(score, _)| *score > CLOSE);
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    Some(best.1)
}

/// `write one of "a", "b", "c"`
pub(super) fn write_one_of<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(shown).collect();
    match quoted.as_slice() {
        [word] => format!("write {word}"),
        words => format!("write one of {}", words.join(", ")),
    }
}
