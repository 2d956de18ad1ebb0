//! How much the spool may hold: its size cap, and what the disk has left above a floor.
//!
//! From four fifths on, what writes records should leave out what is large; when it is full, nothing is kept but what
//! has a headroom of its own. Preallocated files count: a part of the cap is set aside for them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::SpoolLimits;
use super::stats::SpoolStats;

/// Share of the room from which on it is low, in percent.
const LOW_PERCENT: u64 = 80;
/// The floor is never more than this part of the file system.
const FLOOR_PART: u64 = 10;
/// The smallest segment: a record without its content fits many times.
const SEGMENT_MIN: u64 = 256 << 10;
/// Segments of each worker the cap has room for, at least.
const SEGMENTS_A_WORKER: u64 = 32;
/// What a record without its content takes, about.
const RECORD_BYTES: u64 = 4 << 10;
/// What aggregate rows may take beyond a full spool.
const HEADROOM: u64 = 1 << 20;

/// How full the spool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Plenty,
    /// Large content should be left out.
    Low,
    /// Records are not kept.
    Full,
}

impl Level {
    /// For a metric: 0, 1 or 2.
    pub fn number(self) -> i64 {
        self as i64
    }
}

/// The bounds of one spool, and what is reserved in them.
#[derive(Debug)]
pub struct Room {
    folder: PathBuf,
    max_bytes: u64,
    min_free_bytes: u64,
    stats: Arc<SpoolStats>,
    /// Bytes of records that may be in the spool; follows the disk.
    capacity: AtomicU64,
    /// No segment can be created or written, whatever the figures say.
    broken: AtomicBool,
    /// Bytes promised to requests that are being served.
    reserved: AtomicU64,
}

/// Bytes promised to a record that will be written; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    room: Arc<Room>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.room.reserved.fetch_sub(self.bytes, Relaxed);
    }
}

impl Room {
    /// Measures the folder's disk. Returns the room and the size its segments should have: at most `segment_bytes`, less
    /// where the cap or the disk is small.
    ///
    /// # Errors
    /// The file system does not say how full it is.
    pub fn new(
        folder: &Path,
        limits: &SpoolLimits,
        (segment_bytes, workers): (u64, usize),
        stats: Arc<SpoolStats>,
    ) -> io::Result<(Self, u64)> {
        let (max_bytes, min_free_bytes) = (limits.max_bytes, limits.min_free_bytes);
        let disk = Disk::of(folder)?;
        let used = stats.unshipped_bytes();
        let floor = disk.floor(min_free_bytes);
        let all = max_bytes.min(used.saturating_add(disk.free.saturating_sub(floor)));
        let workers = workers.max(1) as u64;
        let share = (all / (SEGMENTS_A_WORKER * workers)).next_multiple_of(4096);
        let segment_bytes = share.max(SEGMENT_MIN).min(segment_bytes);
        // One that is written to and two spares for each worker, and those that wait for the sink untrimmed.
        let preallocated = (3 * workers + 6).saturating_mul(segment_bytes);
        let room = Self {
            folder: folder.to_path_buf(),
            max_bytes: max_bytes.saturating_sub(preallocated).max(max_bytes / 2),
            min_free_bytes,
            stats,
            capacity: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            reserved: AtomicU64::new(0),
        };
        room.measure(0);
        Ok((room, segment_bytes))
    }

    /// Looks at the disk again. `spare_bytes` is what lies preallocated and unused on it.
    pub fn measure(&self, spare_bytes: u64) {
        let capacity = match Disk::of(&self.folder) {
            Ok(disk) => {
                let left = disk.free.saturating_sub(disk.floor(self.min_free_bytes));
                let used = self.stats.unshipped_bytes();
                self.max_bytes
                    .min(used.saturating_add(spare_bytes).saturating_add(left))
            }
            // The folder is gone, say: whether files can be made in it is tried elsewhere.
            Err(_) => self.max_bytes,
        };
        self.capacity.store(capacity, Relaxed);
    }

    /// Says whether files can be created and written.
    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Relaxed);
    }

    /// Whether no file could be created or written, the last time that was tried.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    /// Bytes of records in the spool now.
    pub fn used(&self) -> u64 {
        self.stats.unshipped_bytes()
    }

    /// Bytes of records that may be in the spool.
    pub fn capacity(&self) -> u64 {
        self.capacity.load(Relaxed)
    }

    /// How full the spool is with that many bytes in it.
    pub fn level(&self, used: u64) -> Level {
        let capacity = self.capacity();
        if self.broken.load(Relaxed) || !self.fits(used, RECORD_BYTES) {
            Level::Full
        } else if used >= capacity / 100 * LOW_PERCENT {
            Level::Low
        } else {
            Level::Plenty
        }
    }

    /// Whether a frame may be added to `used` bytes.
    pub fn fits(&self, used: u64, frame: u64) -> bool {
        used.saturating_add(frame) <= self.capacity()
    }

    /// Whether an aggregate row may be added, also to a spool that is full.
    pub fn fits_headroom(&self, used: u64) -> bool {
        used <= self.capacity().saturating_add(HEADROOM)
    }

    /// Promises `bytes` to a record; None if there is no room for it besides what is promised already.
    pub fn reserve(self: &Arc<Self>, used: u64, bytes: u64) -> Option<Reservation> {
        let before = self.reserved.fetch_add(bytes, Relaxed);
        let reservation = Reservation {
            room: Arc::clone(self),
            bytes,
        };
        let fits = !self.broken.load(Relaxed) && self.fits(used.saturating_add(before), bytes);
        fits.then_some(reservation)
    }
}

/// What a file system says of itself, in bytes.
struct Disk {
    free: u64,
    size: u64,
}

impl Disk {
    fn of(folder: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(folder)?;
        Ok(Self {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            size: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    fn floor(&self, min_free_bytes: u64) -> u64 {
        min_free_bytes.min(self.size / FLOOR_PART)
    }
}
