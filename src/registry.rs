//! The durable truth: prompts, versions, deployments, environments, keys, users and the audit log.
//!
//! A change is one `change::Change`: a write transaction that raises the generation by one, stamps the rows it touches
//! with it and appends to the audit log. What requests do not depend on (drafts, descriptions) leaves the generation. So whoever reads everything stamped later than a generation
//! ([`Registry::changes_since`]) has exactly what changed, and nothing changes without a trace.
//!
//! Versions, deployments and audit rows are only ever inserted (a rename moves them to the new id, unchanged). Requests
//! never come here: they read the snapshot.
//!
//! [`sql`] is where SQLite and PostgreSQL differ: SQLite in WAL mode, with one connection that writes and a few that read, so
//! that writers queue here instead of colliding in the file; on PostgreSQL they queue for the row that has the generation.

mod about;
mod audit;
mod change;
mod changes;
mod checkpoint;
mod connect;
mod delta;
mod deploy;
mod deployments;
mod drafts;
mod dump;
mod edited;
mod environment_edits;
mod environments;
mod erasures;
mod keys;
mod library;
mod listen;
mod names;
mod nodes;
mod page;
mod partials;
mod preflight;
mod prompts;
mod rollback;
mod schema;
mod search;
mod secret;
mod shifts;
mod sql;
mod tokens;
mod updates;
mod users;
mod uses;
mod versions;
mod webhooks;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use sqlx::AnyPool;

use sql::{Pools, SqlTransaction};

use crate::config::Secret;
use crate::domain::review::CheckState;
use crate::domain::version::Problem;

pub use about::PromptUpdate;
pub use audit::{AuditEntry, AuditFilter, AuditVerification};
pub use change::{Actor, By};
pub use changes::{
    ChangeDeployment, ChangeFilter, ChangeRecord, Check, Comment, Goal, LeadTime, NewChange, NewCheck, NewPreflight,
    PREFLIGHT, ProposedDeployment, Review, ReviewStats,
};
pub use delta::{Delta, EnvironmentState, KeyState, Known, LiveState, Mark, PromptState};
pub use deploy::{Glass, Target};
pub use deployments::{Deployment, DeploymentKind};
pub use drafts::{Draft, DraftName, DraftSave};
pub use dump::{DumpError, Dumped};
pub use edited::Edited;
pub use environment_edits::EnvironmentEdit;
pub use environments::{Environment, EnvironmentUpdate};
pub use erasures::{Erasure, Person};
pub use keys::{CreatedKey, Key, NewKey};
pub use library::{Archived, Listed, Match, PromptFilter};
pub use listen::{Heard, Listener};
pub use nodes::{GONE_AFTER, Node, NodeReport};
pub use page::{MAX_PAGE, Page, PageOf};
pub use preflight::Present;
pub use prompts::{Live, NewPrompt, Prompt};
pub use shifts::{NewShift, Plan, Shift, ShiftStep};
pub use tokens::{Caller, CreatedToken, NewToken, Token};
pub use updates::Update;
pub use users::{NewUser, User, UserKind, UserUpdate};
pub use uses::{Included, LiveUse, UsedBy, Uses};
pub use versions::{Version, VersionName, VersionSummary};
pub use webhooks::outbox::{Attempt, Delivery, Receiver, Waiting};
pub use webhooks::{CreatedWebhook, Webhook, WebhookUpdate};

/// What a change produced, and the registry state it made.
#[derive(Debug, Clone, PartialEq)]
pub struct Published<T> {
    pub value: T,
    pub generation: u64,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{0}")]
    NotFound(Missing),
    #[error("{0}")]
    Conflict(String),
    /// Something else is in the way; the details name it.
    #[error("{message}")]
    InUse { message: String, details: Value },
    /// An argument has the wrong form.
    #[error("{field}: {message}")]
    InvalidField { field: &'static str, message: String },
    /// The content of a new version is not valid.
    #[error("the content has {} problem(s), the first: {}", .0.len(), first(.0))]
    Invalid(Vec<Problem>),
    /// The environment is protected; `change` is what somebody else would approve.
    #[error("the environment is protected, somebody else must approve this change")]
    ApprovalRequired { change: Box<Value> },
    /// The caller expected another deployment to be live.
    #[error("the live deployment is {}, not the expected one", current_number(.current))]
    Stale { current: Option<Box<Deployment>> },
    /// Somebody changed it meanwhile.
    #[error("{0}")]
    Edited(Box<Edited>),
    /// Something else went live since a change was proposed.
    #[error("{}", stale_change(*.id, .moved))]
    StaleChange { id: u64, moved: Vec<Moved> },
    /// Somebody decided about a revision that is not the present one.
    #[error("change {id} has revision {revision} by now, not {seen}: look at it again")]
    RevisedMeanwhile { id: u64, seen: u32, revision: u32 },
    /// Who asks may not, whatever their role.
    #[error("{0}")]
    NotAllowed(String),
    #[error("change {id} has {given} of the {needed} approval(s) it needs")]
    NotApproved { id: u64, given: u32, needed: u32 },
    #[error("change {id} needs checks that did not pass: {}", unmet(.checks))]
    ChecksUnmet { id: u64, checks: Vec<(String, CheckState)> },
    /// A row does not say what this program wrote.
    #[error("stored data makes no sense: {0}")]
    Stored(String),
    /// The database is away or overloaded: the same may work later.
    #[error("the registry's database is not available now: {0}")]
    Unavailable(String),
    #[error("registry database: {0}")]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for RegistryError {
    fn from(error: sqlx::Error) -> Self {
        if connect::is_away(&error) {
            return Self::Unavailable(error.to_string());
        }
        // PostgreSQL: character_not_in_repertoire. The one such character in valid UTF-8 is NUL.
        let code = error.as_database_error().and_then(|error| error.code());
        if code.as_deref() == Some("22021") {
            return Self::InvalidField {
                field: "body",
                message: "a text has the character NUL (\\u0000), which the registry cannot store: leave it out"
                    .to_owned(),
            };
        }
        Self::Database(error)
    }
}

fn first(problems: &[Problem]) -> String {
    match problems.first() {
        Some(problem) if problem.path.is_empty() => problem.message.clone(),
        Some(problem) => format!("{}: {}", problem.path, problem.message),
        None => "unknown".to_owned(),
    }
}

/// A prompt where something else went live since a change was proposed.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    pub prompt: String,
    /// The deployment that was live then, 0 for none.
    pub base: u32,
    pub current: Option<Deployment>,
}

fn stale_change(id: u64, moved: &[Moved]) -> String {
    let prompts: Vec<String> = moved
        .iter()
        .map(|moved| {
            let now = moved.current.as_ref().map_or(0, |current| current.number);
            format!(
                "deployment {now} of prompt {:?} is live, not {}",
                moved.prompt, moved.base
            )
        })
        .collect();
    format!(
        "something else went live since change {id} was proposed ({}): refresh it, which asks for approval anew",
        prompts.join("; ")
    )
}

fn unmet(checks: &[(String, CheckState)]) -> String {
    let names: Vec<String> = checks
        .iter()
        .map(|(name, state)| format!("{name} ({})", state.as_str()))
        .collect();
    names.join(", ")
}

fn current_number(current: &Option<Box<Deployment>>) -> String {
    match current {
        Some(deployment) => deployment.number.to_string(),
        None => "none".to_owned(),
    }
}

/// What was looked for and is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    #[error("prompt {0:?} does not exist")]
    Prompt(String),
    #[error("prompt {prompt:?} has no version {version}")]
    Version { prompt: String, version: u32 },
    #[error("environment {0:?} does not exist")]
    Environment(String),
    #[error("nothing is live for prompt {prompt:?} in {environment:?}")]
    NothingLive { prompt: String, environment: String },
    #[error("prompt {prompt:?} has no deployment {number} in {environment:?}")]
    Deployment {
        prompt: String,
        environment: String,
        number: u32,
    },
    #[error("change {0} does not exist")]
    Change(u64),
    #[error("key {0:?} does not exist")]
    Key(String),
    #[error("erasure {0:?} does not exist")]
    Erasure(String),
    #[error("user {0:?} does not exist")]
    User(String),
    #[error("token {0:?} does not exist")]
    Token(String),
    #[error("user {user:?} has no grant {grant}")]
    Grant { user: String, grant: String },
    #[error("prompt {prompt:?} has no draft {name:?} of {owner:?}")]
    Draft {
        prompt: String,
        owner: String,
        name: String,
    },
    #[error("shift {0:?} does not exist")]
    Shift(String),
    #[error("webhook {0:?} does not exist")]
    Webhook(String),
    #[error("webhook {webhook:?} has no delivery {seq}")]
    Delivery { webhook: String, seq: i64 },
    #[error("prompt {prompt:?} has no alias {alias:?}")]
    Alias { prompt: String, alias: String },
}

impl From<Missing> for RegistryError {
    fn from(missing: Missing) -> Self {
        Self::NotFound(missing)
    }
}

/// The registry's database.
#[derive(Debug, Clone)]
pub struct Registry {
    url: Secret,
    /// Set once the database was reached and its schema looked at.
    pools: Arc<OnceLock<Pools>>,
    /// Counts how often the database turned out to be another one, or to have been put back to an earlier state.
    lineage: Arc<AtomicU64>,
    search: Arc<search::Search>,
}

impl Registry {
    /// Opens `sqlite:<path>`, creating the file and its folder if need be, or `postgres://…`, and brings the schema up to date.
    ///
    /// # Errors
    /// When the URL is of neither form, the database cannot be opened, or a newer program wrote it.
    pub async fn open(url: &str) -> Result<Self, RegistryError> {
        let registry = Self::closed(url);
        registry.connect().await?;
        Ok(registry)
    }

    /// Returns a registry whose calls all fail as unavailable until [`Self::connect`] has succeeded.
    pub fn closed(url: &str) -> Self {
        Self {
            url: Secret::new(url),
            pools: Arc::default(),
            lineage: Arc::default(),
            search: Arc::default(),
        }
    }

    /// Returns a number that changes when what was read once may not be so any more, immutable versions included.
    pub fn lineage(&self) -> u64 {
        self.lineage.load(Relaxed)
    }

    /// Notes that the database is not the one that was read before.
    pub fn begin_lineage(&self) {
        self.lineage.fetch_add(1, Relaxed);
    }

    /// Opens the database as [`Self::open`] does, once.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub async fn connect(&self) -> Result<(), RegistryError> {
        if self.pools.get().is_none() {
            let pools = connect::open(self.url.expose()).await?;
            schema::migrate(&pools).await?;
            // Somebody else may have been quicker; theirs are as good.
            let _ = self.pools.set(pools);
        }
        Ok(())
    }

    /// Opens the database only to read it, beside a running gateway or without one: for looking at the audit log.
    ///
    /// # Errors
    /// When there is no such database, or its schema is not this program's.
    pub async fn open_read_only(url: &str) -> Result<Self, RegistryError> {
        let pools = connect::open_read_only(url).await?;
        schema::require_present(&pools).await?;
        Ok(Self {
            pools: Arc::new(OnceLock::from(pools)),
            ..Self::closed(url)
        })
    }

    fn pools(&self) -> Result<&Pools, RegistryError> {
        let pools = self.pools.get();
        pools.ok_or_else(|| RegistryError::Unavailable("it was not reached since this process started".to_owned()))
    }

    fn reader(&self) -> Result<&AnyPool, RegistryError> {
        Ok(&self.pools()?.reader)
    }

    fn writer(&self) -> Result<&AnyPool, RegistryError> {
        Ok(&self.pools()?.writer)
    }

    async fn begin_read(&self) -> Result<SqlTransaction, RegistryError> {
        Ok(self.pools()?.begin_read().await?)
    }

    async fn begin_write(&self) -> Result<SqlTransaction, RegistryError> {
        Ok(self.pools()?.begin_write().await?)
    }

    /// Returns the present generation: one small read, for polling.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn generation(&self) -> Result<u64, RegistryError> {
        let (generation,): (i64,) = sqlx::query_as("SELECT generation FROM meta")
            .fetch_one(self.reader()?)
            .await?;
        number(generation)
    }

    /// Closes every connection, after which every call fails.
    pub async fn close(&self) {
        if let Ok(pools) = self.pools() {
            pools.reader.close().await;
            pools.writer.close().await;
        }
    }
}

/// Turns a stored number into ours.
fn number<T: TryFrom<i64>>(stored: i64) -> Result<T, RegistryError> {
    T::try_from(stored).map_err(|_| RegistryError::Stored(format!("number {stored} is out of range")))
}

/// Turns stored JSON text into ours.
fn parse<T: serde::de::DeserializeOwned>(stored: &str) -> Result<T, RegistryError> {
    serde_json::from_str(stored).map_err(|why| RegistryError::Stored(why.to_string()))
}

/// Turns a value into JSON text to store.
fn text<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("stored values serialise: their keys are strings")
}

/// Microseconds since the Unix epoch.
fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
