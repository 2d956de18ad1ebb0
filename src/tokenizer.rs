//! Counts the tokens of texts, for answers that break off before the provider says their usage.
//!
//! It counts as OpenAI's models do, which for the models of others is an estimate. A request's worker must not wait, so:
//!
//! - a vocabulary is loaded on a thread of its own, when the first stream begins ([`prepare`]): a gateway that never
//!   streams never has it in memory;
//! - of a long text a sample is counted, spread evenly over it ([`SAMPLE_BYTES`]), and the rest in proportion;
//! - a thread counts at most [`ALLOWANCE_BYTES`] a second, since thousands of streams may break off at once.
//!
//! Where that does not do (and without the cargo feature `tokenizer`), characters are counted: [`TextSize::tokens`].

mod sample;
#[cfg(feature = "tokenizer")]
mod vocabulary;

/// Stands in where no vocabulary is built in.
#[cfg(not(feature = "tokenizer"))]
mod vocabulary {
    use super::Encoding;

    pub fn prepare(_: Encoding) {}

    pub fn count(_: Encoding, _: &str) -> Option<u64> {
        None
    }
}

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::domain::text_size::TextSize;

/// What is counted of a text at most. The worst text of this length takes 4 ms, prose 0.2-1 ms.
pub const SAMPLE_BYTES: usize = 16 << 10;

/// What one thread counts in a second at most: 130 ms of the worst text.
pub const ALLOWANCE_BYTES: usize = 512 << 10;

/// A way to cut text into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// GPT-4, GPT-3.5 and the embedding models.
    Cl100k,
    /// GPT-4o and everything newer.
    O200k,
}

impl Encoding {
    /// The encoding of a model by its name; [`Encoding::O200k`] for those that are not OpenAI's.
    ///
    /// Source: the table of models in OpenAI's tiktoken, `tiktoken/model.py`.
    pub fn of_model(model: &str) -> Self {
        const CL100K: [&str; 6] = [
            "gpt-4",
            "gpt-3.5",
            "gpt-35",
            "text-embedding-",
            "davinci-002",
            "babbage-002",
        ];
        const O200K: [&str; 3] = ["gpt-4o", "gpt-4.1", "gpt-4.5"];
        // `openai/gpt-4` as routers name it, `ft:gpt-4:…` as fine-tuned models are named.
        let name = model.rsplit('/').next().unwrap_or(model);
        let name = name.strip_prefix("ft:").unwrap_or(name);
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if begins(&CL100K) && !begins(&O200K) {
            Self::Cl100k
        } else {
            Self::O200k
        }
    }
}

/// What a count was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Tokenizer,
    Characters,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Characters => "characters",
        }
    }
}

/// Loads a model's vocabulary in the background, so that it is there when it is needed.
///
/// Returns at once; costs nothing when called again.
pub fn prepare(model: &str) {
    vocabulary::prepare(Encoding::of_model(model));
}

/// Counts the tokens of texts as those of one model. Never waits.
pub fn count<T: AsRef<str>>(model: &str, texts: &[T]) -> (u64, Method) {
    let total: usize = texts.iter().map(|text| text.as_ref().len()).sum();
    let counted = if spend(total.min(SAMPLE_BYTES)) {
        with_vocabulary(Encoding::of_model(model), texts, total)
    } else {
        None
    };
    match counted {
        Some(tokens) => (tokens, Method::Tokenizer),
        None => {
            let mut size = TextSize::default();
            texts.iter().for_each(|text| size.add(text.as_ref()));
            (size.tokens(), Method::Characters)
        }
    }
}

fn with_vocabulary<T: AsRef<str>>(encoding: Encoding, texts: &[T], total: usize) -> Option<u64> {
    if total <= SAMPLE_BYTES {
        return texts
            .iter()
            .map(|text| vocabulary::count(encoding, text.as_ref()))
            .sum();
    }
    let (mut tokens, mut bytes) = (0, 0);
    for stretch in sample::stretches(texts, total, SAMPLE_BYTES) {
        tokens += vocabulary::count(encoding, stretch)?;
        bytes += stretch.len();
    }
    Some((tokens as f64 * total as f64 / bytes.max(1) as f64).round() as u64)
}

thread_local! {
    /// When the present second began, and what was spent in it.
    static SPENT: Cell<Option<(Instant, usize)>> = const { Cell::new(None) };
}

/// Takes from this thread's allowance; says whether there was enough.
fn spend(bytes: usize) -> bool {
    let now = Instant::now();
    let (since, spent) = match SPENT.get() {
        Some((since, spent)) if now - since < Duration::from_secs(1) => (since, spent),
        _ => (now, 0),
    };
    let enough = spent + bytes <= ALLOWANCE_BYTES;
    SPENT.set(Some((since, if enough { spent + bytes } else { spent })));
    enough
}

#[cfg(test)]
mod tests;
