//! `/shifts` and `/prompts/{id}/shifts`: plans that move what is live step by step.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Paging, found, invalid, listed, time};
use super::errors::Failure;
use crate::domain::role::{Permission, Scope};
use crate::domain::shift::{Due, MAX_STEPS, Step, USUAL_PERCENTS, parse_duration};
use crate::domain::split::Arm;
use crate::registry::{NewShift, Plan, Shift};

/// How long a step lasts unless the caller says: 10 minutes, in microseconds.
const USUAL_STEP_US: i64 = 600_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepBody {
    /// RFC 3339.
    at: Option<String>,
    /// `10m` behind the step before; for the first, from now.
    after: Option<String>,
    split: Option<Vec<Arm>>,
    /// Of the new version, if the plan has one.
    percent: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewShiftBody {
    environment: String,
    to_version: Option<u32>,
    steps: Option<Vec<StepBody>>,
    #[serde(default)]
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelBody {
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<u32>,
    cursor: Option<String>,
    /// `running` or `all`.
    state: Option<String>,
}

pub fn view(shift: &Shift) -> Value {
    let steps: Vec<Value> = shift
        .steps
        .iter()
        .map(|step| {
            let (at, after_seconds) = match step.due {
                Due::At(at_us) => (json!(time(at_us)), Value::Null),
                Due::After(after_us) => (Value::Null, json!(after_us / 1_000_000)),
            };
            json!({
                "at": at,
                "after_seconds": after_seconds,
                "split": step.split,
                "deployment": step.deployment,
                "applied_at": step.applied_at_us.map(time),
            })
        })
        .collect();
    json!({
        "id": shift.id,
        "prompt": shift.prompt,
        "environment": shift.environment,
        "message": shift.message,
        "state": shift.state,
        "reason": shift.reason,
        "steps": steps,
        "next_at": shift.next_at_us.map(time),
        "created_at": time(shift.created_at_us),
        "created_by": shift.created_by,
        "finished_at": shift.finished_at_us.map(time),
        "change": shift.change,
    })
}

fn due(place: usize, at: Option<&str>, after: Option<&str>, usual_us: i64) -> Result<Due, Failure> {
    match (at, after) {
        (Some(_), Some(_)) => Err(invalid(
            "steps",
            format!("steps[{place}] has both at and after, give one"),
        )),
        (Some(at), None) => {
            let parsed = at.parse::<jiff::Timestamp>();
            let time = parsed.map_err(|_| {
                let why =
                    format!("steps[{place}].at: {at:?} is not a time, write for instance \"2030-01-31T08:00:00Z\"");
                invalid("steps", why)
            })?;
            Ok(Due::At(time.as_microsecond()))
        }
        (None, Some(after)) => parse_duration(after)
            .map(Due::After)
            .map_err(|why| invalid("steps", format!("steps[{place}].after: {why}"))),
        // The first begins at once.
        (None, None) => Ok(Due::After(if place == 0 { 0 } else { usual_us })),
    }
}

/// A plan of the caller's.
pub(super) fn plan(to_version: Option<u32>, steps: Option<Vec<StepBody>>) -> Result<Plan, Failure> {
    let steps = match (steps, to_version) {
        (Some(steps), _) => steps,
        (None, Some(_)) => USUAL_PERCENTS.map(usual).into(),
        (None, None) => return Err(invalid("steps", "give steps, or to_version for the usual ones")),
    };
    if steps.is_empty() || steps.len() > MAX_STEPS {
        return Err(invalid("steps", format!("a plan has 1 to {MAX_STEPS} steps")));
    }
    let mut gradual = Vec::new();
    let mut splits = Vec::new();
    for (place, step) in steps.into_iter().enumerate() {
        let due = due(place, step.at.as_deref(), step.after.as_deref(), USUAL_STEP_US)?;
        match (step.split, step.percent, to_version) {
            (Some(split), None, None) => splits.push(Step { due, split }),
            (None, Some(percent), Some(_)) => gradual.push((due, percent)),
            _ => {
                let why = format!("steps[{place}] needs percent if there is to_version, and split if there is not");
                return Err(invalid("steps", why));
            }
        }
    }
    Ok(match to_version {
        Some(version) => Plan::Gradual {
            version,
            steps: gradual,
        },
        None => Plan::Steps(splits),
    })
}

fn usual(percent: f64) -> StepBody {
    StepBody {
        at: None,
        after: None,
        split: None,
        percent: Some(percent),
    }
}

/// `POST /prompts/{id}/shifts`. A first step that is due now is live when this answers.
pub async fn create(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Deploy, Scope::prompt(id))?;
    let NewShiftBody {
        environment,
        to_version,
        steps,
        message,
    } = call.json()?;
    call.require(Permission::Deploy, Scope::live(id, &environment))?;
    let new = NewShift {
        prompt: id,
        environment: &environment,
        plan: plan(to_version, steps)?,
    };
    let now_us = jiff::Timestamp::now().as_microsecond();
    let mut change = call.registry().create_shift(new, now_us, call.by(&message)).await?;
    if let Some(generation) = call.registry().run_due_shifts(now_us).await? {
        change.generation = generation;
        change.value = call.registry().shift(&change.value.id).await?;
    }
    call.changed(StatusCode::CREATED, change, |shift| view(&shift)).await
}

/// `GET /prompts/{id}/shifts` and `GET /shifts`, newest first.
pub async fn list(call: Call, id: Option<&str>) -> Result<Response, Failure> {
    call.require(Permission::Read, id.map_or(Scope::ANYWHERE, Scope::prompt))?;
    let ListQuery { limit, cursor, state } = call.query()?;
    let running = match state.as_deref() {
        None | Some("all") => false,
        Some("running") => true,
        Some(other) => return Err(invalid("state", format!("{other:?} is neither running nor all"))),
    };
    let paging = Paging { limit, cursor };
    let mut page = call.registry().list_shifts(id, running, paging.page()).await?;
    page.items
        .retain(|shift| call.may(Permission::Read, Scope::live(&shift.prompt, &shift.environment)));
    Ok(listed(page, view))
}

/// `GET /shifts`.
pub async fn list_all(call: Call) -> Result<Response, Failure> {
    list(call, None).await
}

/// `GET /shifts/{id}`.
pub async fn show(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let shift = call.registry().shift(&call.last_segment()?).await?;
    call.require(Permission::Read, Scope::live(&shift.prompt, &shift.environment))?;
    Ok(found(view(&shift)))
}

/// `POST /shifts/{id}/cancel`: stops before the next step; what is live stays.
pub async fn cancel(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Deploy, Scope::ANYWHERE)?;
    let id = call.segment(1)?;
    let shift = call.registry().shift(&id).await?;
    call.require(Permission::Deploy, Scope::live(&shift.prompt, &shift.environment))?;
    let CancelBody { message } = call.json_or_default()?;
    let change = call.registry().cancel_shift(&id, call.by(&message)).await?;
    call.changed(StatusCode::OK, change, |shift| view(&shift)).await
}
