//! Numbered SQL files, each applied once, in order, in one transaction.

use super::sql::{Engine, Pools, SqlConnection};
use super::{RegistryError, audit, now_us, secret};

/// One step of the schema; its number is its place, starting at 1.
struct Migration {
    name: &'static str,
    /// What every database understands.
    sql: &'static str,
    /// What the program does with the rows that are there, after that.
    data: Data,
    /// What is each database's own, at the end: triggers, mostly.
    sqlite: &'static str,
    postgres: &'static str,
    /// The number of migrations that a program must know to go on working once this one is applied; 0 where it only adds
    /// what programs without it need not know (tables, columns with defaults), as migrations should: then old and new nodes
    /// work side by side while they are replaced one by one.
    needs: i64,
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
        postgres: "",
        needs: 0,
    },
    Migration {
        name: "0002_users",
        sql: include_str!("migrations/0002_users.sql"),
        data: Data::Nothing,
        sqlite: "",
        postgres: "",
        needs: 0,
    },
    Migration {
        name: "0003_audit_chain",
        sql: include_str!("migrations/0003_audit_chain.sql"),
        data: Data::ChainAudit,
        sqlite: include_str!("migrations/0003_audit_chain.sqlite.sql"),
        postgres: include_str!("migrations/0003_audit_chain.postgres.sql"),
        needs: 0,
    },
    Migration {
        name: "0004_changes",
        sql: include_str!("migrations/0004_changes.sql"),
        data: Data::Nothing,
        sqlite: "",
        postgres: "",
        needs: 0,
    },
    Migration {
        name: "0005_library",
        sql: include_str!("migrations/0005_library.sql"),
        data: Data::Nothing,
        sqlite: "",
        postgres: "",
        needs: 0,
    },
    Migration {
        name: "0006_erasures",
        sql: include_str!("migrations/0006_erasures.sql"),
        data: Data::Nothing,
        sqlite: "",
        postgres: "",
        needs: 0,
    },
    Migration {
        name: "0007_nodes",
        sql: include_str!("migrations/0007_nodes.sql"),
        data: Data::Nothing,
        sqlite: "",
        postgres: "",
        needs: 0,
    },
    Migration {
        name: "0008_change_plans",
        sql: include_str!("migrations/0008_change_plans.sql"),
        data: Data::Nothing,
        sqlite: "",
        postgres: "",
        needs: 0,
    },
    Migration {
        name: "0009_webhooks",
        sql: include_str!("migrations/0009_webhooks.sql"),
        data: Data::Nothing,
        sqlite: "",
        postgres: "",
        needs: 0,
    },
    Migration {
        name: "0010_pseudonym_key",
        sql: include_str!("migrations/0010_pseudonym_key.sql"),
        data: Data::Nothing,
        sqlite: "",
        postgres: "",
        needs: 0,
    },
];

/// The number of the last migration: what rows look like.
pub(super) const VERSION: usize = MIGRATIONS.len();

impl Migration {
    /// What the database is told. PostgreSQL's texts are compared byte by byte, as SQLite's are: lists have the same order
    /// everywhere, whatever the language of the server, and prefixes are found through indexes.
    fn sql_for(&self, engine: Engine) -> String {
        match engine {
            Engine::Sqlite => self.sql.to_owned(),
            Engine::Postgres => self.sql.replace(" TEXT", " TEXT COLLATE \"C\""),
        }
    }
}

/// The migration that brought the column `needs` into the table of migrations.
const NEEDS_SINCE: i64 = 7;

/// Locks out other processes that would migrate PostgreSQL at the same moment: an arbitrary number that is ours.
const MIGRATION_LOCK: i64 = 0x7072_6f6d_7074_6761;

/// Returns how many migrations were applied; a newer program's are fine as long as they say so.
async fn applied(sql: &mut SqlConnection) -> Result<i64, RegistryError> {
    let (applied,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(number), 0) FROM migrations")
        .fetch_one(&mut *sql)
        .await?;
    let known = MIGRATIONS.len() as i64;
    if applied > known {
        let needs = match known {
            ..NEEDS_SINCE => applied,
            _ => {
                let (needs,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(needs), 0) FROM migrations")
                    .fetch_one(sql)
                    .await?;
                needs
            }
        };
        if needs > known {
            return Err(RegistryError::Conflict(format!(
                "the registry has schema {applied}, which programs that know less than schema {needs} cannot use, and this \
                 one knows {known}: use a newer promptgate"
            )));
        }
        tracing::info!(
            schema = applied,
            known,
            "the registry's schema is a newer program's, which this one can go on with"
        );
    }
    Ok(applied)
}

/// Makes sure that the schema is this program's, for those who only read.
pub(super) async fn require_present(pools: &Pools) -> Result<(), RegistryError> {
    let applied = applied(&mut *pools.reader.acquire().await?).await?;
    let known = MIGRATIONS.len() as i64;
    if applied < known {
        return Err(RegistryError::Conflict(format!(
            "the registry has schema {applied}, this program knows {known}: start the gateway once, it brings it up to date"
        )));
    }
    Ok(())
}

/// Brings the schema up to date; a second process waits for the first one's transaction.
pub(super) async fn migrate(pools: &Pools) -> Result<(), RegistryError> {
    let engine = pools.engine;
    let mut tx = pools.begin_change().await?;
    if engine == Engine::Postgres {
        require_utf8(&mut tx).await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(MIGRATION_LOCK)
            .execute(&mut *tx)
            .await?;
    }
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
        let sql = migration.sql_for(engine);
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await?;
        match migration.data {
            Data::Nothing => {}
            Data::ChainAudit => audit::chain_all(&mut tx).await?,
        }
        let own = match engine {
            Engine::Sqlite => migration.sqlite,
            Engine::Postgres => migration.postgres,
        };
        if !own.is_empty() {
            sqlx::raw_sql(own).execute(&mut *tx).await?;
        }
        sqlx::query("INSERT INTO migrations (number, name, applied_at) VALUES ($1, $2, $3)")
            .bind(number)
            .bind(migration.name)
            .bind(now_us())
            .execute(&mut *tx)
            .await?;
        if number >= NEEDS_SINCE {
            sqlx::query("UPDATE migrations SET needs = $1 WHERE number = $2")
                .bind(migration.needs)
                .bind(number)
                .execute(&mut *tx)
                .await?;
        }
    }
    sqlx::query("INSERT INTO meta (id, epoch, pseudonym_key, generation) VALUES (1, $1, $2, 1) ON CONFLICT DO NOTHING")
        .bind(secret::id("epoch"))
        .bind(secret::generate("")?)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

/// Text of every language is stored: a database with another encoding would refuse it later, at a bad moment.
async fn require_utf8(sql: &mut SqlConnection) -> Result<(), RegistryError> {
    let (encoding,): (String,) = sqlx::query_as("SELECT current_setting('server_encoding')")
        .fetch_one(sql)
        .await?;
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(RegistryError::Conflict(format!(
        "the PostgreSQL database has the encoding {encoding}: create one with ENCODING 'UTF8' for the registry"
    )))
}
