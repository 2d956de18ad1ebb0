//! Changes: proposed deployments, of one or several prompts in one environment, with what others say to them.
//!
//! A change has revisions: another proposal, or the same on top of what is live by now. Approvals and checks are about
//! one revision and count for no other. Applying one is a single transaction: all its deployments have one generation.

mod apply;
mod preflight;
mod propose;
mod review;
mod stats;

use std::collections::BTreeSet;

use crate::registry::sql::SqlConnection;

use super::{Missing, Page, PageOf, Registry, RegistryError, deployments, environments, number, parse, users};
use crate::domain::review::{ChangeState, CheckState, Lack, Policy};
use crate::domain::role::{Permission, Scope, allows};
use crate::domain::shift::{Plan, Step};
use crate::domain::split::Arm;

pub use preflight::{NewPreflight, PREFLIGHT};
pub use propose::{Goal, NewChange, ProposedDeployment};
pub use review::NewCheck;
pub use stats::{LeadTime, ReviewStats};

/// A change with all there is to know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeRecord {
    pub id: u64,
    pub environment: String,
    pub state: ChangeState,
    /// Grows when what is proposed changes.
    pub revision: u32,
    pub message: String,
    /// The user who proposed it.
    pub proposer: String,
    /// Microseconds since the Unix epoch, like the following.
    pub created_at_us: i64,
    pub updated_at_us: i64,
    /// When it was first open for review.
    pub opened_at_us: Option<i64>,
    pub first_approved_at_us: Option<i64>,
    pub applied_at_us: Option<i64>,
    pub applied_by: Option<String>,
    pub applied_generation: Option<u64>,
    /// What was found out about it before it goes live, as JSON.
    pub preflight: Option<serde_json::Value>,
    pub deployments: Vec<ChangeDeployment>,
    /// Those who wrote a version that it makes live.
    pub authors: Vec<String>,
    pub reviews: Vec<Review>,
    pub comments: Vec<Comment>,
    pub checks: Vec<Check>,
    /// Whether the environment is protected now.
    pub protected: bool,
    pub required_checks: Vec<String>,
    /// What it lacks to be applied.
    pub lack: Lack,
}

impl ChangeRecord {
    /// The prompts where something else went live since this was proposed.
    pub fn moved(&self) -> impl Iterator<Item = &ChangeDeployment> {
        let waiting = !self.state.is_over();
        self.deployments
            .iter()
            .filter(move |item| waiting && item.base != item.live)
    }

    /// The state of a check for the present revision.
    pub fn check_state(&self, check: &Check) -> CheckState {
        if check.revision == self.revision {
            check.state
        } else {
            CheckState::Pending
        }
    }
}

/// One deployment of a change.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeDeployment {
    pub prompt: String,
    /// What is live in the end.
    pub split: Vec<Arm>,
    /// How it comes there, if not at once.
    pub plan: Option<Plan>,
    /// What the plan comes to on top of what was live when this was proposed; empty without a plan.
    pub steps: Vec<Step>,
    /// The deployment that was live when this was proposed, 0 for none.
    pub base: u32,
    /// The one that is live now, 0 for none.
    pub live: u32,
    /// The one it became.
    pub deployment: Option<u32>,
    /// The shift it became, with a plan.
    pub shift: Option<String>,
}

impl ChangeDeployment {
    /// Every version that it makes live, at any step.
    pub fn versions(&self) -> impl Iterator<Item = u32> {
        let splits = self.steps.iter().map(|step| &step.split).chain([&self.split]);
        splits.flatten().map(|arm| arm.version)
    }
}

/// What a reviewer decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    pub id: u64,
    pub revision: u32,
    pub reviewer: String,
    pub approves: bool,
    /// Whether the reviewer could approve it now: not if they were disabled or lost the role since.
    pub entitled: bool,
    pub message: String,
    pub created_at_us: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    pub id: u64,
    pub author: String,
    pub body: String,
    pub created_at_us: i64,
}

/// What a check of external CI last said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    /// The revision it is about.
    pub revision: u32,
    pub state: CheckState,
    pub url: Option<String>,
    pub summary: String,
    pub reporter: String,
    pub reported_at_us: i64,
}

/// Which changes. What is empty does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeFilter {
    pub state: Option<ChangeState>,
    pub environment: String,
    pub proposer: String,
    /// A prompt's id.
    pub prompt: String,
}

/// How a change is named in the audit log.
fn subject(id: u64) -> String {
    format!("change/{id}")
}

/// Reads a change, which must exist.
async fn one(sql: &mut SqlConnection, id: u64) -> Result<ChangeRecord, RegistryError> {
    type Row = (
        String,
        String,
        i64,
        String,
        String,
        i64,
        i64,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<String>,
        Option<i64>,
        Option<String>,
    );
    let row: Option<Row> = sqlx::query_as(
        "SELECT environment, state, revision, message, proposer, created_at, updated_at, opened_at, \
         first_approved_at, applied_at, applied_by, applied_generation, preflight FROM changes WHERE id = $1",
    )
    .bind(id.cast_signed())
    .fetch_optional(&mut *sql)
    .await?;
    let row = row.ok_or(Missing::Change(id))?;
    let (
        environment,
        state,
        revision,
        message,
        proposer,
        created,
        updated,
        opened,
        first,
        applied,
        by,
        stamp,
        preflight,
    ) = row;
    let policy = environments::one(sql, &environment).await?;
    let mut record = ChangeRecord {
        id,
        state: ChangeState::parse(&state)
            .ok_or_else(|| RegistryError::Stored(format!("change {id} has the unknown state {state:?}")))?,
        revision: number(revision)?,
        message,
        proposer,
        created_at_us: created,
        updated_at_us: updated,
        opened_at_us: opened,
        first_approved_at_us: first,
        applied_at_us: applied,
        applied_by: by,
        applied_generation: stamp.map(number).transpose()?,
        preflight: preflight.as_deref().map(parse).transpose()?,
        deployments: deployments_of(sql, id, &environment).await?,
        authors: Vec::new(),
        reviews: reviews_of(sql, id).await?,
        comments: comments_of(sql, id).await?,
        checks: checks_of(sql, id).await?,
        protected: policy.protected,
        required_checks: if policy.protected {
            policy.required_checks
        } else {
            Vec::new()
        },
        lack: Lack {
            approvals_given: 0,
            approvals_needed: 0,
            checks: Vec::new(),
        },
        environment,
    };
    record.authors = authors_of(sql, &record.deployments).await?;
    entitle(sql, &mut record).await?;
    let approvals = if policy.protected { policy.approvals } else { 0 };
    record.lack = lack_of(&record, approvals);
    Ok(record)
}

fn lack_of(record: &ChangeRecord, approvals: u32) -> Lack {
    let policy = Policy {
        approvals,
        required_checks: &record.required_checks,
    };
    let given = record.reviews.iter().filter(|review| counts(record, review)).count();
    let checks: Vec<(String, CheckState)> = record
        .checks
        .iter()
        .map(|check| (check.name.clone(), record.check_state(check)))
        .collect();
    Lack::of(&policy, u32::try_from(given).unwrap_or(u32::MAX), &checks)
}

/// Whether a review is an approval of what is proposed now.
fn counts(record: &ChangeRecord, review: &Review) -> bool {
    review.approves && review.entitled && review.revision == record.revision
}

/// Looks up which reviewers may approve what they reviewed.
async fn entitle(sql: &mut SqlConnection, record: &mut ChangeRecord) -> Result<(), RegistryError> {
    for review in &mut record.reviews {
        let user = match users::one(sql, &review.reviewer).await {
            Ok(user) => user,
            Err(RegistryError::NotFound(_)) => continue,
            Err(error) => return Err(error),
        };
        let everywhere = record.deployments.iter().all(|item| {
            let scope = Scope::live(&item.prompt, &record.environment);
            allows(&user.grants, Permission::Approve, scope)
        });
        review.entitled = everywhere && user.disabled_at_us.is_none();
    }
    Ok(())
}

async fn deployments_of(
    sql: &mut SqlConnection,
    id: u64,
    environment: &str,
) -> Result<Vec<ChangeDeployment>, RegistryError> {
    type Row = (
        String,
        String,
        i64,
        Option<i64>,
        Option<String>,
        Option<String>,
        Option<String>,
    );
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT prompt_id, split, base, deployment, plan, steps, shift_id FROM change_deployments \
         WHERE change_id = $1 ORDER BY position",
    )
    .bind(id.cast_signed())
    .fetch_all(&mut *sql)
    .await?;
    let mut items = Vec::with_capacity(rows.len());
    for (prompt, split, base, deployment, plan, steps, shift) in rows {
        let live = deployments::live(sql, &prompt, environment).await?;
        items.push(ChangeDeployment {
            split: parse(&split)?,
            base: number(base)?,
            live: live.map_or(0, |live| live.number),
            deployment: deployment.map(number).transpose()?,
            plan: plan.as_deref().map(parse).transpose()?,
            steps: steps.as_deref().map(parse).transpose()?.unwrap_or_default(),
            shift,
            prompt,
        });
    }
    Ok(items)
}

async fn authors_of(sql: &mut SqlConnection, items: &[ChangeDeployment]) -> Result<Vec<String>, RegistryError> {
    let mut authors = Vec::new();
    for item in items {
        for version in item.versions().collect::<BTreeSet<_>>() {
            let (author,): (String,) =
                sqlx::query_as("SELECT author FROM versions WHERE prompt_id = $1 AND version = $2")
                    .bind(&item.prompt)
                    .bind(i64::from(version))
                    .fetch_one(&mut *sql)
                    .await?;
            if !authors.contains(&author) {
                authors.push(author);
            }
        }
    }
    Ok(authors)
}

async fn reviews_of(sql: &mut SqlConnection, id: u64) -> Result<Vec<Review>, RegistryError> {
    let rows: Vec<(i64, i64, String, String, String, i64)> = sqlx::query_as(
        "SELECT id, revision, reviewer, verdict, message, created_at FROM change_reviews WHERE change_id = $1 \
         ORDER BY id",
    )
    .bind(id.cast_signed())
    .fetch_all(sql)
    .await?;
    let review =
        |(id, revision, reviewer, verdict, message, created_at_us): (i64, i64, String, String, String, i64)| {
            Ok(Review {
                id: number(id)?,
                revision: number(revision)?,
                reviewer,
                approves: verdict == "approve",
                entitled: false,
                message,
                created_at_us,
            })
        };
    rows.into_iter().map(review).collect()
}

async fn comments_of(sql: &mut SqlConnection, id: u64) -> Result<Vec<Comment>, RegistryError> {
    let rows: Vec<(i64, String, String, i64)> =
        sqlx::query_as("SELECT id, author, body, created_at FROM change_comments WHERE change_id = $1 ORDER BY id")
            .bind(id.cast_signed())
            .fetch_all(sql)
            .await?;
    let comment = |(id, author, body, created_at_us): (i64, String, String, i64)| {
        Ok(Comment {
            id: number(id)?,
            author,
            body,
            created_at_us,
        })
    };
    rows.into_iter().map(comment).collect()
}

async fn checks_of(sql: &mut SqlConnection, id: u64) -> Result<Vec<Check>, RegistryError> {
    type Row = (String, i64, String, Option<String>, String, String, i64);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT name, revision, state, url, summary, reporter, reported_at FROM change_checks WHERE change_id = $1 \
         ORDER BY name",
    )
    .bind(id.cast_signed())
    .fetch_all(sql)
    .await?;
    let check = |(name, revision, state, url, summary, reporter, reported_at_us): Row| {
        Ok(Check {
            name,
            revision: number(revision)?,
            state: CheckState::parse(&state)
                .ok_or_else(|| RegistryError::Stored(format!("a check has the unknown state {state:?}")))?,
            url,
            summary,
            reporter,
            reported_at_us,
        })
    };
    rows.into_iter().map(check).collect()
}

/// Notes a new state, and that something happened.
async fn set_state(change: &mut super::change::Change<'_>, id: u64, state: ChangeState) -> Result<(), RegistryError> {
    let at_us = change.at_us;
    sqlx::query("UPDATE changes SET state = $1, updated_at = $2 WHERE id = $3")
        .bind(state.as_str())
        .bind(at_us)
        .bind(id.cast_signed())
        .execute(change.sql())
        .await?;
    Ok(())
}

/// Refuses what a change in its state does not allow.
fn refuse(record: &ChangeRecord, what: &str) -> RegistryError {
    RegistryError::Conflict(format!(
        "change {} is {}, it cannot be {what}",
        record.id,
        record.state.as_str()
    ))
}

impl Registry {
    /// Returns a change.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn change(&self, id: u64) -> Result<ChangeRecord, RegistryError> {
        let mut tx = self.begin_read().await?;
        one(&mut tx, id).await
    }

    /// Lists changes, newest first.
    ///
    /// # Errors
    /// When the cursor is not one of this list, or the database fails.
    pub async fn list_changes(
        &self,
        filter: &ChangeFilter,
        page: PageOf<'_>,
    ) -> Result<Page<ChangeRecord>, RegistryError> {
        let mut tx = self.begin_read().await?;
        let ids: Vec<(i64,)> = sqlx::query_as(
            "SELECT c.id FROM changes c WHERE c.id < $1 AND ($2 = '' OR c.state = $2) \
             AND ($3 = '' OR c.environment = $3) AND ($4 = '' OR c.proposer = $4) \
             AND ($5 = '' OR EXISTS (SELECT 1 FROM change_deployments d WHERE d.change_id = c.id AND d.prompt_id = $5)) \
             ORDER BY c.id DESC LIMIT $6",
        )
        .bind(page.below()?)
        .bind(filter.state.map_or("", ChangeState::as_str))
        .bind(&filter.environment)
        .bind(&filter.proposer)
        .bind(&filter.prompt)
        .bind(page.rows())
        .fetch_all(&mut *tx)
        .await?;
        let mut records = Vec::with_capacity(ids.len());
        for (id,) in ids {
            records.push(one(&mut tx, number(id)?).await?);
        }
        Ok(page.page(records, |record| record.id.to_string()))
    }
}
