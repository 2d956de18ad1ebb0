//! Environments arranged: labelled, put in order, deleted.

use crate::registry::sql::SqlConnection;
use serde_json::json;

use super::change::{By, Change};
use super::edited::Edited;
use super::environments::{EnvironmentUpdate, all, check, one, shown};
use super::{Environment, Published, Registry, RegistryError, text};

const MAX_LABEL_BYTES: usize = 100;

/// What to change of an environment; `None` leaves it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnvironmentEdit {
    /// What people call it; the name itself never changes.
    pub label: Option<String>,
    /// Its place among all, from 1; the others move.
    pub position: Option<u32>,
    /// What it asks of changes.
    pub settings: EnvironmentUpdate,
}

/// Says what keeps an environment from being deleted.
async fn contents(sql: &mut SqlConnection, name: &str) -> Result<Vec<String>, RegistryError> {
    let mut found = Vec::new();
    // The history of what was live there, and records that name it, are to be read for ever.
    for (what, query) in [
        ("deployments", "SELECT COUNT(*) FROM deployments WHERE environment = $1"),
        ("changes", "SELECT COUNT(*) FROM changes WHERE environment = $1"),
        ("shifts", "SELECT COUNT(*) FROM shifts WHERE environment = $1"),
        ("grants", "SELECT COUNT(*) FROM grants WHERE environment = $1"),
    ] {
        let (count,): (i64,) = sqlx::query_as(query).bind(name).fetch_one(&mut *sql).await?;
        if count > 0 {
            found.push(format!("{count} {what}"));
        }
    }
    // A list of names in JSON.
    let named = format!("%\"{}\"%", name.replace('\\', "\\\\").replace('_', "\\_"));
    let (keys,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM keys WHERE environment = $1 OR environments LIKE $2 ESCAPE '\\'")
            .bind(name)
            .bind(named)
            .fetch_one(sql)
            .await?;
    if keys > 0 {
        found.push(format!("{keys} keys, revoked ones included"));
    }
    Ok(found)
}

impl Registry {
    /// Changes an environment. `expected` is the generation of its last change that the caller saw, if it says so.
    ///
    /// # Errors
    /// When there is none of that name, somebody changed it meanwhile, a value is out of range, or the database fails.
    pub async fn edit_environment(
        &self,
        name: &str,
        edit: EnvironmentEdit,
        expected: Option<u64>,
        by: By<'_>,
    ) -> Result<Published<Environment>, RegistryError> {
        check(&edit.settings)?;
        let mut change = Change::begin(self, by.actor).await?;
        let before = one(change.sql(), name).await?;
        if expected.is_some_and(|expected| expected != before.generation) {
            return Err(Edited::Environment(before).into());
        }
        let label = edit.label.unwrap_or_else(|| before.label.clone());
        if label.len() > MAX_LABEL_BYTES {
            return Err(RegistryError::InvalidField {
                field: "label",
                message: format!("has {} bytes, at most {MAX_LABEL_BYTES} are allowed", label.len()),
            });
        }
        let mut order: Vec<String> = all(change.sql()).await?.into_iter().map(|other| other.name).collect();
        if let Some(position) = edit.position {
            let place = position as usize;
            if place == 0 || place > order.len() {
                return Err(RegistryError::InvalidField {
                    field: "position",
                    message: format!("{position} is not between 1 and {}", order.len()),
                });
            }
            order.retain(|other| other != name);
            order.insert(place - 1, name.to_owned());
        }
        let stamp = change.stamp();
        let settings = edit.settings;
        let checks = settings.required_checks.as_ref().unwrap_or(&before.required_checks);
        sqlx::query(
            "UPDATE environments SET label = $1, protected = $2, approvals = $3, required_checks = $4, \
             auto_apply = $5, generation = $6 WHERE name = $7",
        )
        .bind(label)
        .bind(i64::from(settings.protected.unwrap_or(before.protected)))
        .bind(i64::from(settings.approvals.unwrap_or(before.approvals)))
        .bind(text(checks))
        .bind(i64::from(settings.auto_apply.unwrap_or(before.auto_apply)))
        .bind(stamp)
        .bind(name)
        .execute(change.sql())
        .await?;
        renumber(change.sql(), &order).await?;
        let value = one(change.sql(), name).await?;
        let detail = json!({"from": shown(&before), "to": shown(&value), "message": by.message});
        let generation = change.commit("environment.update", name, detail).await?;
        Ok(Published { value, generation })
    }

    /// Deletes an environment that nothing was ever deployed to and no key or grant names.
    ///
    /// # Errors
    /// When it has any of those, there is none of that name, or the database fails.
    pub async fn delete_environment(&self, name: &str, by: By<'_>) -> Result<Published<Environment>, RegistryError> {
        let mut change = Change::begin(self, by.actor).await?;
        let value = one(change.sql(), name).await?;
        let inside = contents(change.sql(), name).await?;
        if !inside.is_empty() {
            return Err(RegistryError::Conflict(format!(
                "environment {name:?} is not empty, it has {}; only one that was never used can be deleted",
                inside.join(", ")
            )));
        }
        sqlx::query("DELETE FROM environments WHERE name = $1")
            .bind(name)
            .execute(change.sql())
            .await?;
        let order: Vec<String> = all(change.sql()).await?.into_iter().map(|other| other.name).collect();
        renumber(change.sql(), &order).await?;
        let detail = json!({"from": shown(&value), "to": null, "message": by.message});
        let generation = change.commit("environment.delete", name, detail).await?;
        Ok(Published { value, generation })
    }
}

async fn renumber(sql: &mut SqlConnection, order: &[String]) -> Result<(), RegistryError> {
    for (position, name) in (1i64..).zip(order) {
        sqlx::query("UPDATE environments SET position = $1 WHERE name = $2")
            .bind(position)
            .bind(name)
            .execute(&mut *sql)
            .await?;
    }
    Ok(())
}
