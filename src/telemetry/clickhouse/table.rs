//! One table of a database: inserting rows into it, and asking it which rows it has.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clickhouse::Client;
use uuid::Uuid;

use super::ClickHouseError;
use crate::telemetry::row::Column;
use crate::telemetry::rowbinary::Reader;

/// How far the server's clock may be behind ours.
const CLOCK_SECONDS: i64 = 60;

/// Bytes handed to the connection at a time; memory beside the segment's own.
const CHUNK_BYTES: usize = 1 << 20;
/// Until the server takes more of the body.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Until the server has stored it; afterwards its fate is in doubt.
const END_TIMEOUT: Duration = Duration::from_secs(120);
/// Ids of one question: some 40 KiB of text.
const IDS_A_QUESTION: usize = 1000;
const DAY_MICROS: i64 = 86_400_000_000;

/// A table of records; its rows begin with an id and a time.
#[derive(Debug)]
pub(super) struct Table {
    /// Where it is read.
    pub name: &'static str,
    /// Where rows are inserted: the same, but in a cluster.
    pub local: String,
    /// Those that the rows have.
    pub columns: &'static [Column],
}

/// How a table is asked for rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// For the first and last of each day, since an INSERT stores a day's rows all or none.
    Ends,
    /// For each row.
    Each,
}

impl Table {
    /// Stores rows, once for each token.
    pub async fn insert(&self, client: &Client, rows: &[&[u8]], token: String) -> Result<(), ClickHouseError> {
        let columns: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        let sql = format!("INSERT INTO {} ({}) FORMAT RowBinary", self.local, columns.join(", "));
        let mut insert = client
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

    /// How many blocks the table has got since then (µs since the epoch), or more: parts that were merged meanwhile count
    /// whole.
    ///
    /// Source: <https://clickhouse.com/docs/operations/system-tables/parts>, block numbers grow with each insert, in the
    /// table or in the partition.
    pub async fn blocks_since(&self, client: &Client, since: i64) -> Result<i64, ClickHouseError> {
        let sql = format!(
            "SELECT toInt64(sum(blocks)) FROM (\
             SELECT max(max_block_number) - ifNull(maxOrNullIf(max_block_number, toUnixTimestamp(modification_time) < {from}), \
             min(min_block_number) - 1) AS blocks \
             FROM system.parts WHERE active AND database = currentDatabase() AND table = '{table}' GROUP BY partition_id)",
            // Clocks differ.
            from = since.div_euclid(1_000_000) - CLOCK_SECONDS,
            table = self.local,
        );
        Ok(client.query_raw(&sql).fetch_one().await?)
    }

    /// The rows that the table does not have. A row that cannot be read is among them, so that the server says what it
    /// thinks of it.
    pub async fn missing<'a>(
        &self,
        client: &Client,
        rows: &[&'a [u8]],
        ask: Ask,
    ) -> Result<Vec<&'a [u8]>, ClickHouseError> {
        match ask {
            Ask::Ends => self.missing_days(client, rows).await,
            Ask::Each => self.missing_rows(client, rows).await,
        }
    }

    /// The rows of those days whose first and last row the table does not have.
    async fn missing_days<'a>(&self, client: &Client, rows: &[&'a [u8]]) -> Result<Vec<&'a [u8]>, ClickHouseError> {
        let days = days(rows);
        let ids: Vec<Uuid> = days.values().flatten().copied().collect();
        let found = self.found(client, &ids, days.keys().copied()).await?;
        let lacks = |row: &&[u8]| head(row).is_none_or(|(day, _)| !days[&day].iter().all(|id| found.contains(id)));
        Ok(rows.iter().copied().filter(lacks).collect())
    }

    async fn missing_rows<'a>(&self, client: &Client, rows: &[&'a [u8]]) -> Result<Vec<&'a [u8]>, ClickHouseError> {
        let mut missing = Vec::new();
        for some in rows.chunks(IDS_A_QUESTION) {
            let heads: Vec<(i64, Uuid)> = some.iter().filter_map(|row| head(row)).collect();
            let ids: Vec<Uuid> = heads.iter().map(|(_, id)| *id).collect();
            let found = self.found(client, &ids, heads.iter().map(|(day, _)| *day)).await?;
            let lacks = |row: &&[u8]| head(row).is_none_or(|(_, id)| !found.contains(&id));
            missing.extend(some.iter().copied().filter(lacks));
        }
        Ok(missing)
    }

    /// Those of some ids that the table has in a span of days.
    async fn found(
        &self,
        client: &Client,
        ids: &[Uuid],
        days: impl Iterator<Item = i64> + Clone,
    ) -> Result<HashSet<Uuid>, ClickHouseError> {
        let (Some(first), Some(last)) = (days.clone().min(), days.max()) else {
            return Ok(HashSet::new());
        };
        let (id, at) = (self.columns[0].name, self.columns[1].name);
        let list: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
        let sql = format!(
            "SELECT DISTINCT toString({id}) FROM {table} \
             WHERE {at} >= fromUnixTimestamp64Micro({from}, 'UTC') AND {at} < fromUnixTimestamp64Micro({to}, 'UTC') \
             AND {id} IN ({list})",
            table = self.name,
            from = first.saturating_mul(DAY_MICROS),
            to = last.saturating_add(1).saturating_mul(DAY_MICROS),
            list = list.join(", "),
        );
        let found: Vec<String> = client.query_raw(&sql).fetch_all().await?;
        Ok(found.iter().filter_map(|id| Uuid::parse_str(id).ok()).collect())
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
