//! Versions: immutable contents of a prompt, numbered from 1.

use serde_json::json;
use sqlx::SqliteConnection;

use super::change::{By, Change};
use super::partials::{self, Used};
use super::{Missing, Page, PageOf, Published, Registry, RegistryError, number, parse, prompts, text};
use crate::domain::content::Content;
use crate::domain::{partial, version};

/// A version without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSummary {
    pub prompt: String,
    pub version: u32,
    /// SHA-256 of the effective content, in lowercase hexadecimal.
    pub hash: String,
    pub message: String,
    pub author: String,
    /// Microseconds since the Unix epoch.
    pub created_at_us: i64,
}

/// A version of some prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionName {
    pub prompt: String,
    pub version: u32,
}

/// A version with all there is to know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    pub summary: VersionSummary,
    /// Effective: partials are frozen into it.
    pub content: Content,
    /// As it was submitted.
    pub source: Content,
    /// The partials its own text includes.
    pub uses: Vec<VersionName>,
    /// The versions whose own text includes it.
    pub used_by: Vec<VersionName>,
}

type Row = (String, i64, String, String, String, i64);

fn summary((prompt, version, hash, message, author, created_at_us): Row) -> Result<VersionSummary, RegistryError> {
    Ok(VersionSummary {
        prompt,
        version: number(version)?,
        hash,
        message,
        author,
        created_at_us,
    })
}

fn names(rows: Vec<(String, i64)>) -> Result<Vec<VersionName>, RegistryError> {
    let name = |(prompt, version)| {
        Ok(VersionName {
            prompt,
            version: number(version)?,
        })
    };
    rows.into_iter().map(name).collect()
}

fn require_message(message: &str) -> Result<(), RegistryError> {
    if message.trim().is_empty() {
        return Err(RegistryError::InvalidField {
            field: "message",
            message: "a version needs a commit message, say what changed and why".to_owned(),
        });
    }
    Ok(())
}

/// A version that passed every check.
struct Checked {
    source: String,
    content: Content,
    used: std::collections::BTreeSet<Used>,
}

/// Makes the effective content and checks it; nothing is written.
async fn prepare(sql: &mut SqliteConnection, prompt: &str, submitted: Content) -> Result<Checked, RegistryError> {
    let source = text(&submitted);
    let mut content = submitted
        .normalise()
        .map_err(|why| RegistryError::Invalid(vec![partial::problem("content", why)]))?;
    let used = partials::freeze(sql, prompt, &mut content).await?;
    version::check(&content).map_err(RegistryError::Invalid)?;
    Ok(Checked { source, content, used })
}

async fn insert(
    change: &mut Change<'_>,
    prompt: &str,
    checked: &Checked,
    by: By<'_>,
) -> Result<VersionSummary, RegistryError> {
    let at_us = change.at_us;
    let (latest,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(version), 0) FROM versions WHERE prompt_id = $1")
        .bind(prompt)
        .fetch_one(change.sql())
        .await?;
    let hash = checked.content.hash();
    sqlx::query(
        "INSERT INTO versions (prompt_id, version, content, source, hash, message, author, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(prompt)
    .bind(latest + 1)
    .bind(text(&checked.content))
    .bind(&checked.source)
    .bind(&hash)
    .bind(by.message)
    .bind(by.actor.name)
    .bind(at_us)
    .execute(change.sql())
    .await?;
    for (partial, version) in &checked.used {
        sqlx::query("INSERT INTO partials (prompt_id, version, partial_id, partial_version) VALUES ($1, $2, $3, $4)")
            .bind(prompt)
            .bind(latest + 1)
            .bind(partial)
            .bind(i64::from(*version))
            .execute(change.sql())
            .await?;
    }
    Ok(VersionSummary {
        prompt: prompt.to_owned(),
        version: number(latest + 1)?,
        hash,
        message: by.message.to_owned(),
        author: by.actor.name.to_owned(),
        created_at_us: at_us,
    })
}

impl Registry {
    /// Adds a version to a prompt: normalises the content, freezes its partials, checks it and numbers it.
    ///
    /// Partials are resolved and the template compiled before the write lock is taken: versions are immutable, so what
    /// was read then is still true.
    ///
    /// # Errors
    /// When the message is blank, there is no such prompt, the content is not valid, or the database fails.
    pub async fn create_version(
        &self,
        prompt: &str,
        content: Content,
        by: By<'_>,
    ) -> Result<Published<VersionSummary>, RegistryError> {
        require_message(by.message)?;
        let mut tx = self.reader.begin().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        let checked = prepare(&mut tx, &prompt, content).await?;
        tx.commit().await?;

        let mut change = Change::begin(self, by.actor).await?;
        let value = insert(&mut change, &prompt, &checked, by).await?;
        change.touch(&prompt).await?;
        let subject = format!("{prompt}:{}", value.version);
        let detail = json!({"hash": value.hash, "message": value.message});
        let generation = change.commit("version.create", &subject, detail).await?;
        Ok(Published { value, generation })
    }

    /// Returns a version with its content and what it shares with others.
    ///
    /// # Errors
    /// When the prompt or the version does not exist, or the database fails.
    pub async fn version(&self, prompt: &str, version: u32) -> Result<Version, RegistryError> {
        let mut tx = self.reader.begin().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        let row: Option<(String, String, String, String, String, i64)> = sqlx::query_as(
            "SELECT content, source, hash, message, author, created_at FROM versions \
             WHERE prompt_id = $1 AND version = $2",
        )
        .bind(&prompt)
        .bind(i64::from(version))
        .fetch_optional(&mut *tx)
        .await?;
        let Some((content, source, hash, message, author, created_at_us)) = row else {
            return Err(Missing::Version { prompt, version }.into());
        };
        let uses = sqlx::query_as(
            "SELECT partial_id, partial_version FROM partials WHERE prompt_id = $1 AND version = $2 \
             ORDER BY partial_id, partial_version",
        );
        let uses = uses.bind(&prompt).bind(i64::from(version)).fetch_all(&mut *tx).await?;
        let used_by = sqlx::query_as(
            "SELECT prompt_id, version FROM partials WHERE partial_id = $1 AND partial_version = $2 \
             ORDER BY prompt_id, version",
        );
        let used_by = used_by
            .bind(&prompt)
            .bind(i64::from(version))
            .fetch_all(&mut *tx)
            .await?;
        Ok(Version {
            summary: VersionSummary {
                prompt,
                version,
                hash,
                message,
                author,
                created_at_us,
            },
            content: parse(&content)?,
            source: parse(&source)?,
            uses: names(uses)?,
            used_by: names(used_by)?,
        })
    }

    /// Lists the versions of a prompt, newest first.
    ///
    /// # Errors
    /// When there is no such prompt, the cursor is not one of this list, or the database fails.
    pub async fn list_versions(&self, prompt: &str, page: PageOf<'_>) -> Result<Page<VersionSummary>, RegistryError> {
        let mut tx = self.reader.begin().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT prompt_id, version, hash, message, author, created_at FROM versions \
             WHERE prompt_id = $1 AND version < $2 ORDER BY version DESC LIMIT $3",
        )
        .bind(&prompt)
        .bind(page.below()?)
        .bind(page.rows())
        .fetch_all(&mut *tx)
        .await?;
        let items = rows.into_iter().map(summary).collect::<Result<_, _>>()?;
        Ok(page.page(items, |version: &VersionSummary| version.version.to_string()))
    }

    /// Returns the effective content of a version, named by the prompt's id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn content(&self, prompt: &str, version: u32) -> Result<Option<Content>, RegistryError> {
        let row: Option<(String,)> =
            sqlx::query_as("SELECT content FROM versions WHERE prompt_id = $1 AND version = $2")
                .bind(prompt)
                .bind(i64::from(version))
                .fetch_optional(&self.reader)
                .await?;
        row.map(|(content,)| parse(&content)).transpose()
    }
}
