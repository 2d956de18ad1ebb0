//! Exchange records on their way from a worker to where they are read: encoding, spooling, shipping, reading back.
//!
//! ```text
//! worker                          disk                       control runtime
//! Recorder ─ RowBinary ─ Writer ─ spool segment ─ sealed ─▶ Shipper ─ one batch ─ ClickHouse ─▶ Store ─▶ /api/v1
//!                                      ▲                       │                  or SQLite
//!                                      └────── recycled ───────┘
//! ```
//!
//! A record is encoded once, as the bytes ClickHouse takes, since that is both the quickest encoding measured (106 ns
//! a row; JSON: 1.9 µs) and the one no sink has to redo. Every record goes through the spool, so that a sink that is
//! down, slow or new costs no request anything. Each is stored exactly once: a segment is one batch with one token.
//!
//! It never fails a request, never blocks a worker on a sink, and never drops silently: see
//! [`SpoolStats`].
//!
//! | file | what |
//! |---|---|
//! | [`row`], [`rowbinary`] | the table of columns, encoding and decoding; pure |
//! | [`recorder`] | a worker's end |
//! | [`ship`] | sealed segments to the sink, in order, for as long as it takes |
//! | [`dead`] | what could not be stored, and resending it |
//! | [`sink`] | which sinks there are, and what they have in common |
//! | [`clickhouse`], [`sqlite`] | the server's sink and store, and the embedded ones |
//! | [`store`] | what is asked of either store |
//! | [`erase`] | what is erased of exchanges that are stored |
//! | [`capture`] | what may be kept of content: redaction, and a bound on memory |

pub mod capture;
pub mod clickhouse;
pub mod dead;
pub mod erase;
pub mod recorder;
pub mod row;
pub mod rowbinary;
pub mod ship;
pub mod sink;
pub mod sqlite;
pub mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use crate::spool::{Durability, Flushed, Reservation, Spares, SpoolLimits, SpoolWatch, Ticket};
pub use recorder::{Recorder, RecorderSeed};
pub use store::{ExchangeFilter, ExchangePage, GroupBy, Stats, StatsQuery, Store, StoreError, VariantSummary};

use crate::config::{ClickHouse, Sqlite};
use crate::spool::{Spool, SpoolError, SpoolOptions, SpoolStats, boot_name};
use clickhouse::ClickHouseSink;
use dead::DeadLetters;
use ship::{Parts, ShipStats, Shipper};
use sink::Sink;
use sqlite::{SqliteError, SqliteSink};

/// How long an attempt of the sink that began before the deadline of a drain may still take.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How telemetry is set up.
#[derive(Debug, Clone)]
pub struct TelemetryOptions {
    pub spool_dir: PathBuf,
    /// Age at which a segment is sealed and shipped.
    pub seal_after: Duration,
    pub limits: SpoolLimits,
    pub sink: SinkOptions,
    pub workers: usize,
    /// Takes the seconds the sink needed for each batch.
    pub insert_duration: prometheus::Histogram,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkOptions {
    Sqlite(Sqlite),
    ClickHouse {
        server: ClickHouse,
        /// This node's name, which sets its batches apart from other nodes'.
        node: String,
    },
    /// Nothing is recorded, and the spool folder is not touched.
    None,
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("cannot open the telemetry database {path}: {source}")]
    Sqlite { path: PathBuf, source: SqliteError },
}

/// Recording, running; made once a process.
#[derive(Debug)]
pub struct Telemetry {
    stats: Arc<SpoolStats>,
    shipped: Arc<ShipStats>,
    /// None with sink "none".
    recording: Option<Recording>,
}

#[derive(Debug)]
struct Recording {
    spool: Spool,
    store: Arc<Store>,
    stop: watch::Sender<Option<Instant>>,
    shipper: JoinHandle<usize>,
}

impl Telemetry {
    /// Opens the spool, recovers what earlier runs left in it, opens the sink and starts to ship. Blocks until a SQLite
    /// sink is open; ClickHouse is connected to, and a backlog shipped, in the background.
    ///
    /// # Errors
    /// The spool folder or the database cannot be used; the message says which and why.
    pub fn start(options: TelemetryOptions, control: Handle) -> Result<Self, TelemetryError> {
        let Some((sink, store)) = open(&options.sink, options.limits.durability == Durability::Disk, &control)? else {
            return Ok(Self {
                stats: Arc::new(SpoolStats::new(options.workers)),
                shipped: Arc::default(),
                recording: None,
            });
        };
        let boot = boot_name(jiff::Timestamp::now().as_microsecond(), std::process::id());
        let letters = DeadLetters::of(&options.spool_dir);
        let mut spool_options = SpoolOptions::new(
            options.spool_dir,
            boot,
            row::EXCHANGE_SCHEMA_ID,
            options.workers,
            options.seal_after,
        );
        spool_options.limits = options.limits;
        let (spool, incoming) = Spool::open(spool_options)?;
        let (stop, stopped) = watch::channel(None);
        let stats = spool.stats();
        let shipped = Arc::<ShipStats>::default();
        let shipper = Shipper::new(Parts {
            incoming,
            sink,
            disposal: spool.disposal(),
            letters,
            stats: Arc::clone(&stats),
            shipped: Arc::clone(&shipped),
            insert_duration: options.insert_duration,
            stop: stopped,
        });
        let shipper = control.spawn(shipper.run());
        Ok(Self {
            stats,
            shipped,
            recording: Some(Recording {
                spool,
                store: Arc::new(store),
                stop,
                shipper,
            }),
        })
    }

    /// What a worker needs to make its [`Recorder`]; workers count from 0.
    pub fn recorder_seed(&self, worker: usize) -> RecorderSeed {
        RecorderSeed {
            writer: self.recording.as_ref().map(|r| r.spool.writer_seed(worker)),
        }
    }

    /// Reads records back; None if none are kept.
    pub fn store(&self) -> Option<Arc<Store>> {
        self.recording.as_ref().map(|r| Arc::clone(&r.store))
    }

    /// Counters of the shipper alone.
    pub fn ship_stats(&self) -> Arc<ShipStats> {
        Arc::clone(&self.shipped)
    }

    /// Counters of the spool and the shipper.
    pub fn stats(&self) -> Arc<SpoolStats> {
        Arc::clone(&self.stats)
    }

    /// Decides whether spool files are used again; None if nothing is recorded.
    pub fn spares(&self) -> Option<Spares> {
        self.recording.as_ref().map(|recording| recording.spool.spares())
    }

    /// How full the spool is; None if nothing is recorded.
    pub fn watch(&self) -> Option<SpoolWatch> {
        self.recording.as_ref().map(|recording| recording.spool.watch())
    }

    /// Ships what is left and stops; returns how many sealed segments remain, which the next start ships. Close the
    /// recorders first.
    pub async fn drain(self, deadline: Duration) -> usize {
        let Some(Recording {
            spool,
            store,
            stop,
            mut shipper,
        }) = self.recording
        else {
            return 0;
        };
        let end = Instant::now() + deadline;
        // The receiver is gone only if the shipper has ended.
        let _ = stop.send(Some(end));
        let left = match tokio::time::timeout_at(end + DRAIN_GRACE, &mut shipper).await {
            Ok(Ok(left)) => left,
            Ok(Err(error)) => {
                tracing::error!(%error, "the shipper has failed; what it left is shipped at the next start");
                usize::try_from(self.stats.figures().backlog_segments).unwrap_or(usize::MAX)
            }
            Err(_) => {
                shipper.abort();
                usize::try_from(self.stats.figures().backlog_segments).unwrap_or(usize::MAX)
            }
        };
        store.close().await;
        drop(spool);
        left
    }
}

/// Opens a sink and the store that reads from it, if there is to be one. With `durable` what a sink has taken survives the
/// loss of power.
fn open(options: &SinkOptions, durable: bool, control: &Handle) -> Result<Option<(Sink, Store)>, TelemetryError> {
    let _runtime = control.enter();
    match options {
        SinkOptions::Sqlite(sqlite) => {
            let sink =
                block_on(control, SqliteSink::open(sqlite, durable)).map_err(|source| TelemetryError::Sqlite {
                    path: sqlite.path.clone(),
                    source,
                })?;
            Ok(Some((Sink::Sqlite(sink), Store::sqlite(&sqlite.path))))
        }
        SinkOptions::ClickHouse { server, node } => {
            let sink = ClickHouseSink::new(server, node, durable);
            Ok(Some((Sink::ClickHouse(Box::new(sink)), Store::clickhouse(server))))
        }
        SinkOptions::None => Ok(None),
    }
}

/// Runs a future to its end from any thread: also from one of a runtime, where blocking on a handle is not allowed.
fn block_on<F: Future<Output: Send> + Send>(control: &Handle, future: F) -> F::Output {
    std::thread::scope(|scope| match scope.spawn(|| control.block_on(future)).join() {
        Ok(output) => output,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests;
