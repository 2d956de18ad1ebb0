//! Reading records back from the SQLite sink's file, for the control plane. Never writes.
//!
//! Pages are seeks on `exchange_id`: a UUIDv7 sorts by time, so the newest come first and a page costs the same
//! however deep it is. The cursor is the last id of the page before.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::sqlite::{SqlitePoolOptions, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite, SqlitePool};
use uuid::Uuid;

use super::row::{Column, EXCHANGE_COLUMNS, Type};
use super::sqlite::connect_options;

/// Most items of one page.
pub const LIMIT_MAX: u32 = 500;
/// Readers at a time; more wait.
const CONNECTIONS: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The caller's fault: a 400.
    #[error("cursor {0:?} is not one this list gave out; leave it away to start from the newest")]
    BadCursor(String),
    #[error("sqlite: {0}")]
    Sql(#[from] sqlx::Error),
}

/// Which exchanges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExchangeFilter {
    pub prompt: Option<String>,
    pub environment: Option<String>,
    /// Items a page, at most [`LIMIT_MAX`].
    pub limit: u32,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// One page, newest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExchangePage {
    pub items: Vec<Value>,
    /// None on the last page.
    pub next_cursor: Option<String>,
}

/// What came of one arm of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VariantSummary {
    pub version: u32,
    pub variant: String,
    pub requests: u64,
    /// Outcome other than `ok`.
    pub errors: u64,
    pub p50_total_us: u64,
    pub p99_total_us: u64,
    /// Of streamed answers that had content; None without any.
    pub p50_time_to_first_token_us: Option<u64>,
    pub p99_time_to_first_token_us: Option<u64>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cost_nanodollars: u64,
}

/// Reads one SQLite file, over a few read-only connections that are opened when first needed.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Prepares to read the file, which the sink has created. Call it within a tokio runtime.
    pub fn open(path: &Path) -> Self {
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(connect_options(path).read_only(true));
        Self { pool }
    }

    /// One page of exchanges, newest first, each with all fields of its record.
    ///
    /// # Errors
    /// The cursor is not one of ours, or the file cannot be read.
    pub async fn exchanges(&self, filter: &ExchangeFilter) -> Result<ExchangePage, StoreError> {
        let limit = filter.limit.clamp(1, LIMIT_MAX);
        let mut query = QueryBuilder::new("SELECT * FROM exchanges WHERE TRUE");
        push_filter(&mut query, filter)?;
        query.push(" ORDER BY exchange_id DESC LIMIT ").push_bind(limit + 1);
        let mut rows = query.build().fetch_all(&self.pool).await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let items = rows.iter().map(item).collect::<Result<Vec<Value>, _>>()?;
        let last = items.last().and_then(|item| item["exchange_id"].as_str());
        let next_cursor = last.filter(|_| more).map(str::to_owned);
        Ok(ExchangePage { items, next_cursor })
    }

    /// One exchange; None if there is none of that id, also if it is no id at all.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn exchange(&self, id: &str) -> Result<Option<Value>, StoreError> {
        let Ok(id) = Uuid::parse_str(id) else { return Ok(None) };
        let row = sqlx::query("SELECT * FROM exchanges WHERE exchange_id = ?")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.as_ref().map(item).transpose()?)
    }

    /// How many exchanges there are; the limit does not count, the cursor does.
    ///
    /// # Errors
    /// The cursor is not one of ours, or the file cannot be read.
    pub async fn count(&self, filter: &ExchangeFilter) -> Result<u64, StoreError> {
        let mut query = QueryBuilder::new("SELECT count(*) FROM exchanges WHERE TRUE");
        push_filter(&mut query, filter)?;
        Ok(query.build_query_scalar().fetch_one(&self.pool).await?)
    }

    /// What came of each version and variant since a time (µs since the epoch), by version, then variant. Percentiles
    /// are exact: the smallest value that at least so many per cent do not exceed.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn variant_summary(
        &self,
        prompt: &str,
        environment: &str,
        since_micros: i64,
    ) -> Result<Vec<VariantSummary>, StoreError> {
        let rows = sqlx::query(include_str!("sqlite/variant_summary.sql"))
            .bind(prompt)
            .bind(environment)
            .bind(first_id_at(since_micros).as_bytes().as_slice())
            .bind(since_micros)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.iter().map(summary).collect::<Result<_, _>>()?)
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn push_filter(query: &mut QueryBuilder<Sqlite>, filter: &ExchangeFilter) -> Result<(), StoreError> {
    if let Some(prompt) = &filter.prompt {
        query.push(" AND prompt_id = ").push_bind(prompt.as_str());
    }
    if let Some(environment) = &filter.environment {
        query.push(" AND environment = ").push_bind(environment.as_str());
    }
    if let Some(cursor) = &filter.cursor {
        let id = Uuid::parse_str(cursor).map_err(|_| StoreError::BadCursor(cursor.clone()))?;
        query.push(" AND exchange_id < ").push_bind(id.as_bytes().to_vec());
    }
    Ok(())
}

/// The smallest UUIDv7 of a time: what comes before it need not be looked at. An id is made a little before or after
/// `started_at` is read, so a second is left.
fn first_id_at(micros: i64) -> Uuid {
    let millis = u64::try_from(micros / 1000).unwrap_or_default().saturating_sub(1000);
    Uuid::from_u64_pair(millis << 16, 0)
}

fn summary(row: &SqliteRow) -> Result<VariantSummary, sqlx::Error> {
    Ok(VariantSummary {
        version: row.try_get("version")?,
        variant: row.try_get("variant")?,
        requests: row.try_get("requests")?,
        errors: row.try_get("errors")?,
        p50_total_us: row.try_get("p50_total_us")?,
        p99_total_us: row.try_get("p99_total_us")?,
        p50_time_to_first_token_us: row.try_get("p50_time_to_first_token_us")?,
        p99_time_to_first_token_us: row.try_get("p99_time_to_first_token_us")?,
        input_tokens: row.try_get("input_tokens")?,
        output_tokens: row.try_get("output_tokens")?,
        cost_nanodollars: row.try_get("cost_nanodollars")?,
    })
}

fn item(row: &SqliteRow) -> Result<Value, sqlx::Error> {
    let fields = EXCHANGE_COLUMNS
        .iter()
        .map(|column| Ok((column.name.to_owned(), field(row, column)?)));
    fields.collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

fn field(row: &SqliteRow, column: &Column) -> Result<Value, sqlx::Error> {
    Ok(match column.ty {
        Type::Uuid => {
            let bytes = row.try_get::<&[u8], _>(column.name)?;
            Uuid::from_slice(bytes).map_or(Value::Null, |id| id.to_string().into())
        }
        Type::Time => time(row.try_get(column.name)?),
        Type::Label | Type::Text => row.try_get::<&str, _>(column.name)?.into(),
        Type::Content => content(row.try_get(column.name)?),
        Type::U16 | Type::U32 | Type::U64 => row.try_get::<i64, _>(column.name)?.into(),
        Type::F64 => row.try_get::<f64, _>(column.name)?.into(),
        Type::Bool => row.try_get::<bool, _>(column.name)?.into(),
        Type::Map | Type::Texts | Type::Attempts => content(row.try_get(column.name)?),
    })
}

/// RFC 3339 with microseconds and `Z`.
fn time(micros: i64) -> Value {
    jiff::Timestamp::from_microsecond(micros).map_or(Value::Null, |at| format!("{at:.6}").into())
}

/// JSON as JSON, anything else as text.
fn content(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into())
}
