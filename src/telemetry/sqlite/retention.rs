//! How long records are kept: by age, and by the size of the file. Oldest first.
//!
//! Done in small transactions between batches, so that shipping waits for none of it for long; while the file is too
//! large, more is removed after each batch than the batch brought, so that it cannot grow away. Freed pages are used
//! again by what is stored next: a file at its limit neither grows nor shrinks.
//!
//! Exchanges go by their id, a UUIDv7, which sorts by time; feedback, refusals and tokens by their own time. Tokens are
//! needed only while their segment is offered, so they go after a day, whatever else is kept.

use sqlx::{Connection, Row, SqliteConnection};
use uuid::Uuid;

use crate::config::Sqlite;
use crate::telemetry::store::filter::{first_id_at, time_of};

/// Rows of one transaction, at most.
const STEP_ROWS: i64 = 500;
/// Bytes of bodies of one transaction, about: freeing a body's pages reads them.
const STEP_BYTES: i64 = 8 << 20;
const DAY_MICROS: i64 = 86_400_000_000;
/// What is begun to be removed at, and what is removed down to, in hundredths of the limit. The rest is room for what
/// comes between two looks: a batch has 32 MiB at most, the limit 512 MiB at least.
const HIGH: u64 = 90;
const LOW: u64 = 87;

/// What one step has removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tidied {
    pub exchanges: u64,
    /// Feedback, refusals, tokens.
    pub others: u64,
    /// Whether there is more to do.
    pub more: bool,
}

/// Removes what is no longer to be kept, step by step.
#[derive(Debug)]
pub(super) struct Retention {
    keep_days: u32,
    max_bytes: u64,
    /// Above the high mark, and not yet below the low one.
    shrinking: bool,
}

impl Retention {
    pub fn new(config: &Sqlite) -> Self {
        Self {
            keep_days: config.keep_days,
            max_bytes: config.max_bytes,
            shrinking: false,
        }
    }

    /// One step. `now` is µs since the epoch; tokens are looked at only if no segment waits (`quiet`).
    pub async fn step(&mut self, file: &mut SqliteConnection, now: i64, quiet: bool) -> Result<Tidied, sqlx::Error> {
        let used = used_bytes(file).await?;
        self.shrinking = match self.max_bytes {
            0 => false,
            max if self.shrinking => used > max / 100 * LOW,
            max => used > max / 100 * HIGH,
        };
        let mut transaction = file.begin_with("BEGIN IMMEDIATE").await?;
        let mut tidied = Tidied::default();
        if self.keep_days > 0 {
            let until = now - i64::from(self.keep_days) * DAY_MICROS;
            remove_before(&mut transaction, first_id_at(until), until, &mut tidied).await?;
        }
        if self.shrinking && !tidied.more {
            let (id, at) = oldest(&mut transaction).await?.unwrap_or((Uuid::max(), now));
            remove_before(&mut transaction, id, at, &mut tidied).await?;
            // The next step looks at the size again; it ends when nothing is left to remove.
            tidied.more = tidied.exchanges + tidied.others > 0;
        }
        if quiet {
            let sql = "DELETE FROM batches WHERE token IN (SELECT token FROM batches WHERE stored_at < ? LIMIT ?)";
            let tokens = sqlx::query(sql).bind(now - DAY_MICROS).bind(STEP_ROWS);
            let tokens = tokens.execute(&mut *transaction).await?.rows_affected();
            tidied.others += tokens;
            tidied.more |= tokens == STEP_ROWS as u64;
        }
        transaction.commit().await?;
        Ok(tidied)
    }
}

/// Bytes of pages in use. The file may have more, which are used again.
async fn used_bytes(file: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let mut pragma = async |sql: &'static str| -> Result<u64, sqlx::Error> {
        sqlx::query_scalar::<_, u64>(sql).fetch_one(&mut *file).await
    };
    let (pages, free) = (
        pragma("PRAGMA page_count").await?,
        pragma("PRAGMA freelist_count").await?,
    );
    Ok(pages.saturating_sub(free) * pragma("PRAGMA page_size").await?)
}

/// The first id and time that stay if a step's rows go; None if there are no exchanges.
async fn oldest(file: &mut SqliteConnection) -> Result<Option<(Uuid, i64)>, sqlx::Error> {
    let sql = "SELECT exchange_id, octet_length(request) + octet_length(response) + octet_length(variables) \
               FROM exchanges ORDER BY exchange_id LIMIT ?";
    let rows = sqlx::query(sql).bind(STEP_ROWS + 1).fetch_all(&mut *file).await?;
    let mut bytes = 0;
    let mut last = None;
    for (i, row) in rows.iter().enumerate() {
        let id = Uuid::from_slice(row.try_get(0)?).unwrap_or_default();
        last = Some(id);
        // At least one goes, however large.
        if i > 0 && bytes >= STEP_BYTES {
            break;
        }
        bytes += row.try_get::<i64, _>(1)?;
    }
    let whole = rows.len() <= STEP_ROWS as usize && bytes < STEP_BYTES;
    Ok(last.map(|id| match whole {
        // Fewer than a step: all go.
        true => (Uuid::max(), time_of(id).unwrap_or_default()),
        false => (id, time_of(id).unwrap_or_default()),
    }))
}

/// Removes exchanges before an id and all else before a time, a step's rows of each.
async fn remove_before(file: &mut SqliteConnection, id: Uuid, at: i64, tidied: &mut Tidied) -> Result<(), sqlx::Error> {
    let exchanges = "DELETE FROM exchanges WHERE exchange_id IN \
                     (SELECT exchange_id FROM exchanges WHERE exchange_id < ? ORDER BY exchange_id LIMIT ?)";
    let feedback = "DELETE FROM feedback WHERE feedback_id IN \
                    (SELECT feedback_id FROM feedback WHERE feedback_id < ? ORDER BY feedback_id LIMIT ?)";
    let refusals = "DELETE FROM refusals WHERE refusals_id IN \
                    (SELECT refusals_id FROM refusals WHERE since < ? ORDER BY since LIMIT ?)";
    let first = first_id_at(at);
    let removed = [
        sqlx::query(exchanges)
            .bind(id.as_bytes().as_slice())
            .bind(STEP_ROWS)
            .execute(&mut *file)
            .await?,
        sqlx::query(feedback)
            .bind(first.as_bytes().as_slice())
            .bind(STEP_ROWS)
            .execute(&mut *file)
            .await?,
        sqlx::query(refusals)
            .bind(at)
            .bind(STEP_ROWS)
            .execute(&mut *file)
            .await?,
    ]
    .map(|done| done.rows_affected());
    tidied.exchanges += removed[0];
    tidied.others += removed[1] + removed[2];
    tidied.more |= removed.contains(&(STEP_ROWS as u64));
    Ok(())
}
