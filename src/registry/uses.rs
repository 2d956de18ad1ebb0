//! Which version includes which, both ways, and what keeps a prompt from being put away.

use std::fmt;

use crate::registry::sql::SqlConnection;
use serde::Serialize;

use super::{Page, PageOf, Registry, RegistryError, number, prompts};

/// A partial that a version includes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Included {
    pub prompt: String,
    pub version: u32,
    /// The partial's latest version.
    pub latest: u32,
}

/// A version, and the partials its own text includes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uses {
    pub version: u32,
    pub uses: Vec<Included>,
}

/// A version that includes one of the prompt's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsedBy {
    pub prompt: String,
    pub version: u32,
    /// The version of the prompt asked about that is frozen into it.
    pub uses_version: u32,
    /// Where it is live.
    pub live: Vec<String>,
}

/// Something that needs a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LiveUse {
    pub prompt: String,
    /// `None` for a shift that is under way.
    pub version: Option<u32>,
    pub environment: String,
    /// `live`, `partial` or `shift`.
    pub kind: &'static str,
}

impl fmt::Display for LiveUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.unwrap_or_default();
        match self.kind {
            "live" => write!(f, "its version {version} is live in {:?}", self.environment),
            "partial" => write!(
                f,
                "it is frozen into {}:{version}, live in {:?}",
                self.prompt, self.environment
            ),
            _ => write!(f, "a shift of it is under way in {:?}", self.environment),
        }
    }
}

/// Lists what needs a prompt now: its own live versions, those of others that have it frozen in at any depth, and shifts.
pub(super) async fn live_uses(sql: &mut SqlConnection, id: &str) -> Result<Vec<LiveUse>, RegistryError> {
    let rows: Vec<(String, i64, String)> = sqlx::query_as(
        "WITH RECURSIVE needs (prompt_id, version) AS ( \
           SELECT prompt_id, version FROM versions WHERE prompt_id = $1 \
           UNION \
           SELECT p.prompt_id, p.version FROM needs n \
           JOIN partials p ON p.partial_id = n.prompt_id AND p.partial_version = n.version) \
         SELECT d.prompt_id, d.version, d.environment FROM needs n \
         JOIN deployed_versions d ON d.prompt_id = n.prompt_id AND d.version = n.version AND d.live = 1 \
         ORDER BY d.prompt_id, d.environment, d.version",
    )
    .bind(id)
    .fetch_all(&mut *sql)
    .await?;
    let mut uses = Vec::with_capacity(rows.len());
    for (prompt, version, environment) in rows {
        uses.push(LiveUse {
            kind: if prompt == id { "live" } else { "partial" },
            version: Some(number(version)?),
            prompt,
            environment,
        });
    }
    let shifts: Vec<(String,)> =
        sqlx::query_as("SELECT environment FROM shifts WHERE prompt_id = $1 AND state = 'running'")
            .bind(id)
            .fetch_all(sql)
            .await?;
    uses.extend(shifts.into_iter().map(|(environment,)| LiveUse {
        prompt: id.to_owned(),
        version: None,
        environment,
        kind: "shift",
    }));
    Ok(uses)
}

impl Registry {
    /// Lists what the versions of a prompt include, newest version first; versions without partials are left out.
    ///
    /// # Errors
    /// When there is no such prompt, the cursor is not one of this list, or the database fails.
    pub async fn list_uses(&self, prompt: &str, page: PageOf<'_>) -> Result<Page<Uses>, RegistryError> {
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        let versions: Vec<(i64,)> = sqlx::query_as(
            "SELECT DISTINCT version FROM partials WHERE prompt_id = $1 AND version < $2 ORDER BY version DESC LIMIT $3",
        )
        .bind(&prompt)
        .bind(page.below()?)
        .bind(page.rows())
        .fetch_all(&mut *tx)
        .await?;
        let mut items: Vec<Uses> = Vec::with_capacity(versions.len());
        for (version,) in versions {
            let rows: Vec<(String, i64, i64)> = sqlx::query_as(
                "SELECT p.partial_id, p.partial_version, \
                 (SELECT MAX(v.version) FROM versions v WHERE v.prompt_id = p.partial_id) FROM partials p \
                 WHERE p.prompt_id = $1 AND p.version = $2 ORDER BY p.partial_id, p.partial_version",
            )
            .bind(&prompt)
            .bind(version)
            .fetch_all(&mut *tx)
            .await?;
            let mut uses = Vec::with_capacity(rows.len());
            for (prompt, version, latest) in rows {
                uses.push(Included {
                    prompt,
                    version: number(version)?,
                    latest: number(latest)?,
                });
            }
            items.push(Uses {
                version: number(version)?,
                uses,
            });
        }
        Ok(page.page(items, |uses| uses.version.to_string()))
    }

    /// Lists the versions whose own text includes a prompt, by id and version, with where they are live.
    ///
    /// # Errors
    /// When there is no such prompt, the cursor is not one of this list, or the database fails.
    pub async fn list_used_by(&self, prompt: &str, page: PageOf<'_>) -> Result<Page<UsedBy>, RegistryError> {
        let (after, after_version) = match page.cursor {
            None => (String::new(), 0),
            Some(cursor) => cursor
                .rsplit_once(':')
                .and_then(|(id, version)| Some((id.to_owned(), version.parse::<u32>().ok()?)))
                .ok_or_else(|| page.not_a_cursor(cursor))?,
        };
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT prompt_id, version, MAX(partial_version) FROM partials WHERE partial_id = $1 \
             AND (prompt_id > $2 OR (prompt_id = $2 AND version > $3)) GROUP BY prompt_id, version \
             ORDER BY prompt_id, version LIMIT $4",
        )
        .bind(&prompt)
        .bind(after)
        .bind(i64::from(after_version))
        .bind(page.rows())
        .fetch_all(&mut *tx)
        .await?;
        let mut items = Vec::with_capacity(rows.len());
        for (by, version, uses) in rows {
            let live: Vec<(String,)> = sqlx::query_as(
                "SELECT d.environment FROM deployed_versions d JOIN environments e ON e.name = d.environment \
                 WHERE d.prompt_id = $1 AND d.version = $2 AND d.live = 1 ORDER BY e.position",
            )
            .bind(&by)
            .bind(version)
            .fetch_all(&mut *tx)
            .await?;
            items.push(UsedBy {
                prompt: by,
                version: number(version)?,
                uses_version: number(uses)?,
                live: live.into_iter().map(|(environment,)| environment).collect(),
            });
        }
        Ok(page.page(items, |item| format!("{}:{}", item.prompt, item.version)))
    }
}
