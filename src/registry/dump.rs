//! Everything in the registry as one text file, and back into an empty registry.
//!
//! # The file
//!
//! JSON, one object a line, always in the same order, so that exporting, restoring and exporting again gives the same bytes:
//!
//! | line | what |
//! |---|---|
//! | first | `{"promptgate_export": 1, "schema": 6}`: the format, and the schema of the rows |
//! | then | `{"table": "prompts", "row": {"id": …}}`: tables in the order in which they refer to each other, rows by primary key. Values are as stored: times in microseconds, JSON as text |
//! | last | `{"rows": 120, "sha256": "…"}`: how many rows, and the hash of all lines before. A file without it was cut off |
//!
//! Tables and columns are read from the database's own catalog: what a later migration adds is exported without a line here.
//! The registry's epoch is not in the file: a restored registry has the generation of the exported one and an epoch of its own, so
//! that nodes which served the old one read everything anew.
//!
//! It is as confidential as the registry. Keys and tokens are in it only as their hashes; what must be the same afterwards is in
//! it as it is: the key of pseudonyms, and the secrets with which webhooks are signed. What was recorded of requests
//! (telemetry) is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Row};

use super::sql::SqlConnection;
use super::{Registry, RegistryError, number, schema, secret};

/// The format of the file.
const FORMAT: u64 = 1;

/// Tables that say something about this database, not about what is in it.
const NOT_EXPORTED: [&str; 2] = ["migrations", "nodes"];

/// Columns that are made anew: lineage.
const MADE_ANEW: [(&str, &str); 1] = [("meta", "epoch")];

/// Tables that have rows in a new registry; what is restored replaces them.
const SEEDED: [&str; 3] = ["audit_head", "environments", "meta"];

/// The longest line of a file: two contents of 4 MiB, each byte of which may be escaped as six.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// How many rows are read at once.
const PAGE: usize = 500;

/// What was exported or restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dumped {
    /// Tables that had rows.
    pub tables: usize,
    pub rows: u64,
    pub generation: u64,
}

/// Why a file was not written or not restored.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("line {line}: {message}")]
    Line { line: u64, message: String },
    #[error("the registry is not empty: table {table:?} has rows; restore into one that was never served from")]
    NotEmpty { table: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<sqlx::Error> for DumpError {
    fn from(error: sqlx::Error) -> Self {
        Self::Registry(error.into())
    }
}

/// A table as the database describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    name: String,
    columns: Vec<Column>,
    /// Names of the primary key's columns, in its order.
    key: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    kind: Kind,
}

/// The two kinds of columns that the schema has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integer,
    Text,
}

/// What asks for columns (table, name, type, place in the primary key from 1 or 0), and for which table refers to which.
const SQLITE_CATALOG: (&str, &str) = (
    "SELECT m.name, c.name, c.type, c.pk FROM sqlite_master m, pragma_table_info(m.name) c \
     WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, c.cid",
    "SELECT DISTINCT m.name, f.\"table\" FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'",
);
const POSTGRES_CATALOG: (&str, &str) = (
    "SELECT t.relname::text, a.attname::text, format_type(a.atttypid, NULL), \
     COALESCE(array_position(k.conkey::int[], a.attnum::int), 0)::bigint \
     FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped \
     LEFT JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype = 'p' \
     WHERE t.relkind = 'r' AND t.relnamespace = current_schema()::regnamespace ORDER BY t.relname, a.attnum",
    "SELECT DISTINCT t.relname::text, r.relname::text FROM pg_constraint k \
     JOIN pg_class t ON t.oid = k.conrelid JOIN pg_class r ON r.oid = k.confrelid \
     WHERE k.contype = 'f' AND t.relnamespace = current_schema()::regnamespace",
);

/// Reads the tables, those first that others refer to.
async fn tables(sql: &mut SqlConnection) -> Result<Vec<Table>, RegistryError> {
    type Described = (String, String, String, i64);
    let (columns, references) = match sql.backend_name() {
        "PostgreSQL" => POSTGRES_CATALOG,
        _ => SQLITE_CATALOG,
    };
    let columns: Vec<Described> = sqlx::query_as(columns).fetch_all(&mut *sql).await?;
    let references: Vec<(String, String)> = sqlx::query_as(references).fetch_all(sql).await?;
    let mut found: BTreeMap<String, (Table, Vec<(i64, String)>)> = BTreeMap::new();
    for (table, column, kind, key) in columns {
        if NOT_EXPORTED.contains(&table.as_str()) {
            continue;
        }
        let kind = match kind.to_ascii_lowercase().as_str() {
            "bigint" => Kind::Integer,
            "text" => Kind::Text,
            other => {
                return Err(RegistryError::Stored(format!(
                    "column {table}.{column} is of type {other:?}, columns are BIGINT or TEXT"
                )));
            }
        };
        let (described, keys) = found.entry(table.clone()).or_insert_with(|| {
            let empty = Table {
                name: table.clone(),
                columns: Vec::new(),
                key: Vec::new(),
            };
            (empty, Vec::new())
        });
        if MADE_ANEW.contains(&(table.as_str(), column.as_str())) {
            continue;
        }
        if key > 0 {
            keys.push((key, column.clone()));
        }
        described.columns.push(Column { name: column, kind });
    }
    let mut tables: Vec<Table> = Vec::new();
    for (mut table, mut keys) in found.into_values() {
        keys.sort();
        table.key = keys.into_iter().map(|(_, column)| column).collect();
        if table.key.is_empty() {
            let message = format!("table {:?} has no primary key, its rows have no order", table.name);
            return Err(RegistryError::Stored(message));
        }
        tables.push(table);
    }
    in_order(tables, &references)
}

/// Puts tables behind those that they refer to; otherwise by name.
fn in_order(mut tables: Vec<Table>, references: &[(String, String)]) -> Result<Vec<Table>, RegistryError> {
    let mut ordered: Vec<Table> = Vec::new();
    let mut done: BTreeSet<String> = BTreeSet::new();
    while !tables.is_empty() {
        let ready = |table: &Table| {
            let mut needed = references.iter().filter(|(from, to)| *from == table.name && to != from);
            needed.all(|(_, to)| done.contains(to))
        };
        let Some(at) = tables.iter().position(ready) else {
            let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
            return Err(RegistryError::Stored(format!(
                "tables refer to each other: {}",
                names.join(", ")
            )));
        };
        let table = tables.remove(at);
        done.insert(table.name.clone());
        ordered.push(table);
    }
    Ok(ordered)
}

impl Table {
    fn column_list(&self) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("\"{}\"", column.name))
            .collect();
        columns.join(", ")
    }

    /// Reads the rows behind one, by primary key.
    fn select(&self, after: bool) -> String {
        let key: Vec<String> = self.key.iter().map(|column| format!("\"{column}\"")).collect();
        let (key, count) = (key.join(", "), self.key.len());
        let placeholders: Vec<String> = (1..=count).map(|at| format!("${at}")).collect();
        let behind = match after {
            true => format!("WHERE ({key}) > ({}) ", placeholders.join(", ")),
            false => String::new(),
        };
        let (columns, name) = (self.column_list(), &self.name);
        format!("SELECT {columns} FROM \"{name}\" {behind}ORDER BY {key} LIMIT {PAGE}")
    }

    fn insert(&self) -> String {
        let placeholders: Vec<String> = (1..=self.columns.len()).map(|at| format!("${at}")).collect();
        let (columns, name) = (self.column_list(), &self.name);
        format!(
            "INSERT INTO \"{name}\" ({columns}) VALUES ({})",
            placeholders.join(", ")
        )
    }

    fn kind(&self, column: &str) -> Kind {
        let found = self.columns.iter().find(|known| known.name == column);
        found.map_or(Kind::Text, |column| column.kind)
    }

    /// Reads the rows behind `last`.
    async fn page(
        &self,
        sql: &mut SqlConnection,
        last: Option<&Map<String, Value>>,
    ) -> Result<Vec<Map<String, Value>>, RegistryError> {
        let text = self.select(last.is_some());
        let mut query = sqlx::query(AssertSqlSafe(text));
        for column in self.key.iter().filter(|_| last.is_some()) {
            let value = last.map_or(&Value::Null, |row| &row[column]);
            query = match self.kind(column) {
                Kind::Integer => query.bind(value.as_i64()),
                Kind::Text => query.bind(value.as_str().map(str::to_owned)),
            };
        }
        let rows = query.fetch_all(sql).await?;
        let mut page = Vec::with_capacity(rows.len());
        for row in rows {
            let mut fields = Map::new();
            for (at, column) in self.columns.iter().enumerate() {
                let value = match column.kind {
                    Kind::Integer => json!(row.try_get::<Option<i64>, _>(at)?),
                    Kind::Text => json!(row.try_get::<Option<String>, _>(at)?),
                };
                fields.insert(column.name.clone(), value);
            }
            page.push(fields);
        }
        Ok(page)
    }

    /// Writes one row, which must have just this table's columns.
    async fn write(&self, sql: &mut SqlConnection, row: &Map<String, Value>) -> Result<(), String> {
        if let Some(unknown) = row
            .keys()
            .find(|name| !self.columns.iter().any(|column| column.name == **name))
        {
            return Err(format!("table {:?} has no column {unknown:?}", self.name));
        }
        let mut query = sqlx::query(AssertSqlSafe(self.insert()));
        for column in &self.columns {
            let place = || format!("{}.{}", self.name, column.name);
            query = match (column.kind, row.get(&column.name)) {
                (_, None) => return Err(format!("{} is missing", place())),
                (Kind::Integer, Some(Value::Null)) => query.bind(None::<i64>),
                (Kind::Text, Some(Value::Null)) => query.bind(None::<String>),
                (Kind::Integer, Some(Value::Number(value))) if value.is_i64() => query.bind(value.as_i64()),
                (Kind::Text, Some(Value::String(value))) => query.bind(value.clone()),
                (_, Some(_)) => return Err(format!("{} is of the wrong type", place())),
            };
        }
        // The database's words may hold values of the row.
        let written = query.execute(sql).await;
        written.map_err(|why| match why {
            sqlx::Error::Database(why) => format!("table {:?} refuses the row: {}", self.name, why.message()),
            why => why.to_string(),
        })?;
        Ok(())
    }
}

/// Writes lines and keeps their hash.
struct Lines<'a> {
    out: &'a mut (dyn Write + Send),
    hash: Sha256,
    rows: u64,
}

impl Lines<'_> {
    fn line(&mut self, value: &Value) -> Result<(), DumpError> {
        let line = format!("{value}\n");
        self.hash.update(line.as_bytes());
        self.out.write_all(line.as_bytes())?;
        Ok(())
    }
}

/// Reads lines and keeps the hash of those before the present one.
struct Input<'a> {
    input: &'a mut (dyn BufRead + Send),
    hash: Sha256,
    line: u64,
}

impl Input<'_> {
    fn wrong(&self, message: impl Into<String>) -> DumpError {
        DumpError::Line {
            line: self.line,
            message: message.into(),
        }
    }

    /// Reads a line; the hash is that of all before it.
    fn next(&mut self) -> Result<Option<(Vec<u8>, Value)>, DumpError> {
        use std::io::Read;
        self.line += 1;
        let mut line = Vec::new();
        let read = (&mut *self.input)
            .take(MAX_LINE_BYTES + 1)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        if read as u64 > MAX_LINE_BYTES {
            return Err(self.wrong(format!("is longer than {MAX_LINE_BYTES} bytes")));
        }
        let value = serde_json::from_slice(&line).map_err(|why| self.wrong(format!("is not JSON: {why}")))?;
        Ok(Some((line, value)))
    }
}

impl Registry {
    /// Writes everything as lines of JSON, as of one moment; a gateway may go on using the registry.
    ///
    /// # Errors
    /// When the database fails or the lines cannot be written.
    pub async fn export(&self, out: &mut (dyn Write + Send)) -> Result<Dumped, DumpError> {
        let mut tx = self.begin_read().await?;
        let (generation,): (i64,) = sqlx::query_as("SELECT generation FROM meta")
            .fetch_one(&mut *tx)
            .await?;
        let mut lines = Lines {
            out,
            hash: Sha256::new(),
            rows: 0,
        };
        lines.line(&json!({"promptgate_export": FORMAT, "schema": schema::VERSION}))?;
        let mut with_rows = 0;
        for table in tables(&mut tx).await? {
            let before = lines.rows;
            let mut last = None;
            loop {
                let page = table.page(&mut tx, last.as_ref()).await?;
                for row in &page {
                    lines.line(&json!({"table": table.name, "row": row}))?;
                    lines.rows += 1;
                }
                let whole = page.len() == PAGE;
                last = page.into_iter().next_back();
                if !whole {
                    break;
                }
            }
            with_rows += usize::from(lines.rows > before);
        }
        tx.commit().await?;
        let end = json!({"rows": lines.rows, "sha256": format!("{:x}", lines.hash.clone().finalize())});
        lines.line(&end)?;
        lines.out.flush()?;
        Ok(Dumped {
            tables: with_rows,
            rows: lines.rows,
            generation: number(generation)?,
        })
    }

    /// Reads what [`Registry::export`] wrote into this registry, which must be empty: all of it, or nothing.
    ///
    /// # Errors
    /// When the registry has rows, the file is cut off, was changed, or is of another schema, or the database fails.
    pub async fn restore(&self, input: &mut (dyn BufRead + Send)) -> Result<Dumped, DumpError> {
        let mut input = Input {
            input,
            hash: Sha256::new(),
            line: 0,
        };
        let Some((line, head)) = input.next()? else {
            return Err(input.wrong("the file is empty"));
        };
        if head["promptgate_export"] != FORMAT {
            return Err(input.wrong("is not the beginning of an export that this program reads (promptgate export)"));
        }
        if head["schema"] != schema::VERSION {
            return Err(input.wrong(format!(
                "the export has schema {}, this program {}: restore it with the promptgate that wrote it, then upgrade",
                head["schema"],
                schema::VERSION
            )));
        }
        input.hash.update(&line);

        let mut tx = self.begin_write().await?;
        let tables = tables(&mut tx).await?;
        empty(&mut tx, &tables).await?;
        let (mut rows, mut seen) = (0u64, BTreeSet::new());
        loop {
            let Some((line, value)) = input.next()? else {
                return Err(input.wrong("the file ends before its last line: it was cut off"));
            };
            if let Some(expected) = value["sha256"].as_str() {
                let found = format!("{:x}", input.hash.clone().finalize());
                if expected != found || value["rows"] != rows {
                    return Err(input.wrong("the lines before are not those that were exported: count or hash differ"));
                }
                break;
            }
            input.hash.update(&line);
            let (name, row) = (value["table"].as_str().unwrap_or_default(), value["row"].as_object());
            let table = tables.iter().find(|table| table.name == name);
            let (Some(table), Some(row)) = (table, row) else {
                return Err(input.wrong(format!("is no row of a table of this schema ({name:?})")));
            };
            match name {
                "meta" => restore_meta(&mut tx, row).await.map_err(|why| input.wrong(why))?,
                _ => table.write(&mut tx, row).await.map_err(|why| input.wrong(why))?,
            }
            seen.insert(name.to_owned());
            rows += 1;
        }
        if let Some(after) = input.next()? {
            let _ = after;
            return Err(input.wrong("there is something behind the last line"));
        }
        let (generation,): (i64,) = sqlx::query_as("SELECT generation FROM meta")
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Dumped {
            tables: seen.len(),
            rows,
            generation: number(generation)?,
        })
    }
}

/// Refuses a registry that somebody used, and takes out what every new one has.
async fn empty(sql: &mut SqlConnection, tables: &[Table]) -> Result<(), DumpError> {
    for table in tables {
        let name = &table.name;
        if SEEDED.contains(&name.as_str()) {
            continue;
        }
        let query = AssertSqlSafe(format!(
            "SELECT COUNT(*) FROM (SELECT 1 FROM \"{name}\" LIMIT 1) AS one"
        ));
        let (rows,): (i64,) = sqlx::query_as(query).fetch_one(&mut *sql).await?;
        if rows > 0 {
            return Err(DumpError::NotEmpty { table: name.clone() });
        }
    }
    for name in SEEDED.iter().filter(|name| **name != "meta") {
        sqlx::query(AssertSqlSafe(format!("DELETE FROM \"{name}\"")))
            .execute(&mut *sql)
            .await?;
    }
    Ok(())
}

/// Continues the generation, in an epoch of its own.
async fn restore_meta(sql: &mut SqlConnection, row: &Map<String, Value>) -> Result<(), String> {
    let Some(generation) = row.get("generation").and_then(Value::as_i64) else {
        return Err("meta.generation is missing".to_owned());
    };
    let Some(key) = row.get("pseudonym_key").and_then(Value::as_str) else {
        return Err("meta.pseudonym_key is missing".to_owned());
    };
    sqlx::query("UPDATE meta SET generation = $1, epoch = $2, pseudonym_key = $3")
        .bind(generation)
        .bind(secret::id("epoch"))
        .bind(key)
        .execute(sql)
        .await
        .map_err(|why| why.to_string())?;
    Ok(())
}

/// Names the tables that are exported, and the columns that sound like secrets.
#[cfg(test)]
pub(super) async fn covered(sql: &mut SqlConnection) -> Result<(Vec<String>, Vec<String>), RegistryError> {
    let tables = tables(sql).await?;
    let secret = |name: &str| {
        ["secret", "password", "credential", "private", "_key"]
            .iter()
            .any(|word| name.contains(word))
    };
    let columns = tables.iter().flat_map(|table| {
        let columns = table.columns.iter().filter(|column| secret(&column.name));
        columns.map(move |column| format!("{}.{}", table.name, column.name))
    });
    let secrets = columns.collect();
    Ok((tables.into_iter().map(|table| table.name).collect(), secrets))
}
