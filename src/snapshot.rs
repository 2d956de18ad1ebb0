//! Stand-in for the compiled table: it says what it was told to catch up with.

use std::sync::atomic::{AtomicU64, Ordering};

/// Moves this node to newer registry states.
#[derive(Debug, Default)]
pub struct Publisher {
    generation: AtomicU64,
}

impl Publisher {
    /// Returns once this node serves `generation` or later.
    ///
    /// # Errors
    /// When the registry could not be read.
    pub async fn catch_up(&self, generation: u64) -> Result<(), crate::registry::RegistryError> {
        self.generation.fetch_max(generation, Ordering::AcqRel);
        Ok(())
    }

    /// Returns the generation this node serves.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}
