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
    let mut codes = vec![InvalidApiKey, InvalidJson, BodyTooLarge, Internal, Unavailable];
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
    let path = call.path;
    let under = |prefix: &str| path.starts_with(prefix);
    let has = |part: &str| path.contains(part);
    let ends = |word: &str| path.ends_with(word);
    if under("/prompts/") {
        // An id is several segments, the last of which may make another route of it.
        add(&[PromptNotFound, UnknownRoute, MethodNotAllowed]);
    }
    if under("/environments/") || under("/keys") || under("/users") || under("/changes") || under("/webhooks") {
        add(&[EnvironmentNotFound]);
    }
    if has("/versions/") || ends("/updates") {
        add(&[VersionNotFound]);
    }
    if ends("/diff") {
        add(&[VersionNotFound, EnvironmentNotFound, NothingLive]);
    }
    if under("/prompts/") && ends("/preflight") {
        add(&[VersionNotFound, EnvironmentNotFound]);
    }
    if under("/users") {
        add(&[NotFound]);
    }
    let goes_live = has("/deployments") || ends("/promote") || ends("/shifts") || under("/shifts/");
    if goes_live {
        add(&[PromptNotFound, VersionNotFound, EnvironmentNotFound, NothingLive]);
    }
    if !reads {
        add(&[Conflict, Stale]);
        if ends("/versions") || has("/drafts/") {
            add(&[InvalidContent, VersionNotFound]);
        }
        if goes_live || under("/changes") {
            add(&[PromptNotFound, VersionNotFound, ApprovalRequired]);
        }
        if under("/changes") {
            add(&[ChecksRequired]);
        }
    }
    if under("/exchanges") || under("/stats") || under("/erasures") {
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
