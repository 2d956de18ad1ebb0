//! Where tests keep a registry: in a file of a temporary folder, or in a database of its own on the PostgreSQL server that
//! `PROMPTGATE_TEST_POSTGRES` names (`postgres://user@host:port/postgres`; the user must be allowed to create databases).
//! The same tests run on both; `tests/run` does it with a server that it throws away.

use sqlx::{Connection, Executor};
use tempfile::TempDir;

use super::sql::SqlConnection;

pub(crate) struct TestDatabase {
    pub url: String,
    pub folder: TempDir,
}

impl TestDatabase {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match std::env::var("PROMPTGATE_TEST_POSTGRES") {
            Err(_) => format!("sqlite:{}", folder.path().join("data/registry.db").display()),
            Ok(server) => {
                let name = format!("test_{:032x}", rand::random::<u128>());
                let mut sql = connect(&server).await;
                let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
                sql.execute(sqlx::raw_sql(create)).await.unwrap();
                sql.close().await.unwrap();
                format!("{}/{name}", server.rsplit_once('/').unwrap().0)
            }
        };
        Self { url, folder }
    }

    pub fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }

    /// Connects beside the registry; an SQLite file is made if there is none.
    pub async fn sql(&self) -> SqlConnection {
        match self.is_postgres() {
            true => connect(&self.url).await,
            false => {
                std::fs::create_dir_all(self.folder.path().join("data")).unwrap();
                connect(&format!("{}?mode=rwc", self.url)).await
            }
        }
    }
}

async fn connect(url: &str) -> SqlConnection {
    sqlx::any::install_default_drivers();
    SqlConnection::connect(url).await.unwrap()
}
