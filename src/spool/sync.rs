//! Group commit: one thread that makes written segments survive a loss of power, for durability `disk`.
//!
//! Workers hand it the files they wrote to and go on; it takes all that has come, syncs each file once, and tells the
//! workers up to which record they may answer. Rounds begin at least a millisecond apart, so that under load many
//! records share one.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::log_gate::LogGate;
use super::stats::SpoolStats;

/// Time from the beginning of a round to that of the next.
const GAP: Duration = Duration::from_millis(1);

/// What a worker wrote.
#[derive(Debug, Default)]
pub struct Written {
    pub files: Vec<Arc<File>>,
    /// A file has a new name.
    pub renamed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    written: Written,
    /// Last ticket handed in by each worker.
    tickets: Vec<u64>,
    waiting: bool,
    closed: bool,
}

/// A worker's word on what is durable.
#[derive(Debug, Default)]
pub struct Progress {
    durable: AtomicU64,
    changed: Notify,
}

impl Progress {
    /// Every ticket up to this is durable.
    pub fn durable(&self) -> u64 {
        self.durable.load(Acquire)
    }

    /// Waits until there may be more.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Where workers hand in what they wrote.
#[derive(Debug)]
pub struct Syncer {
    queue: Mutex<Queue>,
    changed: Condvar,
    progress: Box<[Arc<Progress>]>,
    /// Folders whose entries change.
    folders: Vec<PathBuf>,
    stats: Arc<SpoolStats>,
}

/// Owns the thread; stops and joins it on drop, after a last round.
#[derive(Debug)]
pub struct SyncThread {
    syncer: Arc<Syncer>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(folders: Vec<PathBuf>, workers: usize, stats: Arc<SpoolStats>) -> std::io::Result<SyncThread> {
        let syncer = Arc::new(Self {
            queue: Mutex::new(Queue {
                tickets: vec![0; workers],
                ..Queue::default()
            }),
            changed: Condvar::new(),
            progress: (0..workers).map(|_| Arc::default()).collect(),
            folders,
            stats,
        });
        let running = Arc::clone(&syncer);
        let thread = std::thread::Builder::new()
            .name("spool-sync".into())
            .spawn(move || running.run())?;
        Ok(SyncThread {
            syncer,
            thread: Some(thread),
        })
    }

    /// What is durable of a worker's records.
    pub fn progress(&self, worker: usize) -> Arc<Progress> {
        Arc::clone(&self.progress[worker])
    }

    /// Hands in what a worker wrote up to `ticket`.
    pub fn submit(&self, worker: usize, ticket: u64, written: Written) {
        let mut queue = self.queue();
        queue.tickets[worker] = ticket;
        for file in written.files {
            if !queue.written.files.iter().any(|known| Arc::ptr_eq(known, &file)) {
                queue.written.files.push(file);
            }
        }
        queue.written.renamed |= written.renamed;
        queue.waiting = true;
        drop(queue);
        self.changed.notify_one();
    }

    fn run(&self) {
        let mut gate = LogGate::default();
        let mut began = Instant::now();
        loop {
            let mut queue = self.queue();
            while !queue.waiting {
                if queue.closed {
                    return;
                }
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            drop(queue);
            // Those who come meanwhile share the round.
            std::thread::sleep((began + GAP).saturating_duration_since(Instant::now()));
            began = Instant::now();
            let (written, tickets) = {
                let mut queue = self.queue();
                queue.waiting = false;
                (std::mem::take(&mut queue.written), queue.tickets.clone())
            };
            if let Err(error) = self.sync(&written) {
                self.stats.sync_errors.fetch_add(1, Relaxed);
                if let Some(suppressed) = gate.pass() {
                    tracing::error!(%error, suppressed, "cannot sync the spool; records may not survive a loss of power");
                }
            }
            self.stats.syncs.fetch_add(1, Relaxed);
            // Also after an error: nobody may wait for ever.
            for (progress, ticket) in self.progress.iter().zip(tickets) {
                progress.durable.store(ticket, Release);
                progress.changed.notify_one();
            }
        }
    }

    /// Syncs all, also past an error; returns the last one.
    fn sync(&self, written: &Written) -> std::io::Result<()> {
        let mut result = Ok(());
        for file in &written.files {
            result = file.sync_data().and(result);
        }
        if written.renamed {
            for folder in &self.folders {
                result = File::open(folder).and_then(|folder| folder.sync_all()).and(result);
            }
        }
        result
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SyncThread {
    pub fn syncer(&self) -> &Arc<Syncer> {
        &self.syncer
    }
}

impl Drop for SyncThread {
    fn drop(&mut self) {
        self.syncer.queue().closed = true;
        self.syncer.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
