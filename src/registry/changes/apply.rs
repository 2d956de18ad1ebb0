//! Making a change live, all of it in one transaction.

use crate::registry::sql::SqlConnection;
use serde_json::{Value, json};

use super::{ChangeDeployment, ChangeRecord, one, refuse, subject};
use crate::domain::review::ChangeState;
use crate::registry::change::{Actor, Change};
use crate::registry::deployments::{self, Next};
use crate::registry::shifts::{self, Planned};
use crate::registry::{Moved, Published, Registry, RegistryError, about};

/// Refuses when something else went live since the change was proposed: it was approved as a step from there.
pub(super) async fn require_unmoved(sql: &mut SqlConnection, record: &ChangeRecord) -> Result<(), RegistryError> {
    let mut moved = Vec::new();
    for item in record.moved() {
        moved.push(Moved {
            prompt: item.prompt.clone(),
            base: item.base,
            current: deployments::live(sql, &item.prompt, &record.environment).await?,
        });
    }
    if moved.is_empty() {
        return Ok(());
    }
    Err(RegistryError::StaleChange { id: record.id, moved })
}

fn require_complete(record: &ChangeRecord) -> Result<(), RegistryError> {
    let lack = &record.lack;
    if !lack.has_approvals() {
        return Err(RegistryError::NotApproved {
            id: record.id,
            given: lack.approvals_given,
            needed: lack.approvals_needed,
        });
    }
    if !lack.checks.is_empty() {
        return Err(RegistryError::ChecksUnmet {
            id: record.id,
            checks: lack.checks.clone(),
        });
    }
    Ok(())
}

/// Writes every deployment of a change that lacks nothing, and what came of it.
pub(super) async fn write(change: &mut Change<'_>, record: &ChangeRecord) -> Result<(), RegistryError> {
    require_unmoved(change.sql(), record).await?;
    change.raise().await?;
    let (at_us, stamp, by) = (change.at_us, change.stamp(), change.actor.name);
    let mut made = Vec::with_capacity(record.deployments.len());
    for item in &record.deployments {
        let live = deployments::live(change.sql(), &item.prompt, &record.environment).await?;
        if !item.steps.is_empty() {
            made.push(begin_shift(change, record, item).await?);
            continue;
        }
        let next = Next {
            prompt: item.prompt.clone(),
            environment: &record.environment,
            live,
            split: item.split.clone(),
            message: &record.message,
            rolled_back_to: None,
            change: Some(record.id),
            break_glass: false,
            shift: None,
        };
        let deployment = deployments::write(change, next).await?;
        sqlx::query("UPDATE change_deployments SET deployment = $1 WHERE change_id = $2 AND prompt_id = $3")
            .bind(i64::from(deployment.number))
            .bind(record.id.cast_signed())
            .bind(&item.prompt)
            .execute(change.sql())
            .await?;
        made.push(json!({"prompt": item.prompt, "deployment": deployment.number}));
    }
    sqlx::query(
        "UPDATE changes SET state = $1, updated_at = $2, applied_at = $2, applied_by = $3, applied_generation = $4 \
         WHERE id = $5",
    )
    .bind(ChangeState::Applied.as_str())
    .bind(at_us)
    .bind(by)
    .bind(stamp)
    .bind(record.id.cast_signed())
    .execute(change.sql())
    .await?;
    let approvals = record.reviews.iter().filter(|review| super::counts(record, review));
    let approvals: Vec<&str> = approvals.map(|review| review.reviewer.as_str()).collect();
    let detail = json!({
        "environment": record.environment, "from": record.state.as_str(), "to": "applied", "deployments": made,
        "proposer": record.proposer, "approved_by": approvals, "message": record.message,
    });
    change.audit("change.apply", &subject(record.id), detail).await
}

/// Hands a plan to those who carry out shifts, who begin with its first step.
async fn begin_shift(
    change: &mut Change<'_>,
    record: &ChangeRecord,
    item: &ChangeDeployment,
) -> Result<Value, RegistryError> {
    about::require_in_use(change.sql(), &item.prompt).await?;
    shifts::require_none_running(change.sql(), &item.prompt, &record.environment).await?;
    let planned = Planned {
        prompt: &item.prompt,
        environment: &record.environment,
        steps: &item.steps,
        live: item.live,
        message: &record.message,
        change: Some(record.id),
    };
    let shift = shifts::begin(change, &planned).await?;
    sqlx::query("UPDATE change_deployments SET shift_id = $1 WHERE change_id = $2 AND prompt_id = $3")
        .bind(&shift)
        .bind(record.id.cast_signed())
        .bind(&item.prompt)
        .execute(change.sql())
        .await?;
    Ok(json!({"prompt": item.prompt, "shift": shift}))
}

impl Registry {
    /// Makes a change live: all its deployments in one generation, or none. Plans become shifts, of which
    /// [`Registry::run_due_shifts`] carries out what is due.
    ///
    /// # Errors
    /// When it lacks approvals or required checks, something else went live since it was proposed, it is not open, there
    /// is none, or the database fails.
    pub async fn apply_change(
        &self,
        id: u64,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<ChangeRecord>, RegistryError> {
        let mut change = Change::begin_quietly(self, actor).await?;
        let record = one(change.sql(), id).await?;
        if !record.state.is_under_review() {
            return Err(refuse(&record, "applied"));
        }
        require_complete(&record)?;
        write(&mut change, &record).await?;
        let value = one(change.sql(), id).await?;
        let generation = change.end().await?;
        Ok(Published { value, generation })
    }
}
