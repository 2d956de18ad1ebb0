//! How a database is reached: the connections' settings, and which failures mean that it is away.
//!
//! Connections through sqlx's `Any` driver are described by an address alone, so whatever is to be set stands in it or is
//! said to the database first thing.

use std::str::FromStr;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::any::AnyPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{Connection, Executor, SqliteConnection};

use super::RegistryError;
use super::checkpoint::AT_THE_LATEST;
use super::sql::{Engine, Pools, SqlConnection};

/// How many connections read at the same time.
const READERS: u32 = 4;

/// SQLite's page cache of each of them, in KiB as it wants it: below its 2 MiB, since the system caches the file as well.
const READER_CACHE: &str = "PRAGMA cache_size = -512";

/// How many write at the same time on PostgreSQL. They queue for one row, but a commit's way to the server and back is not
/// time in which nobody else could get ready.
const POSTGRES_WRITERS: u32 = 2;

/// How long a statement waits for another process that holds the file, and a caller for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a caller waits for a connection to PostgreSQL, including one that has to be made: long enough for a fail-over's
/// first seconds, short enough to say so while the caller still listens.
const POSTGRES_PATIENCE: Duration = Duration::from_secs(3);

/// What PostgreSQL is told of every connection: nothing of ours takes longer, and a client that vanished without a word
/// (its machine lost power, say) keeps the row that all writers queue for no longer than this.
const POSTGRES_SETTINGS: [(&str, &str); 6] = [
    ("statement_timeout", "30s"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "15s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// What stands for itself in the path of an address.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

fn invalid(message: String) -> RegistryError {
    RegistryError::InvalidField {
        field: "registry.url",
        message,
    }
}

/// Says which database an address is of.
///
/// # Errors
/// When it is of neither form. The address is not part of the message: it may hold a password.
pub(super) fn engine_of(url: &str) -> Result<Engine, RegistryError> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    match scheme {
        Some("sqlite") if !url.contains(":memory:") => Ok(Engine::Sqlite),
        Some("postgres" | "postgresql") => Ok(Engine::Postgres),
        _ => Err(invalid(
            "is neither a file nor a PostgreSQL database, write for instance \"sqlite:data/registry.db\" or \
             \"postgres://promptgate@db.internal/promptgate\""
                .to_owned(),
        )),
    }
}

/// Connects for reading and writing, creating an SQLite file and its folder if need be.
pub(super) async fn open(url: &str) -> Result<Pools, RegistryError> {
    sqlx::any::install_default_drivers();
    let engine = engine_of(url)?;
    let (reader, writer) = match engine {
        Engine::Sqlite => {
            let options = SqliteConnectOptions::from_str(url).map_err(|why| invalid(format!("{url:?}: {why}")))?;
            create_file(&options).await?;
            let url = file_url(&options, "rw");
            let writer = sqlite_pool(1, "").connect(&url).await?;
            (sqlite_pool(READERS, READER_CACHE).connect(&url).await?, writer)
        }
        Engine::Postgres => {
            let url = postgres_url(url)?;
            require_answer(&url).await?;
            let writer = postgres_pool(POSTGRES_WRITERS).connect_lazy(&url)?;
            (postgres_pool(READERS).connect_lazy(&url)?, writer)
        }
    };
    Ok(Pools { engine, reader, writer })
}

/// Connects for reading alone.
pub(super) async fn open_read_only(url: &str) -> Result<Pools, RegistryError> {
    sqlx::any::install_default_drivers();
    let engine = engine_of(url)?;
    let reader = match engine {
        Engine::Sqlite => {
            let options = SqliteConnectOptions::from_str(url).map_err(|why| invalid(format!("{url:?}: {why}")))?;
            let url = file_url(&options, "ro");
            let statement = format!("PRAGMA busy_timeout = {}", PATIENCE.as_millis());
            let pool = AnyPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE);
            told(pool, statement).connect(&url).await?
        }
        Engine::Postgres => {
            let url = format!("{}&options[default_transaction_read_only]=on", postgres_url(url)?);
            postgres_pool(1).connect(&url).await?
        }
    };
    let writer = reader.clone();
    Ok(Pools { engine, reader, writer })
}

/// Has every new connection execute statements before anything else.
fn told(pool: AnyPoolOptions, statements: String) -> AnyPoolOptions {
    let statements: &'static str = statements.leak();
    pool.after_connect(move |connection, _| {
        Box::pin(async move { connection.execute(sqlx::raw_sql(statements)).await.map(|_| ()) })
    })
}

fn sqlite_pool(connections: u32, more: &str) -> AnyPoolOptions {
    let pool = AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(PATIENCE);
    let patience = PATIENCE.as_millis();
    told(
        pool,
        format!(
            "PRAGMA busy_timeout = {patience}; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
             PRAGMA wal_autocheckpoint = {AT_THE_LATEST}; {more}"
        ),
    )
}

fn postgres_pool(connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(POSTGRES_PATIENCE)
        .idle_timeout(Duration::from_secs(600))
        .max_lifetime(Duration::from_secs(1800))
}

/// Returns the address of PostgreSQL with our settings; what it says itself wins.
pub(super) fn postgres_url(url: &str) -> Result<String, RegistryError> {
    // The reason is left out as well: it may quote the address.
    sqlx::any::AnyConnectOptions::from_str(url)
        .map_err(|_| invalid("this PostgreSQL address (not shown) cannot be read".to_owned()))?;
    let mut full = url.to_owned();
    full.push(if url.contains('?') { '&' } else { '?' });
    if !url.contains("application_name=") {
        full.push_str("application_name=promptgate&");
    }
    for (name, value) in POSTGRES_SETTINGS {
        if !url.contains(&format!("options[{name}]=")) {
            full.push_str(&format!("options[{name}]={value}&"));
        }
    }
    full.pop();
    Ok(full)
}

/// Connects once: a pool tries again and again before it says that nobody is there, and then not why.
async fn require_answer(url: &str) -> Result<(), RegistryError> {
    let answer = tokio::time::timeout(POSTGRES_PATIENCE, SqlConnection::connect(url)).await;
    match answer {
        Ok(connection) => Ok(connection?.close().await?),
        Err(_) => Err(RegistryError::Unavailable(format!(
            "no answer within {} s",
            POSTGRES_PATIENCE.as_secs()
        ))),
    }
}

fn file_url(options: &SqliteConnectOptions, mode: &str) -> String {
    let path = options.get_filename().to_string_lossy();
    format!("sqlite:{}?mode={mode}", utf8_percent_encode(&path, PATH))
}

/// Makes the file if there is none, and has it use a write-ahead log, which stays so.
///
/// Source: <https://sqlite.org/wal.html#sometimes_queries_return_sqlite_busy_in_wal_mode>; who switches a file to WAL while
/// another does is told at once that it is busy, whatever the timeout.
async fn create_file(options: &SqliteConnectOptions) -> Result<(), RegistryError> {
    if let Some(folder) = options.get_filename().parent() {
        std::fs::create_dir_all(folder).map_err(sqlx::Error::Io)?;
    }
    let options = options
        .clone()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(PATIENCE);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match SqliteConnection::connect_with(&options).await {
            Err(sqlx::Error::Database(error)) if is_busy(&*error) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error.into()),
            Ok(connection) => return Ok(connection.close().await?),
        }
    }
}

/// Source: <https://sqlite.org/rescode.html>, SQLITE_BUSY and its extended codes.
fn is_busy(error: &dyn sqlx::error::DatabaseError) -> bool {
    let code = error.code().filter(|code| code.len() < 5);
    code.and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| code & 0xff == 5)
}

/// Says whether a failure means that the database is away or overloaded, so that the same may work later.
///
/// Source: <https://www.postgresql.org/docs/15/errcodes-appendix.html>: connection exceptions, transaction rollbacks (a
/// deadlock), insufficient resources, operator intervention (a shutdown, a timeout), lock not available, read-only (a standby).
pub(super) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            let away = ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class));
            is_busy(&**error) || (code.len() == 5 && (away || ["25006", "55P03"].contains(&&*code)))
        }
        _ => false,
    }
}
