//! What the shipper does between batches: dead letters that are to be resent, and records that have had their time.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::segment::decode;
use super::split::{Dead, split};
use super::{ShipError, Shipper, blocking};
use crate::spool::format::Header;
use crate::telemetry::dead::letter;

/// How often the inbox is looked into.
const INBOX_EVERY: Duration = Duration::from_secs(2);
/// How often the age and size of what is kept are looked at, and after how many bytes at the latest.
const TIDY_EVERY: Duration = Duration::from_secs(30);
const TIDY_BYTES: u64 = 16 << 20;

/// When the chores are due.
#[derive(Debug)]
pub(super) struct Chores {
    inbox: Instant,
    tidy: Instant,
    /// Stored since the last look.
    unseen_bytes: u64,
}

impl Chores {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            inbox: now,
            tidy: now,
            unseen_bytes: 0,
        }
    }

    pub fn stored(&mut self, bytes: u64) {
        self.unseen_bytes += bytes;
    }

    pub fn next(&self) -> Instant {
        self.inbox.min(self.tidy)
    }
}

impl Shipper {
    /// Does what is due. `rows`: those of the batch that was just stored, 0 if there was none.
    pub(super) async fn chores(&mut self, rows: u64) {
        if Instant::now() >= self.chores.inbox {
            let again = match self.resend().await {
                Ok(found) => found,
                Err(error) => {
                    self.stats.ship_errors.fetch_add(1, Relaxed);
                    if let Some(suppressed) = self.gate.pass() {
                        tracing::warn!(%error, suppressed, "a dead letter cannot be resent yet, will try again");
                    }
                    false
                }
            };
            self.chores.inbox = Instant::now() + if again { Duration::ZERO } else { INBOX_EVERY };
        }
        if Instant::now() >= self.chores.tidy || self.chores.unseen_bytes >= TIDY_BYTES {
            let more = self.tidy(rows).await;
            self.chores.tidy = Instant::now() + if more { Duration::ZERO } else { TIDY_EVERY };
            self.chores.unseen_bytes = 0;
        }
    }

    /// Removes what is no longer kept: after a batch up to twice its rows, so that removing keeps ahead of storing, and
    /// else a step. Returns whether there is more.
    async fn tidy(&mut self, rows: u64) -> bool {
        let quiet = self.pending.is_empty();
        let mut removed = 0;
        loop {
            let tidied = match self.sink.tidy(quiet).await {
                Ok(tidied) => tidied,
                Err(error) => {
                    if let Some(suppressed) = self.gate.pass() {
                        tracing::warn!(%error, suppressed, "old records cannot be removed now, will try again");
                    }
                    return false;
                }
            };
            self.shipped.pruned.fetch_add(tidied.exchanges, Relaxed);
            if tidied.exchanges > 0
                && let Some(suppressed) = self.tidy_gate.pass()
            {
                let total = self.shipped.pruned.load(Relaxed);
                tracing::info!(total, suppressed, "old exchanges removed, as telemetry.sqlite says");
            }
            removed += tidied.exchanges + tidied.others;
            if !tidied.more || removed >= 2 * rows {
                return tidied.more;
            }
        }
    }

    /// Resends one letter; returns whether there was one.
    async fn resend(&mut self) -> Result<bool, ShipError> {
        let letters = self.letters.clone();
        let failed = |source| ShipError::File {
            path: self.letters.folder().to_path_buf(),
            source,
        };
        let Some(path) = blocking(move || letters.next_resend()).await.map_err(failed)? else {
            return Ok(false);
        };
        let failed = |source| ShipError::File {
            path: path.clone(),
            source,
        };
        let reading = path.clone();
        let bytes = match blocking(move || std::fs::read(reading)).await {
            // Taken out again meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            read => read.map_err(failed)?,
        };
        let mut decoded = match decode(&bytes) {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "dead letter cannot be read, it stays");
                let (letters, path) = (self.letters.clone(), path.clone());
                blocking(move || letters.return_unread(&path)).await.map_err(failed)?;
                return Ok(true);
            }
        };
        decoded.batch.token = format!("resend/{}", decoded.batch.token);
        let split = split(&mut self.sink, &decoded.batch).await?;
        self.stats.note_stored(decoded.batch.oldest());
        let mut dead = split.dead;
        dead.append(&mut decoded.unknown);
        self.bury_rows(&decoded.header, &dead).await?;
        let (stored, dead) = (split.stored, dead.len());
        self.shipped.resent_rows.fetch_add(stored, Relaxed);
        tracing::info!(stored, dead, path = %path.display(), "dead letter resent");
        let removing = path.clone();
        blocking(move || std::fs::remove_file(removing)).await.map_err(failed)?;
        Ok(true)
    }

    /// Writes rows that cannot be stored as a letter, if there are any.
    pub(super) async fn bury_rows(&mut self, header: &Header, dead: &[Dead<'_>]) -> Result<(), ShipError> {
        let Some(first) = dead.first() else { return Ok(()) };
        let (name, bytes) = letter(header, dead);
        let letters = self.letters.clone();
        let written = blocking(move || letters.write(&name, &bytes)).await;
        let path = written.map_err(|source| ShipError::File {
            path: self.letters.folder().to_path_buf(),
            source,
        })?;
        self.shipped.dead_rows.fetch_add(dead.len() as u64, Relaxed);
        tracing::error!(
            rows = dead.len(),
            reason = first.reason,
            path = %path.display(),
            "rows cannot be stored, kept as a dead letter; `promptgate dead-letters` shows and resends them"
        );
        Ok(())
    }
}
