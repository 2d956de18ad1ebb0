//! PostgreSQL's notifications: every change sends one in its own transaction, so it comes when the change can be read.
//!
//! One that is lost costs nothing but time: whoever listens looks now and then all the same.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::sql::{Engine, SqlConnection};
use super::{Registry, RegistryError, connect};

/// Where changes are told of, with the new generation as text.
const CHANNEL: &str = "promptgate";

/// How long a connection may take to stand.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells everybody who listens of a generation, once the transaction is committed.
pub(super) async fn tell(sql: &mut SqlConnection, generation: u64) -> Result<(), RegistryError> {
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(generation.to_string())
        .execute(sql)
        .await?;
    Ok(())
}

/// A connection that is told of changes.
pub struct Listener {
    inner: PgListener,
}

/// What a listener heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// There is this generation, at least.
    Generation(u64),
    /// The connection broke: what was told meanwhile is lost.
    Silence,
}

impl Registry {
    /// Begins to listen; none for a database that tells nothing, which is a file of one process.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn listen(&self) -> Result<Option<Listener>, RegistryError> {
        if self.pools()?.engine == Engine::Sqlite {
            return Ok(None);
        }
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE);
        let pool = pool.connect_lazy(&connect::postgres_url(self.url.expose())?)?;
        let mut inner = PgListener::connect_with(&pool).await?;
        inner.eager_reconnect(false);
        inner.listen(CHANNEL).await?;
        Ok(Some(Listener { inner }))
    }
}

impl Listener {
    /// Waits for the next change, or for the end of the connection, after which a new listener is needed.
    pub async fn next(&mut self) -> Heard {
        match self.inner.try_recv().await {
            Ok(Some(told)) => told.payload().parse().map_or(Heard::Silence, Heard::Generation),
            Ok(None) | Err(_) => Heard::Silence,
        }
    }
}
