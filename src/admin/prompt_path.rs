//! What a path below `/prompts/` means.
//!
//! `versions` and `deployments` cannot be segments of an id, so the last segments say what is asked for, and the rest is
//! the id. An alias may have any characters: it is one percent-encoded segment behind `aliases`, which an id may have
//! too; but then nothing else has these methods.
//!
//! What came later (`diff`, `drafts`, …) older prompts may have as a segment: it is an action only behind a raw slash, so
//! such a prompt is reached with `%2F` in its id.

use axum::http::Method;
use axum::response::Response;
use percent_encoding::percent_decode_str;

use super::call::Call;
use super::errors::{Failure, unknown_route};
use super::{aliases, deployments, diff, drafts, preflight, prompts, shifts, uses, versions};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptPath {
    Prompt { id: String },
    Versions { id: String },
    Version { id: String, version: u32 },
    Deployment { id: String, environment: String },
    DeploymentHistory { id: String, environment: String },
    Rollback { id: String, environment: String },
    Preflight { id: String },
    Alias { id: String, alias: String },
    Draft { id: String, name: String },
    DraftCommit { id: String, name: String },
    Action { id: String, action: Action },
}

/// One word behind an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Diff,
    Uses,
    UsedBy,
    Updates,
    Drafts,
    Shifts,
    Rename,
    Archive,
    Restore,
    Promote,
}

impl Action {
    /// Words that only POST knows can be segments of ids: nothing is posted to a prompt itself.
    fn parse(method: &Method, word: &str) -> Option<Self> {
        Some(match word {
            "diff" => Self::Diff,
            "uses" => Self::Uses,
            "used-by" => Self::UsedBy,
            "updates" => Self::Updates,
            "drafts" => Self::Drafts,
            "shifts" => Self::Shifts,
            "rename" if *method == Method::POST => Self::Rename,
            "archive" if *method == Method::POST => Self::Archive,
            "restore" if *method == Method::POST => Self::Restore,
            "promote" if *method == Method::POST => Self::Promote,
            _ => return None,
        })
    }
}

impl PromptPath {
    /// Reads what follows `/prompts/`, still percent-encoded.
    pub fn parse(method: &Method, raw: &str) -> Option<Self> {
        if matches!(*method, Method::PUT | Method::DELETE)
            && let Some(alias) = parse_alias(raw)
        {
            return Some(alias);
        }
        if let Some(action) = parse_action(method, raw) {
            return Some(action);
        }
        let path = decode(raw)?;
        let segments: Vec<&str> = path.split('/').collect();
        let (id, parsed) = match segments.as_slice() {
            [id @ .., "preflight"] if *method == Method::POST => (id, Self::Preflight { id: id.join("/") }),
            [id @ .., "versions"] => (id, Self::Versions { id: id.join("/") }),
            [id @ .., "versions", version] => {
                let version = parse_version(version)?;
                (
                    id,
                    Self::Version {
                        id: id.join("/"),
                        version,
                    },
                )
            }
            [id @ .., "deployments", environment] => {
                let environment = (*environment).to_owned();
                (
                    id,
                    Self::Deployment {
                        id: id.join("/"),
                        environment,
                    },
                )
            }
            [id @ .., "deployments", environment, "history"] => {
                let environment = (*environment).to_owned();
                (
                    id,
                    Self::DeploymentHistory {
                        id: id.join("/"),
                        environment,
                    },
                )
            }
            [id @ .., "deployments", environment, "rollback"] => {
                let environment = (*environment).to_owned();
                (
                    id,
                    Self::Rollback {
                        id: id.join("/"),
                        environment,
                    },
                )
            }
            id => (id, Self::Prompt { id: path.clone() }),
        };
        is_plain(id).then_some(parsed)
    }

    /// Puts the prompt's id in the place of an alias; what nobody has stays as it is.
    async fn with_id(mut self, call: &Call) -> Result<Self, Failure> {
        let (Self::Prompt { id }
        | Self::Versions { id }
        | Self::Version { id, .. }
        | Self::Deployment { id, .. }
        | Self::DeploymentHistory { id, .. }
        | Self::Rollback { id, .. }
        | Self::Preflight { id }
        | Self::Alias { id, .. }
        | Self::Draft { id, .. }
        | Self::DraftCommit { id, .. }
        | Self::Action { id, .. }) = &mut self;
        if let Some(found) = call.registry().prompt_id(id).await? {
            *id = found;
        }
        Ok(self)
    }

    /// The methods it has.
    fn allow(&self) -> &'static str {
        match self {
            Self::Prompt { .. } => "GET,HEAD,PATCH",
            Self::Version { .. } | Self::DeploymentHistory { .. } => "GET,HEAD",
            Self::Versions { .. } => "GET,HEAD,POST",
            Self::Deployment { .. } => "GET,HEAD,PUT,DELETE",
            Self::Rollback { .. } | Self::Preflight { .. } | Self::DraftCommit { .. } => "POST",
            Self::Alias { .. } => "PUT,DELETE",
            Self::Draft { .. } => "GET,HEAD,PUT,DELETE",
            Self::Action { action, .. } => match action {
                Action::Diff | Action::Uses | Action::UsedBy | Action::Updates | Action::Drafts => "GET,HEAD",
                Action::Shifts => "GET,HEAD,POST",
                Action::Rename | Action::Archive | Action::Restore | Action::Promote => "POST",
            },
        }
    }
}

fn decode(raw: &str) -> Option<String> {
    Some(percent_decode_str(raw).decode_utf8().ok()?.into_owned())
}

/// Whether these segments can be an id.
fn is_plain(id: &[&str]) -> bool {
    let action = |segment: &&str| matches!(*segment, "" | "versions" | "deployments");
    !id.is_empty() && !id.iter().any(action)
}

/// Reads what has its word behind a raw slash.
fn parse_action(method: &Method, raw: &str) -> Option<PromptPath> {
    let segments: Vec<&str> = raw.split('/').collect();
    let join = |front: &[&str]| {
        let id = decode(&front.join("/"))?;
        let parts: Vec<&str> = id.split('/').collect();
        is_plain(&parts).then(|| id.clone())
    };
    match segments.as_slice() {
        [front @ .., "drafts", name, "commit"] if !front.is_empty() && *method == Method::POST => {
            let name = decode(name)?;
            Some(PromptPath::DraftCommit { id: join(front)?, name })
        }
        [front @ .., "drafts", name] if !front.is_empty() && Action::parse(method, name).is_none() => {
            let name = decode(name)?;
            Some(PromptPath::Draft { id: join(front)?, name })
        }
        [front @ .., word] if !front.is_empty() => {
            let action = Action::parse(method, word)?;
            Some(PromptPath::Action {
                id: join(front)?,
                action,
            })
        }
        _ => None,
    }
}

fn parse_alias(raw: &str) -> Option<PromptPath> {
    let (front, alias) = raw.rsplit_once('/')?;
    let front = decode(front)?;
    let id = front.strip_suffix("/aliases")?;
    Some(PromptPath::Alias {
        id: id.to_owned(),
        alias: decode(alias)?,
    })
}

fn parse_version(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Serves every route below `/prompts/`.
pub async fn dispatch(call: Call) -> Result<Response, Failure> {
    let method = match call.parts.method.clone() {
        Method::HEAD => Method::GET,
        method => method,
    };
    let path = call.parts.uri.path();
    let raw = path.strip_prefix("/prompts/").unwrap_or(path);
    let Some(path) = PromptPath::parse(&method, raw) else {
        return Err(unknown_route().await);
    };
    let allow = path.allow();
    if !allow.split(',').any(|name| name == method.as_str()) {
        return Err(Failure::method_not_allowed(allow));
    }
    // Authority is asked for by id: an alias in one folder may name a prompt in another.
    let path = path.with_id(&call).await?;
    match path {
        PromptPath::Prompt { id } if method == Method::PATCH => prompts::update(call, &id).await,
        PromptPath::Prompt { id } => prompts::show(call, &id).await,
        PromptPath::Versions { id } if method == Method::GET => versions::list(call, &id).await,
        PromptPath::Versions { id } => versions::create(call, &id).await,
        PromptPath::Version { id, version } => versions::show(call, &id, version).await,
        PromptPath::Deployment { id, environment } if method == Method::GET => {
            deployments::show(call, &id, &environment).await
        }
        PromptPath::Deployment { id, environment } if method == Method::DELETE => {
            deployments::take_down(call, &id, &environment).await
        }
        PromptPath::Deployment { id, environment } => deployments::deploy(call, &id, &environment).await,
        PromptPath::DeploymentHistory { id, environment } => deployments::history(call, &id, &environment).await,
        PromptPath::Rollback { id, environment } => deployments::rollback(call, &id, &environment).await,
        PromptPath::Preflight { id } => preflight::show(call, &id).await,
        PromptPath::Alias { id, alias } if method == Method::PUT => aliases::add(call, &id, &alias).await,
        PromptPath::Alias { id, alias } => aliases::remove(call, &id, &alias).await,
        PromptPath::Draft { id, name } if method == Method::PUT => drafts::save(call, &id, &name).await,
        PromptPath::Draft { id, name } if method == Method::DELETE => drafts::delete(call, &id, &name).await,
        PromptPath::Draft { id, name } => drafts::show(call, &id, &name).await,
        PromptPath::DraftCommit { id, name } => drafts::commit(call, &id, &name).await,
        PromptPath::Action { id, action } => act(call, &method, &id, action).await,
    }
}

async fn act(call: Call, method: &Method, id: &str, action: Action) -> Result<Response, Failure> {
    match action {
        Action::Diff => diff::show(call, id).await,
        Action::Uses => uses::uses(call, id).await,
        Action::UsedBy => uses::used_by(call, id).await,
        Action::Updates => uses::updates(call, id).await,
        Action::Drafts => drafts::list(call, id).await,
        Action::Shifts if *method == Method::GET => shifts::list(call, Some(id)).await,
        Action::Shifts => shifts::create(call, id).await,
        Action::Rename => prompts::rename(call, id).await,
        Action::Archive => prompts::archive(call, id).await,
        Action::Restore => prompts::restore(call, id).await,
        Action::Promote => deployments::promote(call, id).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(raw: &str) -> Option<PromptPath> {
        PromptPath::parse(&Method::GET, raw)
    }

    #[test]
    fn paths_mean_what_their_last_segments_say() {
        let id = || "support/greet".to_owned();
        let environment = || "production".to_owned();
        for (raw, expected) in [
            ("support/greet", PromptPath::Prompt { id: id() }),
            ("support%2Fgreet", PromptPath::Prompt { id: id() }),
            ("support%2fgreet/versions", PromptPath::Versions { id: id() }),
            (
                "support/greet/versions/12",
                PromptPath::Version { id: id(), version: 12 },
            ),
            (
                "support/greet/deployments/production",
                PromptPath::Deployment {
                    id: id(),
                    environment: environment(),
                },
            ),
            (
                "support%2Fgreet/deployments/production/history",
                PromptPath::DeploymentHistory {
                    id: id(),
                    environment: environment(),
                },
            ),
            (
                "support/greet/deployments/production/rollback",
                PromptPath::Rollback {
                    id: id(),
                    environment: environment(),
                },
            ),
            (
                "a/aliases/b",
                PromptPath::Prompt {
                    id: "a/aliases/b".to_owned(),
                },
            ),
            (
                "history",
                PromptPath::Prompt {
                    id: "history".to_owned(),
                },
            ),
        ] {
            assert_eq!(get(raw), Some(expected), "{raw}");
        }
    }

    #[test]
    fn paths_that_mean_nothing_are_refused() {
        for raw in [
            "",
            "versions",
            "a/",
            "/a",
            "a//b",
            "a/versions/",
            "a/versions/x",
            "a/versions/+1",
            "a/versions/99999999999",
            "a/versions/1/diff",
            "a/deployments",
            "deployments/production",
            "a/deployments/production/undo",
            "%ff",
        ] {
            assert_eq!(get(raw), None, "{raw}");
        }
    }

    #[test]
    fn later_words_are_actions_behind_a_raw_slash_only() {
        let action = |id: &str, action| {
            let id = id.to_owned();
            Some(PromptPath::Action { id, action })
        };
        let prompt = |id: &str| Some(PromptPath::Prompt { id: id.to_owned() });
        let draft = |id: &str, name: &str| {
            let (id, name) = (id.to_owned(), name.to_owned());
            Some(PromptPath::Draft { id, name })
        };
        assert_eq!(get("a/b/diff"), action("a/b", Action::Diff));
        assert_eq!(get("a%2Fb/used-by"), action("a/b", Action::UsedBy));
        assert_eq!(get("a%2Fdiff"), prompt("a/diff"));
        assert_eq!(get("a%2Fdiff/diff"), action("a/diff", Action::Diff));
        assert_eq!(get("diff"), prompt("diff"));
        assert_eq!(get("a/b/drafts/x"), draft("a/b", "x"));
        assert_eq!(get("drafts/x"), prompt("drafts/x"));
        assert_eq!(get("a/rename"), prompt("a/rename"));
        assert_eq!(
            PromptPath::parse(&Method::POST, "a/rename"),
            action("a", Action::Rename)
        );
        assert_eq!(get("a/versions/diff"), None);
        let commit = PromptPath::DraftCommit {
            id: "a".to_owned(),
            name: "x".to_owned(),
        };
        assert_eq!(PromptPath::parse(&Method::POST, "a/drafts/x/commit"), Some(commit));
    }

    #[test]
    fn alias_is_one_encoded_segment() {
        let alias = |id: &str, alias: &str| {
            let (id, alias) = (id.to_owned(), alias.to_owned());
            Some(PromptPath::Alias { id, alias })
        };
        let put = |raw| PromptPath::parse(&Method::PUT, raw);
        assert_eq!(put("a/b/aliases/old%2Fname%20%C3%A4"), alias("a/b", "old/name ä"));
        assert_eq!(put("a%2Fb/aliases/versions"), alias("a/b", "versions"));
        assert_eq!(put("a/aliases/b/aliases/c"), alias("a/aliases/b", "c"));
        let environment = "production".to_owned();
        let id = "a".to_owned();
        assert_eq!(
            put("a/deployments/production"),
            Some(PromptPath::Deployment { id, environment })
        );
    }
}
