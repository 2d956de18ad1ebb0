//! A bound on what all open streams together hold of their answers' text.
//!
//! One account for the process, drawn on in steps, so that a stream touches the shared counter once in 4 KiB.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What is drawn at a time, in bytes.
const STEP: usize = 4 * 1024;

/// The account.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    max: usize,
}

/// What one stream has drawn; given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            max,
        })
    }

    /// Bytes drawn now.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    pub fn hold(self: &Arc<Self>) -> Held {
        Held {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }
}

impl Held {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Draws until it holds `wanted` bytes; returns how many it does hold: fewer, if the account has no more.
    pub fn grow_to(&mut self, wanted: usize) -> usize {
        if wanted > self.bytes {
            let more = (wanted - self.bytes).next_multiple_of(STEP);
            let before = self.budget.used.fetch_add(more, Relaxed);
            if before.saturating_add(more) <= self.budget.max {
                self.bytes += more;
            } else {
                self.budget.used.fetch_sub(more, Relaxed);
            }
        }
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_is_never_overdrawn_and_all_is_given_back() {
        let budget = Budget::new(10 * STEP);
        let (mut a, mut b) = (budget.hold(), budget.hold());
        assert_eq!(
            (a.grow_to(1), a.grow_to(STEP), a.grow_to(STEP + 1)),
            (STEP, STEP, 2 * STEP)
        );
        assert_eq!(b.grow_to(8 * STEP), 8 * STEP);
        assert_eq!((b.grow_to(8 * STEP + 1), a.grow_to(3 * STEP)), (8 * STEP, 2 * STEP));
        drop(b);
        assert_eq!(a.grow_to(10 * STEP), 10 * STEP);
        drop(a);
        assert_eq!(budget.used(), 0);
    }
}
