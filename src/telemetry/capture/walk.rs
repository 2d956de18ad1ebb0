//! One pass over a text that is JSON, or has JSON in it, or was JSON until it was cut.
//!
//! Nothing is parsed into a tree and nothing is refused: the text is a row of strings and of what is between them, and only
//! what changes is copied. Text that is not JSON is walked as well as it can be, and every byte of it is still matched.

use std::borrow::Cow;

use super::{People, REDACTED, Redactor, boundary, keys};

/// How deep JSON in a string of JSON in a string is looked into.
const LEVELS: usize = 4;

/// Members that are an id of a person where the walk begins, or in its `metadata`.
const PEOPLE_FIELDS: [&str; 2] = ["user", "safety_identifier"];
/// In `metadata` also this one.
const METADATA_FIELD: &str = "user_id";
/// Members that are an id of a person anywhere, if it is one that is known.
const KNOWN_FIELDS: [&str; 8] = [
    "user",
    "user_id",
    "userId",
    "safety_identifier",
    "unit",
    "end_user",
    "end_user_id",
    "prompt_cache_key",
];

const MARK: &[u8] = b"\"[redacted]\"";

pub struct Walk<'w> {
    redactor: &'w Redactor,
    raw: &'w [u8],
    /// What begins here or later is left out.
    end: usize,
    people: Option<&'w People<'w>>,
    /// How many strings it is inside of.
    level: usize,
    out: Vec<u8>,
    /// Up to where `raw` is in `out`, as it is or replaced.
    copied: usize,
    open: Vec<Open>,
    /// The last name read, until its value.
    name: Option<Name>,
}

/// An object or array around the present place.
struct Open {
    is_object: bool,
    /// The next string is a name.
    name_next: bool,
    is_metadata: bool,
}

/// What a name says of its value.
#[derive(Clone, Copy, PartialEq)]
enum Name {
    /// Configured: goes, whatever it is.
    Field,
    /// Built in: goes if it is a text.
    Credential,
    /// An id.
    Person,
    /// An id if it is a known one.
    MaybePerson,
    Metadata,
    Other,
}

impl<'w> Walk<'w> {
    pub fn new(
        redactor: &'w Redactor,
        raw: &'w [u8],
        end: usize,
        people: Option<&'w People<'w>>,
        level: usize,
    ) -> Self {
        Self {
            redactor,
            raw,
            end,
            people,
            level,
            out: Vec::new(),
            copied: 0,
            open: Vec::new(),
            name: None,
        }
    }

    /// Returns the text up to the end with everything replaced; None if nothing was.
    pub fn run(mut self) -> Option<Vec<u8>> {
        let mut at = 0;
        while at < self.end {
            if let Some(name) = self.name.take() {
                match self.value(at, name) {
                    Some(after) => {
                        at = after;
                        continue;
                    }
                    None => self.name = Some(name),
                }
            }
            match self.raw[at] {
                b'"' => at = self.string(at),
                _ => at = self.gap(at),
            }
        }
        if self.copied == 0 && self.out.is_empty() {
            return None;
        }
        if self.copied < self.end {
            self.out.extend_from_slice(&self.raw[self.copied..self.end]);
        }
        Some(self.out)
    }

    fn replace(&mut self, from: usize, to: usize, with: &[u8]) {
        self.out.extend_from_slice(&self.raw[self.copied..from]);
        self.out.extend_from_slice(with);
        self.copied = to;
    }

    /// Replaces the whole value that begins at `at`, if its name says so; returns where it ends.
    fn value(&mut self, at: usize, name: Name) -> Option<usize> {
        let first = *self.raw.get(at)?;
        let with: Cow<'static, [u8]> = match name {
            Name::Field => Cow::Borrowed(MARK),
            Name::Credential if first == b'"' => Cow::Borrowed(MARK),
            Name::Person | Name::MaybePerson if !matches!(first, b'{' | b'[' | b'n' | b't' | b'f') => {
                let inner = match first {
                    b'"' => at + 1..string_end(self.raw, at).0,
                    _ => at..scalar_end(self.raw, at),
                };
                let (id, _) = unescape(&self.raw[inner], usize::MAX);
                let id = String::from_utf8_lossy(&id);
                let people = self.people?;
                if id.is_empty() || (name == Name::MaybePerson && !people.known.iter().any(|known| *known == *id)) {
                    return None;
                }
                Cow::Owned(format!("\"{}\"", (people.pseudonym)(&id)).into_bytes())
            }
            _ => return None,
        };
        let after = value_end(self.raw, at);
        self.replace(at, after, &with);
        Some(after)
    }

    /// Redacts the string whose quote is at `at`, and takes it for a name if it is one; returns where to go on.
    fn string(&mut self, at: usize) -> usize {
        self.name = None;
        let inner = at + 1;
        let (to, after) = string_end(self.raw, at);
        let (text, end) = unescape(&self.raw[inner..to], self.end.saturating_sub(inner));
        if let Some(changed) = self.text(&text, end) {
            let mut escaped = Vec::with_capacity(changed.len() + 2);
            crate::domain::json::escape_into(&mut escaped, &String::from_utf8_lossy(&changed));
            self.replace(inner, to, &escaped);
        }
        let is_name = self.open.last().is_some_and(|open| open.is_object && open.name_next);
        if !is_name {
            return after;
        }
        let colon = spaces_end(self.raw, after);
        if self.raw.get(colon) != Some(&b':') {
            return after;
        }
        if let Some(open) = self.open.last_mut() {
            open.name_next = false;
        }
        self.name = Some(self.kind_of(&String::from_utf8_lossy(&text)));
        spaces_end(self.raw, colon + 1)
    }

    fn kind_of(&self, name: &str) -> Name {
        if self.redactor.is_field(name) {
            return Name::Field;
        }
        if keys::is_name(name) {
            return Name::Credential;
        }
        if let Some(people) = self.people {
            let is_call = people.is_call && self.level == 0;
            let in_metadata = self.open.last().is_some_and(|open| open.is_metadata);
            if is_call && self.open.len() == 1 && name == "metadata" {
                return Name::Metadata;
            }
            if is_call && (self.open.len() == 1 || in_metadata) && PEOPLE_FIELDS.contains(&name) {
                return Name::Person;
            }
            if in_metadata && name == METADATA_FIELD {
                return Name::Person;
            }
            if KNOWN_FIELDS.contains(&name) {
                return Name::MaybePerson;
            }
        }
        Name::Other
    }

    /// Returns what becomes of the inside of a string; None if nothing does.
    fn text(&self, text: &[u8], end: usize) -> Option<Vec<u8>> {
        let may_be_json = self.level < LEVELS
            && text.len() > 4
            && memchr::memchr(b'"', text).is_some()
            && memchr::memchr2(b'{', b'[', text).is_some();
        if may_be_json {
            // It may have been cut with the string around it.
            let is_whole = end == text.len();
            return self.redactor.redact(text, end, is_whole, self.people, self.level + 1);
        }
        let mut out = Vec::new();
        self.redactor
            .run(text, end, &mut out, REDACTED.as_bytes())
            .then_some(out)
    }

    /// What is between two strings: structure, numbers, or text that is no JSON.
    fn gap(&mut self, at: usize) -> usize {
        let to = memchr::memchr(b'"', &self.raw[at..]).map_or(self.raw.len(), |quote| at + quote);
        let spans = match to - at > 3 {
            true => self.redactor.spans(&self.raw[at..to]),
            false => Vec::new(),
        };
        for span in spans {
            // As a whole value, so that what was a number leaves JSON behind.
            let (mut from, mut until) = (at + span.start, at + span.end);
            while from > at && is_scalar(self.raw[from - 1]) {
                from -= 1;
            }
            while until < to && is_scalar(self.raw[until]) {
                until += 1;
            }
            if from >= self.copied && from < self.end {
                self.replace(from, until, MARK);
            }
        }
        for place in at..to {
            let byte = self.raw[place];
            match byte {
                b'{' | b'[' => {
                    let is_metadata = self.name.take() == Some(Name::Metadata);
                    self.open.push(Open {
                        is_object: byte == b'{',
                        name_next: byte == b'{',
                        is_metadata,
                    });
                }
                b'}' | b']' => {
                    self.open.pop();
                }
                b',' => {
                    if let Some(open) = self.open.last_mut() {
                        open.name_next = open.is_object;
                    }
                }
                _ => continue,
            }
            self.name = None;
        }
        to
    }
}

fn is_scalar(byte: u8) -> bool {
    !matches!(
        byte,
        b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"'
    )
}

fn scalar_end(raw: &[u8], at: usize) -> usize {
    let rest = &raw[at..];
    at + rest.iter().position(|byte| !is_scalar(*byte)).unwrap_or(rest.len())
}

/// Where a value that begins at `at` ends; of one that was cut, the end.
fn value_end(raw: &[u8], at: usize) -> usize {
    match raw[at] {
        b'"' => string_end(raw, at).1,
        b'{' | b'[' => {
            let (mut depth, mut place) = (0usize, at);
            while let Some(byte) = raw.get(place) {
                match byte {
                    b'"' => {
                        place = string_end(raw, place).1;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                place += 1;
                if depth == 0 {
                    return place;
                }
            }
            raw.len()
        }
        _ => scalar_end(raw, at).max(at + 1),
    }
}

/// Where the inside of the string whose quote is at `at` ends, and where the next thing begins, behind its other quote. Of
/// one that was cut, both are the end.
fn string_end(raw: &[u8], at: usize) -> (usize, usize) {
    let mut place = at + 1;
    while let Some(found) = raw.get(place..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        place += found;
        if raw[place] == b'"' {
            return (place, place + 1);
        }
        place += 2;
    }
    (raw.len(), raw.len())
}

fn spaces_end(raw: &[u8], at: usize) -> usize {
    let rest = &raw[at..];
    at + rest
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        .unwrap_or(rest.len())
}

/// Returns the text that the inside of a JSON string stands for, and how much of it `end` bytes of the inside are.
///
/// What is no escape stays as it is; an escape that was cut is left out.
fn unescape(inner: &[u8], end: usize) -> (Cow<'_, [u8]>, usize) {
    if memchr::memchr(b'\\', inner).is_none() {
        return (Cow::Borrowed(inner), boundary(inner, end));
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut out_end = None;
    let mut at = 0;
    while at < inner.len() {
        if at >= end && out_end.is_none() {
            out_end = Some(out.len());
        }
        if inner[at] != b'\\' {
            out.push(inner[at]);
            at += 1;
            continue;
        }
        let (byte, length) = match inner.get(at + 1) {
            None => break,
            Some(b'n') => (b'\n', 2),
            Some(b't') => (b'\t', 2),
            Some(b'r') => (b'\r', 2),
            Some(b'b') => (8, 2),
            Some(b'f') => (12, 2),
            Some(b'u') => {
                if inner.len() < at + 6 {
                    break;
                }
                match character(&inner[at..]) {
                    Some((character, length)) => {
                        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                        at += length;
                    }
                    None => {
                        out.push(b'\\');
                        at += 1;
                    }
                }
                continue;
            }
            Some(other) => (*other, 2),
        };
        out.push(byte);
        at += length;
    }
    let out_end = out_end.unwrap_or(out.len());
    let out_end = boundary(&out, out_end);
    (Cow::Owned(out), out_end)
}

/// The character that an escape `\uXXXX`, or two of them, stand for, and their length. Half a pair is U+FFFD.
///
/// Source: RFC 8259 §7.
fn character(text: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| -> Option<u32> {
        let escape = text.get(at..at + 6).filter(|escape| escape.starts_with(b"\\u"))?;
        let digits = std::str::from_utf8(&escape[2..]).ok()?;
        let all_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| all_hex)
    };
    let first = unit(0)?;
    if (0xd800..0xdc00).contains(&first)
        && let Some(second) = unit(6).filter(|unit| (0xdc00..0xe000).contains(unit))
    {
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return Some((char::from_u32(code)?, 12));
    }
    Some((char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 6))
}
