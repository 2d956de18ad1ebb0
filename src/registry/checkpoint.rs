//! When SQLite's log goes into the database's file.
//!
//! A commit is durable once it is in the log: it was synced. Left to itself, SQLite copies the log into the file within the
//! commit that makes it a thousand pages long, and who waits for that change waits for hundreds of writes and a sync of the
//! file. So it is copied between the changes, by the connection that writes: then all of it is, and the next change writes
//! the log from its beginning again. Were it only ever to grow, each commit's sync would also store the log's new length
//! (measured: 0.5 ms instead of 0.35). A change that comes at that moment waits for what the last second's changes wrote.
//!
//! Source: <https://sqlite.org/wal.html#avoiding_excessively_large_wal_files>, <https://sqlite.org/c3ref/wal_checkpoint_v2.html>

use super::sql::Engine;
use super::{Registry, RegistryError};

/// The length of the log, in pages of 4 KiB, from which a commit copies it all the same: 64 MiB.
pub(super) const AT_THE_LATEST: &str = "16384";

impl Registry {
    /// Copies what the log has into the file, as far as nobody reads an older state: to be called each second or so.
    ///
    /// # Errors
    /// When the database fails; what was committed stays in the log.
    pub async fn checkpoint(&self) -> Result<(), RegistryError> {
        if self.pools()?.engine == Engine::Sqlite {
            sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
                .execute(self.writer()?)
                .await?;
        }
        Ok(())
    }
}
