//! Prompts: made, found by a name, and read with what is live of them.

use std::collections::HashMap;

use super::sql::{QueryBuilder, SqlConnection};
use serde_json::json;

use super::change::{Actor, Change};
use super::{Missing, Published, Registry, RegistryError, about, number, parse, secret, text};
use crate::domain::prompt::validate_prompt_id;
use crate::domain::split::Arm;

/// A prompt to create.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewPrompt {
    pub id: String,
    pub description: String,
    pub tags: Vec<String>,
    /// A person or a team, in free text.
    pub owner: String,
}

/// A prompt as lists show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub id: String,
    pub description: String,
    pub tags: Vec<String>,
    pub owner: String,
    pub aliases: Vec<String>,
    /// Microseconds since the Unix epoch.
    pub created_at_us: i64,
    pub created_by: String,
    /// 0 as long as there is none.
    pub latest_version: u32,
    /// What is live, one entry an environment.
    pub live: Vec<Live>,
    /// Since when it is put away.
    pub archived_at_us: Option<i64>,
    /// Counts the changes of what is written about it.
    pub revision: u32,
    /// The generation of its last change.
    pub generation: u64,
}

/// What is live in one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    pub environment: String,
    pub deployment: u32,
    pub split: Vec<Arm>,
}

/// Returns the id of the prompt that `name` is the id or an alias of.
pub(super) async fn find(sql: &mut SqlConnection, name: &str) -> Result<Option<String>, RegistryError> {
    let row: Option<(String,)> = sqlx::query_as(
        "SELECT id FROM prompts WHERE id = $1 UNION ALL SELECT prompt_id FROM aliases WHERE alias = $1 LIMIT 1",
    )
    .bind(name)
    .fetch_optional(sql)
    .await?;
    Ok(row.map(|(id,)| id))
}

/// Like [`find`], for a prompt that must exist.
pub(super) async fn require(sql: &mut SqlConnection, name: &str) -> Result<String, RegistryError> {
    let id = find(sql, name).await?;
    Ok(id.ok_or_else(|| Missing::Prompt(name.to_owned()))?)
}

type Row = (String, String, String, String, i64, String, Option<i64>, i64, i64, i64);

fn prompt(row: Row) -> Result<Prompt, RegistryError> {
    let (id, description, tags, owner, created_at_us, created_by, archived_at_us, revision, generation, latest_version) =
        row;
    Ok(Prompt {
        id,
        description,
        tags: parse(&tags)?,
        owner,
        aliases: Vec::new(),
        created_at_us,
        created_by,
        latest_version: number(latest_version)?,
        live: Vec::new(),
        archived_at_us,
        revision: number(revision)?,
        generation: number(generation)?,
    })
}

/// Reads prompts with what is live, in the order of their ids: three queries, however many prompts.
pub(super) async fn load(sql: &mut SqlConnection, ids: &[String]) -> Result<Vec<Prompt>, RegistryError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::new(
        "SELECT p.id, p.description, p.tags, p.owner, p.created_at, p.created_by, p.archived_at, p.revision, \
         p.generation, COALESCE((SELECT MAX(v.version) FROM versions v WHERE v.prompt_id = p.id), 0) FROM prompts p \
         WHERE p.id IN ",
    );
    ids_of(&mut query, ids);
    query.push(" ORDER BY p.id");
    let rows: Vec<Row> = query.build_query_as().fetch_all(&mut *sql).await?;
    let mut prompts = rows.into_iter().map(prompt).collect::<Result<Vec<_>, _>>()?;
    let places: HashMap<String, usize> = prompts.iter().enumerate().map(|(at, p)| (p.id.clone(), at)).collect();
    for (alias, id) in aliases_of(sql, ids).await? {
        if let Some(at) = places.get(&id) {
            prompts[*at].aliases.push(alias);
        }
    }
    for (id, live) in live_of(sql, ids).await? {
        if let Some(at) = places.get(&id) {
            prompts[*at].live.push(live);
        }
    }
    Ok(prompts)
}

/// Continues a query with `(id, id, …)`.
pub(super) fn ids_of(query: &mut QueryBuilder, ids: &[String]) {
    for (at, id) in ids.iter().enumerate() {
        query.push(if at == 0 { "(" } else { ", " }).push_bind(id.clone());
    }
    query.push(")");
}

async fn aliases_of(sql: &mut SqlConnection, ids: &[String]) -> Result<Vec<(String, String)>, RegistryError> {
    let mut query = QueryBuilder::new("SELECT alias, prompt_id FROM aliases WHERE prompt_id IN ");
    ids_of(&mut query, ids);
    query.push(" ORDER BY alias");
    Ok(query.build_query_as().fetch_all(sql).await?)
}

async fn live_of(sql: &mut SqlConnection, ids: &[String]) -> Result<Vec<(String, Live)>, RegistryError> {
    let mut query = QueryBuilder::new(
        "SELECT l.prompt_id, l.environment, l.number, d.split FROM live l \
         JOIN deployments d ON d.prompt_id = l.prompt_id AND d.environment = l.environment AND d.number = l.number \
         JOIN environments e ON e.name = l.environment WHERE l.prompt_id IN ",
    );
    ids_of(&mut query, ids);
    query.push(" ORDER BY e.position");
    let rows: Vec<(String, String, i64, String)> = query.build_query_as().fetch_all(sql).await?;
    let live = |(id, environment, deployment, split): (String, String, i64, String)| {
        let live = Live {
            environment,
            deployment: number(deployment)?,
            split: parse(&split)?,
        };
        Ok((id, live))
    };
    let mut live = rows.into_iter().map(live).collect::<Result<Vec<_>, RegistryError>>()?;
    // Taken off: a split without arms.
    live.retain(|(_, live)| !live.split.is_empty());
    Ok(live)
}

/// Reads one prompt by its id.
pub(super) async fn one(sql: &mut SqlConnection, id: &str) -> Result<Prompt, RegistryError> {
    let prompt = load(sql, &[id.to_owned()]).await?.pop();
    Ok(prompt.ok_or_else(|| Missing::Prompt(id.to_owned()))?)
}

impl Registry {
    /// Creates a prompt without versions.
    ///
    /// # Errors
    /// When the id has the wrong form or is taken, also by an alias, or the database fails.
    pub async fn create_prompt(
        &self,
        new: NewPrompt,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<Prompt>, RegistryError> {
        validate_prompt_id(&new.id).map_err(|message| RegistryError::InvalidField { field: "id", message })?;
        about::check(&new.description, &new.tags, &new.owner)?;
        let mut change = Change::begin(self, actor).await?;
        if let Some(owner) = find(change.sql(), &new.id).await? {
            return Err(RegistryError::Conflict(if owner == new.id {
                format!("prompt {owner:?} exists already")
            } else {
                format!("{:?} is an alias of prompt {owner:?}", new.id)
            }));
        }
        let (at_us, stamp, author) = (change.at_us, change.stamp(), change.actor.name);
        sqlx::query(
            "INSERT INTO prompts (id, description, tags, created_at, created_by, generation, uid, salt_id, owner) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $1, $8)",
        )
        .bind(&new.id)
        .bind(&new.description)
        .bind(text(&new.tags))
        .bind(at_us)
        .bind(author)
        .bind(stamp)
        .bind(secret::id("prm"))
        .bind(&new.owner)
        .execute(change.sql())
        .await?;
        let value = one(change.sql(), &new.id).await?;
        let detail = json!({"description": new.description, "tags": new.tags, "owner": new.owner});
        let generation = change.commit("prompt.create", &new.id, detail).await?;
        Ok(Published { value, generation })
    }

    /// Returns a prompt by its id or an alias.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn prompt(&self, name: &str) -> Result<Prompt, RegistryError> {
        let mut tx = self.begin_read().await?;
        let id = require(&mut tx, name).await?;
        one(&mut tx, &id).await
    }

    /// Returns the id of the prompt that `name` is the id or an alias of, if there is one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prompt_id(&self, name: &str) -> Result<Option<String>, RegistryError> {
        find(&mut *self.reader()?.acquire().await?, name).await
    }
}
