//! A change: one write transaction that makes one new generation.

use serde_json::Value;

use super::sql::{Engine, SqlConnection, SqlTransaction};
use super::webhooks::outbox::{self, Happened};
use super::{Registry, RegistryError, audit, listen, now_us, number};

/// Who acts: a user, by which token, in which request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actor<'a> {
    /// The user's name, which never changes.
    pub name: &'a str,
    /// Empty for the program itself, as are the following.
    pub user_id: &'a str,
    pub token_id: &'a str,
    pub request_id: &'a str,
}

impl<'a> Actor<'a> {
    /// The program itself, or a name that stands for nothing more.
    pub const fn named(name: &'a str) -> Self {
        Self {
            name,
            user_id: "",
            token_id: "",
            request_id: "",
        }
    }
}

impl<'a> From<&'a str> for Actor<'a> {
    fn from(name: &'a str) -> Self {
        Self::named(name)
    }
}

/// Who makes a change, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By<'a> {
    pub actor: Actor<'a>,
    pub message: &'a str,
}

/// A write transaction under way; dropping it undoes everything, its generation included.
pub(super) struct Change<'a> {
    tx: SqlTransaction,
    engine: Engine,
    /// Whether the generation is a new one.
    raised: bool,
    pub generation: u64,
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
    pub actor: Actor<'a>,
}

impl<'a> Change<'a> {
    /// Takes the write lock and the next generation.
    ///
    /// The counter is a row, not a sequence, so that generations have no gaps and become visible in their order.
    pub async fn begin(registry: &Registry, actor: impl Into<Actor<'a>>) -> Result<Self, RegistryError> {
        let pools = registry.pools()?;
        let mut tx = pools.begin_change().await?;
        let (generation,): (i64,) = sqlx::query_as("UPDATE meta SET generation = generation + 1 RETURNING generation")
            .fetch_one(&mut *tx)
            .await?;
        Ok(Self {
            tx,
            engine: pools.engine,
            raised: true,
            generation: number(generation)?,
            at_us: now_us(),
            actor: actor.into(),
        })
    }

    /// Takes the write lock only, for what applications never see: reviews and comments make no generation.
    pub async fn begin_quietly(registry: &Registry, actor: impl Into<Actor<'a>>) -> Result<Self, RegistryError> {
        let pools = registry.pools()?;
        let mut tx = pools.begin_change().await?;
        // Locks the same row as a change does, so that both queue.
        let (generation,): (i64,) = sqlx::query_as("UPDATE meta SET generation = generation RETURNING generation")
            .fetch_one(&mut *tx)
            .await?;
        Ok(Self {
            tx,
            engine: pools.engine,
            raised: false,
            generation: number(generation)?,
            at_us: now_us(),
            actor: actor.into(),
        })
    }

    /// Takes the next generation after all; see [`Self::begin_quietly`].
    pub async fn raise(&mut self) -> Result<(), RegistryError> {
        let (generation,): (i64,) = sqlx::query_as("UPDATE meta SET generation = generation + 1 RETURNING generation")
            .fetch_one(&mut *self.tx)
            .await?;
        self.generation = number(generation)?;
        self.raised = true;
        Ok(())
    }

    /// Returns the connection to read and write with.
    pub fn sql(&mut self) -> &mut SqlConnection {
        &mut self.tx
    }

    /// Returns the generation as the database stores it.
    pub fn stamp(&self) -> i64 {
        self.generation.cast_signed()
    }

    /// Stamps a prompt as changed by this change.
    pub async fn touch(&mut self, prompt: &str) -> Result<(), RegistryError> {
        sqlx::query("UPDATE prompts SET generation = $1 WHERE id = $2")
            .bind(self.stamp())
            .bind(prompt)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Writes an audit row, and what webhooks are told of it.
    pub async fn audit(&mut self, action: &str, subject: &str, detail: Value) -> Result<(), RegistryError> {
        let entry = audit::NewEntry {
            at_us: self.at_us,
            actor: self.actor,
            action,
            subject,
            detail,
        };
        let seq = audit::append(&mut self.tx, &entry).await?;
        let happened = Happened {
            seq,
            at_us: entry.at_us,
            actor: entry.actor.name,
            action,
            subject,
            environment: audit::environment_of(action, subject, &entry.detail),
            detail: &entry.detail,
        };
        outbox::emit(&mut self.tx, &happened).await
    }

    /// Commits what has its audit rows already; whoever listens is told by the database.
    pub async fn end(mut self) -> Result<u64, RegistryError> {
        if self.raised && self.engine == Engine::Postgres {
            listen::tell(&mut self.tx, self.generation).await?;
        }
        self.tx.commit().await?;
        Ok(self.generation)
    }

    /// Writes the last audit row and commits.
    pub async fn commit(mut self, action: &str, subject: &str, detail: Value) -> Result<u64, RegistryError> {
        self.audit(action, subject, detail).await?;
        self.end().await
    }
}
