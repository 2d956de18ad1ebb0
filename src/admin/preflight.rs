//! `POST /prompts/{id}/preflight`, and what a change shows of the same: a deployment rehearsed on recorded requests.
//!
//! No model is called. Everybody who may read sees counts; texts are for who may read content, and each such answer is in
//! the audit log first. What is kept with a change is counts only.

mod gather;
mod view;

use std::time::Duration;

use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::call::{Call, found, invalid, time};
use super::errors::Failure;
use crate::domain::price::PriceTable;
use crate::domain::review::CheckState;
use crate::domain::role::{Permission, Scope};
use crate::domain::split::{Arm, upper_bounds};
use crate::registry::{ChangeRecord, NewPreflight, Published};
use gather::Wanted;

/// How many requests are looked at unless the caller says, and at most.
const DEFAULT_SAMPLE: u32 = 50;
const MAX_SAMPLE: u32 = 200;

/// How long a preflight may take, and that of a change whatever the number of its prompts.
const PATIENCE: Duration = Duration::from_secs(8);
const PATIENCE_OF_CHANGE: Duration = Duration::from_secs(3);

/// The most examples of one answer.
const MAX_EXAMPLES: usize = 40;

/// What the node's configuration says that a rehearsal needs to know.
#[derive(Debug)]
pub struct RehearsalSettings {
    pub prices: PriceTable,
    /// `limits.max_render_bytes`.
    pub max_render_bytes: usize,
}

impl Default for RehearsalSettings {
    fn default() -> Self {
        Self {
            prices: PriceTable::default(),
            max_render_bytes: 4 << 20,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    environment: String,
    split: Option<Vec<Arm>>,
    version: Option<u32>,
    sample: Option<u32>,
}

impl Body {
    fn split(&mut self) -> Result<Vec<Arm>, Failure> {
        let split = match (self.split.take(), self.version) {
            (Some(split), None) => split,
            (None, Some(version)) => vec![Arm {
                variant: "control".to_owned(),
                version,
                weight: 100.0,
            }],
            _ => return Err(invalid("split", "give either a split or a version")),
        };
        upper_bounds(&split).map_err(|why| invalid("split", why))?;
        Ok(split)
    }
}

/// `POST /prompts/{id}/preflight`.
pub async fn show(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let mut body: Body = call.json()?;
    let scope = Scope::live(id, &body.environment);
    call.require(Permission::Read, scope)?;
    let sample = body.sample.unwrap_or(DEFAULT_SAMPLE);
    if !(1..=MAX_SAMPLE).contains(&sample) {
        return Err(invalid("sample", format!("{sample} is not between 1 and {MAX_SAMPLE}")));
    }
    let shows_content = call.may(Permission::ReadContent, scope);
    let split = body.split()?;
    let rehearsed = gather::rehearse(
        &call,
        Wanted {
            prompt: id,
            environment: &body.environment,
            split: &split,
            sample,
            examples: if shows_content { MAX_EXAMPLES } else { 0 },
            until: Instant::now() + PATIENCE,
        },
    )
    .await?;
    let examples = rehearsed.examples();
    if examples > 0 {
        let subject = format!("{id}@{}", body.environment);
        let detail = json!({"preflight": true, "exchanges": examples});
        let noted = call.registry().note(call.actor(), "content.read", &subject, detail);
        noted.await?;
    }
    Ok(found(view::whole(&rehearsed, !shows_content)))
}

/// Rehearses a change and keeps what came of it. A change is as good without: what fails is logged.
pub async fn of_change(call: &Call, change: Published<ChangeRecord>) -> Published<ChangeRecord> {
    match rehearse_change(call, &change.value).await {
        Ok(noted) => noted,
        Err(failure) => {
            tracing::warn!(change = change.value.id, ?failure, "a change could not be rehearsed");
            change
        }
    }
}

async fn rehearse_change(call: &Call, record: &ChangeRecord) -> Result<Published<ChangeRecord>, Failure> {
    let until = Instant::now() + PATIENCE_OF_CHANGE;
    let mut all = Vec::with_capacity(record.deployments.len());
    for item in &record.deployments {
        let wanted = Wanted {
            prompt: &item.prompt,
            environment: &record.environment,
            split: &item.split,
            sample: DEFAULT_SAMPLE,
            examples: 0,
            until,
        };
        all.push(gather::rehearse(call, wanted).await?);
    }
    let states: Vec<CheckState> = all.iter().map(gather::Rehearsed::state).collect();
    let state = [CheckState::Fail, CheckState::Pending]
        .into_iter()
        .find(|state| states.contains(state))
        .unwrap_or(CheckState::Pass);
    // The prompts that matter come first: a summary has no room for all.
    let order = |rehearsed: &&gather::Rehearsed| rehearsed.state() != state;
    let mut sorted: Vec<&gather::Rehearsed> = all.iter().collect();
    sorted.sort_by_key(order);
    let lines: Vec<String> = sorted
        .iter()
        .take(5)
        .map(|r| format!("{}: {}", r.prompt, r.summary()))
        .collect();
    let summary = match sorted.len().saturating_sub(lines.len()) {
        0 => lines.join("; "),
        more => format!("{}; and {more} prompts more", lines.join("; ")),
    };
    let now = jiff::Timestamp::now().as_microsecond();
    let prompts: Vec<_> = all.iter().map(view::brief).collect();
    let found = json!({
        "state": state.as_str(), "summary": summary, "revision": record.revision, "at": time(now), "prompts": prompts,
    });
    let preflight = NewPreflight {
        revision: record.revision,
        state,
        summary,
        found,
    };
    Ok(call
        .registry()
        .note_preflight(record.id, preflight, call.actor())
        .await?)
}
