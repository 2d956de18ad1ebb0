//! Changes as the API shows them.

use serde_json::{Value, json};

use crate::admin::call::time;
use crate::domain::shift::{Due, Step};
use crate::registry::{ChangeRecord, LeadTime, ReviewStats};

pub fn whole(record: &ChangeRecord) -> Value {
    let deployments = record.deployments.iter().map(|item| {
        json!({
            "prompt": item.prompt, "split": item.split, "base": item.base, "live": item.live,
            "steps": item.steps.iter().map(step).collect::<Vec<_>>(), "deployment": item.deployment, "shift": item.shift,
        })
    });
    let reviews = record.reviews.iter().map(|review| {
        json!({
            "id": review.id, "by": review.reviewer, "verdict": if review.approves { "approve" } else { "reject" },
            "message": review.message, "revision": review.revision, "at": time(review.created_at_us),
            "counts": review.approves && review.entitled && review.revision == record.revision,
        })
    });
    let comments = record.comments.iter().map(|comment| {
        json!({"id": comment.id, "by": comment.author, "body": comment.body, "at": time(comment.created_at_us)})
    });
    let moved: Vec<&str> = record.moved().map(|item| item.prompt.as_str()).collect();
    json!({
        "id": record.id,
        "environment": record.environment,
        "state": record.state.as_str(),
        "revision": record.revision,
        "message": record.message,
        "proposer": record.proposer,
        "authors": record.authors,
        "deployments": deployments.collect::<Vec<_>>(),
        "approvals": {"given": record.lack.approvals_given, "needed": record.lack.approvals_needed},
        "checks": checks(record),
        "reviews": reviews.collect::<Vec<_>>(),
        "comments": comments.collect::<Vec<_>>(),
        "stale": moved,
        "ready": record.state.is_under_review() && record.lack.is_nothing() && moved.is_empty(),
        "preflight": record.preflight,
        "created_at": time(record.created_at_us),
        "updated_at": time(record.updated_at_us),
        "opened_at": record.opened_at_us.map(time),
        "first_approved_at": record.first_approved_at_us.map(time),
        "applied_at": record.applied_at_us.map(time),
        "applied_by": record.applied_by,
        "applied_generation": record.applied_generation,
    })
}

fn step(step: &Step) -> Value {
    let (at, after_seconds) = match step.due {
        Due::At(at_us) => (json!(time(at_us)), Value::Null),
        Due::After(after_us) => (Value::Null, json!(after_us / 1_000_000)),
    };
    json!({"at": at, "after_seconds": after_seconds, "split": step.split})
}

/// Reported checks, and required ones that nobody reported yet.
fn checks(record: &ChangeRecord) -> Vec<Value> {
    let is_required = |name: &String| record.required_checks.contains(name);
    let reported = record.checks.iter().map(|check| {
        json!({
            "name": check.name, "state": record.check_state(check).as_str(), "required": is_required(&check.name),
            "url": check.url, "summary": check.summary, "by": check.reporter, "revision": check.revision,
            "at": time(check.reported_at_us),
        })
    });
    let awaited = record.required_checks.iter();
    let awaited = awaited.filter(|name| !record.checks.iter().any(|check| check.name == **name));
    let awaited = awaited.map(|name| {
        json!({
            "name": name, "state": "pending", "required": true, "url": null, "summary": "", "by": null,
            "revision": null, "at": null,
        })
    });
    reported.chain(awaited).collect()
}

pub fn stats(stats: &ReviewStats) -> Value {
    let seconds = |us: Option<i64>| us.map(|us| us as f64 / 1e6);
    let lead_time = |time: &LeadTime| json!({"count": time.count, "median_seconds": seconds(time.median_us), "p90_seconds": seconds(time.p90_us)});
    json!({
        "count": stats.count,
        "by_state": stats.by_state,
        "time_to_first_approval": lead_time(&stats.to_first_approval),
        "time_to_apply": lead_time(&stats.to_apply),
    })
}
