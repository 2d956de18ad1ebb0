//! What the shipper counts beside the spool's own counters.

use std::sync::atomic::AtomicU64;

/// Counters of one shipper.
#[derive(Debug, Default)]
pub struct ShipStats {
    /// Rows that the sink can never take, moved to dead letters.
    pub dead_rows: AtomicU64,
    /// Rows of dead letters that were resent, and are stored now.
    pub resent_rows: AtomicU64,
    /// Requests counted in the refusals rows that were stored.
    pub refused: AtomicU64,
    /// Exchanges removed from the SQLite file by age or size.
    pub pruned: AtomicU64,
}
