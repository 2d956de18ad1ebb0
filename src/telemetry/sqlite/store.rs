//! Reads the SQLite sink's file, over a few read-only connections that are opened when first needed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use sqlx::sqlite::{SqliteArguments, SqlitePoolOptions, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Row, SqlitePool};
use uuid::Uuid;

use super::connect_options;
use crate::telemetry::row::{Column, EXCHANGE_COLUMNS, FEEDBACK_COLUMNS, Type};
use crate::telemetry::store::filter::{Bind, Dialect, ExchangeFilter, Sql};
use crate::telemetry::store::stats::{Figures, GroupBy, Key, Refusals, Scores, StatsQuery};
use crate::telemetry::store::{ExchangePage, StoreError, content, time};

/// Readers at a time; more wait.
const CONNECTIONS: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The file of the SQLite sink.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
    /// For erasing, which opens it for writing.
    pub(super) path: PathBuf,
}

impl SqliteStore {
    pub fn open(path: &Path) -> Self {
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(connect_options(path).read_only(true));
        Self {
            pool,
            path: path.to_path_buf(),
        }
    }

    pub async fn exchanges(
        &self,
        filter: &ExchangeFilter,
        limit: u32,
        before: Option<Uuid>,
    ) -> Result<ExchangePage, StoreError> {
        let mut sql = Sql::new(Dialect::Sqlite, "SELECT * FROM exchanges");
        sql.push_filter(filter)
            .push_before(before)
            .push(&format!(" ORDER BY exchange_id DESC LIMIT {}", limit + 1));
        let items = self.items(sql, &EXCHANGE_COLUMNS).await?;
        Ok(ExchangePage::new(items, limit))
    }

    pub async fn exchange(&self, id: Uuid) -> Result<Option<Value>, StoreError> {
        let mut sql = Sql::new(Dialect::Sqlite, "SELECT * FROM exchanges WHERE exchange_id = ");
        sql.push_with("?", Bind::Id(id));
        Ok(self.items(sql, &EXCHANGE_COLUMNS).await?.pop())
    }

    /// Feedback on an exchange, also what names it by the provider's response id; oldest first.
    pub async fn feedback(&self, id: Uuid, response_id: &str) -> Result<Vec<Value>, StoreError> {
        let mut sql = Sql::new(Dialect::Sqlite, "SELECT * FROM feedback WHERE exchange_id = ");
        sql.push_with("?", Bind::Id(id));
        if !response_id.is_empty() {
            sql.push_with(" OR (exchange_id = ?", Bind::Id(Uuid::nil()))
                .push_with(" AND response_id = ?)", Bind::Text(response_id.to_owned()));
        }
        sql.push(" ORDER BY at, feedback_id");
        self.items(sql, &FEEDBACK_COLUMNS).await
    }

    pub async fn count(&self, filter: &ExchangeFilter) -> Result<u64, StoreError> {
        let mut sql = Sql::new(Dialect::Sqlite, "SELECT count(*) FROM exchanges");
        sql.push_filter(filter);
        let rows = self.fetch(sql).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
    }

    pub async fn stats(&self, query: &StatsQuery) -> Result<(Vec<(Vec<Key>, Figures)>, Vec<Scores>), StoreError> {
        let by = &query.group_by;
        let mut groups = Vec::new();
        for row in self.fetch(query.figures(Dialect::Sqlite)).await? {
            let key = key(&row, by)?;
            let mut at = by.len()..;
            // A sum or percentile of nothing is NULL.
            let figures = Figures::read(|| {
                let column = at.next().unwrap_or_default();
                Ok::<_, sqlx::Error>(row.try_get::<Option<u64>, _>(column)?.unwrap_or_default())
            })?;
            groups.push((key, figures));
        }
        let mut scores = Vec::new();
        for by_response in [false, true] {
            for row in self.fetch(query.feedback(Dialect::Sqlite, by_response)).await? {
                scores.push(Scores {
                    key: key(&row, by)?,
                    name: row.try_get(by.len())?,
                    count: row.try_get(by.len() + 1)?,
                    numbers: row.try_get(by.len() + 2)?,
                    sum: row.try_get(by.len() + 3)?,
                });
            }
        }
        Ok((groups, scores))
    }

    pub async fn refusals(&self, query: &StatsQuery) -> Result<Vec<Refusals>, StoreError> {
        let Some(sql) = query.refusals(Dialect::Sqlite) else {
            return Ok(Vec::new());
        };
        let rows = self.fetch(sql).await?;
        let refusals = rows.iter().map(|row| {
            Ok::<_, sqlx::Error>(Refusals {
                key_id: row.try_get(0)?,
                endpoint: row.try_get(1)?,
                error_code: row.try_get(2)?,
                status_code: row.try_get(3)?,
                requests: row.try_get(4)?,
            })
        });
        Ok(refusals.collect::<Result<_, _>>()?)
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn items(&self, sql: Sql, columns: &[Column]) -> Result<Vec<Value>, StoreError> {
        let rows = self.fetch(sql).await?;
        let items = rows.iter().map(|row| item(row, columns));
        Ok(items.collect::<Result<_, _>>()?)
    }

    async fn fetch(&self, sql: Sql) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut arguments = SqliteArguments::default();
        for bind in sql.binds {
            match bind {
                Bind::Text(text) => arguments.add(text),
                Bind::Int(number) => arguments.add(number),
                Bind::Id(id) => arguments.add(id.as_bytes().to_vec()),
            }
            .map_err(sqlx::Error::Encode)?;
        }
        // Safe: the text is made of our own words and question marks.
        sqlx::query_with(AssertSqlSafe(sql.text), arguments)
            .fetch_all(&self.pool)
            .await
    }
}

fn key(row: &SqliteRow, by: &[GroupBy]) -> Result<Vec<Key>, sqlx::Error> {
    let keys = by.iter().enumerate().map(|(i, by)| match by.is_number() {
        true => Ok(Key::Number(row.try_get(i)?)),
        false => Ok(Key::Text(row.try_get(i)?)),
    });
    keys.collect()
}

fn item(row: &SqliteRow, columns: &[Column]) -> Result<Value, sqlx::Error> {
    let fields = columns
        .iter()
        .map(|column| Ok((column.name.to_owned(), field(row, column)?)));
    fields.collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

fn field(row: &SqliteRow, column: &Column) -> Result<Value, sqlx::Error> {
    Ok(match column.ty {
        Type::Uuid => {
            let bytes = row.try_get::<&[u8], _>(column.name)?;
            Uuid::from_slice(bytes).map_or(Value::Null, |id| id.to_string().into())
        }
        Type::Time => time(row.try_get(column.name)?),
        Type::Label | Type::Text => row.try_get::<&str, _>(column.name)?.into(),
        Type::Content => content(row.try_get(column.name)?),
        Type::U16 | Type::U32 | Type::U64 => row.try_get::<i64, _>(column.name)?.into(),
        Type::F64 => row.try_get::<f64, _>(column.name)?.into(),
        Type::Bool => row.try_get::<bool, _>(column.name)?.into(),
        Type::Map | Type::Texts | Type::Attempts => content(row.try_get(column.name)?),
    })
}
