//! Bounds how often one place logs: a full disk must not also fill the log.

use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(5);

/// Lets one line through every five seconds, and tells it how many it replaced.
#[derive(Debug, Default)]
pub struct LogGate {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogGate {
    /// Some(number of lines held back since the last one) if a line may be logged now.
    pub fn pass(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < PERIOD) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}
