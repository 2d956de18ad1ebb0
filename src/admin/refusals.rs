//! How many refusals the audit log takes: a flood of them must not fill the disk. Each user has a small store of entries
//! that refills slowly, and so have all callers together without a token; the next entry says how many were left out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Entries that a caller may cause at once.
const BURST: u32 = 100;

/// How long one more takes. At about 600 bytes an entry a tireless caller adds 5 MB a day.
const REFILL: Duration = Duration::from_secs(10);

/// What one caller may still cause.
struct Store {
    left: u32,
    /// When `left` was brought up to date.
    at: Instant,
    suppressed: u64,
}

/// Decides which refusals are listed. Callers are users, of whom there are few, and nobody: the empty id.
#[derive(Default)]
pub struct RefusalGate {
    stores: Mutex<HashMap<String, Store>>,
}

impl RefusalGate {
    /// Returns how many refusals of this caller were left out since the last that was listed; `None` leaves this one out.
    pub fn admit(&self, user_id: &str) -> Option<u64> {
        self.admit_at(user_id, Instant::now())
    }

    fn admit_at(&self, user_id: &str, now: Instant) -> Option<u64> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let store = stores.entry(user_id.to_owned()).or_insert(Store {
            left: BURST,
            at: now,
            suppressed: 0,
        });
        let steps = now.saturating_duration_since(store.at).as_secs() / REFILL.as_secs();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        store.left = store.left.saturating_add(steps).min(BURST);
        store.at = if store.left == BURST {
            now
        } else {
            store.at + REFILL * steps
        };
        if store.left == 0 {
            store.suppressed += 1;
            return None;
        }
        store.left -= 1;
        Some(std::mem::take(&mut store.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_of_one_caller_is_bounded_counted_and_hides_no_other() {
        let (gate, start) = (RefusalGate::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(gate.admit_at("ada", start), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(gate.admit_at("ada", start + REFILL / 2), None);
        }
        assert_eq!(gate.admit_at("", start), Some(0));
        assert_eq!(gate.admit_at("ada", start + REFILL), Some(1000));
        assert_eq!(gate.admit_at("ada", start + REFILL), None);
        assert_eq!(gate.admit_at("ada", start + REFILL * 3), Some(1));
        assert_eq!(gate.admit_at("ada", start + REFILL * 3), Some(0));
        assert_eq!(gate.admit_at("ada", start + REFILL * 3), None);
        let much_later = start + REFILL * 1_000_000;
        for _ in 0..BURST {
            assert!(gate.admit_at("ada", much_later).is_some());
        }
        assert_eq!(gate.admit_at("ada", much_later), None);
    }
}
