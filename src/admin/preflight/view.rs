//! Rehearsals as the API shows them.

use serde_json::{Value, json};

use super::gather::Rehearsed;
use crate::registry::Deployment;

fn deployment(one: &Option<Deployment>) -> Value {
    match one {
        Some(one) => json!({"deployment": one.number, "split": one.split}),
        None => Value::Null,
    }
}

fn figures(rehearsed: &Rehearsed) -> Value {
    let change = rehearsed.change();
    let (newly_refused, rollback_newly_refused) = rehearsed.newly_refused();
    let whole = |figure: f64| figure.round() as u64;
    json!({
        "newly_refused": newly_refused,
        "rollback_newly_refused": rollback_newly_refused,
        "changed": rehearsed.changed(),
        "tokens_before": whole(change.tokens_before),
        "tokens_after": whole(change.tokens_after),
        "cost_before_nanodollars": whole(change.cost_before),
        "cost_after_nanodollars": whole(change.cost_after),
    })
}

fn requests(rehearsed: &Rehearsed) -> Value {
    let not = &rehearsed.not_comparable;
    json!({
        "looked_at": rehearsed.looked_at,
        "compared": rehearsed.report.compared,
        "cut_short": rehearsed.report.cut_short,
        "unread": rehearsed.unread,
        "not_comparable": {
            "not_captured": not.not_captured, "truncated": not.truncated, "redacted": not.redacted, "shed": not.shed,
        },
    })
}

/// Everything.
pub fn whole(rehearsed: &Rehearsed, content_hidden: bool) -> Value {
    json!({
        "prompt": rehearsed.prompt,
        "environment": rehearsed.environment,
        "state": rehearsed.state().as_str(),
        "summary": rehearsed.summary(),
        "split": rehearsed.split,
        "live": deployment(&rehearsed.live),
        "rollback_target": deployment(&rehearsed.target),
        "requests": requests(rehearsed),
        "figures": figures(rehearsed),
        "arms": rehearsed.report.arms,
        "rollback": rehearsed.report.rollback,
        "content_hidden": content_hidden,
    })
}

/// What is kept with a change.
pub fn brief(rehearsed: &Rehearsed) -> Value {
    let arms = rehearsed.report.arms.iter().map(|arm| {
        json!({
            "variant": arm.variant, "version": arm.version, "newly_refused": arm.newly_refused,
            "findings": arm.findings,
        })
    });
    json!({
        "prompt": rehearsed.prompt,
        "state": rehearsed.state().as_str(),
        "summary": rehearsed.summary(),
        "requests": requests(rehearsed),
        "figures": figures(rehearsed),
        "arms": arms.collect::<Vec<_>>(),
        "rollback_target": rehearsed.target.as_ref().map(|target| target.number),
    })
}
