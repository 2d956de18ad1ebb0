//! The text of answers: made up from a seed, always the same, and cut into the pieces a stream sends.

use std::borrow::Cow;

use super::Controls;

#[rustfmt::skip]
const WORDS: [&str; 64] = [
    "the", "river", "carries", "small", "boats", "toward", "a", "quiet", "harbour", "where", "people", "wait",
    "with", "bread", "and", "tea", "while", "morning", "light", "moves", "over", "old", "stone", "houses",
    "near", "green", "hills", "every", "gardener", "knows", "that", "rain", "helps", "young", "trees", "grow",
    "after", "long", "winter", "nights", "children", "write", "letters", "about", "distant", "cities", "their",
    "teachers", "read", "them", "aloud", "before", "lunch", "an", "answer", "often", "begins", "simple",
    "questions", "many", "travellers", "bring", "good", "news",
];
const WORDS_A_SENTENCE: usize = 8;

/// The text of one answer.
pub(super) struct Reply<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) words: usize,
    /// The request's token limit left out some of it.
    pub(super) limited: bool,
}

impl<'a> Reply<'a> {
    /// Chooses the text: what a control says exactly, else words made up from `seed`, up to `limit` of them.
    pub(super) fn new(controls: &'a Controls, seed: u64, echoed: &'a str, limit: Option<usize>) -> Self {
        let exact = if controls.echo {
            Some(Cow::Borrowed(echoed))
        } else if let Some(text) = &controls.text {
            Some(Cow::Borrowed(text.as_str()))
        } else {
            controls
                .size_bytes
                .map(|size_bytes| Cow::Owned(of_size(seed, size_bytes)))
        };
        if let Some(text) = exact {
            return Self {
                words: pieces(&text).count(),
                text,
                limited: false,
            };
        }
        let allowed = limit.unwrap_or(usize::MAX).min(controls.tokens);
        Self {
            text: Cow::Owned(words(seed, allowed)),
            words: allowed,
            limited: allowed < controls.tokens,
        }
    }
}

/// Makes up `count` words of English-looking sentences; a smaller count gives a prefix of a bigger one's.
fn words(seed: u64, count: usize) -> String {
    let mut text = String::with_capacity(count * 7);
    for (position, word) in random_words(seed).take(count).enumerate() {
        push_word(&mut text, position, word);
    }
    text
}

/// Makes up text of exactly `size_bytes` bytes, all ASCII.
fn of_size(seed: u64, size_bytes: usize) -> String {
    let mut text = String::with_capacity(size_bytes + 16);
    for (position, word) in random_words(seed).enumerate() {
        if text.len() >= size_bytes {
            break;
        }
        push_word(&mut text, position, word);
    }
    text.truncate(size_bytes);
    text
}

/// Words without end.
fn random_words(seed: u64) -> impl Iterator<Item = &'static str> {
    let start = split_mix(seed);
    (0..).flat_map(move |block| {
        // One random number yields ten words of six bits each.
        let bits = split_mix(start.wrapping_add(block));
        (0..10).map(move |word| WORDS[(bits >> (6 * word) & 63) as usize])
    })
}

fn push_word(text: &mut String, position: usize, word: &str) {
    if position > 0 {
        text.push(' ');
    }
    if position.is_multiple_of(WORDS_A_SENTENCE) {
        text.push(char::from(word.as_bytes()[0].to_ascii_uppercase()));
        text.push_str(&word[1..]);
    } else {
        text.push_str(word);
    }
    if position % WORDS_A_SENTENCE == WORDS_A_SENTENCE - 1 {
        text.push('.');
    }
}

/// Cuts a text into words, each with the white space before it; joined they are the text again.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let space = |c: char| c.is_ascii_whitespace();
        let word_at = rest.find(|c| !space(c)).unwrap_or(rest.len());
        let end = rest[word_at..]
            .find(space)
            .map_or(rest.len(), |length| word_at + length);
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

/// SplitMix64's finalizer.
///
/// Source: Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (2014).
pub(super) fn split_mix(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_same_seed_gives_same_text_in_every_build() {
        assert_eq!(words(7, 16), words(7, 16));
        assert_ne!(words(7, 16), words(8, 16));
        insta::assert_snapshot!(words(7, 16), @"Toward simple travellers letters good knows write read. Lunch trees where their small teachers nights quiet.");
    }

    #[test]
    fn words_fewer_are_a_prefix_of_more() {
        let long = words(3, 40);
        for count in 0..40 {
            let short = words(3, count);
            assert!(long.starts_with(&short), "{short}");
            assert_eq!(pieces(&short).count(), count);
        }
    }

    #[test]
    fn text_of_size_has_exactly_that_size() {
        for size in [0, 1, 2, 100, 4096] {
            assert_eq!(of_size(1, size).len(), size);
        }
    }

    #[test]
    fn pieces_joined_are_the_text() {
        for text in ["", " ", "one", "one two", "  a\n\nb  ", "[{\"a\": \"grüße €\"}] "] {
            assert_eq!(pieces(text).collect::<String>(), text);
        }
        assert_eq!(pieces("one two  three").collect::<Vec<_>>(), ["one", " two", "  three"]);
    }
}
