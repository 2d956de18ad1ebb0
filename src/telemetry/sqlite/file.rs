//! The file: opened, made, and brought to this build's schema.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::SqliteError;

/// How long a writer waits for another process that has the file locked, say a person with a shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Page size of a new file. With bodies of 700 bytes, 16 KiB pages took 15-18 µs of CPU a row, 4 KiB pages 18-24 µs,
/// and an aggregate over one prompt half the time.
const PAGE_BYTES: u32 = 16 << 10;
const SCHEMA: &str = concat!(include_str!("schema.sql"), include_str!("refusals.sql"));
/// Brings a file of version 1 to version 2. Here the new column comes behind the bodies: that costs reading their overflow
/// pages, and nothing else.
const UPGRADE_2: &str = concat!(
    "ALTER TABLE exchanges ADD COLUMN capture TEXT NOT NULL DEFAULT 'full';",
    include_str!("refusals.sql")
);
/// Version of a file this build makes and reads.
pub(super) const SCHEMA_VERSION: i64 = 2;

/// Options both the sink and the store open the file with.
pub(in crate::telemetry) fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT)
}

/// Opens the file for writing, creating it and its tables if they are not there. A file of an older build is upgraded in
/// one transaction.
///
/// # Errors
/// The file cannot be opened, is no database, or was written by a newer build.
pub(super) async fn open(path: &Path, durable: bool) -> Result<SqliteConnection, SqliteError> {
    if let Some(folder) = path.parent() {
        let made = tokio::fs::create_dir_all(folder).await;
        made.map_err(|source| SqliteError::Folder {
            path: path.to_path_buf(),
            source,
        })?;
    }
    let options = connect_options(path)
        .create_if_missing(true)
        .page_size(PAGE_BYTES)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(if durable {
            SqliteSynchronous::Full
        } else {
            SqliteSynchronous::Normal
        })
        // A backlog must not leave a write-ahead log of its size behind.
        .pragma("journal_size_limit", "67108864");
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *transaction)
        .await?;
    let steps = match found {
        0 => SCHEMA,
        1 => UPGRADE_2,
        SCHEMA_VERSION => "",
        found => {
            return Err(SqliteError::Newer {
                path: path.to_path_buf(),
                found,
            });
        }
    };
    if !steps.is_empty() {
        sqlx::raw_sql(steps).execute(&mut *transaction).await?;
        let version = format!("PRAGMA user_version = {SCHEMA_VERSION}");
        sqlx::raw_sql(AssertSqlSafe(version)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    if found == 1 {
        tracing::info!(path = %path.display(), from = found, to = SCHEMA_VERSION, "telemetry database upgraded");
    }
    Ok(connection)
}
