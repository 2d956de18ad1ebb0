//! Numbered SQL files, each applied once, in order, in one transaction.

use sqlx::SqlitePool;

use super::{RegistryError, now_us, secret};

/// Every migration: its number is its place, starting at 1.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_init", include_str!("migrations/0001_init.sql")),
    ("0002_users", include_str!("migrations/0002_users.sql")),
    ("0010_library", include_str!("migrations/0010_library.sql")),
];

/// Brings the schema up to date; a second process waits for the first one's transaction.
pub(super) async fn migrate(writer: &SqlitePool) -> Result<(), RegistryError> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS migrations (number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, \
         applied_at BIGINT NOT NULL)",
    )
    .execute(&mut *tx)
    .await?;
    let (applied,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(number), 0) FROM migrations")
        .fetch_one(&mut *tx)
        .await?;
    let known = MIGRATIONS.len() as i64;
    if applied > known {
        return Err(RegistryError::Conflict(format!(
            "the registry has schema {applied}, this program knows {known}: use a newer promptgate"
        )));
    }
    for (number, (name, sql)) in (1i64..).zip(MIGRATIONS.iter().copied()) {
        if number <= applied {
            continue;
        }
        sqlx::raw_sql(sql).execute(&mut *tx).await?;
        sqlx::query("INSERT INTO migrations (number, name, applied_at) VALUES ($1, $2, $3)")
            .bind(number)
            .bind(name)
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
