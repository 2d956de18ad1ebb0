//! What webhooks are told: written in the transaction in which it happens, kept until it has arrived.

use serde_json::{Value, json};

use super::one;
use crate::domain::webhook::{EventType, wants};
use crate::registry::change::{Actor, Change};
use crate::registry::sql::SqlConnection;
use crate::registry::{Missing, Page, PageOf, Published, Registry, RegistryError, parse, secret, text};

/// How long what was delivered or given up can be looked at, in microseconds: a week.
const KEPT_US: i64 = 7 * 24 * 3600 * 1_000_000;

/// How many waiting deliveries of a webhook are looked at together.
const TOGETHER: i64 = 200;

/// What happened, as the audit log has it.
pub struct Happened<'a> {
    /// Its number in the audit log.
    pub seq: i64,
    pub at_us: i64,
    pub actor: &'a str,
    pub action: &'a str,
    pub subject: &'a str,
    pub environment: &'a str,
    pub detail: &'a Value,
}

/// One delivery that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub seq: i64,
    /// `evt_…`: the same at every attempt, so that a receiver can tell what it has.
    pub event_id: String,
    pub prompts: Vec<String>,
    pub body: String,
    pub attempts: u32,
    /// When the next attempt is due, µs since the Unix epoch.
    pub next_at_us: i64,
    /// When it happened, likewise.
    pub at_us: i64,
}

/// Where to deliver.
#[derive(Clone, PartialEq, Eq)]
pub struct Receiver {
    pub webhook: String,
    pub url: String,
    pub secret: String,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// `delivered`, `failed` for good, or `waiting` for another one.
    pub state: &'static str,
    /// When another one is due, µs since the Unix epoch.
    pub next_at_us: i64,
    /// When it began, likewise.
    pub at_us: i64,
    pub status: Option<u16>,
    pub error: String,
    pub took_us: i64,
}

/// A line of the delivery log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub seq: i64,
    pub event_id: String,
    pub event_type: String,
    pub happened_at_us: i64,
    pub state: String,
    pub attempts: u32,
    pub next_at_us: i64,
    pub last_at_us: Option<i64>,
    pub status: Option<u16>,
    pub error: String,
    pub took_us: i64,
}

/// The prompts an event is about.
async fn prompts_of(sql: &mut SqlConnection, event: EventType, subject: &str) -> Result<Vec<String>, RegistryError> {
    if let Some(change) = subject.strip_prefix("change/") {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT d.prompt_id FROM change_deployments d WHERE d.change_id = $1 ORDER BY d.position")
                .bind(change.parse::<i64>().unwrap_or_default())
                .fetch_all(sql)
                .await?;
        return Ok(rows.into_iter().map(|(prompt,)| prompt).collect());
    }
    let end = match event {
        EventType::VersionCreated => subject.rsplit_once(':'),
        _ => subject.rsplit_once('@'),
    };
    Ok(vec![end.map_or(subject, |(prompt, _)| prompt).to_owned()])
}

/// Notes for every webhook that wants to know what happened.
pub async fn emit(sql: &mut SqlConnection, happened: &Happened<'_>) -> Result<(), RegistryError> {
    let Some(event) = EventType::of_action(happened.action, happened.detail) else {
        return Ok(());
    };
    if event == EventType::Ping {
        return write(sql, happened, (event, &[]), &[happened.subject.to_owned()]).await;
    }
    let hooks: Vec<(String, String, String, String)> =
        sqlx::query_as("SELECT id, events, environment, folder FROM webhooks WHERE enabled = 1 ORDER BY id")
            .fetch_all(&mut *sql)
            .await?;
    if hooks.is_empty() {
        return Ok(());
    }
    let prompts = prompts_of(sql, event, happened.subject).await?;
    let mut wanting = Vec::new();
    for (id, events, environment, folder) in hooks {
        let here = environment.is_empty() || happened.environment.is_empty() || environment == happened.environment;
        if here && wants(&parse::<Vec<String>>(&events)?, event) && is_in(&prompts, &folder) {
            wanting.push(id);
        }
    }
    let event = (event, prompts.as_slice());
    write(sql, happened, event, &wanting).await
}

fn is_in(prompts: &[String], folder: &str) -> bool {
    let inside = |prompt: &String| {
        let rest = prompt.strip_prefix(folder);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    folder.is_empty() || prompts.iter().any(inside)
}

/// Writes an event and a delivery for each webhook.
async fn write(
    sql: &mut SqlConnection,
    happened: &Happened<'_>,
    (event, prompts): (EventType, &[String]),
    webhooks: &[String],
) -> Result<(), RegistryError> {
    if webhooks.is_empty() {
        return Ok(());
    }
    let id = secret::id("evt");
    let at = jiff::Timestamp::from_microsecond(happened.at_us).map_or_else(|_| String::new(), |at| at.to_string());
    let body = json!({
        "id": id,
        "type": event.as_str(),
        "timestamp": at,
        "actor": happened.actor,
        "subject": happened.subject,
        "prompts": prompts,
        "environment": (!happened.environment.is_empty()).then_some(happened.environment),
        "data": happened.detail,
    });
    sqlx::query("INSERT INTO webhook_events (seq, id, type, prompts, body, at) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(happened.seq)
        .bind(&id)
        .bind(event.as_str())
        .bind(text(&prompts))
        .bind(text(&body))
        .bind(happened.at_us)
        .execute(&mut *sql)
        .await?;
    for webhook in webhooks {
        sqlx::query(
            "INSERT INTO webhook_deliveries (webhook_id, seq, state, attempts, next_at, error, took_us) \
             VALUES ($1, $2, 'waiting', 0, $3, '', 0)",
        )
        .bind(webhook)
        .bind(happened.seq)
        .bind(happened.at_us)
        .execute(&mut *sql)
        .await?;
    }
    Ok(())
}

type DeliveryRow = (
    i64,
    String,
    String,
    i64,
    String,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
    String,
    i64,
);

const DELIVERY: &str = "SELECT d.seq, e.id, e.type, e.at, d.state, d.attempts, d.next_at, d.last_at, d.status, d.error, \
     d.took_us FROM webhook_deliveries d JOIN webhook_events e ON e.seq = d.seq";

fn delivery(row: DeliveryRow) -> Delivery {
    let (seq, event_id, event_type, happened_at_us, state, attempts, next_at_us, last_at_us, status, error, took_us) =
        row;
    Delivery {
        seq,
        event_id,
        event_type,
        happened_at_us,
        state,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        next_at_us,
        last_at_us,
        status: status.and_then(|status| u16::try_from(status).ok()),
        error,
        took_us,
    }
}

async fn one_delivery(sql: &mut SqlConnection, webhook: &str, seq: i64) -> Result<Delivery, RegistryError> {
    let query = format!("{DELIVERY} WHERE d.webhook_id = $1 AND d.seq = $2");
    let row: Option<DeliveryRow> = sqlx::query_as(sqlx::AssertSqlSafe(query))
        .bind(webhook)
        .bind(seq)
        .fetch_optional(sql)
        .await?;
    row.map(delivery).ok_or_else(|| {
        Missing::Delivery {
            webhook: webhook.to_owned(),
            seq,
        }
        .into()
    })
}

impl Registry {
    /// Sends a `ping` to a webhook, enabled or not.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn test_webhook(
        &self,
        id: &str,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<Delivery>, RegistryError> {
        let mut change = Change::begin_quietly(self, actor).await?;
        one(change.sql(), id).await?;
        change.audit("webhook.test", id, json!({})).await?;
        let (seq,): (i64,) = sqlx::query_as("SELECT MAX(seq) FROM webhook_deliveries WHERE webhook_id = $1")
            .bind(id)
            .fetch_one(change.sql())
            .await?;
        let value = one_delivery(change.sql(), id, seq).await?;
        let generation = change.end().await?;
        Ok(Published { value, generation })
    }

    /// Returns the webhooks that have something to be sent now: enabled, or for a test call.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due_webhooks(&self, now_us: i64) -> Result<Vec<String>, RegistryError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT DISTINCT d.webhook_id FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id \
             JOIN webhook_events e ON e.seq = d.seq \
             WHERE d.state = 'waiting' AND d.next_at <= $1 AND (w.enabled = 1 OR e.type = 'ping')",
        )
        .bind(now_us)
        .fetch_all(self.reader()?)
        .await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// Takes a webhook for this node until then, or goes on having it, unless another node does: one node delivers, so
    /// that the order holds. Returns where to.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lease_webhook(
        &self,
        id: &str,
        node: &str,
        now_us: i64,
        until_us: i64,
    ) -> Result<Option<Receiver>, RegistryError> {
        let row: Option<(String, String)> = sqlx::query_as(
            "UPDATE webhooks SET lease_by = $1, lease_until = $2 \
             WHERE id = $3 AND (lease_by = $1 OR lease_until <= $4) RETURNING url, secret",
        )
        .bind(node)
        .bind(until_us)
        .bind(id)
        .bind(now_us)
        .fetch_optional(self.writer()?)
        .await?;
        Ok(row.map(|(url, secret)| Receiver {
            webhook: id.to_owned(),
            url,
            secret,
        }))
    }

    /// Returns a webhook's oldest waiting deliveries.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting_deliveries(&self, webhook: &str) -> Result<Vec<Waiting>, RegistryError> {
        type Row = (i64, String, String, String, i64, i64, i64);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT d.seq, e.id, e.prompts, e.body, d.attempts, d.next_at, e.at \
             FROM webhook_deliveries d JOIN webhook_events e ON e.seq = d.seq JOIN webhooks w ON w.id = d.webhook_id \
             WHERE d.webhook_id = $1 AND d.state = 'waiting' AND (w.enabled = 1 OR e.type = 'ping') \
             ORDER BY d.seq LIMIT $2",
        )
        .bind(webhook)
        .bind(TOGETHER)
        .fetch_all(self.reader()?)
        .await?;
        rows.into_iter()
            .map(|(seq, event_id, prompts, body, attempts, next_at_us, at_us)| {
                Ok(Waiting {
                    seq,
                    event_id,
                    prompts: parse(&prompts)?,
                    body,
                    attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
                    next_at_us,
                    at_us,
                })
            })
            .collect()
    }

    /// Notes what an attempt came to.
    ///
    /// # Errors
    /// When the database fails: the delivery is tried again then.
    pub async fn note_attempt(&self, webhook: &str, seq: i64, attempt: &Attempt) -> Result<(), RegistryError> {
        sqlx::query(
            "UPDATE webhook_deliveries SET state = $1, attempts = attempts + 1, next_at = $2, last_at = $3, status = $4, \
             error = $5, took_us = $6 WHERE webhook_id = $7 AND seq = $8",
        )
        .bind(attempt.state)
        .bind(attempt.next_at_us)
        .bind(attempt.at_us)
        .bind(attempt.status.map(i64::from))
        .bind(&attempt.error)
        .bind(attempt.took_us)
        .bind(webhook)
        .bind(seq)
        .execute(self.writer()?)
        .await?;
        Ok(())
    }

    /// Has what was given up, or was delivered, sent once more.
    ///
    /// # Errors
    /// When there is no such delivery, it waits already, or the database fails.
    pub async fn resend_delivery(
        &self,
        webhook: &str,
        seq: i64,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<Delivery>, RegistryError> {
        let mut change = Change::begin_quietly(self, actor).await?;
        one(change.sql(), webhook).await?;
        let before = one_delivery(change.sql(), webhook, seq).await?;
        let at_us = change.at_us;
        sqlx::query(
            "UPDATE webhook_deliveries SET state = 'waiting', attempts = 0, next_at = $1 \
             WHERE webhook_id = $2 AND seq = $3",
        )
        .bind(at_us)
        .bind(webhook)
        .bind(seq)
        .execute(change.sql())
        .await?;
        let value = one_delivery(change.sql(), webhook, seq).await?;
        let detail = json!({"delivery": seq, "from": before.state});
        let generation = change.commit("webhook.resend", webhook, detail).await?;
        Ok(Published { value, generation })
    }

    /// Returns one line of a webhook's delivery log.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn delivery(&self, webhook: &str, seq: i64) -> Result<Delivery, RegistryError> {
        one_delivery(&mut *self.reader()?.acquire().await?, webhook, seq).await
    }

    /// Lists a webhook's deliveries, newest first; `state` is empty for all.
    ///
    /// # Errors
    /// When there is no such webhook, the cursor is not one of this list, or the database fails.
    pub async fn list_deliveries(
        &self,
        webhook: &str,
        state: &str,
        page: PageOf<'_>,
    ) -> Result<Page<Delivery>, RegistryError> {
        let mut tx = self.begin_read().await?;
        one(&mut tx, webhook).await?;
        let query = format!(
            "{DELIVERY} WHERE d.webhook_id = $1 AND ($2 = '' OR d.state = $2) AND d.seq < $3 ORDER BY d.seq DESC LIMIT $4"
        );
        let rows: Vec<DeliveryRow> = sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(webhook)
            .bind(state)
            .bind(page.below()?)
            .bind(page.rows())
            .fetch_all(&mut *tx)
            .await?;
        let items = rows.into_iter().map(delivery).collect();
        Ok(page.page(items, |delivery: &Delivery| delivery.seq.to_string()))
    }

    /// How many deliveries wait, and when the oldest of them happened.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn webhook_backlog(&self) -> Result<(u64, Option<i64>), RegistryError> {
        let (count, oldest): (i64, Option<i64>) = sqlx::query_as(
            "SELECT COUNT(*), MIN(e.at) FROM webhook_deliveries d JOIN webhook_events e ON e.seq = d.seq \
             WHERE d.state = 'waiting'",
        )
        .fetch_one(self.reader()?)
        .await?;
        Ok((count.cast_unsigned(), oldest))
    }

    /// Forgets what was delivered or given up a week ago.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_deliveries(&self, now_us: i64) -> Result<(), RegistryError> {
        let mut tx = self.begin_write().await?;
        sqlx::query("DELETE FROM webhook_deliveries WHERE state <> 'waiting' AND last_at < $1")
            .bind(now_us - KEPT_US)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "DELETE FROM webhook_events WHERE NOT EXISTS \
             (SELECT 1 FROM webhook_deliveries d WHERE d.seq = webhook_events.seq)",
        )
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }
}
