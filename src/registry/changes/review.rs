//! What others say to a change: approvals, rejections, comments, checks.

use serde_json::json;

use super::preflight::PREFLIGHT;
use super::propose::{MAX_TEXT_BYTES, check_text};
use super::{ChangeRecord, apply, counts, one, refuse, set_state, subject};
use crate::domain::prompt::validate_name;
use crate::domain::review::{ChangeState, CheckState, may_approve};
use crate::registry::change::{Actor, By, Change};
use crate::registry::{Published, Registry, RegistryError, environments};

/// The most comments and reviews of one change, each.
const MAX_SAYINGS: usize = 1000;

/// The most checks of one change.
const MAX_CHECKS: usize = 50;

const MAX_URL_BYTES: usize = 2000;

/// What a check reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCheck {
    pub name: String,
    pub state: CheckState,
    pub url: Option<String>,
    pub summary: String,
    /// The revision that was looked at; `None` is the present one.
    pub revision: Option<u32>,
}

fn invalid(field: &'static str, message: impl Into<String>) -> RegistryError {
    let message = message.into();
    RegistryError::InvalidField { field, message }
}

fn check_length(field: &'static str, value: &str) -> Result<(), RegistryError> {
    if value.len() <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let bytes = value.len();
    Err(invalid(
        field,
        format!("has {bytes} bytes, at most {MAX_TEXT_BYTES} are allowed"),
    ))
}

/// Refuses when somebody decides about what they did not see.
fn require_revision(record: &ChangeRecord, seen: Option<u32>) -> Result<(), RegistryError> {
    match seen {
        Some(seen) if seen != record.revision => Err(RegistryError::RevisedMeanwhile {
            id: record.id,
            seen,
            revision: record.revision,
        }),
        _ => Ok(()),
    }
}

async fn add_review(
    change: &mut Change<'_>,
    record: &ChangeRecord,
    verdict: &str,
    message: &str,
) -> Result<(), RegistryError> {
    if record.reviews.len() >= MAX_SAYINGS {
        return Err(RegistryError::Conflict(format!(
            "change {} has {MAX_SAYINGS} reviews",
            record.id
        )));
    }
    let (at_us, reviewer) = (change.at_us, change.actor.name);
    sqlx::query(
        "INSERT INTO change_reviews (change_id, id, revision, reviewer, verdict, message, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(record.id.cast_signed())
    .bind(record.reviews.len() as i64 + 1)
    .bind(i64::from(record.revision))
    .bind(reviewer)
    .bind(verdict)
    .bind(message)
    .bind(at_us)
    .execute(change.sql())
    .await?;
    Ok(())
}

/// Applies a change that lacks nothing any more, where the environment wants that.
///
/// Somebody must have approved it: what anybody proposes never goes live by itself.
async fn apply_when_complete(change: &mut Change<'_>, record: &ChangeRecord) -> Result<bool, RegistryError> {
    let policy = environments::one(change.sql(), &record.environment).await?;
    let approved = record.lack.approvals_given > 0 && record.lack.approvals_needed > 0;
    if !(policy.auto_apply && approved && record.state.is_under_review() && record.lack.is_nothing()) {
        return Ok(false);
    }
    apply::write(change, record).await?;
    Ok(true)
}

/// Applies a change after a check, unless something else went live meanwhile.
pub(super) async fn apply_if_due(change: &mut Change<'_>, id: u64) -> Result<(), RegistryError> {
    let record = one(change.sql(), id).await?;
    if record.moved().next().is_none() {
        apply_when_complete(change, &record).await?;
    }
    Ok(())
}

/// What a check says of a revision.
pub(super) struct Report<'a> {
    pub name: &'a str,
    pub state: CheckState,
    pub url: Option<&'a str>,
    pub summary: &'a str,
    pub reporter: &'a str,
}

pub(super) async fn write_check(
    change: &mut Change<'_>,
    record: &ChangeRecord,
    report: &Report<'_>,
) -> Result<(), RegistryError> {
    let at_us = change.at_us;
    sqlx::query(
        "INSERT INTO change_checks (change_id, name, revision, state, url, summary, reporter, reported_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (change_id, name) DO UPDATE SET \
         revision = excluded.revision, state = excluded.state, url = excluded.url, summary = excluded.summary, \
         reporter = excluded.reporter, reported_at = excluded.reported_at",
    )
    .bind(record.id.cast_signed())
    .bind(report.name)
    .bind(i64::from(record.revision))
    .bind(report.state.as_str())
    .bind(report.url)
    .bind(report.summary)
    .bind(report.reporter)
    .bind(at_us)
    .execute(change.sql())
    .await?;
    Ok(())
}

impl Registry {
    /// Approves a change. The last approval that the environment asks for makes it approved, and applies it where the
    /// environment says so.
    ///
    /// `seen` is the revision that was looked at; `None` trusts that it is the present one.
    ///
    /// # Errors
    /// When the user proposed it or wrote a version of it, approved it already, something else was proposed or went live
    /// meanwhile, it is not open, there is none, or the database fails.
    pub async fn approve_change(
        &self,
        id: u64,
        seen: Option<u32>,
        by: By<'_>,
    ) -> Result<Published<ChangeRecord>, RegistryError> {
        check_length("message", by.message)?;
        let mut change = Change::begin_quietly(self, by.actor).await?;
        let before = one(change.sql(), id).await?;
        if !before.state.is_under_review() {
            return Err(refuse(&before, "approved"));
        }
        may_approve(by.actor.name, &before.proposer, &before.authors).map_err(RegistryError::NotAllowed)?;
        require_revision(&before, seen)?;
        apply::require_unmoved(change.sql(), &before).await?;
        let already = |review: &super::Review| counts(&before, review) && review.reviewer == by.actor.name;
        if before.reviews.iter().any(already) {
            let message = format!("you approved revision {} of change {id} already", before.revision);
            return Err(RegistryError::Conflict(message));
        }
        add_review(&mut change, &before, "approve", by.message).await?;
        let at_us = change.at_us;
        sqlx::query("UPDATE changes SET first_approved_at = COALESCE(first_approved_at, $1) WHERE id = $2")
            .bind(at_us)
            .bind(id.cast_signed())
            .execute(change.sql())
            .await?;
        let record = one(change.sql(), id).await?;
        let state = if record.lack.has_approvals() {
            ChangeState::Approved
        } else {
            ChangeState::Open
        };
        set_state(&mut change, id, state).await?;
        let record = one(change.sql(), id).await?;
        let detail = json!({
            "environment": record.environment, "revision": record.revision, "message": by.message,
            "from": before.state.as_str(), "to": record.state.as_str(),
            "approvals": {"given": record.lack.approvals_given, "needed": record.lack.approvals_needed},
        });
        change.audit("change.approve", &subject(id), detail).await?;
        apply_when_complete(&mut change, &record).await?;
        finish(change, id).await
    }

    /// Rejects a change: it waits for another revision then.
    ///
    /// # Errors
    /// When the message is blank, something else was proposed meanwhile, it is not open, there is none, or the database
    /// fails.
    pub async fn reject_change(
        &self,
        id: u64,
        seen: Option<u32>,
        by: By<'_>,
    ) -> Result<Published<ChangeRecord>, RegistryError> {
        check_text(
            "message",
            by.message,
            "a rejection needs a message, say what should be different",
        )?;
        let mut change = Change::begin_quietly(self, by.actor).await?;
        let before = one(change.sql(), id).await?;
        if !before.state.is_under_review() {
            return Err(refuse(&before, "rejected"));
        }
        require_revision(&before, seen)?;
        add_review(&mut change, &before, "reject", by.message).await?;
        set_state(&mut change, id, ChangeState::Rejected).await?;
        let detail = json!({
            "environment": before.environment, "revision": before.revision, "message": by.message,
            "from": before.state.as_str(), "to": "rejected",
        });
        change.audit("change.reject", &subject(id), detail).await?;
        finish(change, id).await
    }

    /// Adds a comment, whatever the state.
    ///
    /// # Errors
    /// When it is blank or too long, there are too many, there is no such change, or the database fails.
    pub async fn comment_on_change(&self, id: u64, by: By<'_>) -> Result<Published<ChangeRecord>, RegistryError> {
        check_text("body", by.message, "a comment needs some text")?;
        let mut change = Change::begin_quietly(self, by.actor).await?;
        let before = one(change.sql(), id).await?;
        if before.comments.len() >= MAX_SAYINGS {
            return Err(RegistryError::Conflict(format!(
                "change {id} has {MAX_SAYINGS} comments"
            )));
        }
        let at_us = change.at_us;
        sqlx::query(
            "INSERT INTO change_comments (change_id, id, author, body, created_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(id.cast_signed())
        .bind(before.comments.len() as i64 + 1)
        .bind(by.actor.name)
        .bind(by.message)
        .bind(at_us)
        .execute(change.sql())
        .await?;
        let detail = json!({"environment": before.environment, "message": by.message});
        change.audit("change.comment", &subject(id), detail).await?;
        finish(change, id).await
    }

    /// Reports what a check says of the present revision. The last required check that passes applies an approved change
    /// where the environment says so, unless something else went live meanwhile.
    ///
    /// # Errors
    /// When a field has the wrong form, another revision was looked at, it is not open, there is none, or the database
    /// fails.
    pub async fn report_check(
        &self,
        id: u64,
        check: NewCheck,
        actor: impl Into<Actor<'_>>,
    ) -> Result<Published<ChangeRecord>, RegistryError> {
        validate_name("check", &check.name).map_err(|message| invalid("name", message))?;
        if check.name == PREFLIGHT {
            let message =
                "the check \"preflight\" is reported by promptgate itself, run it with POST /changes/{id}/preflight";
            return Err(invalid("name", message));
        }
        check_length("summary", &check.summary)?;
        if let Some(url) = &check.url
            && (url.len() > MAX_URL_BYTES || !(url.starts_with("https://") || url.starts_with("http://")))
        {
            let message = format!("must begin with https:// or http:// and have at most {MAX_URL_BYTES} bytes");
            return Err(invalid("url", message));
        }
        let mut change = Change::begin_quietly(self, actor).await?;
        let before = one(change.sql(), id).await?;
        if before.state.is_over() {
            return Err(refuse(&before, "checked"));
        }
        require_revision(&before, check.revision)?;
        let known = before.checks.iter().find(|known| known.name == check.name);
        if known.is_none() && before.checks.len() >= MAX_CHECKS {
            return Err(RegistryError::Conflict(format!("change {id} has {MAX_CHECKS} checks")));
        }
        let report = Report {
            name: &check.name,
            state: check.state,
            url: check.url.as_deref(),
            summary: &check.summary,
            reporter: change.actor.name,
        };
        write_check(&mut change, &before, &report).await?;
        let detail = json!({
            "environment": before.environment, "revision": before.revision, "check": check.name,
            "from": known.map(|known| before.check_state(known).as_str()), "to": check.state.as_str(),
            "message": check.summary,
        });
        change.audit("change.check", &subject(id), detail).await?;
        apply_if_due(&mut change, id).await?;
        finish(change, id).await
    }
}

pub(super) async fn finish(mut change: Change<'_>, id: u64) -> Result<Published<ChangeRecord>, RegistryError> {
    let value = one(change.sql(), id).await?;
    let generation = change.end().await?;
    Ok(Published { value, generation })
}
