//! The durable truth: prompts, versions, deployments, environments, keys, users and the audit log.
//!
//! A change is one `change::Change`: a write transaction that raises the generation by one, stamps the rows it touches
//! with it and appends to the audit log. What requests do not depend on (drafts, descriptions) leaves the generation. So whoever reads everything stamped later than a generation
//! ([`Registry::changes_since`]) has exactly what changed, and nothing changes without a trace.
//!
//! Versions, deployments and audit rows are only ever inserted (a rename moves them to the new id, unchanged). Requests
//! never come here: they read the snapshot.
//!
//! SQLite in WAL mode, with one connection that writes and a few that read, so writers queue here instead of colliding in
//! the file. The SQL is kept to what PostgreSQL understands as well.

mod about;
mod audit;
mod change;
mod changes;
mod checkpoint;
mod delta;
mod deploy;
mod deployments;
mod drafts;
mod edited;
mod environment_edits;
mod environments;
mod erasures;
mod keys;
mod library;
mod names;
mod page;
mod partials;
mod prompts;
mod rollback;
mod schema;
mod search;
mod secret;
mod shifts;
mod tokens;
mod updates;
mod users;
mod uses;
mod versions;

#[cfg(test)]
mod tests;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::domain::review::CheckState;
use crate::domain::version::Problem;

pub use about::PromptUpdate;
pub use audit::{AuditEntry, AuditFilter, AuditVerification};
pub use change::{Actor, By};
pub use changes::{
    ChangeDeployment, ChangeFilter, ChangeRecord, Check, Comment, LeadTime, NewChange, NewCheck, ProposedDeployment,
    Review, ReviewStats,
};
pub use delta::{Delta, EnvironmentState, KeyState, LiveState, PromptState};
pub use deploy::{Glass, Target};
pub use deployments::{Deployment, DeploymentKind};
pub use drafts::{Draft, DraftName, DraftSave};
pub use edited::Edited;
pub use environment_edits::EnvironmentEdit;
pub use environments::{Environment, EnvironmentUpdate};
pub use erasures::{Erasure, Person};
pub use keys::{CreatedKey, Key, NewKey};
pub use library::{Archived, Listed, Match, PromptFilter};
pub use page::{MAX_PAGE, Page, PageOf};
pub use prompts::{Live, NewPrompt, Prompt};
pub use shifts::{NewShift, Plan, Shift, ShiftStep};
pub use tokens::{Caller, CreatedToken, NewToken, Token};
pub use updates::Update;
pub use users::{NewUser, User, UserKind, UserUpdate};
pub use uses::{Included, LiveUse, UsedBy, Uses};
pub use versions::{Version, VersionName, VersionSummary};

/// How many connections read at the same time.
const READERS: u32 = 4;

/// SQLite's page cache of each of them, in KiB as it wants it: below its 2 MiB, since the system caches the file as well.
const READER_CACHE: &str = "-512";

/// How long a statement waits for another process that holds the file, and a caller for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

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
    #[error("registry database: {0}")]
    Database(#[from] sqlx::Error),
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
    reader: SqlitePool,
    writer: SqlitePool,
    search: Arc<search::Search>,
}

impl Registry {
    /// Opens `sqlite:<path>`, creating the file and its folder if need be, and brings its schema up to date.
    ///
    /// # Errors
    /// When the URL is not of that form, the file cannot be opened, or a newer program wrote it.
    pub async fn open(url: &str) -> Result<Self, RegistryError> {
        let invalid = |message: String| RegistryError::InvalidField {
            field: "registry.url",
            message,
        };
        if !url.starts_with("sqlite:") || url.contains(":memory:") {
            return Err(invalid(format!(
                "{url:?} is not a file, write for instance \"sqlite:data/registry.db\""
            )));
        }
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|why| invalid(format!("{url:?}: {why}")))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            .pragma("wal_autocheckpoint", checkpoint::AT_THE_LATEST);
        if let Some(folder) = options.get_filename().parent() {
            std::fs::create_dir_all(folder).map_err(sqlx::Error::Io)?;
        }
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(PATIENCE)
        };
        let writer = connect_first(&pool(1), &options).await?;
        schema::migrate(&writer).await?;
        let reader = pool(READERS)
            .connect_with(options.pragma("cache_size", READER_CACHE))
            .await?;
        let search = Arc::default();
        Ok(Self { reader, writer, search })
    }

    /// Opens the database only to read it, beside a running gateway or without one: for looking at the audit log.
    ///
    /// # Errors
    /// When there is no such file, or its schema is not this program's.
    pub async fn open_read_only(url: &str) -> Result<Self, RegistryError> {
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|why| RegistryError::InvalidField {
                field: "registry.url",
                message: format!("{url:?}: {why}"),
            })?
            .read_only(true)
            .busy_timeout(PATIENCE);
        let reader = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .connect_with(options)
            .await?;
        schema::require_present(&reader).await?;
        let (writer, search) = (reader.clone(), Arc::default());
        Ok(Self { reader, writer, search })
    }

    /// Returns the present generation: one small read, for polling.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn generation(&self) -> Result<u64, RegistryError> {
        let (generation,): (i64,) = sqlx::query_as("SELECT generation FROM meta")
            .fetch_one(&self.reader)
            .await?;
        number(generation)
    }

    /// Closes every connection, after which every call fails.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
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

/// Connects, although another process may be creating the file at this moment.
///
/// Source: <https://sqlite.org/wal.html#sometimes_queries_return_sqlite_busy_in_wal_mode>; who switches a file to WAL while
/// another does is told at once that it is busy, whatever the timeout.
async fn connect_first(pool: &SqlitePoolOptions, options: &SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match pool.clone().connect_with(options.clone()).await {
            Err(sqlx::Error::Database(error)) if is_busy(&*error) && std::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            connected => return connected,
        }
    }
}

/// Source: <https://sqlite.org/rescode.html>, SQLITE_BUSY and its extended codes.
fn is_busy(error: &dyn sqlx::error::DatabaseError) -> bool {
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}
