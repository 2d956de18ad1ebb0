//! Deployments: what is live for a prompt in an environment, and its history. A deployment without arms takes a prompt off.

use std::collections::BTreeSet;

use crate::registry::sql::SqlConnection;
use serde_json::json;

use super::change::Change;
use super::{
    Missing, Page, PageOf, Registry, RegistryError, about, environments, number, parse, prompts, shifts, text,
};
use crate::domain::split::Arm;

/// How a deployment came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentKind {
    Deploy,
    Rollback,
    /// Nothing is live afterwards.
    TakeDown,
}

impl DeploymentKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::TakeDown => "take_down",
        }
    }
}

/// What was live, or is, for one prompt in one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    pub prompt: String,
    pub environment: String,
    /// From 1, without gaps.
    pub number: u32,
    /// Empty if it took the prompt off.
    pub split: Vec<Arm>,
    pub message: String,
    pub actor: String,
    /// Microseconds since the Unix epoch.
    pub created_at_us: i64,
    pub kind: DeploymentKind,
    /// The deployment whose split this one reproduces.
    pub rolled_back_to: Option<u32>,
    /// The change that it applied.
    pub change: Option<u64>,
    /// Whether it went to a protected environment without approval.
    pub break_glass: bool,
    pub generation: u64,
}

type Row = (
    String,
    String,
    i64,
    String,
    String,
    String,
    i64,
    Option<i64>,
    Option<i64>,
    i64,
    i64,
);

fn deployment(row: Row) -> Result<Deployment, RegistryError> {
    let (prompt, environment, own, split, message, actor, created_at_us, rolled_back_to, change, glass, generation) =
        row;
    let split: Vec<Arm> = parse(&split)?;
    Ok(Deployment {
        prompt,
        environment,
        number: number(own)?,
        kind: kind_of(&split, rolled_back_to.is_some()),
        split,
        message,
        actor,
        created_at_us,
        rolled_back_to: rolled_back_to.map(number).transpose()?,
        change: change.map(number).transpose()?,
        break_glass: glass != 0,
        generation: number(generation)?,
    })
}

fn kind_of(split: &[Arm], rolled_back: bool) -> DeploymentKind {
    match (split, rolled_back) {
        ([], _) => DeploymentKind::TakeDown,
        (_, true) => DeploymentKind::Rollback,
        (_, false) => DeploymentKind::Deploy,
    }
}

/// Reads deployments below a number, newest first.
pub(super) async fn select(
    sql: &mut SqlConnection,
    prompt: &str,
    environment: &str,
    below: i64,
    rows: i64,
) -> Result<Vec<Deployment>, RegistryError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT prompt_id, environment, number, split, message, actor, created_at, rolled_back_to, change_id, \
         break_glass, generation \
         FROM deployments WHERE prompt_id = $1 AND environment = $2 AND number < $3 ORDER BY number DESC LIMIT $4",
    )
    .bind(prompt)
    .bind(environment)
    .bind(below)
    .bind(rows)
    .fetch_all(sql)
    .await?;
    rows.into_iter().map(deployment).collect()
}

/// Reads every deployment, oldest first.
pub(super) async fn history(
    sql: &mut SqlConnection,
    prompt: &str,
    environment: &str,
) -> Result<Vec<Deployment>, RegistryError> {
    let mut history = select(sql, prompt, environment, i64::MAX, i64::MAX).await?;
    history.reverse();
    Ok(history)
}

/// Reads the last deployment: what is live, or that nothing is since the prompt was taken off.
pub(super) async fn live(
    sql: &mut SqlConnection,
    prompt: &str,
    environment: &str,
) -> Result<Option<Deployment>, RegistryError> {
    Ok(select(sql, prompt, environment, i64::MAX, 1).await?.pop())
}

pub(super) async fn require_versions(
    sql: &mut SqlConnection,
    prompt: &str,
    split: &[Arm],
) -> Result<(), RegistryError> {
    for version in split.iter().map(|arm| arm.version).collect::<BTreeSet<_>>() {
        let row: Option<(i64,)> = sqlx::query_as("SELECT version FROM versions WHERE prompt_id = $1 AND version = $2")
            .bind(prompt)
            .bind(i64::from(version))
            .fetch_optional(&mut *sql)
            .await?;
        if row.is_none() {
            let prompt = prompt.to_owned();
            return Err(Missing::Version { prompt, version }.into());
        }
    }
    Ok(())
}

/// A deployment to record, after all checks.
pub(super) struct Next<'a> {
    pub prompt: String,
    pub environment: &'a str,
    /// The last deployment before.
    pub live: Option<Deployment>,
    /// Empty to take the prompt off.
    pub split: Vec<Arm>,
    /// Why.
    pub message: &'a str,
    pub rolled_back_to: Option<u32>,
    pub change: Option<u64>,
    pub break_glass: bool,
    /// The plan that this is a step of, and who made it.
    pub shift: Option<(&'a str, &'a str)>,
}

/// Writes a deployment, makes it the live one, ends a shift that it comes between, and notes all that; the change is to be
/// finished.
pub(super) async fn write(change: &mut Change<'_>, next: Next<'_>) -> Result<Deployment, RegistryError> {
    if !next.split.is_empty() {
        about::require_in_use(change.sql(), &next.prompt).await?;
    }
    let value = Deployment {
        number: next.live.as_ref().map_or(0, |live| live.number) + 1,
        prompt: next.prompt,
        environment: next.environment.to_owned(),
        kind: kind_of(&next.split, next.rolled_back_to.is_some()),
        split: next.split,
        message: next.message.to_owned(),
        actor: change.actor.name.to_owned(),
        created_at_us: change.at_us,
        rolled_back_to: next.rolled_back_to,
        change: next.change,
        break_glass: next.break_glass,
        generation: change.generation,
    };
    insert(change, &value).await?;
    mark_live(change.sql(), &value).await?;
    change.touch(&value.prompt).await?;
    let action = match value.kind {
        _ if value.break_glass => "deployment.break_glass",
        DeploymentKind::Deploy => "deployment.deploy",
        DeploymentKind::Rollback => "deployment.rollback",
        DeploymentKind::TakeDown => "deployment.take_down",
    };
    let subject = format!("{}@{}", value.prompt, value.environment);
    let mut detail = json!({
        "from": next.live.map(|live| json!({"deployment": live.number, "split": live.split})),
        "to": {"deployment": value.number, "split": value.split},
        "rolled_back_to": value.rolled_back_to,
        "message": value.message,
    });
    if let Some(id) = value.change {
        detail["change"] = json!(id);
    }
    match next.shift {
        Some((shift, creator)) => detail["shift"] = json!({"id": shift, "created_by": creator}),
        None => shifts::interrupt(change, &value).await?,
    }
    change.audit(action, &subject, detail).await?;
    Ok(value)
}

async fn insert(change: &mut Change<'_>, value: &Deployment) -> Result<(), RegistryError> {
    let stamp = change.stamp();
    sqlx::query(
        "INSERT INTO deployments (prompt_id, environment, number, split, message, actor, created_at, kind, \
         rolled_back_to, change_id, break_glass, generation) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(&value.prompt)
    .bind(&value.environment)
    .bind(i64::from(value.number))
    .bind(text(&value.split))
    .bind(&value.message)
    .bind(&value.actor)
    .bind(value.created_at_us)
    // The table knows two kinds; the third is known by its empty split.
    .bind(if value.kind == DeploymentKind::Rollback {
        "rollback"
    } else {
        "deploy"
    })
    .bind(value.rolled_back_to.map(i64::from))
    .bind(value.change.map(u64::cast_signed))
    .bind(i64::from(value.break_glass))
    .bind(stamp)
    .execute(change.sql())
    .await?;
    Ok(())
}

async fn mark_live(sql: &mut SqlConnection, value: &Deployment) -> Result<(), RegistryError> {
    sqlx::query(
        "INSERT INTO live (prompt_id, environment, number) VALUES ($1, $2, $3) \
         ON CONFLICT (prompt_id, environment) DO UPDATE SET number = excluded.number",
    )
    .bind(&value.prompt)
    .bind(&value.environment)
    .bind(i64::from(value.number))
    .execute(&mut *sql)
    .await?;
    sqlx::query("UPDATE deployed_versions SET live = 0 WHERE prompt_id = $1 AND environment = $2")
        .bind(&value.prompt)
        .bind(&value.environment)
        .execute(&mut *sql)
        .await?;
    for arm in &value.split {
        sqlx::query(
            "INSERT INTO deployed_versions (prompt_id, environment, version, live) VALUES ($1, $2, $3, 1) \
             ON CONFLICT (prompt_id, environment, version) DO UPDATE SET live = 1",
        )
        .bind(&value.prompt)
        .bind(&value.environment)
        .bind(i64::from(arm.version))
        .execute(&mut *sql)
        .await?;
    }
    Ok(())
}

impl Registry {
    /// Returns what is live for a prompt in an environment.
    ///
    /// # Errors
    /// When the prompt or the environment does not exist, nothing is live, or the database fails.
    pub async fn deployment(&self, prompt: &str, environment: &str) -> Result<Deployment, RegistryError> {
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        environments::one(&mut tx, environment).await?;
        let live = live(&mut tx, &prompt, environment).await?;
        let live = live.filter(|live| !live.split.is_empty());
        let environment = environment.to_owned();
        Ok(live.ok_or(Missing::NothingLive { prompt, environment })?)
    }

    /// Lists every deployment of a prompt in an environment, newest first.
    ///
    /// # Errors
    /// When the prompt or the environment does not exist, the cursor is not one of this list, or the database fails.
    pub async fn list_deployments(
        &self,
        prompt: &str,
        environment: &str,
        page: PageOf<'_>,
    ) -> Result<Page<Deployment>, RegistryError> {
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        environments::one(&mut tx, environment).await?;
        let items = select(&mut tx, &prompt, environment, page.below()?, page.rows()).await?;
        Ok(page.page(items, |deployment| deployment.number.to_string()))
    }
}
