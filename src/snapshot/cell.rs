//! Where the current snapshot is found.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::tables::Snapshot;

/// The current snapshot. Loading it takes a few nanoseconds and no lock.
#[derive(Debug)]
pub struct Cell {
    current: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
}

impl Cell {
    pub fn new(snapshot: Snapshot) -> Self {
        let (generation, _) = watch::channel(snapshot.generation);
        Self {
            current: ArcSwap::from_pointee(snapshot),
            generation,
        }
    }

    /// Returns the current snapshot; a request does so once.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Returns a receiver that sees each new generation.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Swaps in `next` and returns the old table for the caller to free.
    pub(super) fn swap(&self, next: Snapshot) -> Arc<Snapshot> {
        let generation = next.generation;
        let old = self.current.swap(Arc::new(next));
        self.generation.send_replace(generation);
        old
    }
}
