//! Shifts: plans of deployments that are kept here, so that they survive restarts, and are carried out by [`run`].
//!
//! A plan is `running` until its last step is `done`, somebody deploys, rolls back or cancels (`cancelled`), or a step
//! cannot be carried out (`failed`). There is one a prompt and environment at most.

pub(super) mod run;

use crate::registry::sql::SqlConnection;
use serde_json::{Value, json};
use sqlx::any::AnyRow;

use super::change::{By, Change};
use super::deployments::{Deployment, live, require_versions};
use super::{Missing, Page, PageOf, Published, Registry, RegistryError, about, environments, number, parse, prompts};
use super::{secret, text};
use crate::domain::shift::{Due, Step};
use crate::domain::split::Arm;

pub use crate::domain::shift::Plan;

/// One step of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct ShiftStep {
    pub due: Due,
    pub split: Vec<Arm>,
    /// The deployment that it became.
    pub deployment: Option<u32>,
    /// Microseconds since the Unix epoch.
    pub applied_at_us: Option<i64>,
}

/// A plan, and how far it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Shift {
    pub id: String,
    pub prompt: String,
    pub environment: String,
    pub message: String,
    /// `running`, `done`, `cancelled` or `failed`.
    pub state: String,
    /// Why it was cancelled or failed.
    pub reason: String,
    pub steps: Vec<ShiftStep>,
    /// When the next step is due, as long as it runs. Microseconds since the Unix epoch, as all times.
    pub next_at_us: Option<i64>,
    pub created_at_us: i64,
    pub created_by: String,
    pub finished_at_us: Option<i64>,
    /// The change that it was approved with.
    pub change: Option<u64>,
}

/// A plan to make.
#[derive(Debug, Clone, PartialEq)]
pub struct NewShift<'a> {
    pub prompt: &'a str,
    pub environment: &'a str,
    pub plan: Plan,
}

/// A plan to write, after all checks.
pub(super) struct Planned<'a> {
    pub prompt: &'a str,
    pub environment: &'a str,
    pub steps: &'a [Step],
    /// The deployment that is live, 0 for none.
    pub live: u32,
    pub message: &'a str,
    /// The change that was approved, which lets it into a protected environment.
    pub change: Option<u64>,
}

/// A plan's row.
struct Row {
    id: String,
    prompt_id: String,
    environment: String,
    message: String,
    state: String,
    reason: String,
    next_step: i64,
    next_at: i64,
    expects: i64,
    approved: i64,
    created_at: i64,
    created_by: String,
    creator_id: String,
    finished_at: Option<i64>,
    change_id: Option<i64>,
}

impl sqlx::FromRow<'_, AnyRow> for Row {
    fn from_row(row: &AnyRow) -> sqlx::Result<Self> {
        use sqlx::Row as _;
        Ok(Self {
            id: row.try_get("id")?,
            prompt_id: row.try_get("prompt_id")?,
            environment: row.try_get("environment")?,
            message: row.try_get("message")?,
            state: row.try_get("state")?,
            reason: row.try_get("reason")?,
            next_step: row.try_get("next_step")?,
            next_at: row.try_get("next_at")?,
            expects: row.try_get("expects")?,
            approved: row.try_get("approved")?,
            created_at: row.try_get("created_at")?,
            created_by: row.try_get("created_by")?,
            creator_id: row.try_get("creator_id")?,
            finished_at: row.try_get("finished_at")?,
            change_id: row.try_get("change_id")?,
        })
    }
}

const COLUMNS: &str = "id, prompt_id, environment, message, state, reason, next_step, next_at, expects, approved, \
     created_at, created_by, creator_id, finished_at, change_id";

async fn find(sql: &mut SqlConnection, id: &str) -> Result<Option<Row>, RegistryError> {
    let query = format!("SELECT {COLUMNS} FROM shifts WHERE id = $1");
    let row = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(id).fetch_optional(sql);
    Ok(row.await?)
}

async fn steps_of(sql: &mut SqlConnection, shift: &str) -> Result<Vec<ShiftStep>, RegistryError> {
    type Row = (Option<i64>, Option<i64>, String, Option<i64>, Option<i64>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT due_at, after_us, split, deployment, applied_at FROM shift_steps WHERE shift_id = $1 ORDER BY step",
    )
    .bind(shift)
    .fetch_all(sql)
    .await?;
    let step = |(due_at, after_us, split, deployment, applied_at_us): Row| {
        Ok(ShiftStep {
            due: due_at.map_or(Due::After(after_us.unwrap_or_default()), Due::At),
            split: parse(&split)?,
            deployment: deployment.map(number).transpose()?,
            applied_at_us,
        })
    };
    rows.into_iter().map(step).collect()
}

async fn shift(sql: &mut SqlConnection, row: Row) -> Result<Shift, RegistryError> {
    Ok(Shift {
        steps: steps_of(sql, &row.id).await?,
        next_at_us: (row.state == "running").then_some(row.next_at),
        id: row.id,
        prompt: row.prompt_id,
        environment: row.environment,
        message: row.message,
        state: row.state,
        reason: row.reason,
        created_at_us: row.created_at,
        created_by: row.created_by,
        finished_at_us: row.finished_at,
        change: row.change_id.map(i64::cast_unsigned),
    })
}

/// Ends the running plans that a deployment came between.
pub(super) async fn interrupt(change: &mut Change<'_>, by: &Deployment) -> Result<(), RegistryError> {
    let running: Vec<(String,)> =
        sqlx::query_as("SELECT id FROM shifts WHERE prompt_id = $1 AND environment = $2 AND state = 'running'")
            .bind(&by.prompt)
            .bind(&by.environment)
            .fetch_all(change.sql())
            .await?;
    for (id,) in running {
        let reason = format!("deployment {} by {:?} came in between", by.number, by.actor);
        end(change, &id, "cancelled", &reason).await?;
        let subject = format!("{}@{}", by.prompt, by.environment);
        change
            .audit(
                "shift.cancel",
                &subject,
                json!({"environment": by.environment, "shift": id, "reason": reason}),
            )
            .await?;
    }
    Ok(())
}

/// Writes a plan's end.
async fn end(change: &mut Change<'_>, id: &str, state: &str, reason: &str) -> Result<(), RegistryError> {
    let at_us = change.at_us;
    sqlx::query("UPDATE shifts SET state = $1, reason = $2, finished_at = $3 WHERE id = $4")
        .bind(state)
        .bind(reason)
        .bind(at_us)
        .bind(id)
        .execute(change.sql())
        .await?;
    Ok(())
}

fn shown(steps: &[Step]) -> Value {
    let step = |step: &Step| json!({"due": step.due, "split": step.split});
    steps.iter().map(step).collect()
}

impl Registry {
    /// Makes a plan at `now_us`; the first step is carried out when it is due, like the others.
    ///
    /// # Errors
    /// When the plan makes no sense, the prompt, a version or the environment does not exist, the prompt is archived,
    /// another plan is running there, the environment is protected, or the database fails.
    pub async fn create_shift(
        &self,
        new: NewShift<'_>,
        now_us: i64,
        by: By<'_>,
    ) -> Result<Published<Shift>, RegistryError> {
        let mut change = Change::begin_quietly(self, by.actor).await?;
        change.at_us = now_us;
        let prompt = prompts::require(change.sql(), new.prompt).await?;
        let place = environments::one(change.sql(), new.environment).await?;
        about::require_in_use(change.sql(), &prompt).await?;
        require_none_running(change.sql(), &prompt, new.environment).await?;
        let live = live(change.sql(), &prompt, new.environment).await?;
        let present = live.as_ref().map_or(&[][..], |live| &live.split);
        let steps = new.plan.steps(present, now_us);
        let steps = steps.map_err(|message| RegistryError::InvalidField {
            field: "steps",
            message,
        })?;
        for step in &steps {
            require_versions(change.sql(), &prompt, &step.split).await?;
        }
        if place.protected {
            let mut deployment = request(&new.plan);
            deployment["prompt"] = json!(prompt);
            let change = json!({
                "environment": new.environment, "deployments": [deployment], "message": by.message,
            });
            return Err(RegistryError::ApprovalRequired {
                change: Box::new(change),
            });
        }
        let planned = Planned {
            prompt: &prompt,
            environment: new.environment,
            steps: &steps,
            live: live.map_or(0, |live| live.number),
            message: by.message,
            change: None,
        };
        let id = begin(&mut change, &planned).await?;
        let row = find(change.sql(), &id).await?.ok_or(Missing::Shift(id))?;
        let value = shift(change.sql(), row).await?;
        let generation = change.end().await?;
        Ok(Published { value, generation })
    }

    /// Stops a plan before its next step; what it made live stays.
    ///
    /// # Errors
    /// When there is none of that id, it is over, or the database fails.
    pub async fn cancel_shift(&self, id: &str, by: By<'_>) -> Result<Published<Shift>, RegistryError> {
        let mut change = Change::begin_quietly(self, by.actor).await?;
        let row = find(change.sql(), id).await?;
        let row = row.ok_or_else(|| Missing::Shift(id.to_owned()))?;
        if row.state != "running" {
            return Err(RegistryError::Conflict(format!(
                "shift {id:?} is over: it is {}",
                row.state
            )));
        }
        let reason = match by.message {
            "" => format!("cancelled by {:?}", by.actor.name),
            message => format!("cancelled by {:?}: {message}", by.actor.name),
        };
        end(&mut change, id, "cancelled", &reason).await?;
        let subject = format!("{}@{}", row.prompt_id, row.environment);
        let row = find(change.sql(), id).await?;
        let row = row.ok_or_else(|| Missing::Shift(id.to_owned()))?;
        let value = shift(change.sql(), row).await?;
        let detail = json!({
            "environment": value.environment, "shift": id, "reason": reason, "message": by.message,
        });
        let generation = change.commit("shift.cancel", &subject, detail).await?;
        Ok(Published { value, generation })
    }

    /// Returns a plan.
    ///
    /// # Errors
    /// When there is none of that id, or the database fails.
    pub async fn shift(&self, id: &str) -> Result<Shift, RegistryError> {
        let mut tx = self.begin_read().await?;
        let row = find(&mut tx, id).await?;
        shift(&mut tx, row.ok_or_else(|| Missing::Shift(id.to_owned()))?).await
    }

    /// Lists plans, newest first: those of one prompt or of all, running ones only or all.
    ///
    /// # Errors
    /// When there is no such prompt, or the database fails.
    pub async fn list_shifts(
        &self,
        prompt: Option<&str>,
        running: bool,
        page: PageOf<'_>,
    ) -> Result<Page<Shift>, RegistryError> {
        let mut tx = self.begin_read().await?;
        let prompt = match prompt {
            Some(prompt) => prompts::require(&mut tx, prompt).await?,
            None => String::new(),
        };
        // Ids sort by time; '~' is behind all of them.
        let query = format!(
            "SELECT {COLUMNS} FROM shifts WHERE ($1 = '' OR prompt_id = $1) AND ($2 = 0 OR state = 'running') \
             AND id < $3 ORDER BY id DESC LIMIT $4"
        );
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(prompt)
            .bind(i64::from(running))
            .bind(page.cursor.unwrap_or("shf~"))
            .bind(page.rows())
            .fetch_all(&mut *tx)
            .await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(shift(&mut tx, row).await?);
        }
        Ok(page.page(items, |shift| shift.id.clone()))
    }
}

pub(super) async fn require_none_running(
    sql: &mut SqlConnection,
    prompt: &str,
    environment: &str,
) -> Result<(), RegistryError> {
    let running: Option<(String,)> =
        sqlx::query_as("SELECT id FROM shifts WHERE prompt_id = $1 AND environment = $2 AND state = 'running'")
            .bind(prompt)
            .bind(environment)
            .fetch_optional(sql)
            .await?;
    match running {
        None => Ok(()),
        Some((id,)) => Err(RegistryError::Conflict(format!(
            "shift {id:?} of prompt {prompt:?} is under way in {environment:?}, cancel it first"
        ))),
    }
}

/// A plan as the API takes it.
fn request(plan: &Plan) -> Value {
    let step = |due: Due, key: &str, value: Value| match due {
        Due::At(at_us) => {
            let at = jiff::Timestamp::from_microsecond(at_us).map_or_else(|_| String::new(), |at| at.to_string());
            json!({"at": at, key: value})
        }
        Due::After(after_us) => json!({"after": format!("{}s", after_us / 1_000_000), key: value}),
    };
    match plan {
        Plan::Steps(steps) => {
            let steps = steps.iter().map(|one| step(one.due, "split", json!(one.split)));
            json!({"steps": steps.collect::<Vec<_>>()})
        }
        Plan::Gradual { version, steps } => {
            let steps = steps.iter().map(|&(due, percent)| step(due, "percent", json!(percent)));
            json!({"to_version": version, "steps": steps.collect::<Vec<_>>()})
        }
    }
}

/// Writes a plan and its steps, and that somebody made it; returns its id.
pub(super) async fn begin(change: &mut Change<'_>, planned: &Planned<'_>) -> Result<String, RegistryError> {
    let id = secret::id("shf");
    let (at_us, actor) = (change.at_us, change.actor);
    let first_at = match planned.steps[0].due {
        Due::At(due) => due,
        Due::After(after) => at_us + after,
    };
    sqlx::query(
        "INSERT INTO shifts (id, prompt_id, environment, message, state, reason, next_step, next_at, expects, approved, \
         created_at, created_by, creator_id, change_id) \
         VALUES ($1, $2, $3, $4, 'running', '', 0, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(&id)
    .bind(planned.prompt)
    .bind(planned.environment)
    .bind(planned.message)
    .bind(first_at)
    .bind(i64::from(planned.live))
    .bind(i64::from(planned.change.is_some()))
    .bind(at_us)
    .bind(actor.name)
    .bind(actor.user_id)
    .bind(planned.change.map(u64::cast_signed))
    .execute(change.sql())
    .await?;
    for (at, step) in (0i64..).zip(planned.steps) {
        let (due_at, after_us) = match step.due {
            Due::At(due) => (Some(due), None),
            Due::After(after) => (None, Some(after)),
        };
        sqlx::query("INSERT INTO shift_steps (shift_id, step, due_at, after_us, split) VALUES ($1, $2, $3, $4, $5)")
            .bind(&id)
            .bind(at)
            .bind(due_at)
            .bind(after_us)
            .bind(text(&step.split))
            .execute(change.sql())
            .await?;
    }
    let subject = format!("{}@{}", planned.prompt, planned.environment);
    let detail = json!({
        "environment": planned.environment, "from": null, "message": planned.message,
        "to": {"shift": id, "steps": shown(planned.steps), "change": planned.change},
    });
    change.audit("shift.create", &subject, detail).await?;
    Ok(id)
}
