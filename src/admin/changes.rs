//! `/changes`: proposed deployments, what others say to them, and making them live.

mod view;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::call::{Call, Paging, found, instant, invalid, listed};
use super::errors::Failure;
use super::preflight;
use super::shifts::{StepBody, plan};
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::review::{ChangeState, CheckState};
use crate::domain::role::{Permission, Reach, Scope};
use crate::domain::split::Arm;
use crate::registry::{ChangeFilter, ChangeRecord, Goal, NewChange, NewCheck, ProposedDeployment, Published};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewChangeBody {
    environment: String,
    deployments: Vec<DeploymentBody>,
    message: String,
    #[serde(default)]
    draft: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReviseBody {
    deployments: Vec<DeploymentBody>,
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeploymentBody {
    prompt: String,
    split: Option<Vec<Arm>>,
    /// In place of a split: the steps of a shift, as `POST /prompts/{id}/shifts` takes them.
    steps: Option<Vec<StepBody>>,
    to_version: Option<u32>,
}

impl DeploymentBody {
    fn goal(self) -> Result<ProposedDeployment, Failure> {
        let goal = match self.split {
            Some(split) if self.steps.is_none() && self.to_version.is_none() => Goal::Split(split),
            Some(_) => return Err(invalid("deployments", "give either a split, or steps and to_version")),
            None if self.steps.is_none() && self.to_version.is_none() => {
                let prompt = &self.prompt;
                let why = format!("prompt {prompt:?} has neither a split nor steps nor to_version");
                return Err(invalid("deployments", why));
            }
            None => Goal::Plan(plan(self.to_version, self.steps)?),
        };
        Ok(ProposedDeployment {
            prompt: self.prompt,
            goal,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerdictBody {
    #[serde(default)]
    message: String,
    revision: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageBody {
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommentBody {
    body: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckBody {
    state: String,
    url: Option<String>,
    #[serde(default)]
    summary: String,
    revision: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    state: Option<String>,
    #[serde(default)]
    environment: String,
    #[serde(default)]
    proposer: String,
    prompt: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatsQuery {
    environment: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

fn proposed(bodies: Vec<DeploymentBody>) -> Result<Vec<ProposedDeployment>, Failure> {
    bodies.into_iter().map(DeploymentBody::goal).collect()
}

/// Whether the caller may, of every prompt of a change in its environment.
fn may(call: &Call, permission: Permission, record: &ChangeRecord) -> bool {
    let mut prompts = record.deployments.iter().map(|item| item.prompt.as_str());
    prompts.all(|prompt| call.may(permission, Scope::live(prompt, &record.environment)))
}

/// Reads the change that the path names, and asks for a permission of every prompt of it.
async fn read(call: &Call, permission: Permission) -> Result<ChangeRecord, Failure> {
    call.require(permission, Scope::ANYWHERE)?;
    let segment = call.segment(1)?;
    let id = segment
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| segment.parse().ok());
    let Some(id) = id.flatten().filter(|id: &u64| i64::try_from(*id).is_ok()) else {
        return Err(ApiError::new(ErrorCode::NotFound, format!("change {segment:?} does not exist")).into());
    };
    let record = call.registry().change(id).await?;
    for item in &record.deployments {
        call.require(permission, Scope::live(&item.prompt, &record.environment))?;
    }
    Ok(record)
}

/// Asks whether the caller may propose for these prompts, by their ids, and puts those in.
async fn may_propose(call: &Call, environment: &str, bodies: &mut [DeploymentBody]) -> Result<(), Failure> {
    for body in bodies {
        if let Some(id) = call.registry().prompt_id(&body.prompt).await? {
            body.prompt = id;
        }
        call.require(Permission::Propose, Scope::live(&body.prompt, environment))?;
    }
    Ok(())
}

/// Answers with a change. If it was applied and has a plan, the first step is live when this answers, if it is due.
async fn answer(call: &Call, status: StatusCode, mut change: Published<ChangeRecord>) -> Result<Response, Failure> {
    if change.value.deployments.iter().any(|item| item.shift.is_some()) {
        let now_us = jiff::Timestamp::now().as_microsecond();
        if let Some(generation) = call.registry().run_due_shifts(now_us).await? {
            change.generation = generation;
        }
    }
    call.changed(status, change, |record| view::whole(&record)).await
}

/// `GET /changes?state=&environment=&proposer=&prompt=&limit=&cursor=`, newest first: those that the caller may see.
pub async fn list(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let query: ListQuery = call.query()?;
    let state = query.state.map(|text| {
        let known = ChangeState::ALL.map(ChangeState::as_str).join(", ");
        ChangeState::parse(&text).ok_or_else(|| invalid("state", format!("{text:?} is not one of {known}")))
    });
    let prompt = match query.prompt {
        Some(name) => call.registry().prompt_id(&name).await?.unwrap_or(name),
        None => String::new(),
    };
    let filter = ChangeFilter {
        state: state.transpose()?,
        environment: query.environment,
        proposer: query.proposer,
        prompt,
    };
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor,
    };
    let mut page = call.registry().list_changes(&filter, paging.page()).await?;
    page.items.retain(|record| may(&call, Permission::Read, record));
    Ok(listed(page, view::whole))
}

/// `GET /changes/{id}`.
pub async fn show(call: Call) -> Result<Response, Failure> {
    let record = read(&call, Permission::Read).await?;
    Ok(found(view::whole(&record)))
}

/// `GET /changes/stats?environment=&from=&to=`: how long reviews take.
pub async fn stats(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let query: StatsQuery = call.query()?;
    let scope = Scope {
        environment: query.environment.as_deref().map_or(Reach::All, Reach::One),
        prompt: Reach::All,
    };
    call.require(Permission::Read, scope)?;
    let (from, to) = (instant("from", query.from)?, instant("to", query.to)?);
    let environment = query.environment.unwrap_or_default();
    Ok(found(view::stats(
        &call.registry().review_stats(&environment, from, to).await?,
    )))
}

/// `POST /changes`.
pub async fn propose(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Propose, Scope::ANYWHERE)?;
    let mut body: NewChangeBody = call.json()?;
    may_propose(&call, &body.environment, &mut body.deployments).await?;
    let new = NewChange {
        environment: body.environment,
        deployments: proposed(body.deployments)?,
        message: body.message,
        draft: body.draft,
    };
    let change = call.registry().propose_change(new, call.actor()).await?;
    let change = preflight::of_change(&call, change).await;
    answer(&call, StatusCode::CREATED, change).await
}

/// `PUT /changes/{id}`: proposes something else.
pub async fn revise(call: Call) -> Result<Response, Failure> {
    let record = read(&call, Permission::Propose).await?;
    let mut body: ReviseBody = call.json()?;
    may_propose(&call, &record.environment, &mut body.deployments).await?;
    let deployments = proposed(body.deployments)?;
    let change = call
        .registry()
        .revise_change(record.id, deployments, &body.message, call.actor())
        .await?;
    let change = preflight::of_change(&call, change).await;
    answer(&call, StatusCode::OK, change).await
}

/// `POST /changes/{id}/submit`: opens a draft.
pub async fn submit(call: Call) -> Result<Response, Failure> {
    let record = read(&call, Permission::Propose).await?;
    let change = call.registry().submit_change(record.id, call.actor()).await?;
    answer(&call, StatusCode::OK, change).await
}

/// `POST /changes/{id}/refresh`: puts it on top of what is live by now.
pub async fn refresh(call: Call) -> Result<Response, Failure> {
    let record = read(&call, Permission::Propose).await?;
    let change = call.registry().refresh_change(record.id, call.actor()).await?;
    let change = preflight::of_change(&call, change).await;
    answer(&call, StatusCode::OK, change).await
}

/// `POST /changes/{id}/preflight`: looks at recorded requests again.
pub async fn preflight(call: Call) -> Result<Response, Failure> {
    let value = read(&call, Permission::Propose).await?;
    if value.state.is_over() {
        let message = format!("change {} is {}, it needs no preflight", value.id, value.state.as_str());
        return Err(ApiError::new(ErrorCode::Conflict, message).into());
    }
    let generation = call.generation();
    let change = preflight::of_change(&call, Published { value, generation }).await;
    answer(&call, StatusCode::OK, change).await
}

/// `POST /changes/{id}/withdraw`: by its proposer, or who may deploy there.
pub async fn withdraw(call: Call) -> Result<Response, Failure> {
    let record = read(&call, Permission::Propose).await?;
    let MessageBody { message } = call.json_or_default()?;
    let any = may(&call, Permission::Deploy, &record);
    let change = call
        .registry()
        .withdraw_change(record.id, &message, any, call.actor())
        .await?;
    answer(&call, StatusCode::OK, change).await
}

/// `POST /changes/{id}/approve`.
pub async fn approve(call: Call) -> Result<Response, Failure> {
    let record = read(&call, Permission::Approve).await?;
    let VerdictBody { message, revision } = call.json_or_default()?;
    let change = call
        .registry()
        .approve_change(record.id, revision, call.by(&message))
        .await?;
    answer(&call, StatusCode::OK, change).await
}

/// `POST /changes/{id}/reject`.
pub async fn reject(call: Call) -> Result<Response, Failure> {
    let record = read(&call, Permission::Approve).await?;
    let VerdictBody { message, revision } = call.json()?;
    let change = call
        .registry()
        .reject_change(record.id, revision, call.by(&message))
        .await?;
    answer(&call, StatusCode::OK, change).await
}

/// `POST /changes/{id}/comments`.
pub async fn comment(call: Call) -> Result<Response, Failure> {
    let record = read(&call, Permission::Propose).await?;
    let CommentBody { body } = call.json()?;
    let change = call.registry().comment_on_change(record.id, call.by(&body)).await?;
    answer(&call, StatusCode::CREATED, change).await
}

/// `PUT /changes/{id}/checks/{name}`.
pub async fn check(call: Call) -> Result<Response, Failure> {
    let record = read(&call, Permission::Check).await?;
    let body: CheckBody = call.json()?;
    let state = CheckState::parse(&body.state);
    let check = NewCheck {
        name: call.last_segment()?,
        state: state.ok_or_else(|| invalid("state", format!("{:?} is not one of pending, pass, fail", body.state)))?,
        url: body.url,
        summary: body.summary,
        revision: body.revision,
    };
    let change = call.registry().report_check(record.id, check, call.actor()).await?;
    answer(&call, StatusCode::OK, change).await
}

/// `POST /changes/{id}/apply`.
pub async fn apply(call: Call) -> Result<Response, Failure> {
    let record = read(&call, Permission::Deploy).await?;
    let change = call.registry().apply_change(record.id, call.actor()).await?;
    answer(&call, StatusCode::OK, change).await
}
