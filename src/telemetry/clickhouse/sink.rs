//! Stores batches in ClickHouse, each exactly once.
//!
//! A batch is one INSERT into each table that it has rows for, with a token derived from the segment's: a token that
//! ClickHouse has seen lately is not stored again, nor counted again in the rollup. That covers an answer that got
//! lost, as long as the table remembers the token; its window counts blocks, and other nodes' blocks move it too. So
//! once an attempt's fate has been in doubt for a minute, the table is asked first whether it has the batch.
//!
//! One INSERT is not atomic across partitions: a batch that spans midnight is stored day by day. So the table is asked
//! for the first and last id of each day in the batch, and only the days it lacks are sent; within a day the bytes,
//! and with them the token, stay the same.
//!
//! What makes one INSERT one block is pinned in the query, since a server's or user's profile may say otherwise.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clickhouse::Client;
use uuid::Uuid;

use super::{ClickHouseError, schema};
use crate::config::ClickHouse;
use crate::telemetry::row::{Column, FEEDBACK_COLUMNS, REFUSALS_COLUMNS, exchange_columns};
use crate::telemetry::rowbinary::Reader;
use crate::telemetry::sink::{Batch, Stored};

/// Bytes handed to the connection at a time; memory beside the segment's own.
const CHUNK_BYTES: usize = 1 << 20;
/// Until the server takes more of the body.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Until the server has stored it; afterwards its fate is in doubt.
const END_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a token alone is relied on.
const ASK_AFTER_MICROS: i64 = 60_000_000;
const DAY_MICROS: i64 = 86_400_000_000;

/// One INSERT is one block, stored when it is answered. All above a segment's cap of 50,000 rows and 32 MiB.
const INSERT_SETTINGS: [(&str, &str); 6] = [
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("max_insert_block_size", "1048576"),
    ("min_insert_block_size_rows", "1048576"),
    ("min_insert_block_size_bytes", "268435456"),
];

/// A table of records; its rows begin with an id and a time.
#[derive(Debug)]
struct Table {
    name: &'static str,
    columns: &'static [Column],
}

const FEEDBACK: Table = Table {
    name: "feedback",
    columns: &FEEDBACK_COLUMNS,
};
const REFUSALS: Table = Table {
    name: "refusals",
    columns: &REFUSALS_COLUMNS,
};

/// Stores batches over HTTP.
#[derive(Debug)]
pub struct ClickHouseSink {
    server: ClickHouse,
    client: Client,
    /// Part of every token: spools of two machines may have boots of one name.
    node: String,
    /// Whether the tables are there, as far as we know.
    ready: bool,
    /// The batch whose fate is in doubt, and since when (µs since the epoch).
    doubt: Option<(String, i64)>,
}

impl ClickHouseSink {
    /// Prepares to store; connects when first used.
    pub fn new(server: &ClickHouse, node: &str) -> Self {
        let client = super::client(server).with_database(&server.database);
        let client = INSERT_SETTINGS
            .iter()
            .fold(client, |client, (name, value)| client.with_setting(*name, *value));
        Self {
            server: server.clone(),
            client,
            node: node.to_owned(),
            ready: false,
            doubt: None,
        }
    }

    /// Makes the tables, unless that is known to be done.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses; or the database is one of a newer build.
    pub async fn prepare(&mut self) -> Result<(), ClickHouseError> {
        if !self.ready {
            let applied = schema::migrate(&self.server).await?;
            tracing::info!(database = self.server.database, applied, "clickhouse is ready");
            self.ready = true;
        }
        Ok(())
    }

    /// Stores a batch.
    ///
    /// # Errors
    /// See [`ClickHouseError::is_poison`]; any other failure may go away. What is offered again is stored once.
    pub async fn store(&mut self, batch: &Batch<'_>) -> Result<Stored, ClickHouseError> {
        self.prepare().await?;
        let now = jiff::Timestamp::now().as_microsecond();
        let since = match &self.doubt {
            Some((token, since)) if *token == batch.token => Some(*since),
            _ => batch.doubt_since,
        };
        let ask = since.is_some_and(|since| now - since >= ASK_AFTER_MICROS);
        let result = self.store_tables(batch, ask).await;
        self.doubt = match &result {
            // What was certain before this attempt, and is after it, is not in doubt; what was in doubt stays so.
            Err(error) if since.is_some() || !error.is_certain() => Some((batch.token.clone(), since.unwrap_or(now))),
            _ => None,
        };
        if let Err(error) = &result
            && error.is_absent()
        {
            self.ready = false;
        }
        result
    }

    async fn store_tables(&self, batch: &Batch<'_>, ask: bool) -> Result<Stored, ClickHouseError> {
        let mut stored = Stored::Before;
        let exchanges = Table {
            name: "exchanges",
            // The bytes go through untouched: what an older build did not write, the table fills in.
            columns: exchange_columns(batch.schema).ok_or(ClickHouseError::Schema(batch.schema))?,
        };
        for (table, rows) in [
            (&exchanges, &batch.exchanges),
            (&FEEDBACK, &batch.feedback),
            (&REFUSALS, &batch.refusals),
        ] {
            let missing = match ask {
                true => self.missing(table, rows).await?,
                false => rows.clone(),
            };
            if !missing.is_empty() {
                let token = format!("{}/{}/{}", self.node, batch.token, table.name);
                self.insert(table, &missing, token).await?;
                stored = Stored::Now;
            }
        }
        Ok(stored)
    }

    async fn insert(&self, table: &Table, rows: &[&[u8]], token: String) -> Result<(), ClickHouseError> {
        let columns: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
        let sql = format!("INSERT INTO {} ({}) FORMAT RowBinary", table.name, columns.join(", "));
        let mut insert = self
            .client
            .insert_formatted_with(sql)
            .with_setting("insert_deduplication_token", token)
            .with_timeouts(Some(SEND_TIMEOUT), Some(END_TIMEOUT));
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        for row in rows {
            if chunk.len() + row.len() > CHUNK_BYTES && !chunk.is_empty() {
                insert.send(chunk.split().freeze()).await?;
                chunk.reserve(CHUNK_BYTES);
            }
            chunk.extend_from_slice(row);
        }
        insert.send(Bytes::from(chunk)).await?;
        Ok(insert.end().await?)
    }

    /// The rows of those days whose first and last row the table does not have.
    async fn missing<'a>(&self, table: &Table, rows: &[&'a [u8]]) -> Result<Vec<&'a [u8]>, ClickHouseError> {
        let days = days(rows);
        let (Some(first), Some(last)) = (days.keys().next(), days.keys().next_back()) else {
            return Ok(Vec::new());
        };
        let ids: Vec<String> = days.values().flatten().map(|id| format!("'{id}'")).collect();
        let (id, at) = (table.columns[0].name, table.columns[1].name);
        let sql = format!(
            "SELECT intDiv(toUnixTimestamp64Micro({at}), {DAY_MICROS}) AS day, uniqExact({id}) AS found FROM {table} \
             WHERE {at} >= fromUnixTimestamp64Micro({from}, 'UTC') AND {at} < fromUnixTimestamp64Micro({to}, 'UTC') \
             AND {id} IN ({ids}) GROUP BY day",
            table = table.name,
            from = first * DAY_MICROS,
            to = (last + 1) * DAY_MICROS,
            ids = ids.join(", "),
        );
        let found: Vec<(i64, u64)> = self.client.query_raw(&sql).fetch_all().await?;
        let stored: HashSet<i64> = found
            .into_iter()
            .filter(|(day, found)| days.get(day).is_some_and(|ids| ids.len() as u64 == *found))
            .map(|(day, _)| day)
            .collect();
        // A row that cannot be read is sent, so that the server says what it thinks of it.
        let lacks = |row: &&[u8]| head(row).is_none_or(|(day, _)| !stored.contains(&day));
        Ok(rows.iter().copied().filter(lacks).collect())
    }
}

/// The first and last id of each day, one id if they are the same.
fn days(rows: &[&[u8]]) -> BTreeMap<i64, Vec<Uuid>> {
    let mut days: BTreeMap<i64, Vec<Uuid>> = BTreeMap::new();
    for (day, id) in rows.iter().filter_map(|row| head(row)) {
        let ids = days.entry(day).or_default();
        ids.truncate(1);
        if ids.first() != Some(&id) {
            ids.push(id);
        }
    }
    days
}

/// Day and id of a row: those of all tables begin with an id and a time. None for bytes that are no row.
fn head(row: &[u8]) -> Option<(i64, Uuid)> {
    let mut row = Reader::new(row);
    let id = row.uuid().ok()?;
    Some((row.i64().ok()?.div_euclid(DAY_MICROS), id))
}
