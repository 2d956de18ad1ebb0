//! Which errors a call may answer, by status.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Call, Need};
use crate::domain::error::ErrorCode::{self, *};

/// Every error that a call may answer.
fn codes(call: &Call) -> Vec<ErrorCode> {
    if call.need == Need::Nothing {
        return Vec::new();
    }
    let reads = call.method == "get";
    // Bodies are read before anything else, also of calls that have no use for one.
    let mut codes = vec![InvalidApiKey, InvalidJson, BodyTooLarge, Internal];
    let mut add = |more: &[ErrorCode]| codes.extend(more);
    if call.need != Need::Token {
        add(&[NotAllowed]);
    }
    if !call.query.is_empty() || call.body.is_some() || !reads {
        add(&[InvalidField]);
    }
    if call.path.contains('{') {
        add(&[NotFound]);
    }
    let under = |prefix: &str| call.path.starts_with(prefix);
    if under("/prompts/") {
        // An id is several segments, the last of which may make another route of it.
        add(&[PromptNotFound, UnknownRoute, MethodNotAllowed]);
    }
    let is_rehearsal = call.path.ends_with("/preflight");
    if call.path.contains("/versions/") || call.path.contains("/deployments/") {
        add(&[VersionNotFound]);
    }
    if call.path.contains("/deployments/") || under("/prompts/") && is_rehearsal || under("/changes") {
        add(&[EnvironmentNotFound]);
    }
    if call.path.contains("/deployments/") {
        add(&[NothingLive]);
    }
    if under("/environments/") || under("/keys") {
        add(&[EnvironmentNotFound]);
    }
    if under("/users") {
        add(&[EnvironmentNotFound, NotFound]);
    }
    if !reads {
        add(&[Conflict]);
        if call.path.ends_with("/versions") {
            add(&[InvalidContent, VersionNotFound]);
        }
        if call.path.contains("/deployments/") {
            add(&[Stale, ApprovalRequired]);
        }
        if under("/changes") {
            add(&[PromptNotFound, VersionNotFound, Stale, ApprovalRequired, ChecksRequired]);
        }
    }
    if under("/exchanges") || under("/stats") {
        // Where nothing is recorded, and where the records are out of reach.
        add(&[NotFound, Unavailable]);
    }
    codes
}

/// The call's refusals as an OpenAPI document has them.
pub fn responses(call: &Call, content: &Value) -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in codes(call) {
        let names = by_status.entry(code.status()).or_default();
        if !names.contains(&code.as_str()) {
            names.push(code.as_str());
        }
    }
    let response = |(status, names): (u16, Vec<&str>)| {
        let description = format!("`{}`", names.join("`, `"));
        (
            status.to_string(),
            json!({"description": description, "content": content}),
        )
    };
    by_status.into_iter().map(response).collect()
}
