//! Newer partials, offered as new versions: an existing version never changes.

use crate::registry::sql::SqlConnection;
use serde_json::Value;

use super::change::{By, Change};
use super::versions::{self, prepare, require_message};
use super::{Missing, Published, Registry, RegistryError, VersionSummary, number, parse, prompts};
use crate::domain::content::Content;
use crate::domain::diff::{ContentDiff, diff};
use crate::domain::version::Problem;

/// What a version would become with the latest version of each partial that it names without one.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    pub version: u32,
    /// Where it is live.
    pub live: Vec<String>,
    /// The difference, or why it cannot be made.
    pub outcome: Result<ContentDiff, Vec<Problem>>,
}

/// Reads a version's text as submitted and as frozen.
async fn both(sql: &mut SqlConnection, prompt: &str, version: u32) -> Result<(Content, Content), RegistryError> {
    let row: Option<(String, String)> =
        sqlx::query_as("SELECT source, content FROM versions WHERE prompt_id = $1 AND version = $2")
            .bind(prompt)
            .bind(i64::from(version))
            .fetch_optional(sql)
            .await?;
    let prompt = prompt.to_owned();
    let (source, content) = row.ok_or(Missing::Version { prompt, version })?;
    Ok((parse(&source)?, parse(&content)?))
}

impl Registry {
    /// Lists which of the latest and the live versions would become something else if their partials were frozen now.
    ///
    /// # Errors
    /// When there is no such prompt, or the database fails.
    pub async fn list_updates(&self, prompt: &str) -> Result<Vec<Update>, RegistryError> {
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        // Whatever includes nothing is never behind.
        let rows: Vec<(i64,)> = sqlx::query_as(
            "SELECT DISTINCT p.version FROM partials p WHERE p.prompt_id = $1 AND \
             (p.version = (SELECT MAX(v.version) FROM versions v WHERE v.prompt_id = $1) OR EXISTS \
             (SELECT 1 FROM deployed_versions d WHERE d.prompt_id = $1 AND d.version = p.version AND d.live = 1)) \
             ORDER BY p.version DESC",
        )
        .bind(&prompt)
        .fetch_all(&mut *tx)
        .await?;
        let mut updates = Vec::new();
        for (version,) in rows {
            let version: u32 = number(version)?;
            let (source, content) = both(&mut tx, &prompt, version).await?;
            let outcome = match prepare(&mut tx, &prompt, source).await {
                Ok(checked) if checked.content.hash() == content.hash() => continue,
                Ok(checked) => Ok(diff(&content, &checked.content)),
                Err(RegistryError::Invalid(problems)) => Err(problems),
                Err(error) => return Err(error),
            };
            let live: Vec<(String,)> = sqlx::query_as(
                "SELECT d.environment FROM deployed_versions d JOIN environments e ON e.name = d.environment \
                 WHERE d.prompt_id = $1 AND d.version = $2 AND d.live = 1 ORDER BY e.position",
            )
            .bind(&prompt)
            .bind(i64::from(version))
            .fetch_all(&mut *tx)
            .await?;
            updates.push(Update {
                version,
                live: live.into_iter().map(|(environment,)| environment).collect(),
                outcome,
            });
        }
        Ok(updates)
    }

    /// Adds a version with the text of an earlier one and the partials of today.
    ///
    /// # Errors
    /// When the message is blank, the prompt or the version does not exist, nothing would change, the content is not
    /// valid any more, or the database fails.
    pub async fn refresh_version(
        &self,
        prompt: &str,
        from: u32,
        by: By<'_>,
    ) -> Result<Published<VersionSummary>, RegistryError> {
        require_message(by.message)?;
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        let (source, _) = both(&mut tx, &prompt, from).await?;
        let checked = prepare(&mut tx, &prompt, source).await?;
        tx.commit().await?;
        let mut change = Change::begin(self, by.actor).await?;
        let prompt = prompts::require(change.sql(), &prompt).await?;
        let value = versions::add(&mut change, &prompt, &checked, Some(from), by).await?;
        let generation = change.end().await?;
        Ok(Published { value, generation })
    }

    /// Returns what content would become as a version of a prompt now.
    ///
    /// # Errors
    /// When there is no such prompt, the content is not valid, or the database fails.
    pub async fn preview(&self, prompt: &str, submitted: &Value) -> Result<Content, RegistryError> {
        let content = serde_json::from_value(submitted.clone())
            .map_err(|why| RegistryError::Invalid(vec![Problem::new("content", why.to_string())]))?;
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        Ok(prepare(&mut tx, &prompt, content).await?.content)
    }
}
