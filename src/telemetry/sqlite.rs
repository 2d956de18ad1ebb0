//! The embedded sink: one SQLite file, so that the console and the statistics work with nothing installed.
//!
//! One sealed segment is one transaction, which also stores the segment's token: a segment offered again, because we
//! died between commit and recycling, is skipped. So each record is stored exactly once.
//!
//! The file is in WAL mode, by default with `synchronous = NORMAL`: a commit survives `kill -9` (it is in the kernel's hands, as
//! the spool's frames are), but a power failure may take the last commits, whose segments may be recycled already.
//! That is the promise of `durability = "process"`, and costs no fsync a second; with `"disk"` it is `FULL`.
//!
//! | file | what |
//! |---|---|
//! | `file` | opening, making and upgrading the file |
//! | `insert` | a batch as one transaction |
//! | `retention` | removing what is no longer kept |
//! | `store` | reading back |
//! | `erase` | taking content out again |

use std::path::PathBuf;

use sqlx::{Connection, SqliteConnection};

use super::rowbinary::DecodeError;
use super::sink::{Batch, Stored};
use crate::config::Sqlite;
use retention::Retention;

mod erase;
mod file;
mod insert;
mod retention;
mod store;

pub(super) use file::connect_options;
pub use retention::Tidied;
pub use store::SqliteStore;

/// Why rows could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    #[error("cannot create the folder of {path}: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("sqlite: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("{path} has schema version {found}, this build knows {known}; run the newer build again", known = file::SCHEMA_VERSION)]
    Newer { path: PathBuf, found: i64 },
    #[error("sqlite: rows have schema {0}, which this build does not know")]
    Schema(u32),
    /// Trying again does not help.
    #[error("row {row} of the segment cannot be decoded: {source}")]
    Row { row: usize, source: DecodeError },
}

/// Stores batches in one file, over one connection.
#[derive(Debug)]
pub struct SqliteSink {
    path: PathBuf,
    retention: Retention,
    durable: bool,
    /// None after an error: the next batch opens the file anew, whatever the connection's state was.
    connection: Option<SqliteConnection>,
}

impl SqliteSink {
    /// Opens the file, creating it and its tables if they are not there.
    ///
    /// # Errors
    /// The file cannot be opened, is no database, or was written by a newer build.
    pub async fn open(config: &Sqlite, durable: bool) -> Result<Self, SqliteError> {
        Ok(Self {
            path: config.path.clone(),
            retention: Retention::new(config),
            durable,
            connection: Some(file::open(&config.path, durable).await?),
        })
    }

    /// Stores a batch and its token in one transaction.
    ///
    /// # Errors
    /// Nothing of the batch is stored then. [`SqliteError::Row`] will not go away; the others may.
    pub async fn store(&mut self, batch: &Batch<'_>) -> Result<Stored, SqliteError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => file::open(&self.path, self.durable).await?,
        };
        let stored = insert::insert_batch(&mut connection, batch).await?;
        self.connection = Some(connection);
        Ok(stored)
    }

    /// Removes some of what is no longer kept.
    ///
    /// # Errors
    /// Nothing was removed.
    pub async fn tidy(&mut self, quiet: bool) -> Result<Tidied, SqliteError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => file::open(&self.path, self.durable).await?,
        };
        let now = jiff::Timestamp::now().as_microsecond();
        let tidied = self.retention.step(&mut connection, now, quiet).await?;
        self.connection = Some(connection);
        Ok(tidied)
    }

    /// Closes the file, which also empties the write-ahead log.
    pub async fn close(self) {
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "cannot close the telemetry database");
        }
    }
}
