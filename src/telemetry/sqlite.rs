//! The embedded sink: one SQLite file, so that the console and the statistics work with nothing installed.
//!
//! One sealed segment is one transaction, which also stores the segment's token: a segment offered again, because we
//! died between commit and recycling, is skipped. So each record is stored exactly once.
//!
//! The file is in WAL mode with `synchronous = NORMAL`: a commit survives `kill -9` (it is in the kernel's hands, as
//! the spool's frames are), but a power failure may take the last commits, whose segments may be recycled already.
//! That is the promise of `durability = "process"`, and costs no fsync a second.
//!
//! Rows go from the segment's bytes straight into bound parameters, by the table of columns; never through SQL text.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Arguments, AssertSqlSafe, Connection, SqliteConnection};

use super::row::{Column, EXCHANGE_COLUMNS, FEEDBACK_COLUMNS, Type, attempt_value, map_value};
use super::rowbinary::{DecodeError, Reader};
use super::sink::{Batch, Stored};

mod store;

pub use store::SqliteStore;

/// Rows of one INSERT, largest first; each is one prepared statement.
const ROWS_A_STATEMENT: [usize; 3] = [50, 10, 1];
/// How long a writer waits for another process that has the file locked, say a person with a shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Page size of a new file. With bodies of 700 bytes, 16 KiB pages took 15-18 µs of CPU a row, 4 KiB pages 18-24 µs,
/// and an aggregate over one prompt half the time.
const PAGE_BYTES: u32 = 16 << 10;
const SCHEMA: &str = include_str!("sqlite/schema.sql");
const SCHEMA_VERSION: i64 = 1;

/// Why rows could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    #[error("cannot create the folder of {path}: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("sqlite: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("{path} has schema version {found}, this build knows {SCHEMA_VERSION}; run the newer build again")]
    Newer { path: PathBuf, found: i64 },
    /// Trying again does not help.
    #[error("row {row} of the segment cannot be decoded: {source}")]
    Row { row: usize, source: DecodeError },
}

/// Stores batches in one file, over one connection.
#[derive(Debug)]
pub struct SqliteSink {
    path: PathBuf,
    /// None after an error: the next batch opens the file anew, whatever the connection's state was.
    connection: Option<SqliteConnection>,
}

/// Options both the sink and the store open the file with.
pub(super) fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT)
}

impl SqliteSink {
    /// Opens the file, creating it and its tables if they are not there.
    ///
    /// # Errors
    /// The file cannot be opened, is no database, or was written by a newer build.
    pub async fn open(path: &Path) -> Result<Self, SqliteError> {
        let mut sink = Self {
            path: path.to_path_buf(),
            connection: None,
        };
        sink.connection = Some(sink.connect().await?);
        Ok(sink)
    }

    /// Stores a batch and its token in one transaction.
    ///
    /// # Errors
    /// Nothing of the batch is stored then. [`SqliteError::Row`] will not go away; the others may.
    pub async fn store(&mut self, batch: &Batch<'_>) -> Result<Stored, SqliteError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let stored = insert_batch(&mut connection, batch).await?;
        self.connection = Some(connection);
        Ok(stored)
    }

    /// Closes the file, which also empties the write-ahead log.
    pub async fn close(self) {
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "cannot close the telemetry database");
        }
    }

    async fn connect(&self) -> Result<SqliteConnection, SqliteError> {
        if let Some(folder) = self.path.parent() {
            let made = tokio::fs::create_dir_all(folder).await;
            made.map_err(|source| SqliteError::Folder {
                path: self.path.clone(),
                source,
            })?;
        }
        let options = connect_options(&self.path)
            .create_if_missing(true)
            .page_size(PAGE_BYTES)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            // A backlog must not leave a write-ahead log of its size behind.
            .pragma("journal_size_limit", "67108864");
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let found: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *transaction)
            .await?;
        match found {
            0 => {
                sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await?;
                let version = format!("PRAGMA user_version = {SCHEMA_VERSION}");
                sqlx::raw_sql(AssertSqlSafe(version)).execute(&mut *transaction).await?;
            }
            SCHEMA_VERSION => {}
            found => {
                return Err(SqliteError::Newer {
                    path: self.path.clone(),
                    found,
                });
            }
        }
        transaction.commit().await?;
        Ok(connection)
    }
}

async fn insert_batch(connection: &mut SqliteConnection, batch: &Batch<'_>) -> Result<Stored, SqliteError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let token = sqlx::query("INSERT INTO batches (token, rows, stored_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(&batch.token)
        .bind(i64::try_from(batch.rows()).unwrap_or(i64::MAX))
        .bind(jiff::Timestamp::now().as_microsecond())
        .execute(&mut *transaction)
        .await?;
    if token.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(Stored::Before);
    }
    EXCHANGES.insert(&mut transaction, &batch.exchanges).await?;
    FEEDBACK.insert(&mut transaction, &batch.feedback).await?;
    transaction.commit().await?;
    Ok(Stored::Now)
}

/// The INSERTs of one table.
struct Table {
    columns: &'static [Column],
    /// SQL for each of [`ROWS_A_STATEMENT`].
    statements: [Arc<str>; ROWS_A_STATEMENT.len()],
}

static EXCHANGES: LazyLock<Table> = LazyLock::new(|| Table::new("exchanges", "exchange_id", &EXCHANGE_COLUMNS));
static FEEDBACK: LazyLock<Table> = LazyLock::new(|| Table::new("feedback", "feedback_id", &FEEDBACK_COLUMNS));

impl Table {
    /// A record that is there already is left alone: a batch whose write failed half way may have been spooled twice.
    fn new(table: &str, key: &str, columns: &'static [Column]) -> Self {
        let names: Vec<&str> = columns.iter().map(|c| c.name).collect();
        let row = format!("({})", vec!["?"; columns.len()].join(","));
        let statements = ROWS_A_STATEMENT.map(|rows| {
            let (names, rows) = (names.join(","), vec![row.as_str(); rows].join(","));
            format!("INSERT INTO {table} ({names}) VALUES {rows} ON CONFLICT ({key}) DO NOTHING").into()
        });
        Self { columns, statements }
    }

    async fn insert(&self, connection: &mut SqliteConnection, rows: &[&[u8]]) -> Result<(), SqliteError> {
        let mut done = 0;
        for (size, sql) in ROWS_A_STATEMENT.into_iter().zip(&self.statements) {
            while rows.len() - done >= size {
                let mut arguments = SqliteArguments::default();
                arguments.reserve(size * self.columns.len(), 0);
                for (i, row) in rows[done..done + size].iter().enumerate() {
                    bind(self.columns, row, &mut arguments).map_err(|error| match error {
                        BindError::Decode(source) => SqliteError::Row { row: done + i, source },
                        BindError::Encode(source) => SqliteError::Sql(sqlx::Error::Encode(source)),
                    })?;
                }
                // Safe: the text is made of our own column names and question marks.
                let sql = AssertSqlSafe(Arc::clone(sql));
                sqlx::query_with(sql, arguments).execute(&mut *connection).await?;
                done += size;
            }
        }
        Ok(())
    }
}

enum BindError {
    Decode(DecodeError),
    Encode(sqlx::error::BoxDynError),
}

impl From<DecodeError> for BindError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<sqlx::error::BoxDynError> for BindError {
    fn from(error: sqlx::error::BoxDynError) -> Self {
        Self::Encode(error)
    }
}

/// Binds the columns of one row: maps and lists as JSON, bodies as TEXT (as BLOB if they are not UTF-8).
fn bind(columns: &[Column], row: &[u8], arguments: &mut SqliteArguments) -> Result<(), BindError> {
    let mut row = Reader::new(row);
    for column in columns {
        match column.ty {
            Type::Uuid => arguments.add(row.uuid()?.as_bytes().as_slice())?,
            Type::Time => arguments.add(row.i64()?)?,
            Type::Label | Type::Text => arguments.add(row.str()?)?,
            Type::Content => {
                let bytes = row.bytes()?;
                match std::str::from_utf8(bytes) {
                    Ok(text) => arguments.add(text)?,
                    Err(_) => arguments.add(bytes)?,
                }
            }
            Type::U16 => arguments.add(row.u16()?)?,
            Type::U32 => arguments.add(row.u32()?)?,
            // SQLite's integers are signed; no honest count is that large.
            Type::U64 => arguments.add(i64::try_from(row.u64()?).unwrap_or(i64::MAX))?,
            Type::F64 => arguments.add(row.f64()?)?,
            Type::Bool => arguments.add(row.bool()?)?,
            Type::Map => arguments.add(map_value(&row.map()?).to_string())?,
            Type::Texts => arguments.add(serde_json::Value::from(row.strs()?).to_string())?,
            Type::Attempts => {
                let attempts: serde_json::Value = row.attempts()?.iter().map(attempt_value).collect();
                arguments.add(attempts.to_string())?;
            }
        }
    }
    Ok(row.end()?)
}
