//! `/prompts/{id}/diff?from=&to=`: what changed between versions, a draft, and what is live.

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, found, invalid};
use super::drafts::may_read;
use super::errors::Failure;
use crate::domain::content::Content;
use crate::domain::diff::{ContentDiff, diff};
use crate::domain::role::{Permission, Scope};
use crate::domain::split::Arm;
use crate::registry::{DraftName, Registry, RegistryError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffQuery {
    from: Option<String>,
    to: Option<String>,
}

/// One side of a comparison, as the query names it.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Version(u32),
    /// The user, unless it is the caller, and the draft's name.
    Draft(Option<&'a str>, &'a str),
    /// The environment, and the variant unless it is all of them.
    Live(&'a str, Option<&'a str>),
}

impl<'a> Side<'a> {
    fn parse(param: &'static str, text: &'a str) -> Result<Self, Failure> {
        if let Ok(version) = text.parse() {
            return Ok(Self::Version(version));
        }
        match text.split_once(':') {
            Some(("draft", name)) => Ok(match name.split_once('/') {
                Some((user, name)) => Self::Draft(Some(user), name),
                None => Self::Draft(None, name),
            }),
            Some(("live", place)) => Ok(match place.split_once('/') {
                Some((environment, variant)) => Self::Live(environment, Some(variant)),
                None => Self::Live(place, None),
            }),
            _ => Err(invalid(
                param,
                format!(
                    "{text:?} is none of a version (3), draft:name, draft:user/name, live:environment and \
                     live:environment/variant"
                ),
            )),
        }
    }
}

/// A content to compare.
struct Candidate {
    /// What it is, for the answer.
    name: Value,
    /// For people: `support/greet:3`.
    title: String,
    effective: Result<Content, RegistryError>,
    source: Content,
}

async fn version(registry: &Registry, id: &str, number: u32, arm: Option<(&str, &Arm)>) -> Result<Candidate, Failure> {
    let version = registry.version(id, number).await?;
    let (name, title) = match arm {
        None => (json!({"version": number}), format!("{id}:{number}")),
        Some((environment, arm)) => (
            json!({"version": number, "environment": environment, "variant": arm.variant, "weight": arm.weight}),
            format!("{id}@{environment} {} ({id}:{number}, {} %)", arm.variant, arm.weight),
        ),
    };
    Ok(Candidate {
        name,
        title,
        effective: Ok(version.content),
        source: version.source,
    })
}

async fn candidates(call: &Call, id: &str, side: &Side<'_>) -> Result<Vec<Candidate>, Failure> {
    let registry = call.registry();
    match side {
        Side::Version(number) => Ok(vec![version(registry, id, *number, None).await?]),
        Side::Live(environment, variant) => {
            call.require(Permission::Read, Scope::live(id, environment))?;
            let live = registry.deployment(id, environment).await?;
            let wanted = live
                .split
                .iter()
                .filter(|arm| variant.is_none_or(|variant| arm.variant == variant));
            let mut found = Vec::new();
            for arm in wanted {
                found.push(version(registry, id, arm.version, Some((environment, arm))).await?);
            }
            if found.is_empty() {
                let known: Vec<&str> = live.split.iter().map(|arm| arm.variant.as_str()).collect();
                let why = format!(
                    "no such variant is live in {environment:?}, there are {}",
                    known.join(", ")
                );
                return Err(invalid("from", why));
            }
            Ok(found)
        }
        Side::Draft(user, name) => {
            let owner = user.unwrap_or(&call.caller.user);
            let of = DraftName {
                prompt: id,
                owner,
                name,
            };
            let (draft, problems) = registry.draft(of).await?;
            may_read(call, &draft.content).await?;
            let Ok(source) = serde_json::from_value(draft.content.clone()) else {
                return Err(RegistryError::Invalid(problems).into());
            };
            Ok(vec![Candidate {
                name: json!({"draft": name, "user": owner, "revision": draft.revision}),
                title: format!("draft {name} of {owner}"),
                effective: registry.preview(id, &draft.content).await,
                source,
            }])
        }
    }
}

/// Compares what requests become; as long as a draft is broken, what was written.
fn compare(from: &Candidate, to: &Candidate) -> Result<(ContentDiff, &'static str), Failure> {
    if let (Ok(from), Ok(to)) = (&from.effective, &to.effective) {
        return Ok((diff(from, to), "effective"));
    }
    let normal = |content: &Content| content.clone().normalise().map_err(|why| invalid("content", why));
    Ok((diff(&normal(&from.source)?, &normal(&to.source)?), "source"))
}

/// `GET …/diff`; as text for people with `Accept: text/plain`.
pub async fn show(call: Call, id: &str) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::prompt(id))?;
    let DiffQuery { from, to } = call.query()?;
    let latest = call.registry().prompt(id).await?.latest_version;
    let to = match &to {
        Some(to) => Side::parse("to", to)?,
        None => Side::Version(latest),
    };
    let from = match (&from, &to) {
        (Some(from), _) => Side::parse("from", from)?,
        (None, Side::Version(0 | 1)) => {
            return Err(invalid(
                "from",
                "there is no version before that one, say what to compare with",
            ));
        }
        (None, Side::Version(version)) => Side::Version(version - 1),
        (None, _) => Side::Version(latest),
    };
    let (olds, news) = (candidates(&call, id, &from).await?, candidates(&call, id, &to).await?);
    if olds.len() > 1 && news.len() > 1 {
        let why = "both sides have several variants live, name one: live:production/control";
        return Err(invalid("from", why));
    }
    let (mut comparisons, mut text) = (Vec::new(), String::new());
    for (old, new) in olds.iter().flat_map(|old| news.iter().map(move |new| (old, new))) {
        let (diff, compared) = compare(old, new)?;
        let same = if diff.same { " (the same)" } else { "" };
        text.push_str(&format!("{} → {}{same}\n{diff}", old.title, new.title));
        comparisons.push(json!({"from": old.name, "to": new.name, "compared": compared, "diff": diff}));
    }
    let accept = call.parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/plain")) {
        return Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response());
    }
    Ok(found(json!({"prompt": id, "comparisons": comparisons})))
}
