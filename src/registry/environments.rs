//! Environments: where a prompt can be live, and whether going live there needs somebody else's approval.

use serde_json::json;
use sqlx::SqliteConnection;

use super::change::{Actor, Change};
use super::{Missing, Published, Registry, RegistryError, number};
use crate::domain::prompt::validate_name;

/// One environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub name: String,
    /// What people call it; empty for its name.
    pub label: String,
    /// Its place in lists, from 1.
    pub position: u32,
    pub protected: bool,
    /// The generation of its last change.
    pub generation: u64,
}

type Row = (String, String, i64, i64, i64);

fn environment((name, label, position, protected, generation): Row) -> Result<Environment, RegistryError> {
    Ok(Environment {
        name,
        label,
        position: number(position)?,
        protected: protected != 0,
        generation: number(generation)?,
    })
}

/// Reads every environment, in order.
pub(super) async fn all(sql: &mut SqliteConnection) -> Result<Vec<Environment>, RegistryError> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT name, label, position, protected, generation FROM environments ORDER BY position")
            .fetch_all(sql)
            .await?;
    rows.into_iter().map(environment).collect()
}

/// Reads one environment, which must exist.
pub(super) async fn one(sql: &mut SqliteConnection, name: &str) -> Result<Environment, RegistryError> {
    let row: Option<Row> =
        sqlx::query_as("SELECT name, label, position, protected, generation FROM environments WHERE name = $1")
            .bind(name)
            .fetch_optional(sql)
            .await?;
    environment(row.ok_or_else(|| Missing::Environment(name.to_owned()))?)
}

impl Registry {
    /// Lists every environment, in order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_environments(&self) -> Result<Vec<Environment>, RegistryError> {
        all(&mut *self.reader.acquire().await?).await
    }

    /// Returns one environment.
    ///
    /// # Errors
    /// When there is none of that name, or the database fails.
    pub async fn environment(&self, name: &str) -> Result<Environment, RegistryError> {
        one(&mut *self.reader.acquire().await?, name).await
    }

    /// Protects an environment or lifts its protection; creates it, last in order, if it does not exist.
    ///
    /// # Errors
    /// When the name has the wrong form, or the database fails.
    pub async fn set_protected(
        &self,
        name: &str,
        protected: bool,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<Environment>, RegistryError> {
        validate_name("environment", name).map_err(|message| RegistryError::InvalidField { field: "name", message })?;
        let mut change = Change::begin(self, actor).await?;
        let stamp = change.stamp();
        let before = match one(change.sql(), name).await {
            Ok(environment) => Some(environment),
            Err(RegistryError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        sqlx::query(
            "INSERT INTO environments (name, position, protected, generation) \
             VALUES ($1, (SELECT COALESCE(MAX(position), 0) + 1 FROM environments), $2, $3) \
             ON CONFLICT (name) DO UPDATE SET protected = excluded.protected, generation = excluded.generation",
        )
        .bind(name)
        .bind(i64::from(protected))
        .bind(stamp)
        .execute(change.sql())
        .await?;
        let value = one(change.sql(), name).await?;
        let detail = json!({
            "from": before.as_ref().map(|before| json!({"protected": before.protected})),
            "to": {"protected": protected},
        });
        let action = if before.is_some() {
            "environment.update"
        } else {
            "environment.create"
        };
        let generation = change.commit(action, name, detail).await?;
        Ok(Published { value, generation })
    }
}
