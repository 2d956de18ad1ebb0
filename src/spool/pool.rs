//! Spare segment files: preallocated ahead of need, and recycled after shipping.
//!
//! Preallocating 32 MiB takes milliseconds, a rename microseconds. So one background thread keeps a spare ready for
//! each worker, and the shipper puts files back here; in steady state no file is created or deleted at all. Creates a
//! file in the caller's thread only if no spare is ready. Never holds more than `limit` spares.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};

use super::format::HEADER_LEN;
use super::log_gate::LogGate;
use super::room::Room;

/// How often the thread looks at the disk, and tries again to create a file that could not be created.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A preallocated file in the pool folder; its content is stale or zeros.
#[derive(Debug)]
pub struct Spare {
    pub file: File,
    pub path: PathBuf,
}

#[derive(Debug)]
struct Shelf {
    spares: Vec<Spare>,
    next_name: u64,
    closed: bool,
    /// Files are deleted instead of used again.
    fresh: bool,
}

/// The spares of one spool folder, and the thread that prepares them.
#[derive(Debug)]
pub struct Pool {
    folder: PathBuf,
    segment_bytes: u64,
    /// Below this many spares the thread prepares another.
    ready: usize,
    /// Above this many a returned file is deleted.
    limit: usize,
    room: Arc<Room>,
    shelf: Mutex<Shelf>,
    changed: Condvar,
}

/// Owns the preparing thread; stops and joins it on drop.
#[derive(Debug)]
pub struct PoolThread {
    pool: Arc<Pool>,
    thread: Option<JoinHandle<()>>,
}

impl Pool {
    /// Opens the pool folder, adopts the whole spares in it, and starts the thread that prepares more.
    ///
    /// # Errors
    /// The folder cannot be created or read, or no thread can be started.
    pub fn start(
        folder: PathBuf,
        segment_bytes: u64,
        workers: usize,
        room: Arc<Room>,
    ) -> io::Result<(Arc<Pool>, PoolThread)> {
        fs::create_dir_all(&folder)?;
        let limit = (2 * workers + 2).max(4);
        let mut shelf = Shelf {
            spares: Vec::new(),
            next_name: 0,
            closed: false,
            fresh: false,
        };
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let number = path
                .file_stem()
                .and_then(|s| s.to_str())
                .and_then(|s| s.parse::<u64>().ok());
            shelf.next_name = shelf.next_name.max(number.map_or(0, |n| n + 1));
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            if file.metadata()?.len() == segment_bytes && shelf.spares.len() < limit {
                shelf.spares.push(Spare { file, path });
            } else {
                fs::remove_file(&path)?;
            }
        }
        let pool = Arc::new(Pool {
            folder,
            segment_bytes,
            ready: workers.max(1),
            limit,
            room,
            shelf: Mutex::new(shelf),
            changed: Condvar::new(),
        });
        let preparing = Arc::clone(&pool);
        let thread = std::thread::Builder::new()
            .name("spool-prepare".into())
            .spawn(move || preparing.prepare())?;
        Ok((
            Arc::clone(&pool),
            PoolThread {
                pool,
                thread: Some(thread),
            },
        ))
    }

    /// Takes a ready spare, or creates one in this thread if there is none.
    ///
    /// # Errors
    /// No spare was ready and none could be created.
    pub fn take(&self) -> io::Result<Spare> {
        let spare = self.shelf().spares.pop();
        self.changed.notify_one();
        match spare {
            Some(spare) => Ok(spare),
            None => self.create(),
        }
    }

    /// Creates a spare in this thread, past those on the shelf: for when the folder was removed under them. Forgets
    /// the shelf's spares that are no longer there.
    ///
    /// # Errors
    /// None could be created.
    pub fn take_new(&self) -> io::Result<Spare> {
        self.shelf().spares.retain(|spare| spare.path.exists());
        self.create()
    }

    /// Takes back a segment file whose records are stored elsewhere: blanks its header and keeps it as a spare, or
    /// deletes it if there are enough or it was trimmed. Returns whether it was kept.
    ///
    /// # Errors
    /// The file can neither be kept nor deleted.
    pub fn recycle(&self, path: &Path) -> io::Result<bool> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let name = {
            let mut shelf = self.shelf();
            let wanted =
                !shelf.fresh && shelf.spares.len() < self.limit && file.metadata()?.len() == self.segment_bytes;
            wanted.then(|| self.name(&mut shelf))
        };
        let Some(spare) = name else {
            fs::remove_file(path)?;
            return Ok(false);
        };
        // Before the rename: a file that is out of its boot folder must not look like a segment ever again.
        file.write_all_at(&[0; HEADER_LEN], 0)?;
        fs::rename(path, &spare)?;
        self.shelf().spares.push(Spare { file, path: spare });
        Ok(true)
    }

    /// Says that files are not to be used again, which leaves no bytes of shipped records on the disk, or that they may
    /// be. The spares at hand are deleted.
    pub fn set_fresh(&self, fresh: bool) {
        let spares = {
            let mut shelf = self.shelf();
            shelf.fresh = fresh;
            match fresh {
                true => std::mem::take(&mut shelf.spares),
                false => Vec::new(),
            }
        };
        for spare in spares {
            if let Err(error) = fs::remove_file(&spare.path) {
                tracing::warn!(%error, path = %spare.path.display(), "cannot delete a spare spool file");
            }
        }
        self.changed.notify_one();
    }

    fn prepare(&self) {
        let mut gate = LogGate::default();
        let mut shelf = self.shelf();
        while !shelf.closed {
            let spares = shelf.spares.len();
            drop(shelf);
            self.room.measure(spares as u64 * self.segment_bytes);
            // Also to find out whether files can be created again.
            let wanted = spares < self.ready || (spares < self.limit && self.room.is_broken());
            let created = wanted.then(|| self.create());
            shelf = self.shelf();
            match created {
                Some(Ok(spare)) => {
                    self.room.set_broken(false);
                    shelf.spares.push(spare);
                    continue;
                }
                // With all the spares there may be, the next segment finds out whether it can be begun.
                None => {
                    if spares >= self.limit {
                        self.room.set_broken(false);
                    }
                }
                Some(Err(error)) => {
                    // With a spare at hand records can still be kept.
                    self.room.set_broken(shelf.spares.is_empty());
                    if let Some(suppressed) = gate.pass() {
                        tracing::warn!(%error, suppressed, folder = %self.folder.display(), "cannot prepare a spool segment");
                    }
                }
            }
            if !shelf.closed {
                let waited = self.changed.wait_timeout(shelf, LOOK_EVERY);
                shelf = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn create(&self) -> io::Result<Spare> {
        let path = self.name(&mut self.shelf());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let file = options.open(&path).or_else(|error| match error.kind() {
            // Somebody removed the folder while we run: records matter more than tidiness.
            io::ErrorKind::NotFound => fs::create_dir_all(&self.folder).and_then(|()| options.open(&path)),
            _ => Err(error),
        })?;
        if let Err(error) = preallocate(&file, self.segment_bytes) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Spare { file, path })
    }

    fn name(&self, shelf: &mut Shelf) -> PathBuf {
        shelf.next_name += 1;
        self.folder.join(format!("{:08}.seg", shelf.next_name))
    }

    /// The lock is held for moves within a Vec only, never over file operations but `stat`; a thread that panicked
    /// with it has left the Vec whole, so poisoning is ignored.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PoolThread {
    fn drop(&mut self) {
        self.pool.shelf().closed = true;
        self.pool.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reserves the blocks, so that a later write cannot meet a full disk. A file system that cannot gets a sparse file;
/// a full disk is an error.
fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => file.set_len(bytes),
        Err(error) => Err(error.into()),
    }
}
