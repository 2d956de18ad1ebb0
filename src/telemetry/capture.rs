//! What of an exchange's content may be kept: redaction before anything touches disk, and a bound on what open streams
//! hold in memory.
//!
//! A [`Redactor`] is built once from the configuration and shared by all workers. It takes out of a text
//!
//! - what looks like a credential, always (`keys`);
//! - what matches a configured pattern;
//!
//! and of JSON also the values of configured member names, at any depth, and the ids of people, which become the
//! pseudonyms of the record's own columns. Strings are matched unescaped, and JSON inside of a string (a tool call's
//! arguments) is looked into as well (`walk`).
//!
//! **Cutting comes last.** A field is cut to its cap after it was redacted, and what is matched reaches [`MARGIN`] bytes
//! beyond the cap: so no part of a secret of up to that length survives because its rest was cut off. A text whose end
//! never came (a stream that was cut by its cap) loses its last [`MARGIN`] bytes for the same reason.
//!
//! With nothing configured and nothing suspicious, a body costs one pass of a search for a few short words.

mod budget;
mod keys;
mod walk;

use std::borrow::Cow;
use std::ops::Range;

use regex::bytes::Regex;

pub use budget::{Budget, Held};

use walk::Walk;

use crate::config::Redaction;
use crate::domain::pattern;

/// What stands for a secret.
pub const REDACTED: &str = "[redacted]";

/// How far beyond a cut a match is followed, and so the longest secret that a cut never leaves a part of, in bytes.
pub const MARGIN: usize = 8 * 1024;

/// The rules of `[telemetry.redaction]`, compiled.
#[derive(Debug, Default)]
pub struct Redactor {
    /// Member names in lower case.
    fields: Vec<Box<str>>,
    patterns: Vec<Regex>,
}

/// People whose ids are to be replaced in JSON.
pub struct People<'a> {
    /// Ids as the caller wrote them.
    pub known: &'a [String],
    /// Whether the top level of the JSON is a call's or an answer's, where `user` is always an id.
    pub is_call: bool,
    pub pseudonym: &'a dyn Fn(&str) -> String,
}

/// What is kept of a field.
#[derive(Debug, PartialEq)]
pub struct Kept<'a> {
    pub bytes: Cow<'a, [u8]>,
    /// Something was left out because of its length.
    pub truncated: bool,
}

impl Redactor {
    pub fn new(rules: &Redaction) -> Self {
        let compiled = |text: &String| pattern::compile(text).expect("the configuration was checked");
        Self {
            fields: rules.fields.iter().map(|name| name.to_lowercase().into()).collect(),
            patterns: rules.patterns.iter().map(compiled).collect(),
        }
    }

    /// Returns what may be kept of a body, at most `limit` bytes. `is_whole` says that it did not go on where it ends.
    pub fn content<'a>(&self, raw: &'a [u8], is_whole: bool, limit: usize, people: Option<&People<'_>>) -> Kept<'a> {
        let window = &raw[..raw.len().min(limit.saturating_add(MARGIN))];
        let end = match is_whole {
            true => raw.len().min(limit),
            false => raw.len().saturating_sub(MARGIN).min(limit),
        };
        let end = boundary(window, end);
        let people = people.filter(|people| people.may_be_in(window));
        let truncated = end < raw.len() || !is_whole;
        if self.fields.is_empty() && self.patterns.is_empty() && people.is_none() && !keys::may_be_in(window) {
            let bytes = Cow::Borrowed(&window[..end]);
            return Kept { bytes, truncated };
        }
        let is_whole = is_whole && window.len() == raw.len();
        match self.redact(window, end, is_whole, people, 0) {
            None => Kept {
                bytes: Cow::Borrowed(&window[..end]),
                truncated,
            },
            Some(mut bytes) => {
                // What stands for a secret may be longer than it.
                let longer = bytes.len() > limit;
                bytes.truncate(boundary(&bytes, limit));
                let bytes = Cow::Owned(bytes);
                let truncated = truncated || longer;
                Kept { bytes, truncated }
            }
        }
    }

    /// Returns what may be kept of a short text, at most `limit` bytes.
    pub fn label<'a>(&self, text: &'a str, limit: usize) -> Cow<'a, str> {
        let end = text.floor_char_boundary(text.len().min(limit));
        let window = &text.as_bytes()[..text.len().min(limit.saturating_add(MARGIN))];
        if self.patterns.is_empty() && (text.len() < keys::SHORTEST || !keys::may_be_in(window)) {
            return Cow::Borrowed(&text[..end]);
        }
        let mut out = Vec::new();
        if !self.run(window, end, &mut out, REDACTED.as_bytes()) {
            return Cow::Borrowed(&text[..end]);
        }
        out.truncate(boundary(&out, limit));
        Cow::Owned(String::from_utf8_lossy(&out).into_owned())
    }

    /// Returns what may be kept of a text that went on where it ends.
    pub fn unfinished(&self, text: &str) -> String {
        let kept = self.content(text.as_bytes(), false, usize::MAX, None);
        String::from_utf8_lossy(&kept.bytes).into_owned()
    }

    /// Redacts what begins before `end`; None if that changes nothing.
    fn redact(
        &self,
        window: &[u8],
        end: usize,
        is_whole: bool,
        people: Option<&People<'_>>,
        level: usize,
    ) -> Option<Vec<u8>> {
        let first = window.trim_ascii_start().first();
        let is_json = matches!(first, Some(b'{' | b'[' | b'"'))
            && (!is_whole || serde_json::from_slice::<serde::de::IgnoredAny>(window).is_ok());
        if is_json {
            return Walk::new(self, window, end, people, level).run();
        }
        // Prose first, since a match may span what looks like strings; then members of JSON in it.
        let mut prose = Vec::new();
        if self.run(window, end, &mut prose, REDACTED.as_bytes()) {
            let end = prose.len();
            return Some(Walk::new(self, &prose, end, people, level).run().unwrap_or(prose));
        }
        Walk::new(self, window, end, people, level).run()
    }

    /// Appends `text` up to `end`, with what begins before that and matches replaced; says whether anything was. Appends
    /// nothing if not.
    fn run(&self, text: &[u8], end: usize, out: &mut Vec<u8>, mark: &[u8]) -> bool {
        let spans = self.spans(text);
        let mut copied = 0;
        for span in spans.iter().take_while(|span| span.start < end) {
            out.extend_from_slice(&text[copied..span.start]);
            out.extend_from_slice(mark);
            copied = span.end;
        }
        if copied == 0 && spans.first().is_none_or(|span| span.start >= end) {
            return false;
        }
        out.extend_from_slice(&text[copied.min(end)..end]);
        true
    }

    /// The secrets of a text, in order, without overlaps.
    fn spans(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        keys::find(text, &mut spans);
        for pattern in &self.patterns {
            let found = pattern.find_iter(text).map(|found| found.range());
            spans.extend(found.filter(|span| !span.is_empty()));
        }
        if spans.len() > 1 {
            spans.sort_by_key(|span| span.start);
            spans.dedup_by(|later, earlier| {
                let overlaps = later.start < earlier.end;
                if overlaps {
                    earlier.end = earlier.end.max(later.end);
                }
                overlaps
            });
        }
        spans
    }

    /// Whether the value of that name goes.
    pub fn is_field(&self, name: &str) -> bool {
        !self.fields.is_empty() && {
            let name = name.to_lowercase();
            self.fields.iter().any(|field| **field == *name)
        }
    }
}

impl People<'_> {
    /// Whether any of their ids may be in a text. Providers escape as they like, so what can be escaped may be anywhere.
    fn may_be_in(&self, text: &[u8]) -> bool {
        let plain =
            |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'/' | b'<' | b'>' | b'&' | b'\'');
        !self.known.is_empty()
            && (self.known.iter().any(|id| !id.as_bytes().iter().all(&plain))
                || keys::has_escaped_ascii(text)
                || self
                    .known
                    .iter()
                    .any(|id| memchr::memmem::find(text, id.as_bytes()).is_some()))
    }
}

/// The last place up to `at` that is not inside of a character.
fn boundary(text: &[u8], at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    let back = (0..4.min(at + 1)).find(|back| text[at - back] & 0xc0 != 0x80);
    at - back.unwrap_or(0)
}

#[cfg(test)]
mod tests;
