//! Going live: one prompt or several at once, from one environment to the next, off, and back.
//!
//! Every way makes ordinary numbered deployments, passes the same checks, and is one change.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::change::{By, Change};
use super::deployments::{Next, history, live, require_versions, write};
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

/// Whether a deployment may go to a protected environment without approval, by who breaks the glass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glass {
    Whole,
    Broken,
}

impl Glass {
    /// # Errors
    /// When it is broken without a reason.
    fn check(self, message: &str) -> Result<(), RegistryError> {
        if self == Self::Broken && message.trim().is_empty() {
            return Err(RegistryError::InvalidField {
                field: "message",
                message: "going live without approval needs a reason".to_owned(),
            });
        }
        Ok(())
    }
}

/// Refuses to touch a protected environment, with the change that somebody else would approve, ready to be proposed.
pub(super) fn require_open(
    environment: &Environment,
    glass: Glass,
    deployments: &[(&str, &[Arm])],
    message: &str,
) -> Result<(), RegistryError> {
    if !environment.protected || glass == Glass::Broken {
        return Ok(());
    }
    let deployments: Vec<Value> = deployments
        .iter()
        .map(|(prompt, split)| json!({"prompt": prompt, "split": split}))
        .collect();
    let change = json!({"environment": environment.name, "deployments": deployments, "message": message});
    Err(RegistryError::ApprovalRequired {
        change: Box::new(change),
    })
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
    message: &'a str,
) -> Result<Next<'a>, RegistryError> {
    let prompt = prompts::require(change.sql(), &target.prompt).await?;
    about::require_in_use(change.sql(), &prompt).await?;
    require_versions(change.sql(), &prompt, &target.split).await?;
    let live = live(change.sql(), &prompt, environment).await?;
    require_expected(live.as_ref(), target.expected)?;
    Ok(Next {
        prompt,
        environment,
        live,
        split: target.split,
        message,
        rolled_back_to: None,
        change: None,
        break_glass: false,
        shift: None,
    })
}

/// Asks for approval, and makes the deployments: one change.
async fn go_live(
    mut change: Change<'_>,
    environment: &str,
    nexts: Vec<Next<'_>>,
    glass: Glass,
    message: &str,
) -> Result<Published<Vec<Deployment>>, RegistryError> {
    let environment = environments::one(change.sql(), environment).await?;
    let proposed: Vec<(&str, &[Arm])> = nexts
        .iter()
        .map(|next| (next.prompt.as_str(), next.split.as_slice()))
        .collect();
    require_open(&environment, glass, &proposed, message)?;
    let mut value = Vec::with_capacity(nexts.len());
    for next in nexts {
        let next = Next {
            break_glass: environment.protected,
            ..next
        };
        value.push(write(&mut change, next).await?);
    }
    let generation = change.end().await?;
    Ok(Published { value, generation })
}

/// The only one of several.
fn only(made: Published<Vec<Deployment>>) -> Result<Published<Deployment>, RegistryError> {
    let Published { mut value, generation } = made;
    let value = value.pop();
    let value = value.ok_or_else(|| RegistryError::Stored("no deployment was made".to_owned()))?;
    Ok(Published { value, generation })
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
        let target = Target {
            prompt: prompt.to_owned(),
            split,
            expected,
        };
        only(
            self.deploy_together(environment, vec![target], Glass::Whole, by)
                .await?,
        )
    }

    /// Makes a split live in a protected environment without approval, and says so in the audit log. Where the
    /// environment is not protected it is a deployment like any other.
    ///
    /// # Errors
    /// Those of [`Self::deploy`] but for the approval, and when the message is blank.
    pub async fn break_glass(
        &self,
        prompt: &str,
        environment: &str,
        split: Vec<Arm>,
        expected: Option<u32>,
        by: By<'_>,
    ) -> Result<Published<Deployment>, RegistryError> {
        let target = Target {
            prompt: prompt.to_owned(),
            split,
            expected,
        };
        only(
            self.deploy_together(environment, vec![target], Glass::Broken, by)
                .await?,
        )
    }

    /// Makes the splits of several prompts live in one environment: all of them in one generation, or none.
    ///
    /// # Errors
    /// Those of [`Registry::deploy`] for the first that has one, and when a prompt is named twice, or none or too many are.
    pub async fn deploy_together(
        &self,
        environment: &str,
        targets: Vec<Target>,
        glass: Glass,
        by: By<'_>,
    ) -> Result<Published<Vec<Deployment>>, RegistryError> {
        glass.check(by.message)?;
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
        let mut nexts = Vec::with_capacity(targets.len());
        let mut seen = BTreeSet::new();
        for target in targets {
            let next = prepare(&mut change, environment, target, by.message).await?;
            if !seen.insert(next.prompt.clone()) {
                return refuse(format!("prompt {:?} is there twice", next.prompt));
            }
            nexts.push(next);
        }
        go_live(change, environment, nexts, glass, by.message).await
    }

    /// Makes what is live in one environment live in another.
    ///
    /// # Errors
    /// Those of [`Registry::deploy`], and when nothing is live there, or the same already is here.
    pub async fn promote(
        &self,
        prompt: &str,
        (from, to): (&str, &str),
        expected: Option<u32>,
        glass: Glass,
        by: By<'_>,
    ) -> Result<Published<Deployment>, RegistryError> {
        glass.check(by.message)?;
        let mut change = Change::begin(self, by.actor).await?;
        let prompt = prompts::require(change.sql(), prompt).await?;
        environments::one(change.sql(), from).await?;
        let source = live(change.sql(), &prompt, from).await?;
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
        let next = prepare(&mut change, to, target, by.message).await?;
        if next.live.as_ref().is_some_and(|live| live.split == next.split) {
            return Err(RegistryError::Conflict(format!(
                "{to:?} has the same live as {from:?} already, there is nothing to promote"
            )));
        }
        only(go_live(change, to, vec![next], glass, by.message).await?)
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
        glass: Glass,
        by: By<'_>,
    ) -> Result<Published<Deployment>, RegistryError> {
        glass.check(by.message)?;
        let mut change = Change::begin(self, by.actor).await?;
        let target = Target {
            prompt: prompt.to_owned(),
            split: Vec::new(),
            expected,
        };
        let next = prepare(&mut change, environment, target, by.message).await?;
        if next.live.as_ref().is_none_or(|live| live.split.is_empty()) {
            let (prompt, environment) = (next.prompt, environment.to_owned());
            return Err(Missing::NothingLive { prompt, environment }.into());
        }
        only(go_live(change, environment, vec![next], glass, by.message).await?)
    }

    /// Makes the split of an earlier deployment live again, exactly as it was.
    ///
    /// Without `to` it is the last deployment before the present one that differed from it and was not itself rolled
    /// back from. Needs no approval: whatever was live once had it, unless it went live by breaking glass.
    ///
    /// # Errors
    /// When the prompt, the environment or the deployment does not exist, there is nothing to return to, the prompt is
    /// archived, or the database fails.
    pub async fn rollback(
        &self,
        prompt: &str,
        environment: &str,
        to: Option<u32>,
        by: By<'_>,
    ) -> Result<Published<Deployment>, RegistryError> {
        let mut change = Change::begin(self, by.actor).await?;
        let prompt = prompts::require(change.sql(), prompt).await?;
        let place = environments::one(change.sql(), environment).await?;
        let mut history = history(change.sql(), &prompt, environment).await?;
        let target = target(&history, &prompt, environment, place.protected, to)?;
        let past = &history[target as usize - 1];
        if past.break_glass {
            require_open(&place, Glass::Whole, &[(&prompt, &past.split)], by.message)?;
        }
        let next = Next {
            split: past.split.clone(),
            live: history.pop(),
            prompt,
            environment,
            message: by.message,
            rolled_back_to: Some(target),
            change: None,
            break_glass: false,
            shift: None,
        };
        let value = write(&mut change, next).await?;
        let generation = change.end().await?;
        Ok(Published { value, generation })
    }
}

/// Picks the deployment to return to; `history` starts with number 1.
pub(super) fn target(
    history: &[Deployment],
    prompt: &str,
    environment: &str,
    protected: bool,
    to: Option<u32>,
) -> Result<u32, RegistryError> {
    let present = history.len();
    match to {
        None => {
            let line: Vec<Past> = history
                .iter()
                .map(|deployment| Past {
                    split: deployment.split.clone(),
                    rolled_back_to: deployment.rolled_back_to,
                    passed_over: deployment.split.is_empty() || (protected && deployment.break_glass),
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
