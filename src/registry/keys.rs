//! Keys of applications. The secret is returned once, when the key is created; only its SHA-256 is stored.

use crate::registry::sql::SqlConnection;
use serde_json::json;

use super::change::{Actor, Change};
use super::secret::{self, digest_hex};
use super::{Missing, Page, PageOf, Published, Registry, RegistryError, environments, number, parse, text};

/// What a new key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    pub name: String,
    /// The environment of requests that name none.
    pub environment: String,
    /// Further environments requests may name.
    pub environments: Vec<String>,
    /// The models it may use; `None` is all.
    pub models: Option<Vec<String>>,
    /// Whether it may send requests without a prompt.
    pub raw: bool,
    /// Whether it may name a version.
    pub pin: bool,
    /// Whether it may choose the arm of a split.
    pub force_variant: bool,
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub id: String,
    pub name: String,
    pub environment: String,
    /// All it may name, its default first.
    pub environments: Vec<String>,
    pub models: Option<Vec<String>>,
    pub raw: bool,
    pub pin: bool,
    pub force_variant: bool,
    /// Microseconds since the Unix epoch.
    pub created_at_us: i64,
    pub created_by: String,
    pub revoked_at_us: Option<i64>,
    /// The generation of its last change.
    pub generation: u64,
}

/// A new key with its secret, which cannot be shown again. No `Debug`: it would end up in a log.
pub struct CreatedKey {
    pub key: Key,
    pub secret: String,
}

type Row = (
    String,
    String,
    String,
    String,
    Option<String>,
    i64,
    i64,
    i64,
    i64,
    String,
    Option<i64>,
    i64,
);

fn key(row: Row) -> Result<Key, RegistryError> {
    let (id, name, environment, environments, models, raw, pin, force, created_at_us, created_by, revoked, generation) =
        row;
    Ok(Key {
        id,
        name,
        environment,
        environments: parse(&environments)?,
        models: models.as_deref().map(parse).transpose()?,
        raw: raw != 0,
        pin: pin != 0,
        force_variant: force != 0,
        created_at_us,
        created_by,
        revoked_at_us: revoked,
        generation: number(generation)?,
    })
}

/// Reads one key, or those after an id in the order of ids (the order they were made in).
async fn select(
    sql: &mut SqlConnection,
    only: Option<&str>,
    after: &str,
    rows: i64,
) -> Result<Vec<Key>, RegistryError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, name, environment, environments, models, raw, pin, force_variant, created_at, created_by, \
         revoked_at, generation FROM keys WHERE ($1 = '' OR id = $1) AND id > $2 ORDER BY id LIMIT $3",
    )
    .bind(only.unwrap_or_default())
    .bind(after)
    .bind(rows)
    .fetch_all(sql)
    .await?;
    rows.into_iter().map(key).collect()
}

async fn one(sql: &mut SqlConnection, id: &str) -> Result<Key, RegistryError> {
    let key = if id.is_empty() {
        None
    } else {
        select(sql, Some(id), "", 1).await?.pop()
    };
    Ok(key.ok_or_else(|| Missing::Key(id.to_owned()))?)
}

/// Puts the default environment first and drops repetitions.
fn all_environments(new: &NewKey) -> Vec<&str> {
    let mut all = vec![new.environment.as_str()];
    for name in &new.environments {
        if !all.contains(&name.as_str()) {
            all.push(name);
        }
    }
    all
}

impl Registry {
    /// Makes a key; the secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// When the name is blank, an environment does not exist, or the database fails.
    pub async fn create_key(
        &self,
        new: NewKey,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<CreatedKey>, RegistryError> {
        if new.name.trim().is_empty() {
            return Err(RegistryError::InvalidField {
                field: "name",
                message: "a key needs a name, say which application it is for".to_owned(),
            });
        }
        let secret = secret::generate("pg_")?;
        let id = secret::id("key");
        let mut change = Change::begin(self, actor).await?;
        let allowed = all_environments(&new);
        for name in &allowed {
            environments::one(change.sql(), name).await?;
        }
        let (at_us, stamp, author) = (change.at_us, change.stamp(), change.actor.name);
        sqlx::query(
            "INSERT INTO keys (id, name, digest, environment, environments, models, raw, pin, force_variant, \
             created_at, created_by, revoked_at, generation) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, NULL, $12)",
        )
        .bind(&id)
        .bind(&new.name)
        .bind(digest_hex(&secret))
        .bind(&new.environment)
        .bind(text(&allowed))
        .bind(new.models.as_ref().map(text))
        .bind(i64::from(new.raw))
        .bind(i64::from(new.pin))
        .bind(i64::from(new.force_variant))
        .bind(at_us)
        .bind(author)
        .bind(stamp)
        .execute(change.sql())
        .await?;
        let key = one(change.sql(), &id).await?;
        let detail = json!({"to": {
            "name": key.name, "environments": key.environments, "models": key.models,
            "raw": key.raw, "pin": key.pin, "force_variant": key.force_variant,
        }});
        let generation = change.commit("key.create", &id, detail).await?;
        Ok(Published {
            value: CreatedKey { key, secret },
            generation,
        })
    }

    /// Revokes a key. Revoking it again changes nothing and returns the generation of the first time.
    ///
    /// # Errors
    /// When there is no such key, or the database fails.
    pub async fn revoke_key(&self, id: &str, actor: impl Into<Actor<'_>>) -> Result<Published<Key>, RegistryError> {
        let mut change = Change::begin(self, actor).await?;
        let before = one(change.sql(), id).await?;
        if before.revoked_at_us.is_some() {
            let generation = before.generation;
            return Ok(Published {
                value: before,
                generation,
            });
        }
        let (at_us, stamp) = (change.at_us, change.stamp());
        sqlx::query("UPDATE keys SET revoked_at = $1, generation = $2 WHERE id = $3")
            .bind(at_us)
            .bind(stamp)
            .bind(id)
            .execute(change.sql())
            .await?;
        let value = one(change.sql(), id).await?;
        let detail = json!({"name": value.name});
        let generation = change.commit("key.revoke", id, detail).await?;
        Ok(Published { value, generation })
    }

    /// Returns a key.
    ///
    /// # Errors
    /// When there is no such key, or the database fails.
    pub async fn key(&self, id: &str) -> Result<Key, RegistryError> {
        one(&mut *self.reader()?.acquire().await?, id).await
    }

    /// Lists keys, oldest first, revoked ones included.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_keys(&self, page: PageOf<'_>) -> Result<Page<Key>, RegistryError> {
        let after = page.cursor.unwrap_or_default();
        let keys = select(&mut *self.reader()?.acquire().await?, None, after, page.rows()).await?;
        Ok(page.page(keys, |key| key.id.clone()))
    }
}
