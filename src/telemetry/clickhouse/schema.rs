//! The database's tables: numbered migrations, applied at start and by `promptgate migrate`.
//!
//! Each file under `migrations/` is applied once, in order, and recorded in `schema_migrations` with the checksum of
//! its text: a file that was changed after it was applied is refused, and so is a database of a newer build.
//!
//! Several nodes may start at once. ClickHouse without a keeper has one atomic step: of two `CREATE TABLE schema_lock`
//! one fails. Who made the table migrates, then drops it. If that process died, the table is older than the lease by
//! the server's own clock, and is dropped by the next to come. Should a slow holder be taken for dead, two migrate at
//! once: so every statement can be repeated (`IF NOT EXISTS`), and the lock only spares the noise.
//!
//! How long records are kept, and whether an insert is flushed to disk, are not migrations but settings: they are brought
//! in line each time.
//!
//! In a cluster the statements are `ON CLUSTER`, see `cluster`.

use std::fmt::Write as _;
use std::time::Duration;

use clickhouse::Client;
use sha2::{Digest, Sha256};

use super::ClickHouseError;
use super::cluster::Layout;
use crate::config::ClickHouse;

/// Age at which the lock of a process is no longer believed in.
const LEASE: Duration = Duration::from_secs(60);
const TABLE_ALREADY_EXISTS: u32 = 57;

/// One file of statements.
#[derive(Debug)]
pub struct Migration {
    pub version: u32,
    pub name: &'static str,
    /// Statements that can be repeated, each ending with `;` and a line break.
    sql: &'static str,
}

/// All that this build knows, in order.
pub const MIGRATIONS: [Migration; 4] = [
    Migration {
        version: 1,
        name: "exchanges",
        sql: include_str!("migrations/0001_exchanges.sql"),
    },
    Migration {
        version: 2,
        name: "feedback",
        sql: include_str!("migrations/0002_feedback.sql"),
    },
    Migration {
        version: 3,
        name: "rollup_minute",
        sql: include_str!("migrations/0003_rollup_minute.sql"),
    },
    Migration {
        version: 4,
        name: "capture_refusals",
        sql: include_str!("migrations/0004_capture_refusals.sql"),
    },
];

const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version UInt32,
    name String,
    checksum String,
    applied_at DateTime64(3, 'UTC')
) ENGINE = MergeTree ORDER BY version";

/// Tables whose records expire, with the column of their time.
const EXPIRING: [(&str, &str); 3] = [("exchanges", "started_at"), ("feedback", "at"), ("refusals", "since")];

/// Tables that are flushed to disk before an insert is answered, if records are to survive the loss of power.
const DURABLE: [&str; 4] = ["exchanges", "feedback", "refusals", "rollup_minute"];

impl Migration {
    /// The first 16 hexadecimal digits of the text's SHA-256.
    pub fn checksum(&self) -> String {
        let digest = Sha256::digest(self.sql.as_bytes());
        digest.iter().take(8).fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes any text");
            hex
        })
    }

    /// Its statements, one at a time, as ClickHouse's HTTP interface takes them.
    pub fn statements(&self) -> impl Iterator<Item = &'static str> {
        self.sql.split(";\n").map(str::trim).filter(|sql| !sql.is_empty())
    }
}

/// What is to be done to a database.
#[derive(Debug, Default)]
pub struct Plan {
    /// The statement that makes the database, if it is not there.
    pub database: Option<String>,
    pub pending: Vec<&'static Migration>,
    /// Statements that bring the tables' settings in line: time to live, durability.
    pub settings: Vec<String>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.database.is_none() && self.pending.is_empty() && self.settings.is_empty()
    }
}

/// The schema that a server, or the cluster it belongs to, is to have.
#[derive(Debug, Clone, Copy)]
pub struct Schema<'a> {
    server: &'a ClickHouse,
    /// Through which of the server's addresses.
    url: &'a str,
    /// Whether an insert is on disk when it is answered.
    durable: bool,
}

impl<'a> Schema<'a> {
    pub fn new(server: &'a ClickHouse, url: &'a str, durable: bool) -> Self {
        Self { server, url, durable }
    }

    /// The statements of a migration, as this server or cluster takes them.
    pub fn statements(&self, migration: &Migration) -> Vec<String> {
        let layout = self.layout();
        migration.statements().flat_map(|sql| layout.statements(sql)).collect()
    }

    /// Says what [`Self::migrate`] would do. Changes nothing.
    ///
    /// # Errors
    /// The server cannot be asked, or the database is of a newer build or of one whose migrations differ.
    pub async fn plan(&self) -> Result<Plan, ClickHouseError> {
        let database = &self.server.database;
        let client = super::client(self.server, self.url);
        let exists: u64 = client
            .query("SELECT count() FROM system.databases WHERE name = ?")
            .bind(database)
            .fetch_one()
            .await?;
        if exists == 0 {
            return Ok(Plan {
                database: Some(self.layout().create_database()),
                pending: MIGRATIONS.iter().collect(),
                settings: self.settings(&[]),
            });
        }
        let tables: Vec<(String, String)> = client
            .query("SELECT name, engine_full FROM system.tables WHERE database = ?")
            .bind(database)
            .fetch_all()
            .await?;
        let pending = match tables.iter().any(|(name, _)| name == "schema_migrations") {
            true => pending(&applied(&self.client()).await?)?,
            false => MIGRATIONS.iter().collect(),
        };
        Ok(Plan {
            database: None,
            pending,
            settings: self.settings(&tables),
        })
    }

    /// Brings the database to this build's schema; returns how many migrations that took.
    ///
    /// # Errors
    /// As [`Self::plan`]; or another process is at it ([`ClickHouseError::Locked`]); or a statement fails, then the next
    /// run goes on with that migration.
    pub async fn migrate(&self) -> Result<usize, ClickHouseError> {
        let before = self.plan().await?;
        if before.is_empty() {
            return Ok(0);
        }
        if let Some(create) = &before.database {
            let anywhere = for_all_servers(super::client(self.server, self.url));
            anywhere.query_raw(create).execute().await?;
        }
        let client = self.client();
        lock(&client).await?;
        let applied = self.apply(&client).await;
        let unlocked = client.query_raw("DROP TABLE IF EXISTS schema_lock").execute().await;
        if let Err(error) = unlocked {
            tracing::warn!(%error, lease = ?LEASE, "cannot drop the migration lock, it ends with its lease");
        }
        applied
    }

    /// Applies what is pending now that nobody else does.
    async fn apply(&self, client: &Client) -> Result<usize, ClickHouseError> {
        let create = self.layout().migrations_table(MIGRATIONS_TABLE);
        client.query_raw(&create).execute().await?;
        let plan = self.plan().await?;
        for migration in &plan.pending {
            for statement in self.statements(migration) {
                client.query_raw(&statement).execute().await?;
            }
            client
                .query("INSERT INTO schema_migrations SELECT ?, ?, ?, now64(3)")
                .bind(migration.version)
                .bind(migration.name)
                .bind(migration.checksum())
                .execute()
                .await?;
            tracing::info!(
                version = migration.version,
                name = migration.name,
                "clickhouse migrated"
            );
        }
        for statement in &plan.settings {
            client.query_raw(statement).execute().await?;
            tracing::info!(statement, "clickhouse's settings changed");
        }
        Ok(plan.pending.len())
    }

    fn client(&self) -> Client {
        for_all_servers(super::client(self.server, self.url).with_database(&self.server.database))
    }

    fn layout(&self) -> Layout<'a> {
        Layout::of(self.server)
    }

    /// Whether other servers may hold the same rows: the tables are replicated, or kept in common storage.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn is_shared(&self) -> Result<bool, ClickHouseError> {
        let query = "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = ?";
        let engines: Vec<String> = self
            .client()
            .query(query)
            .bind(self.layout().local("exchanges"))
            .fetch_all()
            .await?;
        let shared = |engine: &String| engine.starts_with("Replicated") || engine.starts_with("Shared");
        Ok(engines.iter().any(shared))
    }

    /// The ALTERs that make the tables what is configured, by the engines they have now.
    fn settings(&self, tables: &[(String, String)]) -> Vec<String> {
        let layout = self.layout();
        let engine_of = |table: &str| {
            let engine = tables.iter().find(|(name, _)| *name == layout.local(table));
            engine.map_or("", |(_, engine)| engine.as_str())
        };
        let mut statements = Vec::new();
        for (table, column) in EXPIRING {
            let engine = engine_of(table);
            // As ClickHouse itself writes it.
            let wanted = format!("toDateTime({column}) + toIntervalDay({})", self.server.ttl_days);
            if self.server.ttl_days == 0 {
                if engine.contains(" TTL ") {
                    statements.push(layout.alter(table, "REMOVE TTL"));
                }
            } else if !engine.contains(&format!(" TTL {wanted}")) {
                statements.push(layout.alter(table, &format!("MODIFY TTL {wanted}")));
            }
        }
        for table in DURABLE {
            let found = engine_of(table).contains("fsync_after_insert = 1");
            match self.durable {
                true if !found => statements
                    .push(layout.alter(table, "MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1")),
                false if found => {
                    statements.push(layout.alter(table, "RESET SETTING fsync_after_insert, fsync_part_directory"));
                }
                _ => {}
            }
        }
        statements
    }
}

/// `ON CLUSTER` waits for every server; one that is away does its part when it is back, and need not be waited for.
fn for_all_servers(client: Client) -> Client {
    client
        .with_setting("distributed_ddl_task_timeout", "60")
        .with_setting("distributed_ddl_output_mode", "null_status_on_timeout")
}

/// Takes the lock, or says that another process has it.
async fn lock(client: &Client) -> Result<(), ClickHouseError> {
    const CREATE: &str = "CREATE TABLE schema_lock (holder String) ENGINE = Memory";
    let taken = match client.query_raw(CREATE).execute().await.map_err(ClickHouseError::from) {
        Err(error) if error.has_code(&[TABLE_ALREADY_EXISTS]) => error,
        other => return other,
    };
    let ages: Vec<u64> = client
        .query_raw(
            "SELECT toUInt64(greatest(0, dateDiff('second', metadata_modification_time, now()))) FROM system.tables \
             WHERE database = currentDatabase() AND name = 'schema_lock'",
        )
        .fetch_all()
        .await?;
    match ages.first() {
        Some(age) if *age >= LEASE.as_secs() => {
            tracing::warn!(age, error = %taken, "dropping the migration lock of a process that is gone");
            client.query_raw("DROP TABLE IF EXISTS schema_lock").execute().await?;
            Ok(client.query_raw(CREATE).execute().await?)
        }
        age => Err(ClickHouseError::Locked {
            seconds: age.copied().unwrap_or_default(),
        }),
    }
}

async fn applied(client: &Client) -> Result<Vec<(u32, String)>, ClickHouseError> {
    let rows = client.query_raw("SELECT DISTINCT version, checksum FROM schema_migrations ORDER BY version");
    Ok(rows.fetch_all().await?)
}

fn pending(applied: &[(u32, String)]) -> Result<Vec<&'static Migration>, ClickHouseError> {
    let known = MIGRATIONS.last().map_or(0, |last| last.version);
    if let Some((found, _)) = applied.iter().find(|(version, _)| *version > known) {
        return Err(ClickHouseError::Newer { found: *found, known });
    }
    let mut pending = Vec::new();
    for migration in &MIGRATIONS {
        let checksum = migration.checksum();
        match applied.iter().find(|(version, _)| *version == migration.version) {
            None => pending.push(migration),
            Some((_, found)) if *found == checksum => {}
            Some((version, found)) => {
                return Err(ClickHouseError::Changed {
                    version: *version,
                    name: migration.name,
                    found: found.clone(),
                    known: checksum,
                });
            }
        }
    }
    Ok(pending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_and_repeatable() {
        for (i, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, i + 1);
            assert!(migration.sql.ends_with(";\n"), "{}", migration.name);
            for statement in migration.statements() {
                assert!(statement.contains("IF NOT EXISTS"), "{statement}");
                let cluster = Layout {
                    database: "d",
                    cluster: Some("c"),
                };
                for part in cluster.statements(statement) {
                    assert!(
                        part.contains("IF NOT EXISTS") && part.contains(" ON CLUSTER 'c'"),
                        "{part}"
                    );
                    assert!(
                        !part.contains("non_replicated") && !part.contains("= MergeTree"),
                        "{part}"
                    );
                }
            }
        }
    }

    #[test]
    fn pending_refuses_a_changed_and_a_newer_database() {
        let all: Vec<(u32, String)> = MIGRATIONS.iter().map(|m| (m.version, m.checksum())).collect();
        assert_eq!(pending(&[]).unwrap().len(), MIGRATIONS.len());
        assert_eq!(pending(&all[..1]).unwrap()[0].version, 2);
        assert!(pending(&all).unwrap().is_empty());
        let changed = pending(&[(1, "0".to_owned())]).unwrap_err();
        assert!(matches!(changed, ClickHouseError::Changed { version: 1, .. }));
        let newer = pending(&[(99, String::new())]).unwrap_err();
        assert!(matches!(newer, ClickHouseError::Newer { found: 99, .. }));
    }
}
