//! Environments: where a prompt can be live, and whether going live there needs somebody else's approval.

use crate::registry::sql::SqlConnection;
use serde_json::{Value, json};

use super::change::{Actor, Change};
use super::{Missing, Published, Registry, RegistryError, number, parse, text};
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
    /// How many others must approve a change, where it is protected.
    pub approvals: u32,
    /// The checks that must pass before a change is applied, where it is protected.
    pub required_checks: Vec<String>,
    /// Whether a change is applied by the last approval or check that it needs.
    pub auto_apply: bool,
    /// The generation of its last change.
    pub generation: u64,
}

/// What to change of an environment; `None` leaves it, or is the default of a new one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnvironmentUpdate {
    pub protected: Option<bool>,
    pub approvals: Option<u32>,
    pub required_checks: Option<Vec<String>>,
    pub auto_apply: Option<bool>,
}

/// The most approvals an environment may ask for.
const MAX_APPROVALS: u32 = 10;

/// The most checks an environment may require.
const MAX_REQUIRED_CHECKS: usize = 20;

type Row = (String, String, i64, i64, i64, String, i64, i64);

fn environment(
    (name, label, position, protected, approvals, checks, auto_apply, generation): Row,
) -> Result<Environment, RegistryError> {
    Ok(Environment {
        name,
        label,
        position: number(position)?,
        protected: protected != 0,
        approvals: number(approvals)?,
        required_checks: parse(&checks)?,
        auto_apply: auto_apply != 0,
        generation: number(generation)?,
    })
}

/// Reads every environment, in order.
pub(super) async fn all(sql: &mut SqlConnection) -> Result<Vec<Environment>, RegistryError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT name, label, position, protected, approvals, required_checks, auto_apply, generation FROM environments \
             ORDER BY position",
    )
    .fetch_all(sql)
    .await?;
    rows.into_iter().map(environment).collect()
}

/// Reads one environment, which must exist.
pub(super) async fn one(sql: &mut SqlConnection, name: &str) -> Result<Environment, RegistryError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT name, label, position, protected, approvals, required_checks, auto_apply, generation FROM environments \
             WHERE name = $1",
    )
    .bind(name)
    .fetch_optional(sql)
    .await?;
    environment(row.ok_or_else(|| Missing::Environment(name.to_owned()))?)
}

/// As the audit log shows it.
pub(super) fn shown(environment: &Environment) -> Value {
    json!({
        "label": environment.label,
        "position": environment.position,
        "protected": environment.protected,
        "approvals": environment.approvals,
        "required_checks": environment.required_checks,
        "auto_apply": environment.auto_apply,
    })
}

pub(super) fn check(update: &EnvironmentUpdate) -> Result<(), RegistryError> {
    let invalid = |field, message| Err(RegistryError::InvalidField { field, message });
    if update.approvals.is_some_and(|n| n == 0 || n > MAX_APPROVALS) {
        let message = format!("must be 1 to {MAX_APPROVALS}; to ask for none, do not protect the environment");
        return invalid("approvals", message);
    }
    let checks = update.required_checks.as_deref().unwrap_or_default();
    if checks.len() > MAX_REQUIRED_CHECKS {
        return invalid("required_checks", format!("at most {MAX_REQUIRED_CHECKS} are allowed"));
    }
    for name in checks {
        if let Err(message) = validate_name("check", name) {
            return invalid("required_checks", message);
        }
    }
    Ok(())
}

impl Registry {
    /// Lists every environment, in order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_environments(&self) -> Result<Vec<Environment>, RegistryError> {
        all(&mut *self.reader()?.acquire().await?).await
    }

    /// Returns one environment.
    ///
    /// # Errors
    /// When there is none of that name, or the database fails.
    pub async fn environment(&self, name: &str) -> Result<Environment, RegistryError> {
        one(&mut *self.reader()?.acquire().await?, name).await
    }

    /// Protects an environment or lifts its protection; creates it, last in order, if it does not exist.
    ///
    /// # Errors
    /// Those of [`Self::set_environment`].
    pub async fn set_protected(
        &self,
        name: &str,
        protected: bool,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<Environment>, RegistryError> {
        let update = EnvironmentUpdate {
            protected: Some(protected),
            ..EnvironmentUpdate::default()
        };
        self.set_environment(name, update, actor).await
    }

    /// Says what an environment asks of changes; creates it, last in order, if it does not exist.
    ///
    /// # Errors
    /// When the name or another field has the wrong form, or the database fails.
    pub async fn set_environment(
        &self,
        name: &str,
        update: EnvironmentUpdate,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<Environment>, RegistryError> {
        validate_name("environment", name).map_err(|message| RegistryError::InvalidField { field: "name", message })?;
        check(&update)?;
        let mut change = Change::begin(self, actor).await?;
        let stamp = change.stamp();
        let before = match one(change.sql(), name).await {
            Ok(environment) => Some(environment),
            Err(RegistryError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let old = before.as_ref();
        let protected = update.protected.or(old.map(|old| old.protected)).unwrap_or(false);
        let approvals = update.approvals.or(old.map(|old| old.approvals)).unwrap_or(1);
        let required_checks = update.required_checks.or(old.map(|old| old.required_checks.clone()));
        let required_checks = required_checks.unwrap_or_default();
        let auto_apply = update.auto_apply.or(old.map(|old| old.auto_apply)).unwrap_or(false);
        sqlx::query(
            "INSERT INTO environments (name, position, protected, approvals, required_checks, auto_apply, generation) \
             VALUES ($1, (SELECT COALESCE(MAX(position), 0) + 1 FROM environments), $2, $3, $4, $5, $6) \
             ON CONFLICT (name) DO UPDATE SET protected = excluded.protected, approvals = excluded.approvals, \
             required_checks = excluded.required_checks, auto_apply = excluded.auto_apply, \
             generation = excluded.generation",
        )
        .bind(name)
        .bind(i64::from(protected))
        .bind(i64::from(approvals))
        .bind(text(&required_checks))
        .bind(i64::from(auto_apply))
        .bind(stamp)
        .execute(change.sql())
        .await?;
        let value = one(change.sql(), name).await?;
        let detail = json!({"from": before.as_ref().map(shown), "to": shown(&value)});
        let action = if before.is_some() {
            "environment.update"
        } else {
            "environment.create"
        };
        let generation = change.commit(action, name, detail).await?;
        Ok(Published { value, generation })
    }
}
