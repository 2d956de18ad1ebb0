//! Stores batches in ClickHouse, each exactly once.
//!
//! A batch is one INSERT into each table that it has rows for, with a token derived from the segment's: a token that
//! ClickHouse has seen lately is not stored again, nor counted again in the rollup. That covers an answer that got
//! lost, and a server that died after it stored the rows and before it counted them in the rollup, as long as the table
//! remembers the token; its window counts blocks, and other nodes' blocks move it too. So once an attempt's fate has been
//! in doubt for a minute, the server is asked first how many blocks the table has got since. Only if that may be more
//! than it remembers is the table asked for the batch instead; should the rollup lack it then, it stays so.
//!
//! One INSERT is not atomic across partitions: a batch that spans midnight is stored day by day. So the table is asked
//! for the first and last id of each day in the batch, and only the days it lacks are sent; within a day the bytes,
//! and with them the token, stay the same.
//!
//! What makes one INSERT one block is pinned in the query, since a server's or user's profile may say otherwise.
//!
//! **Several servers.** An attempt that certainly stored nothing is made at the next server at once. A batch whose fate is
//! in doubt stays with its server, since no other may know its token: replicas of a replicated table share their tokens,
//! other servers do not. Only when that server has not worked for a minute is the batch taken to the next, and then every
//! server that answers is asked for it first (in a cluster, one is asked for all). So the same rows are stored twice only
//! if a server that is not replicated stores a batch, loses the answer, and stays away for longer than a minute.

use clickhouse::Client;

use super::ClickHouseError;
use super::cluster::Layout;
use super::schema::Schema;
use super::servers::Servers;
use super::table::{Ask, Table};
use crate::config::ClickHouse;
use crate::telemetry::row::{FEEDBACK_COLUMNS, REFUSALS_COLUMNS, exchange_columns};
use crate::telemetry::sink::{Batch, Stored, digest};

/// How long a token alone is relied on, and how long a batch in doubt waits for its server.
const PATIENCE_MICROS: i64 = 60_000_000;

/// Blocks after which a token is taken to be forgotten: half of the tables' window.
const REMEMBERED_BLOCKS: i64 = 5_000;

/// One INSERT is one block, stored when it is answered. All above a segment's cap of 50,000 rows and 32 MiB.
const INSERT_SETTINGS: [(&str, &str); 6] = [
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("max_insert_block_size", "1048576"),
    ("min_insert_block_size_rows", "1048576"),
    ("min_insert_block_size_bytes", "268435456"),
];

/// One of the servers.
#[derive(Debug)]
struct Server {
    url: String,
    client: Client,
    /// Whether the tables are there, as far as we know.
    ready: bool,
}

/// A batch whose fate is unknown.
#[derive(Debug, Clone)]
struct Doubt {
    token: String,
    /// µs since the epoch.
    since: i64,
    /// Which server may have it; None if an earlier process sent it.
    server: Option<usize>,
}

/// An attempt that failed.
#[derive(Debug)]
struct Failure {
    error: ClickHouseError,
    /// Whether it is certain that the attempt stored nothing, in no table.
    certain: bool,
}

impl Failure {
    fn before_sending(error: ClickHouseError) -> Self {
        Self { error, certain: true }
    }
}

/// Stores batches over HTTP.
#[derive(Debug)]
pub struct ClickHouseSink {
    config: ClickHouse,
    durable: bool,
    servers: Vec<Server>,
    choice: Servers,
    /// Part of every token: spools of two machines may have boots of one name.
    node: String,
    doubt: Option<Doubt>,
    patience_micros: i64,
    remembered_blocks: i64,
}

impl ClickHouseSink {
    /// Prepares to store; connects when first used. With `durable` an answered insert survives the loss of power.
    pub fn new(config: &ClickHouse, node: &str, durable: bool) -> Self {
        let server = |url: &String| {
            let client = super::client(config, url).with_database(&config.database);
            Server {
                url: url.clone(),
                client: INSERT_SETTINGS
                    .iter()
                    .fold(client, |client, (name, value)| client.with_setting(*name, *value)),
                ready: false,
            }
        };
        Self {
            servers: config.urls.iter().map(server).collect(),
            choice: Servers::new(config.urls.len(), config.cluster.is_some()),
            config: config.clone(),
            durable,
            node: node.to_owned(),
            doubt: None,
            patience_micros: PATIENCE_MICROS,
            remembered_blocks: REMEMBERED_BLOCKS,
        }
    }

    /// Relies on tokens, and waits for a server that may have a batch, only so long.
    pub fn with_patience(mut self, patience: std::time::Duration) -> Self {
        self.patience_micros = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
        self
    }

    /// Takes a token to be forgotten after so many blocks.
    pub fn with_memory(mut self, blocks: i64) -> Self {
        self.remembered_blocks = blocks;
        self
    }

    /// Makes the tables of one server, the first that can be reached, unless that is known to be done.
    ///
    /// # Errors
    /// No server can be reached, or it refuses; or the database is one of a newer build.
    pub async fn prepare(&mut self) -> Result<(), ClickHouseError> {
        let mut last = None;
        for server in self.choice.order("", now_micros()) {
            match self.prepare_server(server).await {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(self.failed(server, error)),
            }
        }
        last.map_or(Ok(()), Err)
    }

    async fn prepare_server(&mut self, index: usize) -> Result<(), ClickHouseError> {
        let server = &mut self.servers[index];
        if server.ready {
            return Ok(());
        }
        let schema = Schema::new(&self.config, &server.url, self.durable);
        let applied = schema.migrate().await?;
        tracing::info!(
            url = server.url,
            database = self.config.database,
            applied,
            "clickhouse is ready"
        );
        if self.config.urls.len() > 1 && !schema.is_shared().await? {
            tracing::warn!(
                url = server.url,
                "several clickhouse addresses, but the tables are not replicated: each server shows only what it stored itself; \
                 set telemetry.clickhouse.cluster, or name one server"
            );
        }
        server.ready = true;
        Ok(())
    }

    /// Stores a batch.
    ///
    /// # Errors
    /// See [`ClickHouseError::is_poison`]; any other failure may go away. What is offered again is stored once.
    pub async fn store(&mut self, batch: &Batch<'_>) -> Result<Stored, ClickHouseError> {
        let now = now_micros();
        let mut doubt = self
            .doubt
            .take()
            .filter(|doubt| doubt.token == batch.token)
            .or_else(|| {
                let of_before = |since| Doubt {
                    token: batch.token.clone(),
                    since,
                    server: None,
                };
                batch.doubt_since.map(of_before)
            });
        let mut order = self.choice.order(&batch.token, now);
        if let Some(server) = doubt.as_ref().and_then(|doubt| doubt.server) {
            match self.choice.away(server, now) < self.patience_micros {
                true => order = vec![server],
                // It may be back, but is no longer waited for.
                false => order.sort_by_key(|other| *other == server),
            }
        }
        let mut last = None;
        for server in order {
            let Failure { error, certain } = match self.attempt(server, batch, doubt.as_ref(), now).await {
                Ok(stored) => {
                    self.choice.worked(server);
                    return Ok(stored);
                }
                Err(failure) => failure,
            };
            let poison = error.is_poison();
            // That another server cannot be asked is no fault of this one; in a cluster it is this one that cannot ask.
            let blameless = matches!(error, ClickHouseError::Unasked(_)) && self.config.cluster.is_none();
            let error = match poison || blameless {
                true => error,
                false => self.failed(server, error),
            };
            // What was certain before this attempt, and is after it, is not in doubt; what was in doubt stays so.
            if !certain {
                let since = doubt.as_ref().map_or(now, |doubt| doubt.since);
                doubt = Some(Doubt {
                    token: batch.token.clone(),
                    since,
                    server: Some(server),
                });
            }
            if poison || !certain {
                self.doubt = doubt;
                return Err(error);
            }
            last = Some(error);
        }
        self.doubt = doubt;
        Err(last.expect("there is at least one server, and none worked"))
    }

    fn failed(&mut self, server: usize, error: ClickHouseError) -> ClickHouseError {
        self.choice.failed(server, now_micros(), rand::random_range(0.5..=1.0));
        if error.is_absent() {
            self.servers[server].ready = false;
        }
        error
    }

    async fn attempt(
        &mut self,
        server: usize,
        batch: &Batch<'_>,
        doubt: Option<&Doubt>,
        now: i64,
    ) -> Result<Stored, Failure> {
        self.prepare_server(server).await.map_err(Failure::before_sending)?;
        // Its token helps only where it was used, and only for so long.
        let elsewhere = doubt.is_some_and(|doubt| self.servers.len() > 1 && doubt.server != Some(server));
        let since = doubt.map_or(now, |doubt| doubt.since);
        let in_doubt = elsewhere || (doubt.is_some() && now - since >= self.patience_micros);
        let ask = match (batch.piece, in_doubt) {
            (true, _) => Some(Ask::Each),
            (false, true) => Some(Ask::Ends),
            (false, false) => None,
        };
        let mut stored = Stored::Before;
        for (name, columns, rows) in [
            ("exchanges", exchange_columns(batch.schema), &batch.exchanges),
            ("feedback", Some(&FEEDBACK_COLUMNS[..]), &batch.feedback),
            ("refusals", Some(&REFUSALS_COLUMNS[..]), &batch.refusals),
        ] {
            if rows.is_empty() {
                continue;
            }
            let table = Table {
                name,
                local: Layout::of(&self.config).local(name),
                // The bytes go through untouched: what an older build did not write, the table fills in.
                columns: columns
                    .ok_or(ClickHouseError::Schema(batch.schema))
                    .map_err(Failure::before_sending)?,
            };
            let asked = match ask {
                Some(Ask::Ends) if !elsewhere && self.remembers(server, &table, since).await => None,
                ask => ask,
            };
            let missing = match asked {
                Some(ask) => {
                    let missing = self.missing(server, &table, rows, ask, now).await;
                    missing.map_err(|error| Failure {
                        error,
                        certain: stored == Stored::Before,
                    })?
                }
                None => rows.clone(),
            };
            if missing.is_empty() {
                continue;
            }
            let mut token = format!("{}/{}/{name}", self.node, batch.token);
            if batch.piece {
                token = format!("{token}/{}", digest(&missing));
            }
            let inserted = table.insert(&self.servers[server].client, &missing, token).await;
            inserted.map_err(|error| Failure {
                certain: stored == Stored::Before && error.is_certain(),
                error,
            })?;
            stored = Stored::Now;
        }
        Ok(stored)
    }

    /// Whether a server's table surely remembers a token that was first used at `since`. One that cannot say does not.
    async fn remembers(&self, server: usize, table: &Table, since: i64) -> bool {
        match table.blocks_since(&self.servers[server].client, since).await {
            Ok(blocks) => blocks <= self.remembered_blocks,
            Err(error) => {
                tracing::debug!(%error, "cannot count the blocks of a table");
                false
            }
        }
    }

    /// The rows that no server has which can be asked. One that cannot is waited for as long as patience lasts.
    async fn missing<'a>(
        &mut self,
        server: usize,
        table: &Table,
        rows: &[&'a [u8]],
        ask: Ask,
        now: i64,
    ) -> Result<Vec<&'a [u8]>, ClickHouseError> {
        if self.config.cluster.is_some() {
            return self.missing_in_cluster(server, table, rows, ask, now).await;
        }
        let mut missing = table.missing(&self.servers[server].client, rows, ask).await?;
        for other in (0..self.servers.len()).filter(|other| *other != server) {
            if missing.is_empty() {
                break;
            }
            match table.missing(&self.servers[other].client, &missing, ask).await {
                Ok(still) => missing = still,
                Err(error) if error.is_absent() => {}
                Err(error) => {
                    let error = self.failed(other, error);
                    if self.choice.away(other, now_micros()) < self.patience_micros {
                        return Err(ClickHouseError::Unasked(error.to_string()));
                    }
                }
            }
        }
        Ok(missing)
    }

    /// The Distributed table answers for all shards; for those that can be reached, once patience has ended.
    async fn missing_in_cluster<'a>(
        &mut self,
        server: usize,
        table: &Table,
        rows: &[&'a [u8]],
        ask: Ask,
        now: i64,
    ) -> Result<Vec<&'a [u8]>, ClickHouseError> {
        let skip = self.choice.away(server, now) >= self.patience_micros;
        let client = self.servers[server].client.clone();
        let client = client.with_setting("skip_unavailable_shards", if skip { "1" } else { "0" });
        let asked = table.missing(&client, rows, ask).await;
        asked.map_err(|error| ClickHouseError::Unasked(error.to_string()))
    }
}

fn now_micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
