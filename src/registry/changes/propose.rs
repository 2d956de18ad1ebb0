//! From an idea to something others can review: proposing, changing the proposal, taking it back.

use crate::registry::sql::SqlConnection;
use serde_json::{Value, json};

use super::{ChangeRecord, one, refuse, set_state, subject};
use crate::domain::review::ChangeState;
use crate::domain::shift::{Plan, Step};
use crate::domain::split::{Arm, upper_bounds};
use crate::registry::change::{Actor, Change};
use crate::registry::{Published, Registry, RegistryError, deployments, environments, prompts, text};

/// The most prompts of one change.
const MAX_DEPLOYMENTS: usize = 50;

/// The most changes of one user that wait for something.
const MAX_WAITING: i64 = 200;

/// The longest message, comment or summary.
pub(super) const MAX_TEXT_BYTES: usize = 10_000;

/// What is proposed.
#[derive(Debug, Clone, PartialEq)]
pub struct NewChange {
    pub environment: String,
    pub deployments: Vec<ProposedDeployment>,
    /// Why.
    pub message: String,
    /// Whether it is not yet for others.
    pub draft: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ProposedDeployment {
    /// An id or an alias.
    pub prompt: String,
    pub goal: Goal,
}

/// What is to be live: at once, or step by step.
#[derive(Debug, Clone, PartialEq)]
pub enum Goal {
    /// No arms take the prompt off.
    Split(Vec<Arm>),
    Plan(Plan),
}

fn invalid(field: &'static str, message: impl Into<String>) -> RegistryError {
    let message = message.into();
    RegistryError::InvalidField { field, message }
}

/// Checks a text of the caller's.
pub(super) fn check_text(field: &'static str, value: &str, needed: &str) -> Result<(), RegistryError> {
    if value.trim().is_empty() {
        return Err(invalid(field, needed));
    }
    if value.len() > MAX_TEXT_BYTES {
        let bytes = value.len();
        return Err(invalid(
            field,
            format!("has {bytes} bytes, at most {MAX_TEXT_BYTES} are allowed"),
        ));
    }
    Ok(())
}

/// A proposed deployment that could be made, and what is live in its place.
struct Checked {
    prompt: String,
    split: Vec<Arm>,
    base: u32,
    plan: Option<(Plan, Vec<Step>)>,
}

async fn check(
    sql: &mut SqlConnection,
    environment: &str,
    proposed: Vec<ProposedDeployment>,
    now_us: i64,
) -> Result<Vec<Checked>, RegistryError> {
    environments::one(sql, environment).await?;
    if proposed.is_empty() || proposed.len() > MAX_DEPLOYMENTS {
        let message = format!(
            "a change has 1 to {MAX_DEPLOYMENTS} deployments, this has {}",
            proposed.len()
        );
        return Err(invalid("deployments", message));
    }
    let mut checked: Vec<Checked> = Vec::with_capacity(proposed.len());
    for ProposedDeployment { prompt, goal } in proposed {
        let prompt = prompts::require(sql, &prompt).await?;
        let refuse = |why| invalid("deployments", format!("prompt {prompt:?}: {why}"));
        let live = deployments::live(sql, &prompt, environment).await?;
        let (base, present) = live.map_or((0, Vec::new()), |live| (live.number, live.split));
        let (split, plan) = match goal {
            Goal::Split(split) => {
                if !split.is_empty() {
                    upper_bounds(&split).map_err(refuse)?;
                }
                (split, None)
            }
            Goal::Plan(plan) => {
                let steps = plan.steps(&present, now_us).map_err(refuse)?;
                for step in &steps {
                    deployments::require_versions(sql, &prompt, &step.split).await?;
                }
                let last = steps.last().map_or_else(Vec::new, |last| last.split.clone());
                (last, Some((plan, steps)))
            }
        };
        if checked.iter().any(|other| other.prompt == prompt) {
            return Err(invalid("deployments", format!("prompt {prompt:?} is there twice")));
        }
        deployments::require_versions(sql, &prompt, &split).await?;
        checked.push(Checked {
            prompt,
            split,
            base,
            plan,
        });
    }
    Ok(checked)
}

async fn write_deployments(change: &mut Change<'_>, id: u64, checked: &[Checked]) -> Result<(), RegistryError> {
    sqlx::query("DELETE FROM change_deployments WHERE change_id = $1")
        .bind(id.cast_signed())
        .execute(change.sql())
        .await?;
    for (position, item) in (0i64..).zip(checked) {
        sqlx::query(
            "INSERT INTO change_deployments (change_id, position, prompt_id, split, base, plan, steps) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id.cast_signed())
        .bind(position)
        .bind(&item.prompt)
        .bind(text(&item.split))
        .bind(i64::from(item.base))
        .bind(item.plan.as_ref().map(|(plan, _)| text(plan)))
        .bind(item.plan.as_ref().map(|(_, steps)| text(steps)))
        .execute(change.sql())
        .await?;
    }
    Ok(())
}

/// Makes the next revision, which needs approvals and checks anew.
async fn revise(change: &mut Change<'_>, record: &ChangeRecord, state: ChangeState) -> Result<(), RegistryError> {
    let at_us = change.at_us;
    sqlx::query(
        "UPDATE changes SET revision = revision + 1, state = $1, updated_at = $2, preflight = NULL WHERE id = $3",
    )
    .bind(state.as_str())
    .bind(at_us)
    .bind(record.id.cast_signed())
    .execute(change.sql())
    .await?;
    Ok(())
}

fn require_proposer(record: &ChangeRecord, actor: Actor<'_>, what: &str) -> Result<(), RegistryError> {
    if record.proposer == actor.name {
        return Ok(());
    }
    Err(RegistryError::NotAllowed(format!(
        "change {} was proposed by user {:?}, only they may {what} it",
        record.id, record.proposer
    )))
}

/// A change as the audit log shows it.
pub(super) fn shown(record: &ChangeRecord) -> Value {
    let items = record.deployments.iter();
    let items: Vec<Value> = items
        .map(|item| match item.steps.as_slice() {
            [] => json!({"prompt": item.prompt, "split": item.split, "base": item.base}),
            steps => json!({"prompt": item.prompt, "split": item.split, "base": item.base, "steps": steps}),
        })
        .collect();
    json!({"revision": record.revision, "state": record.state.as_str(), "deployments": items})
}

impl Registry {
    /// Proposes deployments. Whoever may look may suggest: nothing goes live by it.
    ///
    /// # Errors
    /// When the message is blank, something named does not exist, a split is not valid, the user has too many changes
    /// waiting, or the database fails.
    pub async fn propose_change(
        &self,
        new: NewChange,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<ChangeRecord>, RegistryError> {
        check_text(
            "message",
            &new.message,
            "a change needs a message, say what changes and why",
        )?;
        let mut change = Change::begin_quietly(self, actor).await?;
        let proposer = change.actor.name;
        let (waiting,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM changes WHERE proposer = $1 AND state IN ('draft', 'open', 'approved', 'rejected')",
        )
        .bind(proposer)
        .fetch_one(change.sql())
        .await?;
        if waiting >= MAX_WAITING {
            return Err(RegistryError::Conflict(format!(
                "user {proposer:?} has {waiting} changes waiting, withdraw those that are not needed"
            )));
        }
        let at_us = change.at_us;
        let checked = check(change.sql(), &new.environment, new.deployments, at_us).await?;
        let (last,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(id), 0) FROM changes")
            .fetch_one(change.sql())
            .await?;
        let id = (last + 1).cast_unsigned();
        let state = if new.draft {
            ChangeState::Draft
        } else {
            ChangeState::Open
        };
        sqlx::query(
            "INSERT INTO changes (id, environment, state, revision, message, proposer, created_at, updated_at, \
             opened_at) VALUES ($1, $2, $3, 1, $4, $5, $6, $6, $7)",
        )
        .bind(id.cast_signed())
        .bind(&new.environment)
        .bind(state.as_str())
        .bind(&new.message)
        .bind(proposer)
        .bind(at_us)
        .bind((!new.draft).then_some(at_us))
        .execute(change.sql())
        .await?;
        write_deployments(&mut change, id, &checked).await?;
        let value = one(change.sql(), id).await?;
        let detail = json!({"environment": new.environment, "to": shown(&value), "message": new.message});
        let generation = change.commit("change.propose", &subject(id), detail).await?;
        Ok(Published { value, generation })
    }

    /// Proposes something else under the same number: approvals and checks of what was proposed before count no more.
    ///
    /// # Errors
    /// When somebody else proposed it, it is over, those of [`Self::propose_change`].
    pub async fn revise_change(
        &self,
        id: u64,
        deployments: Vec<ProposedDeployment>,
        message: &str,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<ChangeRecord>, RegistryError> {
        check_text("message", message, "a change needs a message, say what changes and why")?;
        let mut change = Change::begin_quietly(self, actor).await?;
        let before = one(change.sql(), id).await?;
        require_proposer(&before, change.actor, "revise")?;
        if before.state.is_over() {
            return Err(refuse(&before, "revised"));
        }
        let at_us = change.at_us;
        let checked = check(change.sql(), &before.environment, deployments, at_us).await?;
        write_deployments(&mut change, id, &checked).await?;
        let state = match before.state {
            ChangeState::Draft => ChangeState::Draft,
            _ => ChangeState::Open,
        };
        revise(&mut change, &before, state).await?;
        sqlx::query("UPDATE changes SET message = $1 WHERE id = $2")
            .bind(message)
            .bind(id.cast_signed())
            .execute(change.sql())
            .await?;
        let value = one(change.sql(), id).await?;
        let detail = json!({
            "environment": value.environment, "from": shown(&before), "to": shown(&value), "message": message,
        });
        let generation = change.commit("change.revise", &subject(id), detail).await?;
        Ok(Published { value, generation })
    }

    /// Puts the same proposal on top of what is live by now, which asks for approvals and checks anew.
    ///
    /// # Errors
    /// When nothing else went live since, the change is over, there is none, or the database fails.
    pub async fn refresh_change(
        &self,
        id: u64,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<ChangeRecord>, RegistryError> {
        let mut change = Change::begin_quietly(self, actor).await?;
        let before = one(change.sql(), id).await?;
        if before.state.is_over() {
            return Err(refuse(&before, "refreshed"));
        }
        if before.moved().next().is_none() {
            let message = format!("nothing else went live since change {id} was proposed, it needs no refresh");
            return Err(RegistryError::Conflict(message));
        }
        // A plan may come to other steps on top of what is live by now.
        let again = before.deployments.iter().map(|item| ProposedDeployment {
            prompt: item.prompt.clone(),
            goal: match &item.plan {
                Some(plan) => Goal::Plan(plan.clone()),
                None => Goal::Split(item.split.clone()),
            },
        });
        let at_us = change.at_us;
        let checked = check(change.sql(), &before.environment, again.collect(), at_us).await?;
        write_deployments(&mut change, id, &checked).await?;
        let state = match before.state {
            ChangeState::Approved => ChangeState::Open,
            state => state,
        };
        revise(&mut change, &before, state).await?;
        let value = one(change.sql(), id).await?;
        let detail = json!({"environment": value.environment, "from": shown(&before), "to": shown(&value)});
        let generation = change.commit("change.refresh", &subject(id), detail).await?;
        Ok(Published { value, generation })
    }

    /// Opens a draft for review.
    ///
    /// # Errors
    /// When somebody else proposed it, it is no draft, there is none, or the database fails.
    pub async fn submit_change(
        &self,
        id: u64,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<ChangeRecord>, RegistryError> {
        let mut change = Change::begin_quietly(self, actor).await?;
        let before = one(change.sql(), id).await?;
        require_proposer(&before, change.actor, "submit")?;
        if before.state != ChangeState::Draft {
            return Err(refuse(&before, "submitted"));
        }
        let at_us = change.at_us;
        sqlx::query("UPDATE changes SET opened_at = COALESCE(opened_at, $1) WHERE id = $2")
            .bind(at_us)
            .bind(id.cast_signed())
            .execute(change.sql())
            .await?;
        set_state(&mut change, id, ChangeState::Open).await?;
        let value = one(change.sql(), id).await?;
        let detail = json!({"environment": value.environment, "from": "draft", "to": "open"});
        let generation = change.commit("change.submit", &subject(id), detail).await?;
        Ok(Published { value, generation })
    }

    /// Takes a change back. Its proposer may, and, with `any`, somebody else.
    ///
    /// # Errors
    /// When somebody else proposed it, it is over, there is none, or the database fails.
    pub async fn withdraw_change(
        &self,
        id: u64,
        message: &str,
        any: bool,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<ChangeRecord>, RegistryError> {
        let mut change = Change::begin_quietly(self, actor).await?;
        let before = one(change.sql(), id).await?;
        if !any {
            require_proposer(&before, change.actor, "withdraw")?;
        }
        if before.state.is_over() {
            return Err(refuse(&before, "withdrawn"));
        }
        set_state(&mut change, id, ChangeState::Withdrawn).await?;
        let value = one(change.sql(), id).await?;
        let detail = json!({
            "environment": value.environment, "from": before.state.as_str(), "to": "withdrawn", "message": message,
        });
        let generation = change.commit("change.withdraw", &subject(id), detail).await?;
        Ok(Published { value, generation })
    }
}
