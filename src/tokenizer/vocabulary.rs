//! The vocabularies, each loaded once, in the background.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tiktoken::CoreBpe;

use super::Encoding;

/// One encoding's vocabulary.
struct Slot {
    name: &'static str,
    asked: AtomicBool,
    loaded: OnceLock<&'static CoreBpe>,
}

impl Slot {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            asked: AtomicBool::new(false),
            loaded: OnceLock::new(),
        }
    }
}

static CL100K: Slot = Slot::new("cl100k_base");
static O200K: Slot = Slot::new("o200k_base");

fn slot(encoding: Encoding) -> &'static Slot {
    match encoding {
        Encoding::Cl100k => &CL100K,
        Encoding::O200k => &O200K,
    }
}

/// Starts to load a vocabulary, if nobody has yet.
pub fn prepare(encoding: Encoding) {
    let slot = slot(encoding);
    // Read first: this is called for every stream, on every core.
    if slot.asked.load(Ordering::Relaxed) || slot.asked.swap(true, Ordering::Relaxed) {
        return;
    }
    let load = || {
        if let Some(vocabulary) = tiktoken::get_encoding(slot.name) {
            let _ = slot.loaded.set(vocabulary);
            tracing::debug!(vocabulary = slot.name, "loaded to estimate tokens");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("tokenizer".to_owned()).spawn(load) {
        tracing::warn!(%error, "cannot load a vocabulary: tokens of streams that break off are estimated by characters");
    }
}

/// Counts tokens; `None` until the vocabulary is loaded.
pub fn count(encoding: Encoding, text: &str) -> Option<u64> {
    let vocabulary = slot(encoding).loaded.get()?;
    Some(vocabulary.count(text) as u64)
}
