//! Credentials by their shape. These rules are always on, so they are narrow: a known prefix at the beginning of a word,
//! and behind it as many characters, and as mixed ones, as no word or name has.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use memchr::memmem::Finder;

/// Members of JSON whose text is a credential, in lower case: headers, and fields that carry one (a tool server's
/// `authorization` in a Responses call).
const NAMES: [&str; 9] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "api_key",
    "apikey",
    "x-goog-api-key",
    "cookie",
    "set-cookie",
];

/// Something in each of [`NAMES`], as it is usually written.
const NAME_WORDS: [&str; 13] = [
    "uthorization",
    "UTHORIZATION",
    "api-key",
    "Api-Key",
    "API-KEY",
    "API-Key",
    "api_key",
    "API_KEY",
    "apikey",
    "apiKey",
    "APIKEY",
    "ookie\"",
    "ookie\\\"",
];

/// The shape of a credential behind its prefix.
struct Shape {
    prefix: &'static str,
    /// Characters behind the prefix, at least.
    least: usize,
    mix: Mix,
}

enum Mix {
    /// A digit, or both upper and lower case: it is no word.
    DigitOrCases,
    /// Both upper and lower case: it is no identifier, such as `pg_stat_statements`.
    Cases,
    Any,
    /// Two more parts of at least eight characters behind dots.
    Parts,
    /// A token after a space; the word stays.
    Scheme,
    /// Up to the line that ends it.
    Block,
}

const fn shape(prefix: &'static str, least: usize, mix: Mix) -> Shape {
    Shape { prefix, least, mix }
}

const SHAPES: [Shape; 26] = [
    shape("Bearer ", 16, Mix::Scheme),
    shape("bearer ", 16, Mix::Scheme),
    shape("BEARER ", 16, Mix::Scheme),
    shape("Basic ", 16, Mix::Scheme),
    shape("basic ", 16, Mix::Scheme),
    shape("BASIC ", 16, Mix::Scheme),
    // OpenAI, Anthropic and others.
    shape("sk-", 16, Mix::DigitOrCases),
    // Ours: an application's key, a token of the control plane.
    shape("pg_", 43, Mix::Cases),
    shape("pga_", 20, Mix::DigitOrCases),
    // Google, AWS, Groq, Hugging Face, Replicate, xAI.
    shape("AIza", 35, Mix::DigitOrCases),
    shape("AKIA", 16, Mix::DigitOrCases),
    shape("ASIA", 16, Mix::DigitOrCases),
    shape("gsk_", 30, Mix::DigitOrCases),
    shape("hf_", 30, Mix::DigitOrCases),
    shape("r8_", 30, Mix::DigitOrCases),
    shape("xai-", 30, Mix::DigitOrCases),
    // GitHub, GitLab, Slack.
    shape("ghp_", 30, Mix::Any),
    shape("gho_", 30, Mix::Any),
    shape("ghs_", 30, Mix::Any),
    shape("ghu_", 30, Mix::Any),
    shape("github_pat_", 30, Mix::Any),
    shape("glpat-", 16, Mix::DigitOrCases),
    shape("xoxb-", 16, Mix::DigitOrCases),
    shape("xoxp-", 16, Mix::DigitOrCases),
    // JSON Web Tokens.
    shape("eyJ", 8, Mix::Parts),
    shape("-----BEGIN ", 0, Mix::Block),
];

/// The length of the shortest credential.
pub const SHORTEST: usize = 19;

/// Looks for [`SHAPES`].
static PREFIXES: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let prefixes = SHAPES.iter().map(|shape| shape.prefix);
    searcher(prefixes)
});

/// Looks for [`SHAPES`], then [`NAME_WORDS`].
static SUSPICIOUS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let prefixes = SHAPES.iter().map(|shape| shape.prefix);
    searcher(prefixes.chain(NAME_WORDS))
});

static ESCAPED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u00"));

fn searcher<'a>(words: impl Iterator<Item = &'a str>) -> AhoCorasick {
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(words)
        .expect("a few short words")
}

/// Whether `name` is always redacted.
pub fn is_name(name: &str) -> bool {
    // The longest has 19 bytes.
    name.len() <= 19 && NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether a text, perhaps JSON, may have a credential in it: quick, and never wrongly no.
pub fn may_be_in(raw: &[u8]) -> bool {
    let suspicious = |found: aho_corasick::Match| {
        found.pattern().as_usize() >= SHAPES.len() || begins_word(raw, found.start(), true)
    };
    SUSPICIOUS.find_iter(raw).any(suspicious) || has_escaped_ascii(raw)
}

/// Whether JSON has a printable ASCII character written as an escape, behind which anything may hide.
pub fn has_escaped_ascii(raw: &[u8]) -> bool {
    ESCAPED
        .find_iter(raw)
        .any(|at| matches!(raw.get(at + 4), Some(b'2'..=b'7')))
}

/// Adds the credentials of a text, in order.
pub fn find(text: &[u8], spans: &mut Vec<Range<usize>>) {
    let mut after = 0;
    for found in PREFIXES.find_iter(text) {
        if found.start() < after || !begins_word(text, found.start(), false) {
            continue;
        }
        if let Some(span) = SHAPES[found.pattern().as_usize()].at(text, found.range()) {
            after = span.end;
            spans.push(span);
        }
    }
}

/// Whether a word begins there. In JSON a letter may be the end of an escape such as `\n`.
fn begins_word(text: &[u8], at: usize, is_raw: bool) -> bool {
    let Some(before) = at.checked_sub(1) else { return true };
    let in_word = text[before].is_ascii_alphanumeric() || matches!(text[before], b'_' | b'-');
    !in_word || (is_raw && (text[..before].last() == Some(&b'\\') || hex_escape_ends(&text[..at])))
}

/// Whether a text ends with `\u` and four digits.
fn hex_escape_ends(text: &[u8]) -> bool {
    let Some(tail) = text.len().checked_sub(6).map(|start| &text[start..]) else {
        return false;
    };
    tail.starts_with(b"\\u") && tail[2..].iter().all(u8::is_ascii_hexdigit)
}

impl Shape {
    /// The credential whose prefix is there, if what follows has its shape.
    fn at(&self, text: &[u8], prefix: Range<usize>) -> Option<Range<usize>> {
        let word = |at: usize, more: &[u8]| {
            let rest = &text[at..];
            let is_part =
                |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || more.contains(byte);
            at + rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len())
        };
        match self.mix {
            Mix::Scheme => {
                let spaces = text[prefix.end..].iter().take_while(|byte| **byte == b' ').count();
                let start = prefix.end + spaces;
                let end = word(start, b"./+~=");
                let token = &text[start..end];
                (token.len() >= self.least && (Mixture::of(token).is_no_word() || token.ends_with(b"=")))
                    .then_some(start..end)
            }
            Mix::Block => {
                let head = &text[prefix.end..];
                let line = head
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .unwrap_or(head.len().min(64));
                memchr::memmem::find(&head[..line], b"PRIVATE KEY")?;
                let end = memchr::memmem::find(head, b"-----END ").map_or(text.len(), |at| {
                    let tail = &head[at + 9..];
                    let dashes = memchr::memmem::find(tail, b"-----").map_or(tail.len(), |at| at + 5);
                    prefix.end + at + 9 + dashes
                });
                Some(prefix.start..end)
            }
            Mix::Parts => {
                let mut end = word(prefix.end, b"");
                let mut fits = end - prefix.end >= self.least;
                for _ in 0..2 {
                    fits &= text.get(end) == Some(&b'.');
                    let next = word((end + 1).min(text.len()), b"");
                    fits &= next.saturating_sub(end) > 8;
                    end = next;
                }
                fits.then_some(prefix.start..end)
            }
            Mix::DigitOrCases | Mix::Cases | Mix::Any => {
                let end = word(prefix.end, b"");
                let mixture = Mixture::of(&text[prefix.end..end]);
                let mixed = match self.mix {
                    Mix::Cases => mixture.upper && mixture.lower,
                    Mix::DigitOrCases => mixture.is_no_word(),
                    _ => true,
                };
                (end - prefix.end >= self.least && mixed).then_some(prefix.start..end)
            }
        }
    }
}

/// Which kinds of characters a text has.
#[derive(Default)]
struct Mixture {
    digit: bool,
    upper: bool,
    lower: bool,
}

impl Mixture {
    fn of(text: &[u8]) -> Self {
        text.iter().fold(Self::default(), |seen, byte| Self {
            digit: seen.digit || byte.is_ascii_digit(),
            upper: seen.upper || byte.is_ascii_uppercase(),
            lower: seen.lower || byte.is_ascii_lowercase(),
        })
    }

    fn is_no_word(&self) -> bool {
        self.digit || (self.upper && self.lower)
    }
}
