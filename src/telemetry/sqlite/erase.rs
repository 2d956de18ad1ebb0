//! Erasing in the file: one pass over the narrow columns, and short transactions, so that the sink never waits long.

use std::collections::HashMap;

use sqlx::{Connection, SqliteConnection};

use super::SqliteStore;
use super::file::connect_options;
use crate::telemetry::erase::Erase;
use crate::telemetry::store::StoreError;

/// Exchanges looked at in one statement, and erased in one transaction.
const LOOKED_AT: i64 = 5_000;
const ERASED_AT_ONCE: usize = 50;

type Row = (Vec<u8>, String, String, i64, String, String);

impl SqliteStore {
    /// Erases; returns how many exchanges of each.
    pub async fn erase(&self, erasures: &[Erase]) -> Result<Vec<u64>, StoreError> {
        let options = connect_options(&self.path)
            // What is overwritten is gone from the file, too.
            .pragma("secure_delete", "ON");
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let mut people: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, erase) in erasures.iter().enumerate() {
            people.entry(&erase.user_hash).or_default().push(i);
        }
        let mut counts = vec![0; erasures.len()];
        let mut after = Vec::new();
        loop {
            let rows: Vec<Row> = sqlx::query_as(
                "SELECT exchange_id, user, unit, started_at, capture, response_id FROM exchanges \
                 WHERE exchange_id > ? ORDER BY exchange_id LIMIT ?",
            )
            .bind(&after)
            .bind(LOOKED_AT)
            .fetch_all(&mut connection)
            .await?;
            let Some(last) = rows.last() else { break };
            after.clone_from(&last.0);
            let found: Vec<(&Row, usize)> = rows
                .iter()
                .filter_map(|row| {
                    let of = |hash: &String| people.get(hash.as_str()).into_iter().flatten();
                    let concerned = of(&row.1).chain(of(&row.2));
                    let due = concerned.filter(|i| row.3 <= erasures[**i].until);
                    due.min().map(|i| (row, *i))
                })
                .collect();
            for rows in found.chunks(ERASED_AT_ONCE) {
                erase_rows(&mut connection, rows, &mut counts).await?;
            }
        }
        if counts.iter().any(|count| *count > 0) {
            // The log still has what was overwritten. If a reader is in its way, the next checkpoint does it.
            sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                .execute(&mut connection)
                .await?;
        }
        connection.close().await?;
        Ok(counts)
    }
}

async fn erase_rows(
    connection: &mut SqliteConnection,
    rows: &[(&Row, usize)],
    counts: &mut [u64],
) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for (row, erasure) in rows {
        let erased = sqlx::query(
            "UPDATE exchanges SET variables = '', request = '', response = '', tags = '{}', session = '', \
             document_ids = '[]', capture = 'erased' WHERE exchange_id = ? AND capture <> 'erased'",
        )
        .bind(&row.0)
        .execute(&mut *transaction)
        .await?;
        counts[*erasure] += erased.rows_affected();
        sqlx::query(
            "UPDATE feedback SET text = '', comment = '' WHERE exchange_id = ? AND (text <> '' OR comment <> '')",
        )
        .bind(&row.0)
        .execute(&mut *transaction)
        .await?;
        if !row.5.is_empty() && erased.rows_affected() > 0 {
            // No index: rare, and only the first time.
            sqlx::query(
                "UPDATE feedback SET text = '', comment = '' WHERE response_id = ? AND exchange_id = zeroblob(16)",
            )
            .bind(&row.5)
            .execute(&mut *transaction)
            .await?;
        }
    }
    Ok(transaction.commit().await?)
}
