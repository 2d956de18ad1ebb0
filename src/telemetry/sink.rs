//! Where batches go: the one place that knows there are several sinks.

use super::clickhouse::{ClickHouseError, ClickHouseSink};
use super::row::{EXCHANGE_SCHEMA_ID, decode_exchange, decode_feedback, decode_refusals};
use super::sqlite::{SqliteError, SqliteSink};

/// Rows of one segment, each as it was encoded.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Names these bytes; never used with others.
    pub token: String,
    /// What the rows mean: that of the build that wrote them, see [`exchange_columns`](super::row::exchange_columns).
    pub schema: u32,
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
            doubt_since: None,
            exchanges: Vec::new(),
            feedback: Vec::new(),
            refusals: Vec::new(),
        }
    }
}

impl<'a> Batch<'a> {
    pub fn rows(&self) -> usize {
        self.exchanges.len() + self.feedback.len() + self.refusals.len()
    }

    /// When the oldest of its exchanges began, µs since the epoch.
    pub fn oldest(&self) -> Option<i64> {
        // A row begins with its id and its time.
        let began = |row: &&[u8]| row.get(16..24)?.first_chunk().map(|bytes| i64::from_le_bytes(*bytes));
        self.exchanges.iter().filter_map(began).min()
    }

    /// Those of its rows that can be decoded, as a batch with a token of its own: a token never goes with other bytes.
    pub fn sound_rows(&self) -> Batch<'a> {
        Batch {
            token: format!("{}/sound", self.token),
            schema: self.schema,
            doubt_since: self.doubt_since,
            exchanges: decodable(&self.exchanges, |row| decode_exchange(self.schema, row).is_ok()),
            feedback: decodable(&self.feedback, |row| decode_feedback(row).is_ok()),
            refusals: decodable(&self.refusals, |row| decode_refusals(row).is_ok()),
        }
    }
}

fn decodable<'a>(rows: &[&'a [u8]], sound: impl Fn(&[u8]) -> bool) -> Vec<&'a [u8]> {
    rows.iter().copied().filter(|row| sound(row)).collect()
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

    pub async fn close(self) {
        match self {
            Self::Sqlite(sink) => sink.close().await,
            // Its connections close by themselves.
            Self::ClickHouse(_) => {}
        }
    }
}
