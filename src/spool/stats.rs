//! Counters of the spool, for the metrics. Plain atomics: each worker has its own, so that no cache line is shared
//! between workers on the hot path; they are summed when somebody reads.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// What one worker counts. Aligned so that two workers never share a cache line (two lines: adjacent prefetch).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerStats {
    /// Records given to `append`.
    pub appended: AtomicU64,
    /// Records that could not be kept: write errors, no segment, too large.
    pub lost: AtomicU64,
    /// Of the lost: larger than a whole segment.
    pub too_large: AtomicU64,
    /// Of the lost: the spool was full.
    pub full: AtomicU64,
    /// Records kept without their content, since there was little room.
    pub shed: AtomicU64,
    /// Batches written; one a tick at most.
    pub flushes: AtomicU64,
    pub write_errors: AtomicU64,
    pub sealed: AtomicU64,
    /// Header and payload bytes of all segments ever begun.
    pub written_bytes: AtomicU64,
    /// When the open segment was begun, µs since the epoch; 0 if none is open.
    pub open_since: AtomicI64,
}

/// Counters of one spool; read them with [`SpoolStats::figures`].
#[derive(Debug, Default)]
pub struct SpoolStats {
    pub workers: Box<[WorkerStats]>,
    /// Bytes of older boots' segments, found at start.
    pub recovered_bytes: AtomicU64,
    pub recovered_segments: AtomicU64,
    pub recovered_frames: AtomicU64,
    /// Of those: calls that were open when an earlier process died.
    pub recovered_open: AtomicU64,
    /// Segments in which frames are missing or damaged.
    pub damaged_segments: AtomicU64,
    /// Frames known to be missing from sealed segments.
    pub damaged_frames: AtomicU64,
    /// Header and payload bytes of segments that were shipped, moved to `dead/` or found missing.
    pub released_bytes: AtomicU64,
    pub recycled: AtomicU64,
    /// Records a sink has acknowledged.
    pub shipped: AtomicU64,
    pub shipped_segments: AtomicU64,
    /// When the oldest exchange began that was stored since somebody asked, µs since the epoch; 0 without any.
    oldest_stored: AtomicI64,
    /// Attempts of a sink that failed; each is repeated.
    pub ship_errors: AtomicU64,
    /// Segments moved to `dead/`.
    pub dead_segments: AtomicU64,
    /// Sealed segments the shipper has not shipped yet.
    pub backlog: AtomicU64,
    /// When the oldest of those was begun, µs since the epoch; 0 without any.
    pub backlog_since: AtomicI64,
    /// Rounds of the syncer; 0 unless durability is `disk`.
    pub syncs: AtomicU64,
    /// Rounds in which a file could not be synced.
    pub sync_errors: AtomicU64,
}

/// The sums at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpoolFigures {
    pub appended: u64,
    pub lost: u64,
    pub too_large: u64,
    pub full: u64,
    pub shed: u64,
    pub flushes: u64,
    pub write_errors: u64,
    pub sealed_segments: u64,
    pub recycled_segments: u64,
    pub recovered_segments: u64,
    pub recovered_frames: u64,
    pub recovered_open: u64,
    pub damaged_segments: u64,
    pub damaged_frames: u64,
    pub shipped: u64,
    pub shipped_segments: u64,
    pub ship_errors: u64,
    pub dead_segments: u64,
    pub syncs: u64,
    pub sync_errors: u64,
    /// Sealed segments that wait for the sink.
    pub backlog_segments: u64,
    /// Bytes in segments that are not shipped yet.
    pub unshipped_bytes: u64,
    /// Time of the oldest record that is not shipped yet, µs since the epoch.
    pub oldest_unshipped_at: Option<i64>,
}

impl SpoolStats {
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| WorkerStats::default()).collect(),
            ..Self::default()
        }
    }

    /// Header and payload bytes in segments that are not shipped yet.
    pub fn unshipped_bytes(&self) -> u64 {
        let written: u64 = self.workers.iter().map(|w| w.written_bytes.load(Relaxed)).sum();
        let begun = written + self.recovered_bytes.load(Relaxed);
        begun.saturating_sub(self.released_bytes.load(Relaxed))
    }

    /// Notes that a sink has stored exchanges, the oldest of which began then.
    pub fn note_stored(&self, oldest: Option<i64>) {
        let Some(oldest) = oldest else { return };
        let older = |known: i64| (known == 0 || oldest < known).then_some(oldest);
        // It is only refused where it changes nothing.
        let _ = self.oldest_stored.fetch_update(Relaxed, Relaxed, older);
    }

    /// When the oldest exchange began that was stored since the last call.
    pub fn take_oldest_stored(&self) -> Option<i64> {
        Some(self.oldest_stored.swap(0, Relaxed)).filter(|oldest| *oldest != 0)
    }

    /// Sums the counters. The figures are of about the same moment, not of exactly one.
    pub fn figures(&self) -> SpoolFigures {
        let sum = |of: fn(&WorkerStats) -> &AtomicU64| self.workers.iter().map(|w| of(w).load(Relaxed)).sum::<u64>();
        let open = self.workers.iter().map(|w| w.open_since.load(Relaxed));
        SpoolFigures {
            appended: sum(|w| &w.appended),
            lost: sum(|w| &w.lost),
            too_large: sum(|w| &w.too_large),
            full: sum(|w| &w.full),
            shed: sum(|w| &w.shed),
            flushes: sum(|w| &w.flushes),
            write_errors: sum(|w| &w.write_errors),
            sealed_segments: sum(|w| &w.sealed),
            recycled_segments: self.recycled.load(Relaxed),
            recovered_segments: self.recovered_segments.load(Relaxed),
            recovered_frames: self.recovered_frames.load(Relaxed),
            recovered_open: self.recovered_open.load(Relaxed),
            damaged_segments: self.damaged_segments.load(Relaxed),
            damaged_frames: self.damaged_frames.load(Relaxed),
            shipped: self.shipped.load(Relaxed),
            shipped_segments: self.shipped_segments.load(Relaxed),
            ship_errors: self.ship_errors.load(Relaxed),
            dead_segments: self.dead_segments.load(Relaxed),
            syncs: self.syncs.load(Relaxed),
            sync_errors: self.sync_errors.load(Relaxed),
            backlog_segments: self.backlog.load(Relaxed),
            unshipped_bytes: self.unshipped_bytes(),
            oldest_unshipped_at: open
                .chain([self.backlog_since.load(Relaxed)])
                .filter(|at| *at != 0)
                .min(),
        }
    }
}
