//! Carries out the steps that are due.
//!
//! A step is one transaction: the plan moves on by compare-and-set, and the deployment is made. So a process that dies
//! leaves a step done or not begun, and of several processes that find the same step due one does it.

use crate::registry::sql::SqlConnection;
use serde_json::json;

use super::{Row, end, find, steps_of};
use crate::domain::role::{Permission, Scope, allows};
use crate::domain::shift::Due;
use crate::registry::change::{Actor, Change};
use crate::registry::deploy::{Glass, Target, prepare, require_open};
use crate::registry::deployments::write;
use crate::registry::{Registry, RegistryError, environments, users};

impl Registry {
    /// Says when the next step of any plan is due, in microseconds since the Unix epoch: one small read, for polling.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_shift_at(&self) -> Result<Option<i64>, RegistryError> {
        let (at,): (Option<i64>,) = sqlx::query_as("SELECT MIN(next_at) FROM shifts WHERE state = 'running'")
            .fetch_one(self.reader()?)
            .await?;
        Ok(at)
    }

    /// Carries out every step that is due at `now_us`; returns the last generation it made, if any.
    ///
    /// A step that follows another by a time does so from when that was really carried out: after an interruption nobody
    /// is moved faster than planned. Steps with fixed times catch up.
    ///
    /// # Errors
    /// When the database fails; what was done stays done.
    pub async fn run_due_shifts(&self, now_us: i64) -> Result<Option<u64>, RegistryError> {
        let mut generation = None;
        loop {
            let due: Option<(String, i64)> = sqlx::query_as(
                "SELECT id, next_step FROM shifts WHERE state = 'running' AND next_at <= $1 ORDER BY next_at, id LIMIT 1",
            )
            .bind(now_us)
            .fetch_optional(self.reader()?)
            .await?;
            let Some((id, step)) = due else {
                return Ok(generation);
            };
            match self.run_step(&id, step, now_us).await {
                Ok(made) => generation = made.or(generation),
                Err(
                    error @ (RegistryError::Database(_) | RegistryError::Stored(_) | RegistryError::Unavailable(_)),
                ) => return Err(error),
                Err(why) => self.fail_shift(&id, step, now_us, &why.to_string()).await?,
            }
        }
    }

    /// Carries out one step, unless somebody else did.
    async fn run_step(&self, id: &str, step: i64, now_us: i64) -> Result<Option<u64>, RegistryError> {
        let name = format!("shift:{id}");
        let mut change = Change::begin(self, Actor::named(&name)).await?;
        change.at_us = now_us;
        let claimed = sqlx::query(
            "UPDATE shifts SET next_step = next_step + 1 WHERE id = $1 AND next_step = $2 AND state = 'running'",
        )
        .bind(id)
        .bind(step)
        .execute(change.sql())
        .await?;
        let Some(row) = find(change.sql(), id).await?.filter(|_| claimed.rows_affected() == 1) else {
            return Ok(None);
        };
        let steps = steps_of(change.sql(), id).await?;
        let place = usize::try_from(step).unwrap_or(usize::MAX);
        let present = steps
            .get(place)
            .ok_or_else(|| RegistryError::Stored(format!("shift {id:?} has no step {step}")))?;
        if row.approved == 0 {
            require_authority(change.sql(), &row).await?;
            let environment = environments::one(change.sql(), &row.environment).await?;
            let proposed = [(row.prompt_id.as_str(), present.split.as_slice())];
            require_open(&environment, Glass::Whole, &proposed, &row.message)?;
        }
        let message = format!(
            "{} (step {} of {}, by {})",
            row.message,
            step + 1,
            steps.len(),
            row.created_by
        );
        let target = Target {
            prompt: row.prompt_id.clone(),
            split: present.split.clone(),
            expected: u32::try_from(row.expects).ok(),
        };
        let mut next = prepare(&mut change, &row.environment, target, message.trim_start()).await?;
        next.shift = Some((id, &row.created_by));
        next.change = row.change_id.map(i64::cast_unsigned);
        let made = write(&mut change, next).await?;
        sqlx::query("UPDATE shift_steps SET deployment = $1, applied_at = $2 WHERE shift_id = $3 AND step = $4")
            .bind(i64::from(made.number))
            .bind(now_us)
            .bind(id)
            .bind(step)
            .execute(change.sql())
            .await?;
        match steps.get(place + 1) {
            None => end(&mut change, id, "done", "").await?,
            Some(following) => {
                let next_at = match following.due {
                    Due::At(due) => due,
                    Due::After(after) => now_us.saturating_add(after),
                };
                sqlx::query("UPDATE shifts SET next_at = $1, expects = $2 WHERE id = $3")
                    .bind(next_at)
                    .bind(i64::from(made.number))
                    .bind(id)
                    .execute(change.sql())
                    .await?;
            }
        }
        Ok(Some(change.end().await?))
    }

    /// Writes why a step could not be carried out, unless the plan is somewhere else by now.
    async fn fail_shift(&self, id: &str, step: i64, now_us: i64, why: &str) -> Result<(), RegistryError> {
        let name = format!("shift:{id}");
        let mut change = Change::begin_quietly(self, Actor::named(&name)).await?;
        change.at_us = now_us;
        let row = find(change.sql(), id).await?;
        let Some(row) = row.filter(|row| row.state == "running" && row.next_step == step) else {
            return Ok(());
        };
        let reason = format!("step {}: {why}", step + 1);
        end(&mut change, id, "failed", &reason).await?;
        let subject = format!("{}@{}", row.prompt_id, row.environment);
        change
            .commit(
                "shift.fail",
                &subject,
                json!({"environment": row.environment, "shift": id, "reason": reason}),
            )
            .await?;
        Ok(())
    }
}

/// Whoever made the plan must still be allowed to carry it out by hand, unless it was approved.
async fn require_authority(sql: &mut SqlConnection, row: &Row) -> Result<(), RegistryError> {
    // The program itself.
    if row.creator_id.is_empty() {
        return Ok(());
    }
    let creator = users::one(sql, &row.creator_id).await?;
    let scope = Scope::live(&row.prompt_id, &row.environment);
    if creator.disabled_at_us.is_none() && allows(&creator.grants, Permission::Deploy, scope) {
        return Ok(());
    }
    Err(RegistryError::Conflict(format!(
        "{:?}, who planned it, may not deploy there any more",
        row.created_by
    )))
}
