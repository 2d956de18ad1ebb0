//! The processes that serve a registry together, each as it reported itself last.
//!
//! A report changes no generation. Only a registry that processes share has any: a file belongs to one.

use std::time::Duration;

use super::sql::Engine;
use super::{Registry, RegistryError, number};

/// A node that has not reported for this long counts as gone.
pub const GONE_AFTER: Duration = Duration::from_secs(20);

/// A node that has not reported for this long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// PostgreSQL's own clock, in microseconds since the Unix epoch: those of the nodes may differ.
const NOW: &str = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT";

/// What a process says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Of this run of the process.
    pub id: String,
    /// As configured, by default the host's name: several nodes may have the same.
    pub name: String,
    /// The program's.
    pub version: String,
    /// Where applications reach it.
    pub address: String,
    pub config_hash: String,
    /// Microseconds since the Unix epoch, by the node's clock.
    pub started_at_us: i64,
    /// What it serves.
    pub generation: u64,
    pub epoch: String,
    /// How long ago it knew that this is the newest.
    pub age: Duration,
}

/// A process, as it reported itself last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub report: NodeReport,
    /// How long ago it reported.
    pub seen: Duration,
}

impl Node {
    pub fn is_gone(&self) -> bool {
        self.seen > GONE_AFTER
    }
}

impl Registry {
    /// Says whether other processes may serve the same registry.
    pub fn is_shared(&self) -> bool {
        self.url.expose().starts_with("postgres")
    }

    /// Notes what a process says of itself, and forgets those that are long gone. Does nothing where nobody shares.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn report_node(&self, node: &NodeReport) -> Result<(), RegistryError> {
        if self.pools()?.engine == Engine::Sqlite {
            return Ok(());
        }
        let upsert = format!(
            "INSERT INTO nodes (id, name, version, address, config_hash, started_at, generation, epoch, confirmed_at, \
             seen_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, {NOW} - $9, {NOW}) ON CONFLICT (id) DO UPDATE SET \
             generation = excluded.generation, epoch = excluded.epoch, config_hash = excluded.config_hash, \
             confirmed_at = excluded.confirmed_at, seen_at = excluded.seen_at"
        );
        sqlx::query(sqlx::AssertSqlSafe(upsert))
            .bind(&node.id)
            .bind(&node.name)
            .bind(&node.version)
            .bind(&node.address)
            .bind(&node.config_hash)
            .bind(node.started_at_us)
            .bind(node.generation.cast_signed())
            .bind(&node.epoch)
            .bind(node.age.as_micros() as i64)
            .execute(self.writer()?)
            .await?;
        Ok(())
    }

    /// Takes a process off the list, which stops.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_node(&self, id: &str) -> Result<(), RegistryError> {
        sqlx::query("DELETE FROM nodes WHERE id = $1")
            .bind(id)
            .execute(self.writer()?)
            .await?;
        Ok(())
    }

    /// Forgets processes that have been gone for a day.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_gone_nodes(&self) -> Result<(), RegistryError> {
        if self.pools()?.engine == Engine::Sqlite {
            return Ok(());
        }
        let delete = format!("DELETE FROM nodes WHERE seen_at < {NOW} - $1");
        sqlx::query(sqlx::AssertSqlSafe(delete))
            .bind(FORGOTTEN_AFTER.as_micros() as i64)
            .execute(self.writer()?)
            .await?;
        Ok(())
    }

    /// Lists the processes by name; none where nobody shares.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn nodes(&self) -> Result<Vec<Node>, RegistryError> {
        if self.pools()?.engine == Engine::Sqlite {
            return Ok(Vec::new());
        }
        type Row = (String, String, String, String, String, i64, i64, String, i64, i64);
        let select = format!(
            "SELECT id, name, version, address, config_hash, started_at, generation, epoch, {NOW} - confirmed_at, \
             {NOW} - seen_at FROM nodes ORDER BY name, started_at, id LIMIT 1000"
        );
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(select))
            .fetch_all(self.reader()?)
            .await?;
        let ago = |micros: i64| Duration::from_micros(micros.max(0).cast_unsigned());
        rows.into_iter()
            .map(
                |(id, name, version, address, config_hash, started_at_us, generation, epoch, age, seen)| {
                    Ok(Node {
                        report: NodeReport {
                            id,
                            name,
                            version,
                            address,
                            config_hash,
                            started_at_us,
                            generation: number(generation)?,
                            epoch,
                            age: ago(age),
                        },
                        seen: ago(seen),
                    })
                },
            )
            .collect()
    }
}
