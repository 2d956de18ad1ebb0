//! The chain of the audit log: each entry's hash covers its own content and the hash of the entry before, so that nothing
//! can be changed, taken out or put in between without every later hash changing too.
//!
//! ```text
//! hash(n) = SHA-256( hash(n-1) ‖ field ‖ field ‖ … ),  hash(0) = 32 zero bytes
//! field   = length of its UTF-8 text as 8 bytes, big endian ‖ the text
//! fields  = id, at (both decimal; at in µs since the Unix epoch), actor, actor_id, token_id, request_id, action,
//!           subject, environment, detail (the JSON text as stored)
//! ```
//!
//! What a chain cannot show by itself is that its end was cut off: for that, somebody else must keep a hash.

use sha2::{Digest, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];

/// What the first entry follows.
pub const START: Hash = [0; 32];

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub id: i64,
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
    pub actor: &'a str,
    pub actor_id: &'a str,
    pub token_id: &'a str,
    pub request_id: &'a str,
    pub action: &'a str,
    pub subject: &'a str,
    pub environment: &'a str,
    /// JSON, byte for byte as it is stored.
    pub detail: &'a str,
}

impl Entry<'_> {
    /// Returns the hash of this entry behind another.
    pub fn hash(&self, before: &Hash) -> Hash {
        let (id, at) = (self.id.to_string(), self.at_us.to_string());
        let fields = [
            id.as_str(),
            at.as_str(),
            self.actor,
            self.actor_id,
            self.token_id,
            self.request_id,
            self.action,
            self.subject,
            self.environment,
            self.detail,
        ];
        let mut sha = Sha256::new_with_prefix(before);
        for field in fields {
            sha.update((field.len() as u64).to_be_bytes());
            sha.update(field);
        }
        sha.finalize().into()
    }
}

/// Writes a hash as 64 lowercase hexadecimal digits.
pub fn hex(hash: &Hash) -> String {
    use std::fmt::Write;
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Where a chain breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The first entry that is not as it was written.
    pub entry: i64,
    /// What is wrong with it.
    pub message: String,
}

/// Follows a chain from its start.
#[derive(Debug, Clone)]
pub struct Chain {
    last: Hash,
    entries: i64,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            last: START,
            entries: 0,
        }
    }
}

impl Chain {
    /// Returns the hash of the last entry.
    pub fn head(&self) -> Hash {
        self.last
    }

    /// Returns how many entries were followed.
    pub fn entries(&self) -> i64 {
        self.entries
    }

    /// Takes the next entry with its stored hash.
    ///
    /// # Errors
    /// Where and how the chain breaks there.
    pub fn follow(&mut self, entry: &Entry<'_>, stored: &str) -> Result<(), Break> {
        let expected = self.entries + 1;
        if entry.id != expected {
            let message = if entry.id > expected {
                let last = entry.id - 1;
                let which = if last == expected {
                    format!("entry {expected} is missing")
                } else {
                    format!("entries {expected} to {last} are missing")
                };
                format!("{which}: deleted, or numbered anew")
            } else {
                format!("entry {} is where {expected} should be", entry.id)
            };
            return Err(Break {
                entry: expected,
                message,
            });
        }
        let hash = entry.hash(&self.last);
        if hex(&hash) != stored {
            return Err(Break {
                entry: entry.id,
                message:
                    "its hash does not fit what it says behind the entry before: one of them was edited, or it was \
                          put in later"
                        .to_owned(),
            });
        }
        self.last = hash;
        self.entries = entry.id;
        Ok(())
    }

    /// Compares the end with what the log itself notes as its end.
    ///
    /// # Errors
    /// When entries behind the end are missing, or the note was changed.
    pub fn end(&self, noted_entries: i64, noted_head: &str) -> Result<(), Break> {
        if noted_entries > self.entries {
            return Err(Break {
                entry: self.entries + 1,
                message: format!(
                    "the log notes {noted_entries} entries but ends after {}: its end was cut off",
                    self.entries
                ),
            });
        }
        if noted_entries < self.entries || noted_head != hex(&self.last) {
            return Err(Break {
                entry: self.entries,
                message: "the log notes another entry as its last: the note was changed, or the entries were"
                    .to_owned(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: i64, subject: &str) -> Entry<'_> {
        Entry {
            id,
            at_us: 1_700_000_000_000_000,
            actor: "ada",
            actor_id: "usr_1",
            token_id: "tok_1",
            request_id: "r",
            action: "prompt.create",
            subject,
            environment: "",
            detail: "{}",
        }
    }

    /// Computed with Python's hashlib: other programs can check an export by the description above.
    #[test]
    fn hash_is_what_other_programs_compute() {
        let first = entry(1, "support/greet").hash(&START);
        assert_eq!(
            hex(&first),
            "2781c2243b5d3cf2395edbe794c2f47d124232bd46b9f8e468a599440feb72b7"
        );
        assert_eq!(
            hex(&entry(2, "ä").hash(&first)),
            "5456741d8abee7b050705db445c0759df640fcafc7dc29e046fb696bd84482d1"
        );
    }

    #[test]
    fn text_does_not_move_from_field_to_field() {
        let one = Entry {
            action: "a",
            subject: "bc",
            ..entry(1, "")
        };
        let other = Entry {
            action: "ab",
            subject: "c",
            ..one
        };
        assert_ne!(one.hash(&START), other.hash(&START));
    }

    #[test]
    fn chain_breaks_where_something_was_done() {
        let mut hashes = Vec::new();
        let mut last = START;
        for id in 1..=5 {
            last = entry(id, "s").hash(&last);
            hashes.push(hex(&last));
        }
        let follow = |rows: &[(i64, &str, usize)]| -> (Chain, Option<i64>) {
            let mut chain = Chain::default();
            for (id, subject, hash) in rows {
                if let Err(broken) = chain.follow(&entry(*id, subject), &hashes[hash - 1]) {
                    return (chain, Some(broken.entry));
                }
            }
            (chain, None)
        };
        let whole = [(1, "s", 1), (2, "s", 2), (3, "s", 3), (4, "s", 4), (5, "s", 5)];
        let (chain, broken) = follow(&whole);
        assert_eq!((chain.entries(), broken), (5, None));
        assert_eq!(chain.end(5, &hashes[4]), Ok(()));
        assert_eq!(follow(&[(1, "s", 1), (2, "edited", 2)]).1, Some(2));
        assert_eq!(follow(&[(1, "s", 1), (2, "s", 2), (4, "s", 4)]).1, Some(3), "deleted");
        assert_eq!(follow(&[(1, "s", 1), (2, "s", 3)]).1, Some(2), "numbered anew");
        assert_eq!(follow(&[(2, "s", 2)]).1, Some(1));
        let (short, _) = follow(&whole[..3]);
        assert_eq!(short.end(5, &hashes[4]).unwrap_err().entry, 4, "cut off");
        assert_eq!(short.end(3, &hashes[4]).unwrap_err().entry, 3);
        assert_eq!(short.end(2, &hashes[1]).unwrap_err().entry, 3);
    }
}
