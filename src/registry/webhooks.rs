//! Webhooks: who is told of what. What they are told, and how far that is, is in [`outbox`].

pub(super) mod outbox;

use serde_json::json;

use super::change::{Actor, Change};
use super::sql::SqlConnection;
use super::{Missing, Page, PageOf, Published, Registry, RegistryError, environments, parse, secret, text};
use crate::domain::webhook::{self, EventType};

/// The most webhooks of one registry: every event is a row for each.
const MAX_WEBHOOKS: i64 = 100;

/// The longest URL and description, in bytes.
const MAX_TEXT_BYTES: usize = 2_000;

/// Who is told of what, without the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub id: String,
    pub url: String,
    pub description: String,
    /// Event types, or what is in front of their dot; empty for all.
    pub events: Vec<String>,
    /// Only events of this environment, and those of none; empty for all.
    pub environment: String,
    /// Only events about prompts of this folder; empty for all.
    pub folder: String,
    pub enabled: bool,
    /// Microseconds since the Unix epoch.
    pub created_at_us: i64,
    pub created_by: String,
    /// Events that wait to be delivered.
    pub waiting: u64,
    /// Events that were given up in the last days.
    pub failed: u64,
}

/// What to make of a webhook; nothing stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookUpdate {
    pub url: Option<String>,
    pub description: Option<String>,
    pub events: Option<Vec<String>>,
    pub environment: Option<String>,
    pub folder: Option<String>,
    pub enabled: Option<bool>,
}

/// A webhook just made, with the secret that is shown once.
#[derive(Clone, PartialEq, Eq)]
pub struct CreatedWebhook {
    pub webhook: Webhook,
    pub secret: String,
}

type Row = (
    String,
    String,
    String,
    String,
    String,
    String,
    i64,
    i64,
    String,
    i64,
    i64,
);

const COLUMNS: &str = "id, url, description, events, environment, folder, enabled, created_at, created_by, \
     (SELECT COUNT(*) FROM webhook_deliveries d WHERE d.webhook_id = webhooks.id AND d.state = 'waiting'), \
     (SELECT COUNT(*) FROM webhook_deliveries d WHERE d.webhook_id = webhooks.id AND d.state = 'failed')";

fn webhook(row: Row) -> Result<Webhook, RegistryError> {
    let (id, url, description, events, environment, folder, enabled, created_at_us, created_by, waiting, failed) = row;
    Ok(Webhook {
        id,
        url,
        description,
        events: parse(&events)?,
        environment,
        folder,
        enabled: enabled != 0,
        created_at_us,
        created_by,
        waiting: waiting.cast_unsigned(),
        failed: failed.cast_unsigned(),
    })
}

async fn one(sql: &mut SqlConnection, id: &str) -> Result<Webhook, RegistryError> {
    let query = format!("SELECT {COLUMNS} FROM webhooks WHERE id = $1");
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(query))
        .bind(id)
        .fetch_optional(sql)
        .await?;
    webhook(row.ok_or_else(|| Missing::Webhook(id.to_owned()))?)
}

fn invalid(field: &'static str, message: impl Into<String>) -> RegistryError {
    let message = message.into();
    RegistryError::InvalidField { field, message }
}

/// Checks the form only: where a name leads is looked at before each delivery.
fn check_url(url: &str) -> Result<(), RegistryError> {
    let refuse = |why: &str| {
        Err(invalid(
            "url",
            format!("{why}, write e.g. \"https://example.com/promptgate\""),
        ))
    };
    if url.len() > MAX_TEXT_BYTES {
        return refuse("is too long, at most 2000 bytes are possible");
    }
    let Ok(uri) = url.parse::<http::Uri>() else {
        return refuse("is not an address");
    };
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    match uri.scheme_str() {
        _ if authority.contains('@') => {
            refuse("has a user or password, which would be shown: sign in by the signature")
        }
        Some("https" | "http") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
        _ => refuse("is not an http address with a host"),
    }
}

async fn check(sql: &mut SqlConnection, webhook: &Webhook) -> Result<(), RegistryError> {
    check_url(&webhook.url)?;
    if webhook.description.len() > MAX_TEXT_BYTES {
        return Err(invalid("description", "is too long, at most 2000 bytes are possible"));
    }
    if webhook.events.len() > 2 * EventType::ALL.len() {
        return Err(invalid("events", "has more names than there are events"));
    }
    for event in &webhook.events {
        webhook::check_event(event).map_err(|why| invalid("events", why))?;
    }
    if !webhook.environment.is_empty() {
        environments::one(sql, &webhook.environment).await?;
    }
    let folder = webhook.folder.trim_end_matches('/');
    if !folder.is_empty() {
        crate::domain::prompt::validate_prompt_id(folder).map_err(|why| invalid("folder", why))?;
    }
    Ok(())
}

fn new_secret() -> Result<String, RegistryError> {
    Ok(webhook::secret(secret::random()?))
}

impl Webhook {
    fn with(mut self, update: WebhookUpdate) -> Self {
        let WebhookUpdate {
            url,
            description,
            events,
            environment,
            folder,
            enabled,
        } = update;
        self.url = url.unwrap_or(self.url);
        self.description = description.unwrap_or(self.description);
        self.events = events.unwrap_or(self.events);
        self.environment = environment.unwrap_or(self.environment);
        self.folder = folder.map_or(self.folder, |folder| folder.trim_end_matches('/').to_owned());
        self.enabled = enabled.unwrap_or(self.enabled);
        self
    }

    /// As the audit log shows it. A URL may have a token in its path or query: only where it leads is shown.
    fn shown(&self) -> serde_json::Value {
        let uri = self.url.parse::<http::Uri>().ok();
        let host = uri.as_ref().and_then(http::Uri::host);
        json!({
            "host": host, "events": self.events, "environment": self.environment, "folder": self.folder,
            "enabled": self.enabled,
        })
    }
}

impl Registry {
    /// Makes a webhook; returns it with its secret, which is shown this once.
    ///
    /// # Errors
    /// When something has the wrong form or does not exist, there are too many, or the database fails.
    pub async fn create_webhook(
        &self,
        new: WebhookUpdate,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<CreatedWebhook>, RegistryError> {
        let mut change = Change::begin_quietly(self, actor).await?;
        let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM webhooks")
            .fetch_one(change.sql())
            .await?;
        if count >= MAX_WEBHOOKS {
            return Err(RegistryError::Conflict(format!(
                "there are {count} webhooks, delete those that are not needed"
            )));
        }
        let blank = Webhook {
            id: secret::id("whk"),
            url: String::new(),
            description: String::new(),
            events: Vec::new(),
            environment: String::new(),
            folder: String::new(),
            enabled: true,
            created_at_us: change.at_us,
            created_by: change.actor.name.to_owned(),
            waiting: 0,
            failed: 0,
        };
        let webhook = blank.with(new);
        check(change.sql(), &webhook).await?;
        let secret = new_secret()?;
        sqlx::query(
            "INSERT INTO webhooks (id, url, secret, description, events, environment, folder, enabled, created_at, \
             created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(&webhook.id)
        .bind(&webhook.url)
        .bind(&secret)
        .bind(&webhook.description)
        .bind(text(&webhook.events))
        .bind(&webhook.environment)
        .bind(&webhook.folder)
        .bind(i64::from(webhook.enabled))
        .bind(webhook.created_at_us)
        .bind(&webhook.created_by)
        .execute(change.sql())
        .await?;
        let generation = change.commit("webhook.create", &webhook.id, webhook.shown()).await?;
        let value = CreatedWebhook { webhook, secret };
        Ok(Published { value, generation })
    }

    /// Changes a webhook. What waits for it goes to its new address; what it is told of next follows its new lists.
    ///
    /// # Errors
    /// When there is none, something has the wrong form or does not exist, or the database fails.
    pub async fn update_webhook(
        &self,
        id: &str,
        update: WebhookUpdate,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<Webhook>, RegistryError> {
        let mut change = Change::begin_quietly(self, actor).await?;
        let before = one(change.sql(), id).await?;
        let value = before.clone().with(update);
        check(change.sql(), &value).await?;
        sqlx::query(
            "UPDATE webhooks SET url = $1, description = $2, events = $3, environment = $4, folder = $5, enabled = $6 \
             WHERE id = $7",
        )
        .bind(&value.url)
        .bind(&value.description)
        .bind(text(&value.events))
        .bind(&value.environment)
        .bind(&value.folder)
        .bind(i64::from(value.enabled))
        .bind(id)
        .execute(change.sql())
        .await?;
        let detail = json!({"from": before.shown(), "to": value.shown()});
        let generation = change.commit("webhook.update", id, detail).await?;
        Ok(Published { value, generation })
    }

    /// Gives a webhook another secret, with which everything is signed from now on.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn rotate_webhook_secret(
        &self,
        id: &str,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<CreatedWebhook>, RegistryError> {
        let mut change = Change::begin_quietly(self, actor).await?;
        let webhook = one(change.sql(), id).await?;
        let secret = new_secret()?;
        sqlx::query("UPDATE webhooks SET secret = $1 WHERE id = $2")
            .bind(&secret)
            .bind(id)
            .execute(change.sql())
            .await?;
        let generation = change.commit("webhook.rotate_secret", id, json!({})).await?;
        let value = CreatedWebhook { webhook, secret };
        Ok(Published { value, generation })
    }

    /// Deletes a webhook with what waits for it.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn delete_webhook(
        &self,
        id: &str,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<Webhook>, RegistryError> {
        let mut change = Change::begin_quietly(self, actor).await?;
        let value = one(change.sql(), id).await?;
        for statement in [
            "DELETE FROM webhook_deliveries WHERE webhook_id = $1",
            "DELETE FROM webhooks WHERE id = $1",
        ] {
            sqlx::query(statement).bind(id).execute(change.sql()).await?;
        }
        let mut detail = value.shown();
        detail["waiting"] = json!(value.waiting);
        let generation = change.commit("webhook.delete", id, detail).await?;
        Ok(Published { value, generation })
    }

    /// Returns a webhook.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn webhook(&self, id: &str) -> Result<Webhook, RegistryError> {
        one(&mut *self.reader()?.acquire().await?, id).await
    }

    /// Lists webhooks, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_webhooks(&self, page: PageOf<'_>) -> Result<Page<Webhook>, RegistryError> {
        // Ids sort by time; '~' comes after all of them.
        let query = format!("SELECT {COLUMNS} FROM webhooks WHERE id < $1 ORDER BY id DESC LIMIT $2");
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(page.cursor.unwrap_or("~"))
            .bind(page.rows())
            .fetch_all(self.reader()?)
            .await?;
        let items = rows.into_iter().map(webhook).collect::<Result<_, _>>()?;
        Ok(page.page(items, |webhook: &Webhook| webhook.id.clone()))
    }
}
