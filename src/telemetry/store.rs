//! Reading records back, for the control plane: lists, single exchanges, statistics. Never writes, but to erase.
//!
//! Both stores answer alike: one builder makes the SQL of either ([`filter`], [`stats`]), differing only where the
//! dialects do, and a test feeds both the same records and compares the JSON. Percentiles are exact in both: the
//! smallest value that at least so many per cent of the values do not exceed.
//!
//! Pages are seeks on `exchange_id`: a UUIDv7 sorts by time, so the newest come first. The cursor is the last id of the
//! page before.

pub mod filter;
pub mod stats;

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

pub use filter::ExchangeFilter;
pub use stats::{GroupBy, Refusals, Stats, StatsQuery};

use super::clickhouse::{ClickHouseError, ClickHouseStore};
use super::erase::Erase;
use super::sqlite::SqliteStore;
use crate::config::ClickHouse;

/// Most items of one page.
pub const LIMIT_MAX: u32 = 500;

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The caller's fault: a 400.
    #[error("cursor {0:?} is not one this list gave out; leave it away to start from the newest")]
    BadCursor(String),
    #[error("sqlite: {0}")]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    ClickHouse(#[from] ClickHouseError),
}

impl StoreError {
    /// Whether the store is not to be had now: a 503.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::ClickHouse(error) if error.is_outage())
    }
}

/// One page, newest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExchangePage {
    pub items: Vec<Value>,
    /// None on the last page.
    pub next_cursor: Option<String>,
}

impl ExchangePage {
    /// A page of at most `limit` items, of which one more was asked for than is shown.
    pub(super) fn new(mut items: Vec<Value>, limit: u32) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let last = items.last().and_then(|item| item["exchange_id"].as_str());
        let next_cursor = last.filter(|_| more).map(str::to_owned);
        Self { items, next_cursor }
    }
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

/// Where records are read from: where the sink puts them.
#[derive(Debug, Clone)]
pub enum Store {
    Sqlite(SqliteStore),
    ClickHouse(Box<ClickHouseStore>),
}

impl Store {
    /// Prepares to read a file that the SQLite sink has created. Call it within a tokio runtime.
    pub fn sqlite(path: &Path) -> Self {
        Self::Sqlite(SqliteStore::open(path))
    }

    /// Prepares to read from a ClickHouse server; connects when first used.
    pub fn clickhouse(server: &ClickHouse) -> Self {
        Self::ClickHouse(Box::new(ClickHouseStore::new(server)))
    }

    /// One page of exchanges, newest first, each with all fields of its record; at most `limit` of them, and at most
    /// [`LIMIT_MAX`]. `cursor` is the `next_cursor` of the page before.
    ///
    /// # Errors
    /// The cursor is not one of ours, or the store cannot be read.
    pub async fn exchanges(
        &self,
        filter: &ExchangeFilter,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<ExchangePage, StoreError> {
        let limit = limit.clamp(1, LIMIT_MAX);
        let before = cursor.map(|text| uuid::Uuid::parse_str(text).map_err(|_| StoreError::BadCursor(text.to_owned())));
        let before = before.transpose()?;
        match self {
            Self::Sqlite(store) => store.exchanges(filter, limit, before).await,
            Self::ClickHouse(store) => store.exchanges(filter, limit, before).await,
        }
    }

    /// One exchange with its feedback; None if there is none of that id, also if it is no id at all.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn exchange(&self, id: &str) -> Result<Option<Value>, StoreError> {
        let Ok(id) = uuid::Uuid::parse_str(id) else {
            return Ok(None);
        };
        let found = match self {
            Self::Sqlite(store) => store.exchange(id).await?,
            Self::ClickHouse(store) => store.exchange(id).await?,
        };
        let Some(mut exchange) = found else { return Ok(None) };
        let response_id = exchange["response_id"].as_str().unwrap_or_default().to_owned();
        let feedback = match self {
            Self::Sqlite(store) => store.feedback(id, &response_id).await?,
            Self::ClickHouse(store) => store.feedback(id, &response_id).await?,
        };
        exchange["feedback"] = feedback.into();
        Ok(Some(exchange))
    }

    /// How many exchanges there are.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn count(&self, filter: &ExchangeFilter) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(store) => store.count(filter).await,
            Self::ClickHouse(store) => store.count(filter).await,
        }
    }

    /// Figures of the exchanges, by group, in the order of the groups' keys; and what was refused in floods.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn stats(&self, query: &StatsQuery) -> Result<Stats, StoreError> {
        let mut stats = self.figures(query).await?;
        stats.refusals = self.refusals(query).await?;
        Ok(stats)
    }

    /// Requests that were refused in a flood and have no exchange of their own, those with the most requests first.
    /// None of them if the query filters by what they do not have; a flood counts where it began.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn refusals(&self, query: &StatsQuery) -> Result<Vec<Refusals>, StoreError> {
        match self {
            Self::Sqlite(store) => store.refusals(query).await,
            Self::ClickHouse(store) => store.refusals(query).await,
        }
    }

    async fn figures(&self, query: &StatsQuery) -> Result<Stats, StoreError> {
        let (groups, feedback) = match self {
            Self::Sqlite(store) => store.stats(query).await?,
            Self::ClickHouse(store) => store.stats(query).await?,
        };
        Ok(Stats::new(query, groups, feedback))
    }

    /// What came of each version and variant since a time (µs since the epoch), by version, then variant.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn variant_summary(
        &self,
        prompt: &str,
        environment: &str,
        since_micros: i64,
    ) -> Result<Vec<VariantSummary>, StoreError> {
        let query = StatsQuery {
            filter: ExchangeFilter {
                prompt: Some(prompt.to_owned()),
                environment: Some(environment.to_owned()),
                from: Some(since_micros),
                ..ExchangeFilter::default()
            },
            group_by: vec![GroupBy::Version, GroupBy::Variant],
            limit: stats::LIMIT_MAX,
        };
        let stats = self.figures(&query).await?;
        Ok(stats.groups.iter().map(stats::Group::variant_summary).collect())
    }

    /// Erases the content of exchanges; returns how many of each.
    ///
    /// # Errors
    /// The store cannot be written; then some may be erased, and it is to be repeated.
    pub async fn erase(&self, erasures: &[Erase]) -> Result<Vec<u64>, StoreError> {
        match self {
            Self::Sqlite(store) => store.erase(erasures).await,
            Self::ClickHouse(store) => store.erase(erasures).await,
        }
    }

    /// Closes the connections.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            // Its connections close by themselves.
            Self::ClickHouse(_) => {}
        }
    }
}

/// RFC 3339 with microseconds and `Z`.
pub(super) fn time(micros: i64) -> Value {
    jiff::Timestamp::from_microsecond(micros).map_or(Value::Null, |at| format!("{at:.6}").into())
}

/// JSON as JSON, anything else as text.
pub(super) fn content(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into())
}
