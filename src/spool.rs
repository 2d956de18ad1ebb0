//! Append-only segment files every record goes through on its way to a sink.
//!
//! A worker encodes a record into its own buffer; once a tick of its event loop the buffer is written with one
//! `pwrite` into a preallocated segment file, and then the answers that wait for it leave. What is written is in the
//! kernel's hands: `kill -9` loses no answered request. Segments are sealed after a second (or when full) and handed
//! over as one batch each; after shipping their files are used again.
//!
//! ```text
//! spool_dir/
//!   lock                        held while a process uses the folder
//!   pool/00000007.seg           spare files, preallocated
//!   <boot>/<worker>-<n>.open     what is known of calls that take long; see [`open_log`]
//!   <boot>/<worker>-<seq>.seg   segments; boot = start time and pid, sortable; seq unique and growing in a boot
//!   dead/<boot>-<worker>-…      what could not be read or decoded, kept for people
//! ```
//!
//! Why one write a tick: measured against nginx = 1.0, no recording costs 1.0-1.1, one write a record 1.36, a writer
//! thread with an acknowledgement a record 1.82, one write a tick 1.2.
//!
//! It never looks into a payload, never waits for a sink, never makes a caller fail: what cannot be kept is counted in
//! [`SpoolStats`] and logged at a bounded rate.
//!
//! | file | what |
//! |---|---|
//! | [`mod@format`] | the bytes of header, seal and frame; pure |
//! | [`recover`] | reading a segment back after anything; pure |
//! | [`segment`] | one file: open, append, seal, read |
//! | [`disk`] | a worker's segments: writing, turning over, sealing |
//! | [`pool`] | spare files, prepared ahead and recycled |
//! | [`writer`] | a worker's buffer, its flusher, those who wait |
//! | [`open_log`] | records that are not finished yet |
//! | [`room`] | size cap, free disk, how full it is |
//! | [`sync`] | group commit, for durability `disk` |
//! | [`startup`] | lock, recovery of older boots |
//! | [`stats`] | counters |

mod disk;
pub mod format;
mod log_gate;
mod open_log;
mod pool;
pub mod recover;
mod room;
mod segment;
mod startup;
mod stats;
mod sync;
mod writer;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc;

pub use log_gate::LogGate;
pub use open_log::{KEY_LEN, Key};
pub use room::{Level, Reservation};
pub use segment::Sealed;
pub use stats::{SpoolFigures, SpoolStats, WorkerStats};
pub use writer::{Flushed, Refused, Ticket, Writer, WriterSeed};

/// What a record survives once those who wait for it go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The end of the process, also by `kill -9`: it is in the kernel's hands.
    #[default]
    Process,
    /// The loss of power: it is on the disk.
    Disk,
    /// Nothing: it is written a few milliseconds later.
    Relaxed,
}

/// What an operator decides about a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLimits {
    pub durability: Durability,
    /// Bytes of all files together.
    pub max_bytes: u64,
    /// Bytes left free on the disk, but not more than a tenth of it.
    pub min_free_bytes: u64,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self {
            durability: Durability::Process,
            max_bytes: 16 << 30,
            min_free_bytes: 0,
        }
    }
}

/// How a spool is opened.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    pub folder: PathBuf,
    /// Sorts after every earlier boot; see [`boot_name`].
    pub boot: String,
    /// What the payloads mean; written into every segment.
    pub schema: u32,
    pub workers: usize,
    /// Age at which a segment is sealed, from its first frame.
    pub seal_after: Duration,
    /// Largest size of a segment file, header included; less where the cap or the disk is small.
    pub segment_bytes: u64,
    pub limits: SpoolLimits,
    /// Frames after which a segment is sealed.
    pub segment_frames: u32,
}

impl SpoolOptions {
    /// The usual sizes: 32 MiB and 50,000 frames, which is also what a sink takes as one batch.
    pub fn new(folder: PathBuf, boot: String, schema: u32, workers: usize, seal_after: Duration) -> Self {
        Self {
            folder,
            boot,
            schema,
            workers,
            seal_after,
            segment_bytes: 32 << 20,
            limits: SpoolLimits::default(),
            segment_frames: 50_000,
        }
    }
}

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("spool folder {path} is in use by another process; stop it, or set another telemetry.spool_dir")]
    InUse { path: PathBuf },
    #[error("cannot use {path} in the spool folder: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("boot name {0:?} must be 1 to 32 of 0-9, a-z and -")]
    BootName(String),
}

/// Names a run of the process: sorts by start time, unique by process id.
pub fn boot_name(now_micros: i64, pid: u32) -> String {
    format!("{now_micros:020}-{pid:x}")
}

/// What workers, shipper and the spool share.
#[derive(Debug)]
struct Shared {
    options: SpoolOptions,
    boot_folder: PathBuf,
    pool: Arc<pool::Pool>,
    room: Arc<room::Room>,
    /// Some with durability `disk`.
    syncer: Option<sync::SyncThread>,
    stats: Arc<SpoolStats>,
    next_sequence: AtomicU64,
    /// Unbounded in name only: each descriptor of some 150 bytes stands for a file on disk, so the disk bounds it long
    /// before memory does, and a bounded one would make a worker wait for the sink.
    sealed: mpsc::UnboundedSender<Sealed>,
}

/// An open spool folder. Dropping it releases the lock; writers must have been closed before.
#[derive(Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    _pool_thread: pool::PoolThread,
    _lock: File,
}

impl Spool {
    /// Locks the folder, recovers what older boots left, and begins the present boot. The receiver yields first the
    /// recovered segments in their order, then the new ones as they are sealed. Blocks.
    ///
    /// # Errors
    /// The folder is in use or cannot be used.
    pub fn open(mut options: SpoolOptions) -> Result<(Self, mpsc::UnboundedReceiver<Sealed>), SpoolError> {
        let valid = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase() || b == b'-';
        if !(1..=format::BOOT_LEN_MAX).contains(&options.boot.len()) || !options.boot.bytes().all(valid) {
            return Err(SpoolError::BootName(options.boot));
        }
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |source| SpoolError::Folder { path, source }
        };
        fs::create_dir_all(&options.folder).map_err(at(&options.folder))?;
        let lock = startup::lock(&options.folder)?;
        let stats = Arc::new(SpoolStats::new(options.workers));
        let recovered = startup::recover_folder(&options.folder, &stats)?;
        let boot_folder = options.folder.join(&options.boot);
        fs::create_dir(&boot_folder).map_err(at(&boot_folder))?;
        let pool_folder = options.folder.join(startup::POOL);
        let (workers, limits) = (options.workers, options.limits);
        let sizes = (options.segment_bytes, workers);
        let (room, segment_bytes) =
            room::Room::new(&options.folder, &limits, sizes, Arc::clone(&stats)).map_err(at(&options.folder))?;
        options.segment_bytes = segment_bytes;
        let room = Arc::new(room);
        let (pool, pool_thread) = pool::Pool::start(pool_folder.clone(), segment_bytes, workers, Arc::clone(&room))
            .map_err(at(&pool_folder))?;
        let syncer = match limits.durability {
            Durability::Disk => {
                let folders = vec![boot_folder.clone(), pool_folder.clone()];
                let thread = sync::Syncer::start(folders, workers, Arc::clone(&stats));
                Some(thread.map_err(at(&options.folder))?)
            }
            Durability::Process | Durability::Relaxed => None,
        };

        let (sealed, receiver) = mpsc::unbounded_channel();
        for segment in recovered {
            // The receiver is in our hands.
            let _ = sealed.send(segment);
        }
        let shared = Shared {
            options,
            boot_folder,
            pool,
            room,
            syncer,
            stats,
            next_sequence: AtomicU64::new(0),
            sealed,
        };
        Ok((
            Self {
                shared: Arc::new(shared),
                _pool_thread: pool_thread,
                _lock: lock,
            },
            receiver,
        ))
    }

    /// What a worker's thread needs to make its [`Writer`]. `worker` counts from 0.
    pub fn writer_seed(&self, worker: usize) -> WriterSeed {
        WriterSeed::new(Arc::clone(&self.shared), worker)
    }

    /// Counters of this spool.
    pub fn stats(&self) -> Arc<SpoolStats> {
        Arc::clone(&self.shared.stats)
    }

    /// Tells how full it is, for as long as the process lives.
    pub fn watch(&self) -> SpoolWatch {
        SpoolWatch {
            room: Arc::clone(&self.shared.room),
        }
    }

    /// Decides whether segment files are used again.
    pub fn spares(&self) -> Spares {
        Spares {
            pool: Arc::clone(&self.shared.pool),
        }
    }

    /// What the shipper does with segments it is done with.
    pub fn disposal(&self) -> Disposal {
        Disposal {
            shared: Arc::clone(&self.shared),
        }
    }
}

/// Tells how full a spool is.
#[derive(Debug, Clone)]
pub struct SpoolWatch {
    room: Arc<room::Room>,
}

impl SpoolWatch {
    pub fn level(&self) -> Level {
        self.room.level(self.room.used())
    }

    /// Bytes of records that may be in it now.
    pub fn capacity(&self) -> u64 {
        self.room.capacity()
    }
}

/// The files that segments are made of.
#[derive(Debug, Clone)]
pub struct Spares {
    pool: Arc<pool::Pool>,
}

impl Spares {
    /// See [`Pool::set_fresh`](pool::Pool::set_fresh). Blocks for a few files at most.
    pub fn set_fresh(&self, fresh: bool) {
        self.pool.set_fresh(fresh);
    }
}

/// The end of a segment's life: recycled, buried or found missing. All its calls block.
#[derive(Debug, Clone)]
pub struct Disposal {
    shared: Arc<Shared>,
}

impl Disposal {
    /// Puts the file of a shipped segment back into the pool (or deletes it), and its boot's folder away if that was
    /// the last of an older boot.
    ///
    /// # Errors
    /// The file can neither be kept nor deleted; it will be offered again at the next start.
    pub fn recycle(&self, sealed: &Sealed) -> io::Result<()> {
        if self.shared.pool.recycle(&sealed.path)? {
            self.shared.stats.recycled.fetch_add(1, Relaxed);
        }
        self.release(sealed);
        self.remove_old_boot(sealed);
        Ok(())
    }

    /// Moves the file to `dead/`, without its unused rest; returns where it is now.
    ///
    /// # Errors
    /// The file cannot be moved.
    pub fn bury(&self, sealed: &Sealed) -> io::Result<PathBuf> {
        // Only to save space; the file is as good without.
        let _ = sealed.trim();
        let path = startup::bury(&self.shared.options.folder, &sealed.path)?;
        self.shared.stats.dead_segments.fetch_add(1, Relaxed);
        self.release(sealed);
        self.remove_old_boot(sealed);
        Ok(path)
    }

    /// Whether an earlier process wrote the segment.
    pub fn is_of_earlier_boot(&self, sealed: &Sealed) -> bool {
        sealed.boot != self.shared.options.boot
    }

    /// Takes a segment whose file is no longer there out of the figures.
    pub fn release(&self, sealed: &Sealed) {
        self.shared.stats.released_bytes.fetch_add(sealed.file_bytes(), Relaxed);
    }

    /// Removes the present boot's folder if nothing is left in it; for the end of the process.
    pub fn remove_boot_folder(&self) {
        // Fails while segments are in it, which is what is wanted.
        let _ = fs::remove_dir(&self.shared.boot_folder);
    }

    fn remove_old_boot(&self, sealed: &Sealed) {
        if self.is_of_earlier_boot(sealed)
            && let Some(folder) = sealed.path.parent()
        {
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests;
