//! The audit log: who did what to which thing, when and why. Rows are only ever added, each chained to the one before
//! by its hash (`domain::audit`); the database refuses to change or delete one.

use crate::registry::sql::SqlConnection;
use serde_json::Value;

use super::change::Actor;
use super::{Page, PageOf, Registry, RegistryError, now_us, parse, text};
use crate::domain::audit::{Break, Chain, Entry, hex};

/// How many entries are read at a time by those who read all.
const BATCH: i64 = 1000;

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// From 1, without gaps.
    pub id: i64,
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
    /// The user's name, `promptgate` for the program itself.
    pub actor: String,
    /// Empty where there is none, like the following.
    pub actor_id: String,
    pub token_id: String,
    pub request_id: String,
    /// `prompt.create`, `version.create`, `deployment.deploy`, …
    pub action: String,
    /// What it was done to: `support/greet`, `support/greet@production`, `key_…`.
    pub subject: String,
    pub environment: String,
    /// From, to and why.
    pub detail: Value,
    /// SHA-256 over this entry and the hash before it, in lowercase hexadecimal.
    pub hash: String,
}

/// Which entries. What is empty does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    pub actor: String,
    /// `deployment.deploy`, or `deployment` for all of that kind.
    pub action: String,
    /// `support/greet` also finds `support/greet@production` and `support/greet:3`.
    pub subject: String,
    pub environment: String,
    /// Earliest, µs since the Unix epoch.
    pub from_us: Option<i64>,
    /// The first that is too late.
    pub to_us: Option<i64>,
    /// The oldest first.
    pub oldest_first: bool,
}

/// What came of following the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditVerification {
    /// How many entries are as they were written, from the first.
    pub entries: i64,
    /// The hash of the last of them: to be kept elsewhere.
    pub head: String,
    pub broken: Option<Break>,
}

pub(super) struct NewEntry<'a> {
    pub at_us: i64,
    pub actor: Actor<'a>,
    pub action: &'a str,
    pub subject: &'a str,
    pub detail: Value,
}

/// As [`Row::read`] wants them.
const COLUMNS: &str = "id, at, actor, actor_id, token_id, request_id, action, subject, environment, detail, hash";

type Columns = (
    i64,
    i64,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
);

/// An entry as it is stored.
struct Row {
    id: i64,
    at: i64,
    actor: String,
    actor_id: String,
    token_id: String,
    request_id: String,
    action: String,
    subject: String,
    environment: String,
    detail: String,
    hash: String,
}

impl Row {
    fn read(columns: Columns) -> Self {
        let (id, at, actor, actor_id, token_id, request_id, action, subject, environment, detail, hash) = columns;
        Self {
            id,
            at,
            actor,
            actor_id,
            token_id,
            request_id,
            action,
            subject,
            environment,
            detail,
            hash,
        }
    }

    fn entry(&self) -> Entry<'_> {
        Entry {
            id: self.id,
            at_us: self.at,
            actor: &self.actor,
            actor_id: &self.actor_id,
            token_id: &self.token_id,
            request_id: &self.request_id,
            action: &self.action,
            subject: &self.subject,
            environment: &self.environment,
            detail: &self.detail,
        }
    }

    fn shown(self) -> Result<AuditEntry, RegistryError> {
        Ok(AuditEntry {
            id: self.id,
            at_us: self.at,
            actor: self.actor,
            actor_id: self.actor_id,
            token_id: self.token_id,
            request_id: self.request_id,
            action: self.action,
            subject: self.subject,
            environment: self.environment,
            detail: parse(&self.detail)?,
            hash: self.hash,
        })
    }
}

/// The environment an entry is about: its detail says so, or its subject.
pub(super) fn environment_of<'a>(action: &str, subject: &'a str, detail: &'a Value) -> &'a str {
    if let Some(environment) = detail["environment"].as_str() {
        return environment;
    }
    match action.split_once('.') {
        Some(("environment", _)) => subject,
        Some(("deployment", _)) => subject.rsplit_once('@').map_or("", |(_, environment)| environment),
        _ => "",
    }
}

/// Appends within the transaction of the change itself; returns the entry's number.
pub(super) async fn append(sql: &mut SqlConnection, entry: &NewEntry<'_>) -> Result<i64, RegistryError> {
    // Locks the end of the chain, also where writers do not queue for the whole database.
    let (id, last): (i64, String) =
        sqlx::query_as("UPDATE audit_head SET entries = entries + 1 WHERE id = 1 RETURNING entries, hash")
            .fetch_one(&mut *sql)
            .await?;
    let detail = text(&entry.detail);
    let environment = environment_of(entry.action, entry.subject, &entry.detail);
    let chained = Entry {
        id,
        at_us: entry.at_us,
        actor: entry.actor.name,
        actor_id: entry.actor.user_id,
        token_id: entry.actor.token_id,
        request_id: entry.actor.request_id,
        action: entry.action,
        subject: entry.subject,
        environment,
        detail: &detail,
    };
    let hash = hex(&chained.hash(&super::secret::digest_bytes(&last)?));
    sqlx::query(
        "INSERT INTO audit (id, at, actor, actor_id, token_id, request_id, action, subject, environment, detail, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(id)
    .bind(entry.at_us)
    .bind(entry.actor.name)
    .bind(entry.actor.user_id)
    .bind(entry.actor.token_id)
    .bind(entry.actor.request_id)
    .bind(entry.action)
    .bind(entry.subject)
    .bind(environment)
    .bind(&detail)
    .bind(&hash)
    .execute(&mut *sql)
    .await?;
    sqlx::query("UPDATE audit_head SET hash = $1 WHERE id = 1")
        .bind(&hash)
        .execute(sql)
        .await?;
    Ok(id)
}

/// Reads entries behind one, oldest first.
async fn after(sql: &mut SqlConnection, id: i64) -> Result<Vec<Row>, RegistryError> {
    let select = format!("SELECT {COLUMNS} FROM audit WHERE id > $1 ORDER BY id LIMIT $2");
    let rows: Vec<Columns> = sqlx::query_as(sqlx::AssertSqlSafe(select))
        .bind(id)
        .bind(BATCH)
        .fetch_all(sql)
        .await?;
    Ok(rows.into_iter().map(Row::read).collect())
}

/// Chains what was written before there was a chain.
pub(super) async fn chain_all(sql: &mut SqlConnection) -> Result<(), RegistryError> {
    let mut last = crate::domain::audit::START;
    let mut id = 0;
    loop {
        let rows = after(sql, id).await?;
        if rows.is_empty() {
            break;
        }
        for mut row in rows {
            let detail: Value = parse(&row.detail)?;
            row.environment = environment_of(&row.action, &row.subject, &detail).to_owned();
            last = row.entry().hash(&last);
            id = row.id;
            sqlx::query("UPDATE audit SET environment = $1, hash = $2 WHERE id = $3")
                .bind(&row.environment)
                .bind(hex(&last))
                .bind(id)
                .execute(&mut *sql)
                .await?;
        }
    }
    sqlx::query("UPDATE audit_head SET entries = $1, hash = $2 WHERE id = 1")
        .bind(id)
        .bind(hex(&last))
        .execute(sql)
        .await?;
    Ok(())
}

/// A LIKE pattern for what begins with `start` and `mark`.
fn begins_with(start: &str, mark: char) -> String {
    let escaped = start.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("{escaped}{mark}%")
}

impl Registry {
    /// Notes what changes nothing: a refusal, or that content was read. Makes no generation.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note(
        &self,
        actor: Actor<'_>,
        action: &str,
        subject: &str,
        detail: Value,
    ) -> Result<(), RegistryError> {
        let mut tx = self.begin_write().await?;
        let entry = NewEntry {
            at_us: now_us(),
            actor,
            action,
            subject,
            detail,
        };
        append(&mut tx, &entry).await?;
        Ok(tx.commit().await?)
    }

    /// Lists the audit log, newest first unless the filter says otherwise.
    ///
    /// # Errors
    /// When the cursor is not one of this list, or the database fails.
    pub async fn list_audit(&self, filter: &AuditFilter, page: PageOf<'_>) -> Result<Page<AuditEntry>, RegistryError> {
        const WHERE: &str = "id > $1 AND id < $2 AND ($3 = '' OR actor = $3) \
             AND ($4 = '' OR action = $4 OR action LIKE $5 ESCAPE '\\') \
             AND ($6 = '' OR subject = $6 OR subject LIKE $7 ESCAPE '\\' OR subject LIKE $8 ESCAPE '\\') \
             AND ($9 = '' OR environment = $9) AND at >= $10 AND at < $11";
        let cursor = page.below()?;
        let (order, above, below) = match (filter.oldest_first, page.cursor) {
            (true, None) => ("ASC", 0, i64::MAX),
            (true, Some(_)) => ("ASC", cursor, i64::MAX),
            (false, _) => ("DESC", 0, cursor),
        };
        let select = format!("SELECT {COLUMNS} FROM audit WHERE {WHERE} ORDER BY id {order} LIMIT $12");
        let rows: Vec<Columns> = sqlx::query_as(sqlx::AssertSqlSafe(select))
            .bind(above)
            .bind(below)
            .bind(&filter.actor)
            .bind(&filter.action)
            .bind(begins_with(&filter.action, '.'))
            .bind(&filter.subject)
            .bind(begins_with(&filter.subject, '@'))
            .bind(begins_with(&filter.subject, ':'))
            .bind(&filter.environment)
            .bind(filter.from_us.unwrap_or(i64::MIN))
            .bind(filter.to_us.unwrap_or(i64::MAX))
            .bind(page.rows())
            .fetch_all(self.reader()?)
            .await?;
        let items = rows
            .into_iter()
            .map(|columns| Row::read(columns).shown())
            .collect::<Result<_, RegistryError>>()?;
        Ok(page.page(items, |entry: &AuditEntry| entry.id.to_string()))
    }

    /// Follows the chain from the first entry to the last, and compares its end with what is noted of it.
    ///
    /// `recorded` is a head that was kept elsewhere, as hexadecimal digits: it must be one of the chain's hashes, or the
    /// entry it belonged to is gone.
    ///
    /// # Errors
    /// When the database fails; a broken chain is an answer, not an error.
    pub async fn verify_audit(&self, recorded: Option<&str>) -> Result<AuditVerification, RegistryError> {
        let mut tx = self.begin_read().await?;
        let mut chain = Chain::default();
        let recorded = recorded.map(|head| head.trim().to_ascii_lowercase());
        let mut met = recorded.as_deref().is_none_or(|head| head == hex(&chain.head()));
        let broken = loop {
            let rows = after(&mut tx, chain.entries()).await?;
            if rows.is_empty() {
                break None;
            }
            let broken = rows.iter().find_map(|row| {
                met |= recorded.as_deref() == Some(&row.hash);
                chain.follow(&row.entry(), &row.hash).err()
            });
            if broken.is_some() {
                break broken;
            }
        };
        let (entries, head): (i64, String) = sqlx::query_as("SELECT entries, hash FROM audit_head")
            .fetch_one(&mut *tx)
            .await?;
        let broken = broken.or_else(|| chain.end(entries, &head).err()).or_else(|| {
            (!met).then(|| Break {
                entry: chain.entries() + 1,
                message: "the recorded head belongs to no entry: the end was cut off since, or all of it written anew"
                    .to_owned(),
            })
        });
        Ok(AuditVerification {
            entries: chain.entries(),
            head: hex(&chain.head()),
            broken,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn environment_is_read_from_detail_or_subject() {
        let none = json!({});
        for (action, subject, detail, expected) in [
            ("deployment.deploy", "a/b@production", &none, "production"),
            ("environment.update", "staging", &none, "staging"),
            ("version.create", "a:1", &none, ""),
            ("change.apply", "12", &json!({"environment": "staging"}), "staging"),
            ("refused", "/x@y", &none, ""),
        ] {
            assert_eq!(environment_of(action, subject, detail), expected, "{action}");
        }
    }
}
