//! Deployments: what is live for a prompt in an environment, its history, and the way back.

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::SqliteConnection;

use super::change::{By, Change};
use super::rollback::{Past, previous};
use super::{Missing, Page, PageOf, Published, Registry, RegistryError, environments, number, parse, prompts, text};
use crate::domain::split::{Arm, upper_bounds};

/// How a deployment came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentKind {
    Deploy,
    Rollback,
}

impl DeploymentKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
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
    Ok(Deployment {
        prompt,
        environment,
        number: number(own)?,
        split: parse(&split)?,
        message,
        actor,
        created_at_us,
        kind: if rolled_back_to.is_some() {
            DeploymentKind::Rollback
        } else {
            DeploymentKind::Deploy
        },
        rolled_back_to: rolled_back_to.map(number).transpose()?,
        change: change.map(number).transpose()?,
        break_glass: glass != 0,
        generation: number(generation)?,
    })
}

/// Reads deployments below a number, newest first.
async fn select(
    sql: &mut SqliteConnection,
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
    sql: &mut SqliteConnection,
    prompt: &str,
    environment: &str,
) -> Result<Vec<Deployment>, RegistryError> {
    let mut history = select(sql, prompt, environment, i64::MAX, i64::MAX).await?;
    history.reverse();
    Ok(history)
}

/// Reads what is live.
pub(super) async fn live(
    sql: &mut SqliteConnection,
    prompt: &str,
    environment: &str,
) -> Result<Option<Deployment>, RegistryError> {
    Ok(select(sql, prompt, environment, i64::MAX, 1).await?.pop())
}

pub(super) async fn require_versions(
    sql: &mut SqliteConnection,
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
    pub live: Option<Deployment>,
    pub split: Vec<Arm>,
    /// Why.
    pub message: &'a str,
    pub rolled_back_to: Option<u32>,
    pub change: Option<u64>,
    pub break_glass: bool,
}

/// Writes a deployment, makes it the live one, and commits.
async fn record(mut change: Change<'_>, next: Next<'_>) -> Result<Published<Deployment>, RegistryError> {
    let value = write(&mut change, next).await?;
    let generation = change.end().await?;
    Ok(Published { value, generation })
}

/// Writes a deployment with its audit row and makes it the live one.
pub(super) async fn write(change: &mut Change<'_>, next: Next<'_>) -> Result<Deployment, RegistryError> {
    let value = Deployment {
        number: next.live.as_ref().map_or(0, |live| live.number) + 1,
        prompt: next.prompt,
        environment: next.environment.to_owned(),
        split: next.split,
        message: next.message.to_owned(),
        actor: change.actor.name.to_owned(),
        created_at_us: change.at_us,
        kind: match next.rolled_back_to {
            Some(_) => DeploymentKind::Rollback,
            None => DeploymentKind::Deploy,
        },
        rolled_back_to: next.rolled_back_to,
        change: next.change,
        break_glass: next.break_glass,
        generation: change.generation,
    };
    insert(change, &value).await?;
    mark_live(change.sql(), &value).await?;
    change.touch(&value.prompt).await?;
    let action = match value.kind {
        DeploymentKind::Deploy if value.break_glass => "deployment.break_glass",
        DeploymentKind::Deploy => "deployment.deploy",
        DeploymentKind::Rollback => "deployment.rollback",
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
    .bind(value.kind.as_str())
    .bind(value.rolled_back_to.map(i64::from))
    .bind(value.change.map(u64::cast_signed))
    .bind(i64::from(value.break_glass))
    .bind(stamp)
    .execute(change.sql())
    .await?;
    Ok(())
}

async fn mark_live(sql: &mut SqliteConnection, value: &Deployment) -> Result<(), RegistryError> {
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
    /// Makes a split live.
    ///
    /// `expected` is the deployment that the caller believes to be live, 0 for none; `None` does not care.
    ///
    /// # Errors
    /// When the split is not valid, the prompt, a version or the environment does not exist, another deployment than
    /// expected is live, the environment is protected, or the database fails.
    pub async fn deploy(
        &self,
        prompt: &str,
        environment: &str,
        split: Vec<Arm>,
        expected: Option<u32>,
        by: By<'_>,
    ) -> Result<Published<Deployment>, RegistryError> {
        self.deploy_if(prompt, environment, split, expected, by, false).await
    }

    /// Makes a split live in a protected environment without approval, and says so in the audit log. Where the
    /// environment is not protected it is a deployment like any other.
    ///
    /// # Errors
    /// Those of [`Self::deploy`] but for the approval, and when the message is blank.
    pub async fn break_glass(
        &self,
        prompt: &str,
        environment: &str,
        split: Vec<Arm>,
        expected: Option<u32>,
        by: By<'_>,
    ) -> Result<Published<Deployment>, RegistryError> {
        if by.message.trim().is_empty() {
            return Err(RegistryError::InvalidField {
                field: "message",
                message: "going live without approval needs a reason".to_owned(),
            });
        }
        self.deploy_if(prompt, environment, split, expected, by, true).await
    }

    async fn deploy_if(
        &self,
        prompt: &str,
        environment: &str,
        split: Vec<Arm>,
        expected: Option<u32>,
        by: By<'_>,
        break_glass: bool,
    ) -> Result<Published<Deployment>, RegistryError> {
        upper_bounds(&split).map_err(|message| RegistryError::InvalidField {
            field: "split",
            message,
        })?;
        let mut change = Change::begin(self, by.actor).await?;
        let prompt = prompts::require(change.sql(), prompt).await?;
        let protected = environments::one(change.sql(), environment).await?.protected;
        require_versions(change.sql(), &prompt, &split).await?;
        let live = live(change.sql(), &prompt, environment).await?;
        let live_number = live.as_ref().map_or(0, |live| live.number);
        if expected.is_some_and(|expected| expected != live_number) {
            return Err(RegistryError::Stale {
                current: live.map(Box::new),
            });
        }
        if protected && !break_glass {
            return Err(approval_required(&prompt, environment, &split, by.message));
        }
        let next = Next {
            prompt,
            environment,
            live,
            split,
            message: by.message,
            rolled_back_to: None,
            change: None,
            break_glass: protected,
        };
        record(change, next).await
    }

    /// Makes the split of an earlier deployment live again, exactly as it was.
    ///
    /// Without `to` it is the last deployment before the present one that differed from it and was not itself rolled
    /// back from. Needs no approval: whatever was live once had it, unless it went live by breaking glass.
    ///
    /// # Errors
    /// When the prompt, the environment or the deployment does not exist, there is nothing to return to, or the
    /// database fails.
    pub async fn rollback(
        &self,
        prompt: &str,
        environment: &str,
        to: Option<u32>,
        by: By<'_>,
    ) -> Result<Published<Deployment>, RegistryError> {
        let mut change = Change::begin(self, by.actor).await?;
        let prompt = prompts::require(change.sql(), prompt).await?;
        let protected = environments::one(change.sql(), environment).await?.protected;
        let mut history = history(change.sql(), &prompt, environment).await?;
        let target = target(&history, &prompt, environment, protected, to)?;
        let past = &history[target as usize - 1];
        if protected && past.break_glass {
            return Err(approval_required(&prompt, environment, &past.split, by.message));
        }
        let next = Next {
            split: past.split.clone(),
            live: history.pop(),
            prompt,
            environment,
            message: by.message,
            rolled_back_to: Some(target),
            change: None,
            break_glass: false,
        };
        record(change, next).await
    }

    /// Returns what is live for a prompt in an environment.
    ///
    /// # Errors
    /// When the prompt or the environment does not exist, nothing is live, or the database fails.
    pub async fn deployment(&self, prompt: &str, environment: &str) -> Result<Deployment, RegistryError> {
        let mut tx = self.reader.begin().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        environments::one(&mut tx, environment).await?;
        let live = live(&mut tx, &prompt, environment).await?;
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
        let mut tx = self.reader.begin().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        environments::one(&mut tx, environment).await?;
        let items = select(&mut tx, &prompt, environment, page.below()?, page.rows()).await?;
        Ok(page.page(items, |deployment| deployment.number.to_string()))
    }
}

/// Refuses with the change that somebody else would approve, ready to be proposed.
fn approval_required(prompt: &str, environment: &str, split: &[Arm], message: &str) -> RegistryError {
    let change = json!({
        "environment": environment,
        "deployments": [{"prompt": prompt, "split": split}],
        "message": message,
    });
    RegistryError::ApprovalRequired {
        change: Box::new(change),
    }
}

/// Picks the deployment to return to; `history` starts with number 1.
pub(super) fn target(
    history: &[Deployment],
    prompt: &str,
    environment: &str,
    protected: bool,
    to: Option<u32>,
) -> Result<u32, RegistryError> {
    let present = history.len();
    match to {
        None => {
            let line: Vec<Past> = history
                .iter()
                .map(|deployment| Past {
                    split: deployment.split.clone(),
                    rolled_back_to: deployment.rolled_back_to,
                    passed_over: protected && deployment.break_glass,
                })
                .collect();
            previous(&line).ok_or_else(|| {
                RegistryError::Conflict(format!(
                    "there is nothing to roll back to: no earlier deployment of prompt {prompt:?} in {environment:?} \
                     differs from what is live and was not rolled back from, name one with \"to\" or deploy"
                ))
            })
        }
        Some(number) if number == 0 || number as usize > present => Err(Missing::Deployment {
            prompt: prompt.to_owned(),
            environment: environment.to_owned(),
            number,
        }
        .into()),
        Some(number) if number as usize == present => Err(RegistryError::Conflict(format!(
            "deployment {number} of prompt {prompt:?} is the live one in {environment:?} already"
        ))),
        Some(number) => Ok(number),
    }
}
