//! The audit log: who did what to which thing, when and why. Rows are only ever added.

use serde_json::Value;
use sqlx::SqliteConnection;

use super::{Page, PageOf, Registry, RegistryError, parse, text};

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    pub id: i64,
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
    pub actor: String,
    /// `prompt.create`, `version.create`, `deployment.deploy`, …
    pub action: String,
    /// What it was done to: `support/greet`, `support/greet@production`, `key_…`.
    pub subject: String,
    /// From, to and why.
    pub detail: Value,
}

pub(super) struct NewEntry<'a> {
    pub at_us: i64,
    pub actor: &'a str,
    pub action: &'a str,
    pub subject: &'a str,
    pub detail: Value,
}

/// Appends within the transaction of the change itself.
pub(super) async fn append(sql: &mut SqliteConnection, entry: NewEntry<'_>) -> Result<(), RegistryError> {
    sqlx::query(
        "INSERT INTO audit (id, at, actor, action, subject, detail) \
         VALUES ((SELECT COALESCE(MAX(id), 0) + 1 FROM audit), $1, $2, $3, $4, $5)",
    )
    .bind(entry.at_us)
    .bind(entry.actor)
    .bind(entry.action)
    .bind(entry.subject)
    .bind(text(&entry.detail))
    .execute(sql)
    .await?;
    Ok(())
}

impl Registry {
    /// Lists the audit log, newest first.
    ///
    /// # Errors
    /// When the cursor is not one of this list, or the database fails.
    pub async fn list_audit(&self, page: PageOf<'_>) -> Result<Page<AuditEntry>, RegistryError> {
        let rows: Vec<(i64, i64, String, String, String, String)> = sqlx::query_as(
            "SELECT id, at, actor, action, subject, detail FROM audit WHERE id < $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(page.below()?)
        .bind(page.rows())
        .fetch_all(&self.reader)
        .await?;
        let entry = |(id, at_us, actor, action, subject, detail): (i64, i64, String, String, String, String)| {
            Ok(AuditEntry {
                id,
                at_us,
                actor,
                action,
                subject,
                detail: parse(&detail)?,
            })
        };
        let items = rows.into_iter().map(entry).collect::<Result<_, RegistryError>>()?;
        Ok(page.page(items, |entry| entry.id.to_string()))
    }
}
