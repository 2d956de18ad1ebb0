//! The shipper: takes sealed segments in their order, stores each as one batch, and puts its file away.
//!
//! A segment leaves the queue only when its rows are stored, or when it is certain that some never can be: then those
//! that can are stored by themselves, and the file goes to `dead/` and is counted. Any other failure is the sink's, and
//! is repeated for ever, 100 ms to 30 s apart. One segment is in flight at a time, so order is kept and memory is
//! bounded by one segment.
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

use super::row::{EXCHANGE_SCHEMA_ID, KIND_EXCHANGE, KIND_FEEDBACK, KIND_REFUSALS, exchange_columns};
use super::sink::{Batch, Sink, SinkError, Stored};
use crate::spool::recover::{Recovered, recover};
use crate::spool::{Disposal, LogGate, Sealed, SpoolStats};

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

/// Why a segment can never be shipped.
#[derive(Debug, thiserror::Error)]
enum Poison {
    #[error(transparent)]
    Header(#[from] crate::spool::format::HeaderError),
    #[error("header says {found}, the file name {named}")]
    Misnamed { found: String, named: String },
    #[error("rows have schema {0}, this build knows 1 to {EXCHANGE_SCHEMA_ID}")]
    Schema(u32),
    #[error("frame kind {0} is not known")]
    Kind(u8),
    #[error("{0}")]
    Row(SinkError),
}

/// Ships until told to stop; owned by its task.
#[derive(Debug)]
pub struct Shipper {
    /// Bounded by the disk: see the sender in the spool.
    incoming: mpsc::UnboundedReceiver<Sealed>,
    /// Oldest first; the first is in flight.
    pending: VecDeque<Sealed>,
    sink: Sink,
    disposal: Disposal,
    stats: Arc<SpoolStats>,
    insert_duration: prometheus::Histogram,
    /// Some(deadline): ship what is there, then end. The sender gone: end at once.
    stop: watch::Receiver<Option<Instant>>,
    gate: LogGate,
}

impl Shipper {
    pub fn new(
        incoming: mpsc::UnboundedReceiver<Sealed>,
        sink: Sink,
        disposal: Disposal,
        stats: Arc<SpoolStats>,
        insert_duration: prometheus::Histogram,
        stop: watch::Receiver<Option<Instant>>,
    ) -> Self {
        Self {
            incoming,
            pending: VecDeque::new(),
            sink,
            disposal,
            stats,
            insert_duration,
            stop,
            gate: LogGate::default(),
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
                    if prepared {
                        self.pending.pop_front();
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

    /// Waits for a segment, or for the word to stop.
    async fn idle(&mut self) {
        tokio::select! {
            sealed = self.incoming.recv() => self.pending.extend(sealed),
            _ = self.stop.changed() => {}
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
                self.count_damage(sealed, u64::from(sealed.frames));
                self.disposal.release(sealed);
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        let stored = self.store(sealed, &bytes).await?;
        let (disposal, done) = (self.disposal.clone(), sealed.clone());
        if let Err(poison) = stored {
            let path = blocking(move || disposal.bury(&done)).await.map_err(failed)?;
            tracing::error!(error = %poison, path = %path.display(), records = sealed.frames, "segment cannot be decoded");
        } else if let Err(error) = blocking(move || disposal.recycle(&done)).await {
            // Stored is what counts; the next start offers it again and finds its token.
            tracing::warn!(%error, path = %sealed.path.display(), "cannot recycle a shipped segment");
        }
        Ok(())
    }

    /// Stores what is in a segment's bytes; the inner error says that this can never succeed.
    async fn store(&mut self, sealed: &Sealed, bytes: &[u8]) -> Result<Result<(), Poison>, ShipError> {
        let (mut batch, found) = match recover(bytes).map_err(Poison::from).and_then(|r| decode(sealed, &r)) {
            Ok(decoded) => decoded,
            Err(poison) => return Ok(Err(poison)),
        };
        // An earlier process may have sent it, and died before it knew.
        batch.doubt_since = self.disposal.is_of_earlier_boot(sealed).then_some(sealed.created_at);
        let begun = Instant::now();
        let stored = self.sink.store(&batch).await;
        // Also of a failed one: part of it may be there.
        self.stats.note_stored(batch.oldest());
        match stored {
            Ok(Stored::Now) => {
                self.stats.shipped.fetch_add(found, Relaxed);
                if found < u64::from(sealed.frames) {
                    self.count_damage(sealed, u64::from(sealed.frames) - found);
                }
            }
            Ok(Stored::Before) => tracing::info!(token = batch.token, "segment had been stored before, skipped"),
            Err(error) if error.is_poison() => {
                self.store_sound_rows(&batch).await?;
                return Ok(Err(Poison::Row(error)));
            }
            Err(error) => return Err(error.into()),
        }
        self.insert_duration.observe(begun.elapsed().as_secs_f64());
        self.stats.shipped_segments.fetch_add(1, Relaxed);
        Ok(Ok(()))
    }

    /// Stores what can be decoded of a batch that was refused for its rows. If that is all of it, or is refused as
    /// well, nobody knows which rows are to blame, and none is stored.
    async fn store_sound_rows(&mut self, batch: &Batch<'_>) -> Result<(), ShipError> {
        let sound = batch.sound_rows();
        if sound.rows() == 0 || sound.rows() == batch.rows() {
            return Ok(());
        }
        let stored = self.sink.store(&sound).await;
        self.stats.note_stored(batch.oldest());
        match stored {
            Ok(Stored::Now) => {
                self.stats.shipped.fetch_add(sound.rows() as u64, Relaxed);
                Ok(())
            }
            Ok(Stored::Before) => Ok(()),
            Err(error) if error.is_poison() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn count_damage(&self, sealed: &Sealed, missing: u64) {
        self.stats.damaged_segments.fetch_add(1, Relaxed);
        self.stats.damaged_frames.fetch_add(missing, Relaxed);
        tracing::error!(path = %sealed.path.display(), missing, "records are missing from a sealed segment");
    }
}

/// Sorts the frames of a segment by kind; also returns how many there are.
fn decode<'a>(sealed: &Sealed, recovered: &Recovered<'a>) -> Result<(Batch<'a>, u64), Poison> {
    let header = &recovered.header;
    if (&header.boot, header.worker, header.sequence) != (&sealed.boot, sealed.worker, sealed.sequence) {
        let found = format!("{}/{}-{}", header.boot, header.worker, header.sequence);
        return Err(Poison::Misnamed {
            found,
            named: sealed.token(),
        });
    }
    if exchange_columns(header.schema).is_none() {
        return Err(Poison::Schema(header.schema));
    }
    let mut batch = Batch {
        token: sealed.token(),
        schema: header.schema,
        ..Batch::default()
    };
    for frame in &recovered.frames {
        match frame.kind {
            KIND_EXCHANGE => batch.exchanges.push(frame.payload),
            KIND_FEEDBACK => batch.feedback.push(frame.payload),
            KIND_REFUSALS => batch.refusals.push(frame.payload),
            kind => return Err(Poison::Kind(kind)),
        }
    }
    Ok((batch, recovered.frames.len() as u64))
}

/// Runs file work off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
