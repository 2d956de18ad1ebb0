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
//! How long records are kept is not a migration but a setting: the tables' TTL is brought in line each time.

use std::fmt::Write as _;
use std::time::Duration;

use clickhouse::Client;
use sha2::{Digest, Sha256};

use super::ClickHouseError;
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
    /// Statements that bring the time to live in line.
    pub expiry: Vec<String>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.database.is_none() && self.pending.is_empty() && self.expiry.is_empty()
    }
}

/// Says what [`migrate`] would do. Changes nothing.
///
/// # Errors
/// The server cannot be asked, or the database is of a newer build or of one whose migrations differ.
pub async fn plan(server: &ClickHouse) -> Result<Plan, ClickHouseError> {
    let client = super::client(server);
    let ours = client.clone().with_database(&server.database);
    let exists: u64 = client
        .query("SELECT count() FROM system.databases WHERE name = ?")
        .bind(&server.database)
        .fetch_one()
        .await?;
    if exists == 0 {
        return Ok(Plan {
            database: Some(format!("CREATE DATABASE IF NOT EXISTS {}", server.database)),
            pending: MIGRATIONS.iter().collect(),
            expiry: expiry(server, &[]),
        });
    }
    let tables: Vec<(String, String)> = client
        .query("SELECT name, engine_full FROM system.tables WHERE database = ?")
        .bind(&server.database)
        .fetch_all()
        .await?;
    let pending = match tables.iter().any(|(name, _)| name == "schema_migrations") {
        true => pending(&applied(&ours).await?)?,
        false => MIGRATIONS.iter().collect(),
    };
    Ok(Plan {
        database: None,
        pending,
        expiry: expiry(server, &tables),
    })
}

/// Brings the database to this build's schema; returns how many migrations that took.
///
/// # Errors
/// As [`plan`]; or another process is at it ([`ClickHouseError::Locked`]); or a statement fails, then the next run goes
/// on with that migration.
pub async fn migrate(server: &ClickHouse) -> Result<usize, ClickHouseError> {
    let before = plan(server).await?;
    if before.is_empty() {
        return Ok(0);
    }
    let client = super::client(server).with_database(&server.database);
    if let Some(create) = &before.database {
        super::client(server).query_raw(create).execute().await?;
    }
    lock(&client).await?;
    let applied = apply(server, &client).await;
    let unlocked = client.query_raw("DROP TABLE IF EXISTS schema_lock").execute().await;
    if let Err(error) = unlocked {
        tracing::warn!(%error, lease = ?LEASE, "cannot drop the migration lock, it ends with its lease");
    }
    applied
}

/// Applies what is pending now that nobody else does.
async fn apply(server: &ClickHouse, client: &Client) -> Result<usize, ClickHouseError> {
    client.query_raw(MIGRATIONS_TABLE).execute().await?;
    let plan = plan(server).await?;
    for migration in &plan.pending {
        for statement in migration.statements() {
            client.query_raw(statement).execute().await?;
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
    for statement in &plan.expiry {
        client.query_raw(statement).execute().await?;
        tracing::info!(statement, "clickhouse's expiry changed");
    }
    Ok(plan.pending.len())
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

/// The ALTERs that make the tables keep records as long as configured, by the engines they have now.
fn expiry(server: &ClickHouse, tables: &[(String, String)]) -> Vec<String> {
    let mut statements = Vec::new();
    for (table, column) in EXPIRING {
        let engine = tables.iter().find(|(name, _)| name == table);
        let engine = engine.map_or("", |(_, engine)| engine.as_str());
        // As ClickHouse itself writes it.
        let wanted = format!("toDateTime({column}) + toIntervalDay({})", server.ttl_days);
        if server.ttl_days == 0 {
            if engine.contains(" TTL ") {
                statements.push(format!("ALTER TABLE {table} REMOVE TTL"));
            }
        } else if !engine.contains(&format!(" TTL {wanted}")) {
            statements.push(format!("ALTER TABLE {table} MODIFY TTL {wanted}"));
        }
    }
    statements
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
