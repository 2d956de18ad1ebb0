//! Requests to erase what was recorded of a person: written down here first, so that they survive whatever happens while
//! they are carried out.

use crate::registry::sql::SqlConnection;
use serde_json::json;

use super::change::{Actor, Change};
use super::{Missing, Page, PageOf, Published, Registry, RegistryError, audit, now_us, number, secret};
use crate::domain::pseudonym::pseudonym;

/// The longest reason and id of a person, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

/// Whose records.
#[derive(Clone, Copy)]
pub enum Person<'a> {
    /// As the application sends it; it is not stored.
    Id(&'a str),
    /// As records have it: 32 hexadecimal digits.
    Hash(&'a str),
}

/// A request to erase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    pub id: String,
    pub user_hash: String,
    pub reason: String,
    /// When it was asked for, µs since the Unix epoch: exchanges that began by then are erased.
    pub until_us: i64,
    pub requested_by: String,
    /// Exchanges erased so far.
    pub exchanges: u64,
    /// When all that had been recorded by then was erased, µs since the Unix epoch.
    pub done_at_us: Option<i64>,
}

type Row = (String, String, String, i64, String, i64, Option<i64>);

fn erasure(
    (id, user_hash, reason, until_us, requested_by, exchanges, done_at_us): Row,
) -> Result<Erasure, RegistryError> {
    Ok(Erasure {
        id,
        user_hash,
        reason,
        until_us,
        requested_by,
        exchanges: number(exchanges)?,
        done_at_us,
    })
}

async fn one(sql: &mut SqlConnection, id: &str) -> Result<Erasure, RegistryError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, user_hash, reason, until_at, requested_by, exchanges, done_at FROM erasures WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(sql)
    .await?;
    erasure(row.ok_or_else(|| Missing::Erasure(id.to_owned()))?)
}

impl Registry {
    /// Asks for the content of a person's exchanges to be erased: those that began by now.
    ///
    /// # Errors
    /// When the person or the reason has the wrong form, or the database fails.
    pub async fn create_erasure(
        &self,
        person: Person<'_>,
        reason: &str,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<Erasure>, RegistryError> {
        let invalid = |field, message: &str| {
            let message = message.to_owned();
            Err(RegistryError::InvalidField { field, message })
        };
        if reason.len() > MAX_TEXT_BYTES {
            return invalid("reason", "is too long, at most 4096 bytes are possible");
        }
        let (named, user_hash) = match person {
            Person::Id(id) if id.is_empty() || id.len() > MAX_TEXT_BYTES => {
                return invalid(
                    "user",
                    "must have 1 to 4096 bytes, write the id as the application sends it",
                );
            }
            Person::Id(id) => ("user", pseudonym(&self.pseudonym_key().await?, id)),
            Person::Hash(hash) if hash.len() == 32 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
                ("user_hash", hash.to_owned())
            }
            Person::Hash(_) => {
                return invalid(
                    "user_hash",
                    "must be 32 hexadecimal digits, as a record's user has them",
                );
            }
        };
        let mut change = Change::begin(self, actor).await?;
        let id = secret::id("era");
        let (at_us, requested_by) = (change.at_us, change.actor.name);
        sqlx::query(
            "INSERT INTO erasures (id, user_hash, reason, until_at, requested_by, exchanges, done_at) \
             VALUES ($1, $2, $3, $4, $5, 0, NULL)",
        )
        .bind(&id)
        .bind(&user_hash)
        .bind(reason)
        .bind(at_us)
        .bind(requested_by)
        .execute(change.sql())
        .await?;
        let value = one(change.sql(), &id).await?;
        let detail = json!({"by": named, "reason": reason});
        let generation = change.commit("erasure.request", &id, detail).await?;
        Ok(Published { value, generation })
    }

    /// Returns one request.
    ///
    /// # Errors
    /// When there is none of that id, or the database fails.
    pub async fn erasure(&self, id: &str) -> Result<Erasure, RegistryError> {
        one(&mut *self.reader()?.acquire().await?, id).await
    }

    /// Lists requests, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_erasures(&self, page: PageOf<'_>) -> Result<Page<Erasure>, RegistryError> {
        // Ids sort by time; '~' comes after all of them.
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, user_hash, reason, until_at, requested_by, exchanges, done_at FROM erasures \
             WHERE id < $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(page.cursor.unwrap_or("~"))
        .bind(page.rows())
        .fetch_all(self.reader()?)
        .await?;
        let items = rows.into_iter().map(erasure).collect::<Result<_, _>>()?;
        Ok(page.page(items, |erasure: &Erasure| erasure.id.clone()))
    }

    /// Returns requests that are not done, and those that concern exchanges which began at `since` or later; behind the
    /// request `after`, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due_erasures(&self, since: i64, after: &str, limit: u32) -> Result<Vec<Erasure>, RegistryError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, user_hash, reason, until_at, requested_by, exchanges, done_at FROM erasures \
             WHERE (done_at IS NULL OR until_at >= $1) AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(since)
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(self.reader()?)
        .await?;
        rows.into_iter().map(erasure).collect()
    }

    /// Notes that so many more exchanges were erased, and perhaps that this was all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_erased(&self, id: &str, exchanges: u64, done: bool) -> Result<(), RegistryError> {
        let mut tx = self.begin_write().await?;
        let before = one(&mut tx, id).await?;
        let at_us = now_us();
        let done_now = done && before.done_at_us.is_none();
        sqlx::query("UPDATE erasures SET exchanges = exchanges + $1, done_at = $2 WHERE id = $3")
            .bind(exchanges.cast_signed())
            .bind(before.done_at_us.or(done_now.then_some(at_us)))
            .bind(id)
            .execute(&mut *tx)
            .await?;
        if done_now || exchanges > 0 {
            let entry = audit::NewEntry {
                at_us,
                actor: Actor::named("promptgate"),
                action: if done_now { "erasure.done" } else { "erasure.more" },
                subject: id,
                detail: json!({"exchanges": before.exchanges + exchanges}),
            };
            audit::append(&mut tx, &entry).await?;
        }
        Ok(tx.commit().await?)
    }

    /// The key of pseudonyms: never to be shown or logged.
    async fn pseudonym_key(&self) -> Result<String, RegistryError> {
        let (key,): (String,) = sqlx::query_as("SELECT pseudonym_key FROM meta")
            .fetch_one(self.reader()?)
            .await?;
        Ok(key)
    }
}
