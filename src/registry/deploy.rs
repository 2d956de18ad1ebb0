//! Going live: one prompt or several at once, from one environment to the next, off, and back.
//!
//! Every way makes ordinary numbered deployments, passes the same checks, and is one change.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::change::{By, Change};
use super::deployments::{Next, last, record, require_versions, select};
use super::rollback::{Past, previous};
use super::{Deployment, Environment, Missing, Published, Registry, RegistryError, about, environments, prompts};
use crate::domain::split::{Arm, upper_bounds};

/// The most prompts of one change.
pub const MAX_TOGETHER: usize = 100;

/// A prompt's split of a change with several.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub prompt: String,
    pub split: Vec<Arm>,
    /// The deployment that the caller believes to be live, 0 for none; `None` does not care.
    pub expected: Option<u32>,
}

/// Refuses to touch a protected environment; `proposal` is what somebody else would approve. The one place that asks.
pub(super) fn require_open(environment: &Environment, proposal: impl FnOnce() -> Value) -> Result<(), RegistryError> {
    if environment.protected {
        return Err(RegistryError::ApprovalRequired {
            change: Box::new(proposal()),
        });
    }
    Ok(())
}

fn check_split(split: &[Arm]) -> Result<(), RegistryError> {
    let checked = upper_bounds(split);
    checked.map(|_| ()).map_err(|message| RegistryError::InvalidField {
        field: "split",
        message,
    })
}

/// Makes sure that the caller's picture of what is live is right.
fn require_expected(last: Option<&Deployment>, expected: Option<u32>) -> Result<(), RegistryError> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let live = last.filter(|last| !last.split.is_empty());
    let number = live.map_or(0, |live| live.number);
    // After it was taken off, both nothing and that deployment's number are right.
    if expected == number || last.is_some_and(|last| last.number == expected) {
        return Ok(());
    }
    Err(RegistryError::Stale {
        current: live.cloned().map(Box::new),
    })
}

/// Checks all about a deployment but protection.
pub(super) async fn prepare<'a>(
    change: &mut Change<'_>,
    environment: &'a str,
    target: Target,
    by: By<'a>,
) -> Result<Next<'a>, RegistryError> {
    let prompt = prompts::require(change.sql(), &target.prompt).await?;
    about::require_in_use(change.sql(), &prompt).await?;
    require_versions(change.sql(), &prompt, &target.split).await?;
    let last = last(change.sql(), &prompt, environment).await?;
    require_expected(last.as_ref(), target.expected)?;
    Ok(Next {
        prompt,
        environment,
        last,
        split: target.split,
        by,
        rolled_back_to: None,
        shift: None,
    })
}

impl Registry {
    /// Makes a split live.
    ///
    /// `expected` is the deployment that the caller believes to be live, 0 for none; `None` does not care.
    ///
    /// # Errors
    /// When the split is not valid, the prompt, a version or the environment does not exist, the prompt is archived,
    /// another deployment than expected is live, the environment is protected, or the database fails.
    pub async fn deploy(
        &self,
        prompt: &str,
        environment: &str,
        split: Vec<Arm>,
        expected: Option<u32>,
        by: By<'_>,
    ) -> Result<Published<Deployment>, RegistryError> {
        check_split(&split)?;
        let mut change = Change::begin(self, by.actor).await?;
        let target = Target {
            prompt: prompts::require(change.sql(), prompt).await?,
            split,
            expected,
        };
        let place = environments::one(change.sql(), environment).await?;
        let next = prepare(&mut change, environment, target, by).await?;
        require_open(&place, || proposal(&next))?;
        let value = record(&mut change, next).await?;
        let generation = change.finish().await?;
        Ok(Published { value, generation })
    }

    /// Makes the splits of several prompts live in one environment: all of them in one generation, or none.
    ///
    /// # Errors
    /// Those of [`Registry::deploy`] for the first that has one, and when a prompt is named twice, or none or too many are.
    pub async fn deploy_together(
        &self,
        environment: &str,
        targets: Vec<Target>,
        by: By<'_>,
    ) -> Result<Published<Vec<Deployment>>, RegistryError> {
        let refuse = |message| {
            let field = "deployments";
            Err(RegistryError::InvalidField { field, message })
        };
        if targets.is_empty() || targets.len() > MAX_TOGETHER {
            return refuse(format!("must have 1 to {MAX_TOGETHER} prompts, not {}", targets.len()));
        }
        for target in &targets {
            check_split(&target.split)?;
        }
        let mut change = Change::begin(self, by.actor).await?;
        let place = environments::one(change.sql(), environment).await?;
        let mut nexts = Vec::with_capacity(targets.len());
        let mut seen = BTreeSet::new();
        for target in targets {
            let next = prepare(&mut change, environment, target, by).await?;
            if !seen.insert(next.prompt.clone()) {
                return refuse(format!("prompt {:?} is there twice", next.prompt));
            }
            nexts.push(next);
        }
        require_open(&place, || {
            let deployments: Vec<Value> = nexts
                .iter()
                .map(|next| json!({"prompt": next.prompt, "split": next.split}))
                .collect();
            json!({"environment": environment, "deployments": deployments, "message": by.message})
        })?;
        let mut value = Vec::with_capacity(nexts.len());
        for next in nexts {
            value.push(record(&mut change, next).await?);
        }
        let generation = change.finish().await?;
        Ok(Published { value, generation })
    }

    /// Makes what is live in one environment live in another.
    ///
    /// # Errors
    /// Those of [`Registry::deploy`], and when nothing is live there, or the same already is here.
    pub async fn promote(
        &self,
        prompt: &str,
        from: &str,
        to: &str,
        expected: Option<u32>,
        by: By<'_>,
    ) -> Result<Published<Deployment>, RegistryError> {
        let mut change = Change::begin(self, by.actor).await?;
        let prompt = prompts::require(change.sql(), prompt).await?;
        environments::one(change.sql(), from).await?;
        let place = environments::one(change.sql(), to).await?;
        let source = last(change.sql(), &prompt, from).await?;
        let source = source.filter(|source| !source.split.is_empty());
        let source = source.ok_or_else(|| Missing::NothingLive {
            prompt: prompt.clone(),
            environment: from.to_owned(),
        })?;
        let target = Target {
            prompt,
            split: source.split,
            expected,
        };
        let next = prepare(&mut change, to, target, by).await?;
        if next.last.as_ref().is_some_and(|last| last.split == next.split) {
            return Err(RegistryError::Conflict(format!(
                "{to:?} has the same live as {from:?} already, there is nothing to promote"
            )));
        }
        require_open(&place, || proposal(&next))?;
        let value = record(&mut change, next).await?;
        let generation = change.finish().await?;
        Ok(Published { value, generation })
    }

    /// Takes a prompt off an environment: nothing is live there afterwards, and callers get 404.
    ///
    /// # Errors
    /// When nothing is live there, another deployment than expected is, the environment is protected, or the database
    /// fails.
    pub async fn take_down(
        &self,
        prompt: &str,
        environment: &str,
        expected: Option<u32>,
        by: By<'_>,
    ) -> Result<Published<Deployment>, RegistryError> {
        let mut change = Change::begin(self, by.actor).await?;
        let target = Target {
            prompt: prompts::require(change.sql(), prompt).await?,
            split: Vec::new(),
            expected,
        };
        let place = environments::one(change.sql(), environment).await?;
        let next = prepare(&mut change, environment, target, by).await?;
        if next.last.as_ref().is_none_or(|last| last.split.is_empty()) {
            let (prompt, environment) = (next.prompt, environment.to_owned());
            return Err(Missing::NothingLive { prompt, environment }.into());
        }
        require_open(&place, || proposal(&next))?;
        let value = record(&mut change, next).await?;
        let generation = change.finish().await?;
        Ok(Published { value, generation })
    }

    /// Makes the split of an earlier deployment live again, exactly as it was.
    ///
    /// Without `to` it is the last deployment before the present one that differed from it and was not itself rolled
    /// back from. Needs no approval: whatever was live once had it.
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
        environments::one(change.sql(), environment).await?;
        about::require_in_use(change.sql(), &prompt).await?;
        let mut history = select(change.sql(), &prompt, environment, i64::MAX, i64::MAX).await?;
        history.reverse();
        let target = target(&history, &prompt, environment, to)?;
        let next = Next {
            split: history[target as usize - 1].split.clone(),
            last: history.pop(),
            prompt,
            environment,
            by,
            rolled_back_to: Some(target),
            shift: None,
        };
        let value = record(&mut change, next).await?;
        let generation = change.finish().await?;
        Ok(Published { value, generation })
    }
}

/// What somebody else would approve.
fn proposal(next: &Next<'_>) -> Value {
    json!({
        "prompt": next.prompt, "environment": next.environment, "split": next.split, "message": next.by.message,
    })
}

/// Picks the deployment to return to; `history` starts with number 1.
fn target(history: &[Deployment], prompt: &str, environment: &str, to: Option<u32>) -> Result<u32, RegistryError> {
    let present = history.len();
    match to {
        None => {
            let line: Vec<Past> = history
                .iter()
                .map(|deployment| Past {
                    split: deployment.split.clone(),
                    rolled_back_to: deployment.rolled_back_to,
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
        Some(number) if history[number as usize - 1].split.is_empty() => Err(RegistryError::Conflict(format!(
            "deployment {number} of prompt {prompt:?} took it off {environment:?}: take it down instead"
        ))),
        Some(number) if number as usize == present => Err(RegistryError::Conflict(format!(
            "deployment {number} of prompt {prompt:?} is the live one in {environment:?} already"
        ))),
        Some(number) => Ok(number),
    }
}
