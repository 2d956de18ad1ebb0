//! Taking a secret out of what somebody else wrote, whole or as it comes.
//!
//! A provider may repeat its credential in an error: as it is, or as JSON writes it, with or without escaped slashes.

use std::borrow::Cow;
use std::fmt;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};

/// What stands where a secret was.
const MASK: &[u8] = b"***";

/// Finds one secret in its usual forms. Cloning shares it.
#[derive(Clone)]
pub struct Scrubber {
    forms: AhoCorasick,
    /// Length of the longest form in bytes.
    longest: usize,
}

impl fmt::Debug for Scrubber {
    /// Never shows the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrubber")
    }
}

impl Scrubber {
    /// `None` for an empty secret, which is everywhere.
    pub fn new(secret: &str) -> Option<Self> {
        if secret.is_empty() {
            return None;
        }
        let json = serde_json::Value::from(secret).to_string();
        let json = json[1..json.len() - 1].to_owned();
        let slashes = json.replace('/', "\\/");
        let mut forms = vec![secret.to_owned(), json, slashes];
        forms.dedup();
        let longest = forms.iter().map(String::len).max().unwrap_or_default();
        let forms = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            // The smallest of them; a single form is looked for with memmem anyway.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&forms)
            .expect("three forms of a header's length make an automaton");
        Some(Self { forms, longest })
    }

    /// Returns whether the secret is there.
    pub fn finds(&self, text: &[u8]) -> bool {
        self.forms.is_match(text)
    }

    /// Returns the text with every secret replaced.
    pub fn clean<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.finds(text) {
            return Cow::Borrowed(text);
        }
        let mut scrubbing = self.begin();
        let mut clean = scrubbing.push(text);
        clean.extend(scrubbing.finish());
        Cow::Owned(clean)
    }

    /// Begins a text that comes in pieces.
    pub fn begin(&self) -> Scrubbing {
        Scrubbing {
            scrubber: self.clone(),
            held: Vec::new(),
        }
    }
}

/// A text that comes in pieces; cut anywhere, it becomes the same as whole.
#[derive(Debug)]
pub struct Scrubbing {
    scrubber: Scrubber,
    /// What may be the beginning of a secret: shorter than its longest form.
    held: Vec<u8>,
}

impl Scrubbing {
    /// Takes the next piece, and returns what is certain by now.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        // Before this place, every form that begins would be there to its end.
        let certain = (self.held.len() + 1).saturating_sub(self.scrubber.longest);
        self.release(certain)
    }

    /// Returns the rest: nothing comes any more.
    pub fn finish(&mut self) -> Vec<u8> {
        self.release(self.held.len())
    }

    /// Takes away what begins before `certain`.
    fn release(&mut self, certain: usize) -> Vec<u8> {
        let mut clean = Vec::with_capacity(certain);
        let mut from = 0;
        while from < certain {
            match self.scrubber.forms.find(Input::new(&self.held).range(from..)) {
                Some(found) if found.start() < certain => {
                    clean.extend_from_slice(&self.held[from..found.start()]);
                    clean.extend_from_slice(MASK);
                    from = found.end();
                }
                _ => {
                    clean.extend_from_slice(&self.held[from..certain]);
                    from = certain;
                }
            }
        }
        self.held.drain(..from);
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cleaned(secret: &str, text: &str) -> String {
        let scrubber = Scrubber::new(secret).unwrap();
        String::from_utf8(scrubber.clean(text.as_bytes()).into_owned()).unwrap()
    }

    fn in_pieces<'a>(scrubber: &Scrubber, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut scrubbing = scrubber.begin();
        let mut clean: Vec<u8> = pieces.into_iter().flat_map(|piece| scrubbing.push(piece)).collect();
        clean.extend(scrubbing.finish());
        clean
    }

    #[test]
    fn secret_is_replaced_in_all_its_forms() {
        assert_eq!(
            cleaned("sk-1", "sk-1, \"sk-1\"; sk-2sk-1sk-1"),
            "***, \"***\"; sk-2******"
        );
        let error = serde_json::json!({"message": "no such key: a/b\"c\\d"}).to_string();
        assert_eq!(cleaned("a/b\"c\\d", &error), r#"{"message":"no such key: ***"}"#);
        assert_eq!(cleaned("a/b+c=", r#"{"message":"a\/b+c="}"#), r#"{"message":"***"}"#);
        assert!(matches!(
            Scrubber::new("sk-1").unwrap().clean(b"sk-2"),
            Cow::Borrowed(_)
        ));
        assert!(Scrubber::new("").is_none());
        assert_eq!(
            format!("{:?}", Scrubber::new("sk-1").unwrap().begin()).find("sk-1"),
            None
        );
    }

    #[test]
    fn piece_holds_back_less_than_a_secret() {
        let mut scrubbing = Scrubber::new("secret").unwrap().begin();
        assert_eq!(scrubbing.push(b"a secre"), b"a ");
        assert_eq!(scrubbing.push(b""), b"");
        assert_eq!(scrubbing.push(b"ts, many sec"), b"***s, man");
        assert_eq!(scrubbing.finish(), b"y sec");
        assert_eq!(scrubbing.finish(), b"");
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same_without_the_secret(secret in r#"[ab"\\/]{1,5}"#, text in r#"[ab"\\/]{0,40}"#) {
            let scrubber = Scrubber::new(&secret).unwrap();
            let whole = scrubber.clean(text.as_bytes()).into_owned();
            prop_assert!(!scrubber.finds(&whole));
            for at in 0..=text.len() {
                let (one, other) = text.as_bytes().split_at(at);
                prop_assert_eq!(&in_pieces(&scrubber, [one, other]), &whole);
            }
            for length in 1..4 {
                prop_assert_eq!(&in_pieces(&scrubber, text.as_bytes().chunks(length)), &whole);
            }
        }
    }
}
