//! The audit log: who did what to which thing, when and why. Rows are only ever added.

use serde_json::Value;
use sqlx::SqliteConnection;

use super::change::Actor;
use super::{Page, PageOf, Registry, RegistryError, now_us, parse, text};

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
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
    /// From, to and why.
    pub detail: Value,
}

pub(super) struct NewEntry<'a> {
    pub at_us: i64,
    pub actor: Actor<'a>,
    pub action: &'a str,
    pub subject: &'a str,
    pub detail: Value,
}

/// Appends within the transaction of the change itself.
pub(super) async fn append(sql: &mut SqliteConnection, entry: NewEntry<'_>) -> Result<(), RegistryError> {
    sqlx::query(
        "INSERT INTO audit (id, at, actor, actor_id, token_id, request_id, action, subject, detail) \
         VALUES ((SELECT COALESCE(MAX(id), 0) + 1 FROM audit), $1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(entry.at_us)
    .bind(entry.actor.name)
    .bind(entry.actor.user_id)
    .bind(entry.actor.token_id)
    .bind(entry.actor.request_id)
    .bind(entry.action)
    .bind(entry.subject)
    .bind(text(&entry.detail))
    .execute(sql)
    .await?;
    Ok(())
}

type Row = (i64, i64, String, String, String, String, String, String, String);

fn entry(
    (id, at_us, actor, actor_id, token_id, request_id, action, subject, detail): Row,
) -> Result<AuditEntry, RegistryError> {
    Ok(AuditEntry {
        id,
        at_us,
        actor,
        actor_id,
        token_id,
        request_id,
        action,
        subject,
        detail: parse(&detail)?,
    })
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
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let entry = NewEntry {
            at_us: now_us(),
            actor,
            action,
            subject,
            detail,
        };
        append(&mut tx, entry).await?;
        Ok(tx.commit().await?)
    }

    /// Lists the audit log, newest first.
    ///
    /// # Errors
    /// When the cursor is not one of this list, or the database fails.
    pub async fn list_audit(&self, page: PageOf<'_>) -> Result<Page<AuditEntry>, RegistryError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, at, actor, actor_id, token_id, request_id, action, subject, detail FROM audit \
             WHERE id < $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(page.below()?)
        .bind(page.rows())
        .fetch_all(&self.reader)
        .await?;
        let items = rows.into_iter().map(entry).collect::<Result<_, RegistryError>>()?;
        Ok(page.page(items, |entry| entry.id.to_string()))
    }
}
