//! Two databases, one set of queries: connections of either kind through sqlx's `Any` driver.
//!
//! Queries keep to what both understand: `$1` placeholders, `BIGINT` and `TEXT` columns, booleans as 0 or 1. Sums are cast
//! to `BIGINT`, because PostgreSQL makes them numerics. What differs is here and in [`super::connect`]: how a transaction
//! begins, and how a query is put together from pieces.

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{Any, AnyPool, Arguments, AssertSqlSafe, FromRow, Transaction};

/// A connection to either database.
pub(super) use sqlx::AnyConnection as SqlConnection;

/// A transaction under way; dropping it undoes everything.
pub(super) type SqlTransaction = Transaction<'static, Any>;

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Sqlite,
    Postgres,
}

/// The registry's connections.
#[derive(Debug, Clone)]
pub(super) struct Pools {
    pub engine: Engine,
    pub reader: AnyPool,
    pub writer: AnyPool,
}

impl Pools {
    /// Begins a transaction in which every query sees the same state.
    pub async fn begin_read(&self) -> Result<SqlTransaction, sqlx::Error> {
        match self.engine {
            Engine::Sqlite => self.reader.begin().await,
            Engine::Postgres => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
                self.reader.begin_with(begin).await
            }
        }
    }

    /// Begins a transaction that writes, and leaves it to the caller to lock the one row of `meta` first: who does that has
    /// every other writer wait, as SQLite has them wait from here on. Everybody in the same order, so nobody deadlocks.
    pub async fn begin_change(&self) -> Result<SqlTransaction, sqlx::Error> {
        match self.engine {
            Engine::Sqlite => self.writer.begin_with("BEGIN IMMEDIATE").await,
            Engine::Postgres => self.writer.begin().await,
        }
    }

    /// Begins a transaction that writes while nobody else does.
    pub async fn begin_write(&self) -> Result<SqlTransaction, sqlx::Error> {
        let mut tx = self.begin_change().await?;
        if self.engine == Engine::Postgres {
            sqlx::query("SELECT generation FROM meta FOR UPDATE")
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx)
    }
}

/// A query put together from pieces. sqlx's own writes `?` for every value, which PostgreSQL does not understand.
pub(super) struct QueryBuilder {
    text: String,
    arguments: AnyArguments,
}

impl QueryBuilder {
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            arguments: AnyArguments::default(),
        }
    }

    pub fn push(&mut self, text: impl AsRef<str>) -> &mut Self {
        self.text.push_str(text.as_ref());
        self
    }

    /// Appends a placeholder for a value.
    pub fn push_bind<T>(&mut self, value: T) -> &mut Self
    where
        T: sqlx::Encode<'static, Any> + sqlx::Type<Any>,
    {
        self.arguments.add(value).expect("text and numbers can be encoded");
        self.text.push_str(&format!("${}", self.arguments.len()));
        self
    }

    /// Takes what was put together.
    pub fn build_query_as<T>(&mut self) -> sqlx::query::QueryAs<'static, Any, T, AnyArguments>
    where
        T: for<'r> FromRow<'r, AnyRow>,
    {
        let text = std::mem::take(&mut self.text);
        sqlx::query_as_with(AssertSqlSafe(text), std::mem::take(&mut self.arguments))
    }
}
