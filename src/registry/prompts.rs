//! Prompts and their aliases.

use std::collections::HashMap;

use serde_json::json;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::change::{Actor, Change};
use super::{Missing, Page, PageOf, Published, Registry, RegistryError, number, parse, text};
use crate::domain::prompt::validate_prompt_id;
use crate::domain::split::Arm;

/// The longest alias, in bytes.
const MAX_ALIAS_BYTES: usize = 500;

/// A prompt to create.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewPrompt {
    pub id: String,
    pub description: String,
    pub tags: Vec<String>,
}

/// A prompt as lists show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub id: String,
    pub description: String,
    pub tags: Vec<String>,
    pub aliases: Vec<String>,
    /// Microseconds since the Unix epoch.
    pub created_at_us: i64,
    pub created_by: String,
    /// 0 as long as there is none.
    pub latest_version: u32,
    /// What is live, one entry an environment.
    pub live: Vec<Live>,
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
pub(super) async fn find(sql: &mut SqliteConnection, name: &str) -> Result<Option<String>, RegistryError> {
    let row: Option<(String,)> = sqlx::query_as(
        "SELECT id FROM prompts WHERE id = $1 UNION ALL SELECT prompt_id FROM aliases WHERE alias = $1 LIMIT 1",
    )
    .bind(name)
    .fetch_optional(sql)
    .await?;
    Ok(row.map(|(id,)| id))
}

/// Like [`find`], for a prompt that must exist.
pub(super) async fn require(sql: &mut SqliteConnection, name: &str) -> Result<String, RegistryError> {
    let id = find(sql, name).await?;
    Ok(id.ok_or_else(|| Missing::Prompt(name.to_owned()))?)
}

type Row = (String, String, String, i64, String, i64, i64);

fn prompt(row: Row) -> Result<Prompt, RegistryError> {
    let (id, description, tags, created_at_us, created_by, generation, latest_version) = row;
    Ok(Prompt {
        id,
        description,
        tags: parse(&tags)?,
        aliases: Vec::new(),
        created_at_us,
        created_by,
        latest_version: number(latest_version)?,
        live: Vec::new(),
        generation: number(generation)?,
    })
}

/// Reads prompts with what is live: three queries, however many prompts.
async fn select(
    sql: &mut SqliteConnection,
    only: Option<&str>,
    after: &str,
    pattern: &str,
    rows: i64,
) -> Result<Vec<Prompt>, RegistryError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT p.id, p.description, p.tags, p.created_at, p.created_by, p.generation, \
         COALESCE((SELECT MAX(v.version) FROM versions v WHERE v.prompt_id = p.id), 0) FROM prompts p \
         WHERE ($1 = '' OR p.id = $1) AND p.id > $2 \
         AND (LOWER(p.id) LIKE $3 ESCAPE '\\' OR LOWER(p.description) LIKE $3 ESCAPE '\\') ORDER BY p.id LIMIT $4",
    )
    .bind(only.unwrap_or_default())
    .bind(after)
    .bind(pattern)
    .bind(rows)
    .fetch_all(&mut *sql)
    .await?;
    let mut prompts = rows.into_iter().map(prompt).collect::<Result<Vec<_>, _>>()?;
    if prompts.is_empty() {
        return Ok(prompts);
    }
    let places: HashMap<String, usize> = prompts.iter().enumerate().map(|(at, p)| (p.id.clone(), at)).collect();
    for (alias, id) in aliases_of(sql, &prompts).await? {
        if let Some(at) = places.get(&id) {
            prompts[*at].aliases.push(alias);
        }
    }
    for (id, live) in live_of(sql, &prompts).await? {
        if let Some(at) = places.get(&id) {
            prompts[*at].live.push(live);
        }
    }
    Ok(prompts)
}

/// Continues a query with `(id, id, …)`.
fn ids_of(query: &mut QueryBuilder<Sqlite>, prompts: &[Prompt]) {
    query.push("(");
    let mut ids = query.separated(", ");
    for prompt in prompts {
        ids.push_bind(prompt.id.clone());
    }
    query.push(")");
}

async fn aliases_of(sql: &mut SqliteConnection, prompts: &[Prompt]) -> Result<Vec<(String, String)>, RegistryError> {
    let mut query = QueryBuilder::new("SELECT alias, prompt_id FROM aliases WHERE prompt_id IN ");
    ids_of(&mut query, prompts);
    query.push(" ORDER BY alias");
    Ok(query.build_query_as().fetch_all(sql).await?)
}

async fn live_of(sql: &mut SqliteConnection, prompts: &[Prompt]) -> Result<Vec<(String, Live)>, RegistryError> {
    let mut query = QueryBuilder::new(
        "SELECT l.prompt_id, l.environment, l.number, d.split FROM live l \
         JOIN deployments d ON d.prompt_id = l.prompt_id AND d.environment = l.environment AND d.number = l.number \
         JOIN environments e ON e.name = l.environment WHERE l.prompt_id IN ",
    );
    ids_of(&mut query, prompts);
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
    rows.into_iter().map(live).collect()
}

async fn one(sql: &mut SqliteConnection, id: &str) -> Result<Prompt, RegistryError> {
    let prompt = select(sql, Some(id), "", "%", 1).await?.pop();
    Ok(prompt.ok_or_else(|| Missing::Prompt(id.to_owned()))?)
}

/// A LIKE pattern for text that has `query` somewhere.
fn pattern(query: Option<&str>) -> String {
    let query = query.unwrap_or_default().to_lowercase();
    let escaped = query.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

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
            "INSERT INTO prompts (id, description, tags, created_at, created_by, generation) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&new.id)
        .bind(&new.description)
        .bind(text(&new.tags))
        .bind(at_us)
        .bind(author)
        .bind(stamp)
        .execute(change.sql())
        .await?;
        let value = one(change.sql(), &new.id).await?;
        let detail = json!({"description": new.description, "tags": new.tags});
        let generation = change.commit("prompt.create", &new.id, detail).await?;
        Ok(Published { value, generation })
    }

    /// Returns a prompt by its id or an alias.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn prompt(&self, name: &str) -> Result<Prompt, RegistryError> {
        let mut tx = self.reader.begin().await?;
        let id = require(&mut tx, name).await?;
        one(&mut tx, &id).await
    }

    /// Returns the id of the prompt that `name` is the id or an alias of, if there is one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prompt_id(&self, name: &str) -> Result<Option<String>, RegistryError> {
        find(&mut *self.reader.acquire().await?, name).await
    }

    /// Lists prompts by id, if asked only those with `query` somewhere in their id or description, whatever its case.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_prompts(&self, query: Option<&str>, page: PageOf<'_>) -> Result<Page<Prompt>, RegistryError> {
        let mut tx = self.reader.begin().await?;
        let after = page.cursor.unwrap_or_default();
        let prompts = select(&mut tx, None, after, &pattern(query), page.rows()).await?;
        Ok(page.page(prompts, |prompt| prompt.id.clone()))
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
        change.touch(&id).await?;
        let value = one(change.sql(), &id).await?;
        let generation = change.commit("alias.remove", &id, json!({"alias": alias})).await?;
        Ok(Published { value, generation })
    }
}
