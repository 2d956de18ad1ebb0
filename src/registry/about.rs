//! What people write about a prompt, and whether it is put away.

use crate::registry::sql::SqlConnection;
use serde_json::{Value, json};

use super::change::{By, Change};
use super::edited::Edited;
use super::prompts::{one, require};
use super::uses;
use super::{Prompt, Published, Registry, RegistryError, now_us, text};

const MAX_DESCRIPTION_BYTES: usize = 4_000;
const MAX_OWNER_BYTES: usize = 200;
const MAX_TAGS: usize = 50;
const MAX_TAG_BYTES: usize = 100;

/// What to change of a prompt; `None` leaves it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptUpdate {
    pub description: Option<String>,
    pub tags: Option<Vec<String>>,
    pub owner: Option<String>,
}

/// Makes sure that these texts can be stored and shown.
pub(super) fn check(description: &str, tags: &[String], owner: &str) -> Result<(), RegistryError> {
    let refuse = |field, message| Err(RegistryError::InvalidField { field, message });
    let too_long = |text: &str, most: usize| format!("has {} bytes, at most {most} are allowed", text.len());
    if description.len() > MAX_DESCRIPTION_BYTES {
        return refuse("description", too_long(description, MAX_DESCRIPTION_BYTES));
    }
    if owner.len() > MAX_OWNER_BYTES {
        return refuse("owner", too_long(owner, MAX_OWNER_BYTES));
    }
    if tags.len() > MAX_TAGS {
        return refuse(
            "tags",
            format!("there are {} tags, at most {MAX_TAGS} are allowed", tags.len()),
        );
    }
    for (at, tag) in tags.iter().enumerate() {
        if tag.trim().is_empty() || tag.len() > MAX_TAG_BYTES {
            return refuse("tags", format!("tag {tag:?} must have 1 to {MAX_TAG_BYTES} bytes"));
        }
        if tags[..at].contains(tag) {
            return refuse("tags", format!("tag {tag:?} is there twice"));
        }
    }
    Ok(())
}

/// What the audit log shows of a prompt's texts.
fn shown(prompt: &Prompt) -> Value {
    json!({"description": prompt.description, "tags": prompt.tags, "owner": prompt.owner})
}

/// Refuses to work on a prompt that is put away.
pub(super) async fn require_in_use(sql: &mut SqlConnection, id: &str) -> Result<(), RegistryError> {
    let (archived,): (Option<i64>,) = sqlx::query_as("SELECT archived_at FROM prompts WHERE id = $1")
        .bind(id)
        .fetch_one(sql)
        .await?;
    match archived {
        Some(_) => Err(RegistryError::Conflict(format!(
            "prompt {id:?} is archived, restore it first"
        ))),
        None => Ok(()),
    }
}

/// Stores a prompt's archived state and counts that as an edit.
async fn set_archived(change: &mut Change<'_>, id: &str, at_us: Option<i64>) -> Result<Prompt, RegistryError> {
    sqlx::query("UPDATE prompts SET archived_at = $1, revision = revision + 1 WHERE id = $2")
        .bind(at_us)
        .bind(id)
        .execute(change.sql())
        .await?;
    one(change.sql(), id).await
}

impl Registry {
    /// Changes what is written about a prompt. `expected` is the revision that the caller saw, if it says so.
    ///
    /// # Errors
    /// When a text is too long, somebody else changed it meanwhile, there is no such prompt, or the database fails.
    pub async fn update_prompt(
        &self,
        name: &str,
        update: PromptUpdate,
        expected: Option<u32>,
        by: By<'_>,
    ) -> Result<Published<Prompt>, RegistryError> {
        let mut change = Change::begin_quietly(self, by.actor).await?;
        let id = require(change.sql(), name).await?;
        let before = one(change.sql(), &id).await?;
        if expected.is_some_and(|expected| expected != before.revision) {
            return Err(Edited::Prompt(before).into());
        }
        let description = update.description.unwrap_or_else(|| before.description.clone());
        let tags = update.tags.unwrap_or_else(|| before.tags.clone());
        let owner = update.owner.unwrap_or_else(|| before.owner.clone());
        check(&description, &tags, &owner)?;
        sqlx::query(
            "UPDATE prompts SET description = $1, tags = $2, owner = $3, revision = revision + 1 WHERE id = $4",
        )
        .bind(&description)
        .bind(text(&tags))
        .bind(&owner)
        .bind(&id)
        .execute(change.sql())
        .await?;
        let value = one(change.sql(), &id).await?;
        let detail = json!({"from": shown(&before), "to": shown(&value), "message": by.message});
        let generation = change.commit("prompt.update", &id, detail).await?;
        Ok(Published { value, generation })
    }

    /// Puts a prompt away: lists leave it out, and it gets no deployments. Callers that name a version of it are still
    /// served. Doing it again changes nothing.
    ///
    /// # Errors
    /// When it is live, frozen into a live version, or about to be; there is no such prompt; or the database fails.
    pub async fn archive_prompt(&self, name: &str, by: By<'_>) -> Result<Published<Prompt>, RegistryError> {
        let mut change = Change::begin_quietly(self, by.actor).await?;
        let id = require(change.sql(), name).await?;
        let before = one(change.sql(), &id).await?;
        if before.archived_at_us.is_some() {
            let generation = change.generation;
            return Ok(Published {
                value: before,
                generation,
            });
        }
        let users = uses::live_uses(change.sql(), &id).await?;
        if !users.is_empty() {
            let named: Vec<String> = users.iter().map(ToString::to_string).collect();
            return Err(RegistryError::InUse {
                message: format!("prompt {id:?} is in use: {}", named.join("; ")),
                details: json!({ "uses": users }),
            });
        }
        let value = set_archived(&mut change, &id, Some(now_us())).await?;
        let detail = json!({"from": {"archived": false}, "to": {"archived": true}, "message": by.message});
        let generation = change.commit("prompt.archive", &id, detail).await?;
        Ok(Published { value, generation })
    }

    /// Takes a prompt out of the archive. Doing it again changes nothing.
    ///
    /// # Errors
    /// When there is no such prompt, or the database fails.
    pub async fn restore_prompt(&self, name: &str, by: By<'_>) -> Result<Published<Prompt>, RegistryError> {
        let mut change = Change::begin_quietly(self, by.actor).await?;
        let id = require(change.sql(), name).await?;
        let before = one(change.sql(), &id).await?;
        if before.archived_at_us.is_none() {
            let generation = change.generation;
            return Ok(Published {
                value: before,
                generation,
            });
        }
        let value = set_archived(&mut change, &id, None).await?;
        let detail = json!({"from": {"archived": true}, "to": {"archived": false}, "message": by.message});
        let generation = change.commit("prompt.restore", &id, detail).await?;
        Ok(Published { value, generation })
    }
}
