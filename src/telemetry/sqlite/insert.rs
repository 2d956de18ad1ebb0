//! A batch as one transaction: rows go from the segment's bytes straight into bound parameters, by the table of columns.

use std::sync::{Arc, LazyLock};

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Connection, SqliteConnection};

use super::SqliteError;
use crate::telemetry::row::{
    Column, EXCHANGE_SCHEMA_ID, FEEDBACK_COLUMNS, REFUSALS_COLUMNS, Type, attempt_value, exchange_columns, map_value,
};
use crate::telemetry::rowbinary::{DecodeError, Reader};
use crate::telemetry::sink::{Batch, Stored, digest};

/// Rows of one INSERT, largest first; each is one prepared statement.
const ROWS_A_STATEMENT: [usize; 3] = [50, 10, 1];

/// Stores a batch and its token; a token that is there already is a batch that is there already.
pub(super) async fn insert_batch(connection: &mut SqliteConnection, batch: &Batch<'_>) -> Result<Stored, SqliteError> {
    let exchanges = (batch.schema as usize).checked_sub(1).and_then(|i| EXCHANGES.get(i));
    let exchanges = exchanges.ok_or(SqliteError::Schema(batch.schema))?;
    let mut token = batch.token.clone();
    if batch.piece {
        let rows = [&batch.exchanges[..], &batch.feedback, &batch.refusals].concat();
        token = format!("{token}/{}", digest(&rows));
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let first = sqlx::query("INSERT INTO batches (token, rows, stored_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(token)
        .bind(i64::try_from(batch.rows()).unwrap_or(i64::MAX))
        .bind(jiff::Timestamp::now().as_microsecond())
        .execute(&mut *transaction)
        .await?;
    if first.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(Stored::Before);
    }
    exchanges.insert(&mut transaction, &batch.exchanges).await?;
    FEEDBACK.insert(&mut transaction, &batch.feedback).await?;
    REFUSALS.insert(&mut transaction, &batch.refusals).await?;
    transaction.commit().await?;
    Ok(Stored::Now)
}

/// The INSERTs of one table.
struct Table {
    columns: &'static [Column],
    /// SQL for each of [`ROWS_A_STATEMENT`].
    statements: [Arc<str>; ROWS_A_STATEMENT.len()],
}

/// By schema, from 1: what a schema lacks, its table's default fills in.
static EXCHANGES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let known = (1..=EXCHANGE_SCHEMA_ID).filter_map(exchange_columns);
    known
        .map(|columns| Table::new("exchanges", "exchange_id", columns))
        .collect()
});
static FEEDBACK: LazyLock<Table> = LazyLock::new(|| Table::new("feedback", "feedback_id", &FEEDBACK_COLUMNS));
static REFUSALS: LazyLock<Table> = LazyLock::new(|| Table::new("refusals", "refusals_id", &REFUSALS_COLUMNS));

impl Table {
    /// A record that is there already is left alone: a batch whose write failed half way may have been spooled twice.
    fn new(table: &str, key: &str, columns: &'static [Column]) -> Self {
        let names: Vec<&str> = columns.iter().map(|c| c.name).collect();
        let row = format!("({})", vec!["?"; columns.len()].join(","));
        let statements = ROWS_A_STATEMENT.map(|rows| {
            let (names, rows) = (names.join(","), vec![row.as_str(); rows].join(","));
            format!("INSERT INTO {table} ({names}) VALUES {rows} ON CONFLICT ({key}) DO NOTHING").into()
        });
        Self { columns, statements }
    }

    async fn insert(&self, connection: &mut SqliteConnection, rows: &[&[u8]]) -> Result<(), SqliteError> {
        let mut done = 0;
        for (size, sql) in ROWS_A_STATEMENT.into_iter().zip(&self.statements) {
            while rows.len() - done >= size {
                let mut arguments = SqliteArguments::default();
                arguments.reserve(size * self.columns.len(), 0);
                for (i, row) in rows[done..done + size].iter().enumerate() {
                    bind(self.columns, row, &mut arguments).map_err(|error| match error {
                        BindError::Decode(source) => SqliteError::Row { row: done + i, source },
                        BindError::Encode(source) => SqliteError::Sql(sqlx::Error::Encode(source)),
                    })?;
                }
                // Safe: the text is made of our own column names and question marks.
                let sql = AssertSqlSafe(Arc::clone(sql));
                sqlx::query_with(sql, arguments).execute(&mut *connection).await?;
                done += size;
            }
        }
        Ok(())
    }
}

enum BindError {
    Decode(DecodeError),
    Encode(sqlx::error::BoxDynError),
}

impl From<DecodeError> for BindError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<sqlx::error::BoxDynError> for BindError {
    fn from(error: sqlx::error::BoxDynError) -> Self {
        Self::Encode(error)
    }
}

/// Binds the columns of one row: maps and lists as JSON, bodies as TEXT (as BLOB if they are not UTF-8).
fn bind(columns: &[Column], row: &[u8], arguments: &mut SqliteArguments) -> Result<(), BindError> {
    let mut row = Reader::new(row);
    for column in columns {
        match column.ty {
            Type::Uuid => arguments.add(row.uuid()?.as_bytes().as_slice())?,
            Type::Time => arguments.add(row.i64()?)?,
            Type::Label | Type::Text => arguments.add(row.str()?)?,
            Type::Content => {
                let bytes = row.bytes()?;
                match std::str::from_utf8(bytes) {
                    Ok(text) => arguments.add(text)?,
                    Err(_) => arguments.add(bytes)?,
                }
            }
            Type::U16 => arguments.add(row.u16()?)?,
            Type::U32 => arguments.add(row.u32()?)?,
            // SQLite's integers are signed; no honest count is that large.
            Type::U64 => arguments.add(i64::try_from(row.u64()?).unwrap_or(i64::MAX))?,
            Type::F64 => arguments.add(row.f64()?)?,
            Type::Bool => arguments.add(row.bool()?)?,
            Type::Map => arguments.add(map_value(&row.map()?).to_string())?,
            Type::Texts => arguments.add(serde_json::Value::from(row.strs()?).to_string())?,
            Type::Attempts => {
                let attempts: serde_json::Value = row.attempts()?.iter().map(attempt_value).collect();
                arguments.add(attempts.to_string())?;
            }
        }
    }
    Ok(row.end()?)
}
