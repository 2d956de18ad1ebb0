//! Names: a prompt's id and its aliases all lead to it; a rename turns its id into an alias.

use crate::registry::sql::SqlConnection;
use serde_json::json;

use super::change::{Actor, By, Change};
use super::prompts::{find, one, require};
use super::{Missing, Prompt, Published, Registry, RegistryError};
use crate::domain::prompt::validate_prompt_id;

/// The longest alias, in bytes.
const MAX_ALIAS_BYTES: usize = 500;

fn validate_alias(alias: &str) -> Result<(), RegistryError> {
    let problem = if alias.trim().is_empty() {
        Some("an alias must not be blank".to_owned())
    } else if alias.len() > MAX_ALIAS_BYTES {
        Some(format!(
            "the alias has {} bytes, at most {MAX_ALIAS_BYTES} are allowed",
            alias.len()
        ))
    } else {
        None
    };
    match problem {
        Some(message) => Err(RegistryError::InvalidField {
            field: "alias",
            message,
        }),
        None => Ok(()),
    }
}

/// Moves every row of a prompt to another id, statement by statement in the order that foreign keys ask for. Nothing else in
/// the rows changes: versions keep their text to the last byte, deployments their numbers, also those that include it.
pub(super) const MOVES: [&str; 14] = [
    "INSERT INTO prompts (id, description, tags, created_at, created_by, generation, uid, salt_id, owner, revision, \
     archived_at) SELECT $2, description, tags, created_at, created_by, generation, uid || '~', salt_id, owner, \
     revision + 1, archived_at FROM prompts WHERE id = $1",
    "UPDATE aliases SET prompt_id = $2 WHERE prompt_id = $1",
    "UPDATE drafts SET prompt_id = $2 WHERE prompt_id = $1",
    "UPDATE change_deployments SET prompt_id = $2 WHERE prompt_id = $1",
    "UPDATE shifts SET prompt_id = $2 WHERE prompt_id = $1",
    "INSERT INTO versions (prompt_id, version, content, source, hash, message, author, created_at, parent) \
     SELECT $2, version, content, source, hash, message, author, created_at, parent FROM versions WHERE prompt_id = $1",
    "UPDATE partials SET prompt_id = $2 WHERE prompt_id = $1",
    "UPDATE partials SET partial_id = $2 WHERE partial_id = $1",
    "UPDATE deployed_versions SET prompt_id = $2 WHERE prompt_id = $1",
    "DELETE FROM versions WHERE prompt_id = $1",
    "INSERT INTO deployments (prompt_id, environment, number, split, message, actor, created_at, kind, rolled_back_to, \
     change_id, break_glass, generation) SELECT $2, environment, number, split, message, actor, created_at, kind, \
     rolled_back_to, change_id, break_glass, generation FROM deployments WHERE prompt_id = $1",
    "UPDATE live SET prompt_id = $2 WHERE prompt_id = $1",
    "DELETE FROM deployments WHERE prompt_id = $1",
    "DELETE FROM prompts WHERE id = $1",
];

/// Moves a prompt with everything that belongs to it.
async fn move_to(sql: &mut SqlConnection, from: &str, to: &str) -> Result<(), RegistryError> {
    let (uid,): (String,) = sqlx::query_as("SELECT uid FROM prompts WHERE id = $1")
        .bind(from)
        .fetch_one(&mut *sql)
        .await?;
    for statement in MOVES {
        let query = sqlx::query(statement).bind(from);
        let query = if statement.contains("$2") {
            query.bind(to)
        } else {
            query
        };
        query.execute(&mut *sql).await?;
    }
    sqlx::query("UPDATE prompts SET uid = $1 WHERE id = $2")
        .bind(uid)
        .bind(to)
        .execute(sql)
        .await?;
    Ok(())
}

/// Lets every node forget a name, unless it leads somewhere again.
async fn retire(change: &mut Change<'_>, name: &str) -> Result<(), RegistryError> {
    let stamp = change.stamp();
    sqlx::query(
        "INSERT INTO retired_names (name, generation) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET generation = excluded.generation",
    )
    .bind(name)
    .bind(stamp)
    .execute(change.sql())
    .await?;
    Ok(())
}

impl Registry {
    /// Gives a prompt another id; the present one becomes an alias, so that callers go on being served.
    ///
    /// One of its own aliases may become its id. Splits keep their salt: nobody changes the variant.
    ///
    /// # Errors
    /// When the id has the wrong form or is taken, the message is blank, there is no such prompt, or the database fails.
    pub async fn rename_prompt(&self, name: &str, to: &str, by: By<'_>) -> Result<Published<Prompt>, RegistryError> {
        validate_prompt_id(to).map_err(|message| RegistryError::InvalidField { field: "to", message })?;
        if by.message.trim().is_empty() {
            return Err(RegistryError::InvalidField {
                field: "message",
                message: "a rename needs a message, say why".to_owned(),
            });
        }
        let mut change = Change::begin(self, by.actor).await?;
        let id = require(change.sql(), name).await?;
        if id == to {
            return Err(RegistryError::Conflict(format!("prompt {id:?} has that id already")));
        }
        match find(change.sql(), to).await? {
            Some(owner) if owner == to => {
                return Err(RegistryError::Conflict(format!("prompt {to:?} exists already")));
            }
            Some(owner) if owner != id => {
                return Err(RegistryError::Conflict(format!(
                    "{to:?} is an alias of prompt {owner:?}"
                )));
            }
            _ => {}
        }
        sqlx::query("DELETE FROM aliases WHERE alias = $1")
            .bind(to)
            .execute(change.sql())
            .await?;
        move_to(change.sql(), &id, to).await?;
        sqlx::query("INSERT INTO aliases (alias, prompt_id) VALUES ($1, $2)")
            .bind(&id)
            .bind(to)
            .execute(change.sql())
            .await?;
        change.touch(to).await?;
        let value = one(change.sql(), to).await?;
        let detail = json!({"from": id, "to": to, "message": by.message});
        let generation = change.commit("prompt.rename", to, detail).await?;
        Ok(Published { value, generation })
    }

    /// Gives a prompt another name. Doing it again changes nothing.
    ///
    /// # Errors
    /// When the alias is blank, too long, or taken, there is no such prompt, or the database fails.
    pub async fn add_alias(
        &self,
        name: &str,
        alias: &str,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<Prompt>, RegistryError> {
        validate_alias(alias)?;
        let mut change = Change::begin(self, actor).await?;
        let id = require(change.sql(), name).await?;
        match find(change.sql(), alias).await? {
            Some(owner) if owner == id && alias != id => {
                let value = one(change.sql(), &id).await?;
                let generation = value.generation;
                return Ok(Published { value, generation });
            }
            Some(owner) => {
                return Err(RegistryError::Conflict(format!(
                    "{alias:?} names prompt {owner:?} already"
                )));
            }
            None => {}
        }
        sqlx::query("INSERT INTO aliases (alias, prompt_id) VALUES ($1, $2)")
            .bind(alias)
            .bind(&id)
            .execute(change.sql())
            .await?;
        change.touch(&id).await?;
        let value = one(change.sql(), &id).await?;
        let generation = change.commit("alias.add", &id, json!({"alias": alias})).await?;
        Ok(Published { value, generation })
    }

    /// Takes a name away from a prompt.
    ///
    /// # Errors
    /// When the prompt does not exist or does not have it, or the database fails.
    pub async fn remove_alias(
        &self,
        name: &str,
        alias: &str,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<Prompt>, RegistryError> {
        let mut change = Change::begin(self, actor).await?;
        let id = require(change.sql(), name).await?;
        let removed = sqlx::query("DELETE FROM aliases WHERE alias = $1 AND prompt_id = $2")
            .bind(alias)
            .bind(&id)
            .execute(change.sql())
            .await?;
        if removed.rows_affected() == 0 {
            let alias = alias.to_owned();
            return Err(Missing::Alias { prompt: id, alias }.into());
        }
        retire(&mut change, alias).await?;
        change.touch(&id).await?;
        let value = one(change.sql(), &id).await?;
        let generation = change.commit("alias.remove", &id, json!({"alias": alias})).await?;
        Ok(Published { value, generation })
    }
}
