//! Reads from ClickHouse. Rows come as RowBinary and are read by the table of columns that wrote them.
//!
//! The newest exchanges are asked for in widening spans of time (an hour, a day, all): without a span every part would
//! be read to find the last fifty rows. And in two steps, since bodies are most of the bytes: first the keys of the
//! page from their narrow columns, then those rows whole, by the table's own order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use clickhouse::Client;
use serde_json::Value;
use uuid::Uuid;

use super::ClickHouseError;
use crate::config::ClickHouse;
use crate::telemetry::row::json::item;
use crate::telemetry::row::{Column, EXCHANGE_COLUMNS, FEEDBACK_COLUMNS};
use crate::telemetry::rowbinary::{DecodeError, Reader};
use crate::telemetry::store::filter::{Bind, Dialect, ExchangeFilter, Sql, time_of};
use crate::telemetry::store::stats::{Figures, GroupBy, Key, Refusals, Scores, StatsQuery};
use crate::telemetry::store::{ExchangePage, StoreError};

/// A query that takes longer is given up, here and by the server.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How far back from the newest a page is looked for before all is searched.
const SPANS: [i64; 2] = [3600 * 1_000_000, 86_400 * 1_000_000];
/// The time in an id and that of its record differ by less.
const SKEW_MICROS: i64 = 2_000_000;

/// A database of a ClickHouse server, or of several that show the same.
#[derive(Debug, Clone)]
pub struct ClickHouseStore {
    pub(super) clients: Vec<Client>,
    /// The one that answered last.
    last_good: Arc<AtomicUsize>,
    /// The cluster that the tables are on, if they are on one.
    pub(super) cluster: Option<String>,
}

impl ClickHouseStore {
    pub fn new(server: &ClickHouse) -> Self {
        let client = |url: &String| {
            super::client(server, url)
                .with_database(&server.database)
                .with_setting("max_execution_time", TIMEOUT.as_secs().to_string())
                // In a cluster, what follows IN is looked up once, not once a shard; else it does nothing.
                .with_setting("distributed_product_mode", "global")
        };
        Self {
            clients: server.urls.iter().map(client).collect(),
            last_good: Arc::default(),
            cluster: server.cluster.clone(),
        }
    }

    pub async fn exchanges(
        &self,
        filter: &ExchangeFilter,
        limit: u32,
        before: Option<Uuid>,
    ) -> Result<ExchangePage, StoreError> {
        let now = jiff::Timestamp::now().as_microsecond();
        let newest = [before.and_then(time_of), filter.to, Some(now)]
            .into_iter()
            .flatten()
            .min();
        let newest = newest.unwrap_or(now);
        let mut items = Vec::new();
        for span in SPANS.map(Some).into_iter().chain([None]) {
            let since = span.map(|span| newest - span);
            // Nothing to be gained from a span that the filter does not exceed.
            if since.is_some() && filter.from >= since {
                continue;
            }
            items = self.page(filter, limit, before, since).await?;
            if items.len() > limit as usize {
                break;
            }
        }
        Ok(ExchangePage::new(items, limit))
    }

    async fn page(
        &self,
        filter: &ExchangeFilter,
        limit: u32,
        before: Option<Uuid>,
        since: Option<i64>,
    ) -> Result<Vec<Value>, StoreError> {
        const KEY: &str = "prompt_id, environment, started_at, exchange_id";
        let order = format!(" ORDER BY {} DESC LIMIT {}", Dialect::ClickHouse.id_order(), limit + 1);
        let mut keys = Sql::new(Dialect::ClickHouse, format!("SELECT {KEY} FROM exchanges"));
        keys.push_filter(filter).push_before(before);
        if let Some(since) = since {
            keys.push_since(since);
        }
        keys.push(&order);
        let begin = format!("SELECT {} FROM exchanges WHERE ({KEY}) IN (", names(&EXCHANGE_COLUMNS));
        self.items(keys.wrap(&begin, &format!("){order}")), &EXCHANGE_COLUMNS)
            .await
    }

    pub async fn exchange(&self, id: Uuid) -> Result<Option<Value>, StoreError> {
        let begin = format!(
            "SELECT {} FROM exchanges WHERE exchange_id = ",
            names(&EXCHANGE_COLUMNS)
        );
        let mut sql = Sql::new(Dialect::ClickHouse, begin);
        sql.push_with("toUUID(?)", Bind::Id(id));
        if let Some(at) = time_of(id) {
            // Spares all days but one.
            sql.push_with(
                " AND started_at >= fromUnixTimestamp64Micro(?, 'UTC')",
                Bind::Int(at - SKEW_MICROS),
            )
            .push_with(
                " AND started_at <= fromUnixTimestamp64Micro(?, 'UTC')",
                Bind::Int(at + SKEW_MICROS),
            );
        }
        sql.push(" LIMIT 1");
        Ok(self.items(sql, &EXCHANGE_COLUMNS).await?.pop())
    }

    /// Feedback on an exchange, also what names it by the provider's response id; oldest first.
    pub async fn feedback(&self, id: Uuid, response_id: &str) -> Result<Vec<Value>, StoreError> {
        let begin = format!("SELECT {} FROM feedback WHERE exchange_id = ", names(&FEEDBACK_COLUMNS));
        let mut sql = Sql::new(Dialect::ClickHouse, begin);
        sql.push_with("toUUID(?)", Bind::Id(id));
        if !response_id.is_empty() {
            sql.push_with(" OR (exchange_id = toUUID(?)", Bind::Id(Uuid::nil()))
                .push_with(" AND response_id = ?)", Bind::Text(response_id.to_owned()));
        }
        sql.push(" ORDER BY at, UUIDToNum(feedback_id)");
        self.items(sql, &FEEDBACK_COLUMNS).await
    }

    pub async fn count(&self, filter: &ExchangeFilter) -> Result<u64, StoreError> {
        let mut sql = Sql::new(Dialect::ClickHouse, "SELECT count() FROM exchanges");
        sql.push_filter(filter);
        let counts = self.rows(sql, |row| row.u64()).await?;
        Ok(counts.first().copied().unwrap_or_default())
    }

    pub async fn stats(&self, query: &StatsQuery) -> Result<(Vec<(Vec<Key>, Figures)>, Vec<Scores>), StoreError> {
        let by = &query.group_by;
        let groups = self.rows(query.figures(Dialect::ClickHouse), |row| {
            Ok((key(row, by)?, Figures::read(|| row.u64())?))
        });
        let groups = groups.await?;
        let mut scores = Vec::new();
        for by_response in [false, true] {
            let found = self.rows(query.feedback(Dialect::ClickHouse, by_response), |row| {
                Ok(Scores {
                    key: key(row, by)?,
                    name: row.str()?.to_owned(),
                    count: row.u64()?,
                    numbers: row.u64()?,
                    sum: row.f64()?,
                })
            });
            scores.extend(found.await?);
        }
        Ok((groups, scores))
    }

    pub async fn refusals(&self, query: &StatsQuery) -> Result<Vec<Refusals>, StoreError> {
        let Some(sql) = query.refusals(Dialect::ClickHouse) else {
            return Ok(Vec::new());
        };
        let refusals = self.rows(sql, |row| {
            Ok(Refusals {
                key_id: row.str()?.to_owned(),
                endpoint: row.str()?.to_owned(),
                error_code: row.str()?.to_owned(),
                status_code: u16::try_from(row.u64()?).unwrap_or(u16::MAX),
                requests: row.u64()?,
            })
        });
        refusals.await
    }

    async fn items(&self, sql: Sql, columns: &[Column]) -> Result<Vec<Value>, StoreError> {
        self.rows(sql, |row| item(row, columns)).await
    }

    /// Reads each row of an answer.
    pub(super) async fn rows<T>(
        &self,
        sql: Sql,
        one: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, StoreError> {
        let bytes = self.fetch(sql).await?;
        let mut reader = Reader::new(&bytes);
        let mut rows = Vec::new();
        while !reader.is_at_end() {
            rows.push(one(&mut reader).map_err(ClickHouseError::from)?);
        }
        Ok(rows)
    }

    /// Asks the server that answered last, and the others if that cannot be had.
    async fn fetch(&self, sql: Sql) -> Result<Bytes, ClickHouseError> {
        let count = self.clients.len();
        let first = self.last_good.load(Relaxed);
        for (tries, index) in (0..count).map(|i| (i + 1, (first + i) % count)) {
            match fetch_from(&self.clients[index], &sql).await {
                Err(error) if error.is_outage() && tries < count => {}
                answer => {
                    self.last_good.store(index, Relaxed);
                    return answer;
                }
            }
        }
        Err(ClickHouseError::Unreachable("there is no server".to_owned()))
    }
}

async fn fetch_from(client: &Client, sql: &Sql) -> Result<Bytes, ClickHouseError> {
    let mut query = client.query(&sql.text);
    for bind in &sql.binds {
        query = match bind {
            Bind::Text(text) => query.bind(text),
            Bind::Int(number) => query.bind(number),
            Bind::Id(id) => query.bind(id.to_string()),
        };
    }
    let mut cursor = query.fetch_bytes("RowBinary")?;
    match tokio::time::timeout(TIMEOUT, cursor.collect()).await {
        Ok(bytes) => Ok(bytes?),
        Err(_) => Err(ClickHouseError::Timeout),
    }
}

fn names(columns: &[Column]) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    names.join(", ")
}

fn key(row: &mut Reader<'_>, by: &[GroupBy]) -> Result<Vec<Key>, DecodeError> {
    let keys = by.iter().map(|by| match by.is_number() {
        true => Ok(Key::Number(row.i64()?)),
        false => Ok(Key::Text(row.str()?.to_owned())),
    });
    keys.collect()
}
