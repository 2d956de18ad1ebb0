//! Where batches go: the one place that knows there are several sinks.

use sha2::{Digest, Sha256};

use super::clickhouse::{ClickHouseError, ClickHouseSink};
use super::row::{EXCHANGE_SCHEMA_ID, decode_refusals};
use super::sqlite::{SqliteError, SqliteSink, Tidied};

/// Rows of one segment, each as it was encoded.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Names these bytes; never used with others.
    pub token: String,
    /// What the rows mean: that of the build that wrote them, see [`exchange_columns`](super::row::exchange_columns).
    pub schema: u32,
    /// Whether these are only some of the token's rows: then each is asked for, and their bytes are part of the token.
    pub piece: bool,
    /// When an attempt of an earlier process may have been made, µs since the epoch; None if there was none.
    pub doubt_since: Option<i64>,
    pub exchanges: Vec<&'a [u8]>,
    pub feedback: Vec<&'a [u8]>,
    pub refusals: Vec<&'a [u8]>,
}

impl Default for Batch<'_> {
    fn default() -> Self {
        Self {
            token: String::new(),
            schema: EXCHANGE_SCHEMA_ID,
            piece: false,
            doubt_since: None,
            exchanges: Vec::new(),
            feedback: Vec::new(),
            refusals: Vec::new(),
        }
    }
}

impl Batch<'_> {
    pub fn rows(&self) -> usize {
        self.exchanges.len() + self.feedback.len() + self.refusals.len()
    }

    /// When the oldest of its exchanges began, µs since the epoch.
    pub fn oldest(&self) -> Option<i64> {
        // A row begins with its id and its time.
        let began = |row: &&[u8]| row.get(16..24)?.first_chunk().map(|bytes| i64::from_le_bytes(*bytes));
        self.exchanges.iter().filter_map(began).min()
    }

    /// Requests that are counted in its refusals.
    pub fn refused(&self) -> u64 {
        let counts = self.refusals.iter().filter_map(|row| decode_refusals(row).ok());
        counts.map(|refusals| refusals.requests).sum()
    }
}

/// Names some rows by their bytes: the first 16 hexadecimal digits of their SHA-256.
pub fn digest(rows: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for row in rows {
        hasher.update((row.len() as u64).to_le_bytes());
        hasher.update(row);
    }
    let digest = hasher.finalize();
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Now,
    /// An earlier attempt had stored it.
    Before,
}

/// Why a batch could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    #[error(transparent)]
    ClickHouse(#[from] ClickHouseError),
}

impl SinkError {
    /// Whether the rows themselves are at fault, so that trying again cannot help.
    pub fn is_poison(&self) -> bool {
        match self {
            Self::Sqlite(error) => matches!(error, SqliteError::Row { .. }),
            Self::ClickHouse(error) => error.is_poison(),
        }
    }
}

/// A sink, owned by the shipper.
#[derive(Debug)]
pub enum Sink {
    Sqlite(SqliteSink),
    ClickHouse(Box<ClickHouseSink>),
}

impl Sink {
    /// Makes the sink ready for batches; cheap once it is.
    ///
    /// # Errors
    /// It cannot be reached or its tables cannot be made; try again later.
    pub async fn prepare(&mut self) -> Result<(), SinkError> {
        match self {
            // Opened before the process serves: a file needs no network.
            Self::Sqlite(_) => Ok(()),
            Self::ClickHouse(sink) => Ok(sink.prepare().await?),
        }
    }

    /// Stores a batch, all of it once, however often it is offered.
    ///
    /// # Errors
    /// See [`SinkError::is_poison`]; any other failure may go away.
    pub async fn store(&mut self, batch: &Batch<'_>) -> Result<Stored, SinkError> {
        match self {
            Self::Sqlite(sink) => Ok(sink.store(batch).await?),
            Self::ClickHouse(sink) => Ok(sink.store(batch).await?),
        }
    }

    /// Removes some of what is no longer to be kept; a short step. ClickHouse does that by itself. `quiet`: no batch waits.
    ///
    /// # Errors
    /// Nothing was removed; try again later.
    pub async fn tidy(&mut self, quiet: bool) -> Result<Tidied, SinkError> {
        match self {
            Self::Sqlite(sink) => Ok(sink.tidy(quiet).await?),
            Self::ClickHouse(_) => Ok(Tidied::default()),
        }
    }

    pub async fn close(self) {
        match self {
            Self::Sqlite(sink) => sink.close().await,
            // Its connections close by themselves.
            Self::ClickHouse(_) => {}
        }
    }
}
