//! The shipper: takes sealed segments in their order, stores each as one batch, and puts its file away.
//!
//! A segment leaves the queue only when its rows are stored, or when it is certain that some never can be: then those
//! that can are stored by themselves (`split`), and the others are kept as a dead letter and counted. Any other failure is
//! the sink's, and is repeated for ever, 100 ms to 30 s apart. One segment is in flight at a time, so order is kept and
//! memory is bounded by one segment.
//!
//! Between batches it does its `chores`: dead letters that people have asked to resend, and records that the sink is no
//! longer to keep.
//!
//! The sink is made ready before the first segment, in the same way: a server that is not there yet delays nothing but
//! records.
//!
//! While the sink is down, waiting files are cut to what is used in them: a preallocated file for each second would
//! fill the disk with nothing.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::dead::DeadLetters;
use super::sink::{Sink, SinkError, Stored};
use crate::spool::{Disposal, LogGate, Sealed, SpoolStats};

mod chores;
mod segment;
mod split;
mod stats;

pub use split::{Dead, Split, split};
pub use stats::ShipStats;

use chores::Chores;
use segment::{Unreadable, decode_sealed};

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Waiting segments that keep their preallocated size, to be recycled; those behind them are cut.
const KEEP_WHOLE: usize = 4;

/// Why a segment could not be shipped this time.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    #[error("cannot read or move segment {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// What a shipper works with.
#[derive(Debug)]
pub struct Parts {
    /// Bounded by the disk: see the sender in the spool.
    pub incoming: mpsc::UnboundedReceiver<Sealed>,
    pub sink: Sink,
    pub disposal: Disposal,
    pub letters: DeadLetters,
    /// The spool's counters, some of which are the shipper's to count.
    pub stats: Arc<SpoolStats>,
    pub shipped: Arc<ShipStats>,
    pub insert_duration: prometheus::Histogram,
    /// Some(deadline): ship what is there, then end. The sender gone: end at once.
    pub stop: watch::Receiver<Option<Instant>>,
}

/// Ships until told to stop; owned by its task.
#[derive(Debug)]
pub struct Shipper {
    incoming: mpsc::UnboundedReceiver<Sealed>,
    /// Oldest first; the first is in flight.
    pending: VecDeque<Sealed>,
    sink: Sink,
    disposal: Disposal,
    letters: DeadLetters,
    stats: Arc<SpoolStats>,
    shipped: Arc<ShipStats>,
    insert_duration: prometheus::Histogram,
    stop: watch::Receiver<Option<Instant>>,
    gate: LogGate,
    tidy_gate: LogGate,
    chores: Chores,
}

impl Shipper {
    pub fn new(parts: Parts) -> Self {
        let Parts {
            incoming,
            sink,
            disposal,
            letters,
            stats,
            shipped,
            insert_duration,
            stop,
        } = parts;
        Self {
            incoming,
            pending: VecDeque::new(),
            sink,
            disposal,
            letters,
            stats,
            shipped,
            insert_duration,
            stop,
            gate: LogGate::default(),
            tidy_gate: LogGate::default(),
            chores: Chores::new(),
        }
    }

    /// Ships until stopped; returns how many sealed segments remain. Dropping it at any point loses nothing: a batch
    /// in flight is rolled back, or found stored by its token at the next start.
    pub async fn run(mut self) -> usize {
        let mut backoff = BACKOFF_MIN;
        let mut prepared = false;
        loop {
            self.collect();
            let stopping = self.stop.has_changed().is_err() || self.stop.borrow().is_some();
            let next = self.pending.front().cloned();
            if next.is_none() && (prepared || stopping) {
                if stopping {
                    break;
                }
                self.chores(0).await;
                self.idle().await;
                continue;
            }
            if self.stop.has_changed().is_err() || self.past_deadline(Duration::ZERO) {
                break;
            }
            let done = match &next {
                Some(sealed) if prepared => self.ship(sealed).await,
                _ => self.sink.prepare().await.map_err(ShipError::from),
            };
            match done {
                Ok(()) => {
                    if let (true, Some(done)) = (prepared, &next) {
                        self.pending.pop_front();
                        self.chores.stored(done.bytes);
                        self.chores(done.frames.into()).await;
                    }
                    prepared = true;
                    backoff = BACKOFF_MIN;
                }
                Err(error) => {
                    self.stats.ship_errors.fetch_add(1, Relaxed);
                    let pause = backoff.mul_f64(rand::random_range(0.5..=1.0));
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    let waiting = self.pending.len();
                    if let Some(suppressed) = self.gate.pass() {
                        tracing::warn!(%error, waiting, ?pause, suppressed, "the sink takes no records, will try again");
                    }
                    if self.past_deadline(pause) {
                        break;
                    }
                    self.pause(pause).await;
                }
            }
        }
        self.collect();
        self.sink.close().await;
        self.disposal.remove_boot_folder();
        self.pending.len()
    }

    fn past_deadline(&self, more: Duration) -> bool {
        self.stop
            .borrow()
            .is_some_and(|deadline| Instant::now() + more >= deadline)
    }

    /// Takes over what has been sealed, and publishes the queue's figures.
    fn collect(&mut self) {
        while let Ok(sealed) = self.incoming.try_recv() {
            self.push(sealed);
        }
        self.publish();
    }

    fn push(&mut self, sealed: Sealed) {
        if self.pending.len() >= KEEP_WHOLE {
            // In this thread: cutting a file takes microseconds. If it fails, only space is lost.
            let _ = sealed.trim();
        }
        self.pending.push_back(sealed);
    }

    fn publish(&self) {
        self.stats.backlog.store(self.pending.len() as u64, Relaxed);
        self.stats
            .backlog_since
            .store(self.pending.front().map_or(0, |s| s.created_at), Relaxed);
    }

    /// Waits for a segment, for a chore to be due, or for the word to stop.
    async fn idle(&mut self) {
        tokio::select! {
            sealed = self.incoming.recv() => self.pending.extend(sealed),
            _ = self.stop.changed() => {}
            () = sleep_until(self.chores.next()) => {}
        }
    }

    /// Waits before the next attempt, and goes on taking over what is sealed meanwhile.
    async fn pause(&mut self, pause: Duration) {
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                _ = self.stop.changed() => return,
                Some(sealed) = self.incoming.recv() => {
                    self.push(sealed);
                    self.publish();
                }
            }
        }
    }

    /// Ships one segment. Ok also if it is certain that nothing more can be done for it.
    async fn ship(&mut self, sealed: &Sealed) -> Result<(), ShipError> {
        let failed = |source| ShipError::File {
            path: sealed.path.clone(),
            source,
        };
        let reading = sealed.clone();
        let bytes = match blocking(move || reading.read()).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.count_missing(sealed, 0);
                self.disposal.release(sealed);
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        let stored = self.store(sealed, &bytes).await?;
        let (disposal, done) = (self.disposal.clone(), sealed.clone());
        if let Err(unreadable) = stored {
            let path = blocking(move || disposal.bury(&done)).await.map_err(failed)?;
            tracing::error!(error = %unreadable, path = %path.display(), records = sealed.frames, "segment cannot be decoded");
        } else if let Err(error) = blocking(move || disposal.recycle(&done)).await {
            // Stored is what counts; the next start offers it again and finds its token.
            tracing::warn!(%error, path = %sealed.path.display(), "cannot recycle a shipped segment");
        }
        Ok(())
    }

    /// Stores what is in a segment's bytes; the inner error says that nothing of it can ever be.
    async fn store(&mut self, sealed: &Sealed, bytes: &[u8]) -> Result<Result<(), Unreadable>, ShipError> {
        let mut decoded = match decode_sealed(sealed, bytes) {
            Ok(decoded) => decoded,
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        let batch = &mut decoded.batch;
        // An earlier process may have sent it, and died before it knew.
        batch.doubt_since = self.disposal.is_of_earlier_boot(sealed).then_some(sealed.created_at);
        let begun = Instant::now();
        let mut dead = Vec::new();
        let stored = self.sink.store(batch).await;
        // Also of a failed one: part of it may be there.
        self.stats.note_stored(batch.oldest());
        match stored {
            Ok(Stored::Now) => {
                self.stats.shipped.fetch_add(batch.rows() as u64, Relaxed);
                self.shipped.refused.fetch_add(batch.refused(), Relaxed);
                self.count_missing(sealed, decoded.found);
            }
            Ok(Stored::Before) => tracing::info!(token = batch.token, "segment had been stored before, skipped"),
            Err(error) if error.is_poison() => {
                tracing::warn!(%error, token = batch.token, "the sink refuses rows of a segment, looking for them");
                let split = split(&mut self.sink, batch).await?;
                self.stats.note_stored(batch.oldest());
                self.stats.shipped.fetch_add(split.stored, Relaxed);
                self.count_missing(sealed, decoded.found);
                dead = split.dead;
            }
            Err(error) => return Err(error.into()),
        }
        dead.append(&mut decoded.unknown);
        self.bury_rows(&decoded.header, &dead).await?;
        self.insert_duration.observe(begun.elapsed().as_secs_f64());
        self.stats.shipped_segments.fetch_add(1, Relaxed);
        Ok(Ok(()))
    }

    /// Counts the records that a sealed segment should have had and has not.
    fn count_missing(&self, sealed: &Sealed, found: u64) {
        let missing = u64::from(sealed.frames).saturating_sub(found);
        if missing > 0 {
            self.stats.damaged_segments.fetch_add(1, Relaxed);
            self.stats.damaged_frames.fetch_add(missing, Relaxed);
            tracing::error!(path = %sealed.path.display(), missing, "records are missing from a sealed segment");
        }
    }
}

/// Runs file work off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
