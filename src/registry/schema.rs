//! Numbered SQL files, each applied once, in order, in one transaction.

use sqlx::{SqliteConnection, SqlitePool};

use super::{RegistryError, audit, now_us, secret};

/// One step of the schema; its number is its place, starting at 1.
struct Migration {
    name: &'static str,
    /// What every database understands.
    sql: &'static str,
    /// What the program does with the rows that are there, after that.
    data: Data,
    /// What is this database's own, at the end: triggers, mostly.
    sqlite: &'static str,
}

#[derive(Clone, Copy)]
enum Data {
    Nothing,
    ChainAudit,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "0001_init",
        sql: include_str!("migrations/0001_init.sql"),
        data: Data::Nothing,
        sqlite: "",
    },
    Migration {
        name: "0002_users",
        sql: include_str!("migrations/0002_users.sql"),
        data: Data::Nothing,
        sqlite: "",
    },
    Migration {
        name: "0003_audit_chain",
        sql: include_str!("migrations/0003_audit_chain.sql"),
        data: Data::ChainAudit,
        sqlite: include_str!("migrations/0003_audit_chain.sqlite.sql"),
    },
    Migration {
        name: "0004_changes",
        sql: include_str!("migrations/0004_changes.sql"),
        data: Data::Nothing,
        sqlite: "",
    },
    Migration {
        name: "0005_library",
        sql: include_str!("migrations/0005_library.sql"),
        data: Data::Nothing,
        sqlite: "",
    },
    Migration {
        name: "0006_erasures",
        sql: include_str!("migrations/0006_erasures.sql"),
        data: Data::Nothing,
        sqlite: "",
    },
    Migration {
        name: "0007_change_plans",
        sql: include_str!("migrations/0007_change_plans.sql"),
        data: Data::Nothing,
        sqlite: "",
    },
    Migration {
        name: "0008_webhooks",
        sql: include_str!("migrations/0008_webhooks.sql"),
        data: Data::Nothing,
        sqlite: "",
    },
];

/// The number of the last migration: what rows look like.
pub(super) const VERSION: usize = MIGRATIONS.len();

async fn applied(sql: &mut SqliteConnection) -> Result<i64, RegistryError> {
    let (applied,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(number), 0) FROM migrations")
        .fetch_one(sql)
        .await?;
    let known = MIGRATIONS.len() as i64;
    if applied > known {
        return Err(RegistryError::Conflict(format!(
            "the registry has schema {applied}, this program knows {known}: use a newer promptgate"
        )));
    }
    Ok(applied)
}

/// Makes sure that the schema is this program's, for those who only read.
pub(super) async fn require_present(reader: &SqlitePool) -> Result<(), RegistryError> {
    let applied = applied(&mut *reader.acquire().await?).await?;
    let known = MIGRATIONS.len() as i64;
    if applied < known {
        return Err(RegistryError::Conflict(format!(
            "the registry has schema {applied}, this program knows {known}: start the gateway once, it brings it up to date"
        )));
    }
    Ok(())
}

/// Brings the schema up to date; a second process waits for the first one's transaction.
pub(super) async fn migrate(writer: &SqlitePool) -> Result<(), RegistryError> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS migrations (number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, \
         applied_at BIGINT NOT NULL)",
    )
    .execute(&mut *tx)
    .await?;
    let applied = applied(&mut tx).await?;
    for (number, migration) in (1i64..).zip(MIGRATIONS) {
        if number <= applied {
            continue;
        }
        sqlx::raw_sql(migration.sql).execute(&mut *tx).await?;
        match migration.data {
            Data::Nothing => {}
            Data::ChainAudit => audit::chain_all(&mut tx).await?,
        }
        if !migration.sqlite.is_empty() {
            sqlx::raw_sql(migration.sqlite).execute(&mut *tx).await?;
        }
        sqlx::query("INSERT INTO migrations (number, name, applied_at) VALUES ($1, $2, $3)")
            .bind(number)
            .bind(migration.name)
            .bind(now_us())
            .execute(&mut *tx)
            .await?;
    }
    sqlx::query("INSERT INTO meta (id, epoch, generation) VALUES (1, $1, 1) ON CONFLICT DO NOTHING")
        .bind(secret::id("epoch"))
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}
