//! Versions: immutable contents of a prompt, numbered from 1.

use crate::registry::sql::SqlConnection;
use serde_json::json;

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
    /// The version that its editor began with, if that is known.
    pub parent: Option<u32>,
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
    /// The versions whose own text includes it, at most 200: [`Registry::list_used_by`] has all.
    pub used_by: Vec<VersionName>,
}

type Row = (String, i64, String, String, String, i64, Option<i64>);

fn summary(
    (prompt, version, hash, message, author, created_at_us, parent): Row,
) -> Result<VersionSummary, RegistryError> {
    Ok(VersionSummary {
        prompt,
        version: number(version)?,
        hash,
        message,
        author,
        created_at_us,
        parent: parent.map(number).transpose()?,
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

pub(super) fn require_message(message: &str) -> Result<(), RegistryError> {
    if message.trim().is_empty() {
        return Err(RegistryError::InvalidField {
            field: "message",
            message: "a version needs a commit message, say what changed and why".to_owned(),
        });
    }
    Ok(())
}

/// A version that passed every check.
pub(super) struct Checked {
    source: String,
    pub content: Content,
    used: std::collections::BTreeSet<Used>,
}

/// Makes the effective content and checks it; nothing is written.
pub(super) async fn prepare(
    sql: &mut SqlConnection,
    prompt: &str,
    submitted: Content,
) -> Result<Checked, RegistryError> {
    let source = text(&submitted);
    let mut content = submitted
        .normalise()
        .map_err(|why| RegistryError::Invalid(vec![partial::problem("content", why)]))?;
    let used = partials::freeze(sql, prompt, &mut content).await?;
    version::check(&content).map_err(RegistryError::Invalid)?;
    Ok(Checked { source, content, used })
}

/// Reads the latest version of a prompt, if there is one.
pub(super) async fn latest(sql: &mut SqlConnection, prompt: &str) -> Result<Option<VersionSummary>, RegistryError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT prompt_id, version, hash, message, author, created_at, parent FROM versions \
         WHERE prompt_id = $1 ORDER BY version DESC LIMIT 1",
    )
    .bind(prompt)
    .fetch_optional(sql)
    .await?;
    row.map(summary).transpose()
}

/// Refuses content that a version of the prompt has already.
async fn require_new(sql: &mut SqlConnection, prompt: &str, hash: &str) -> Result<(), RegistryError> {
    let twin: Option<(i64,)> =
        sqlx::query_as("SELECT version FROM versions WHERE prompt_id = $1 AND hash = $2 ORDER BY version DESC LIMIT 1")
            .bind(prompt)
            .bind(hash)
            .fetch_optional(sql)
            .await?;
    match twin {
        None => Ok(()),
        Some((version,)) => Err(RegistryError::InUse {
            message: format!("version {version} of prompt {prompt:?} has the same content: use that one"),
            details: json!({"prompt": prompt, "version": version, "hash": hash}),
        }),
    }
}

/// Numbers and writes a version, unless it says nothing new; the change is stamped and noted, and is to be finished.
pub(super) async fn add(
    change: &mut Change<'_>,
    prompt: &str,
    checked: &Checked,
    parent: Option<u32>,
    by: By<'_>,
) -> Result<VersionSummary, RegistryError> {
    require_new(change.sql(), prompt, &checked.content.hash()).await?;
    let value = insert(change, prompt, checked, parent, by).await?;
    change.touch(prompt).await?;
    let subject = format!("{prompt}:{}", value.version);
    let detail = json!({"hash": value.hash, "message": value.message, "parent": value.parent});
    change.audit("version.create", &subject, detail).await?;
    Ok(value)
}

async fn insert(
    change: &mut Change<'_>,
    prompt: &str,
    checked: &Checked,
    parent: Option<u32>,
    by: By<'_>,
) -> Result<VersionSummary, RegistryError> {
    let at_us = change.at_us;
    let (latest,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(version), 0) FROM versions WHERE prompt_id = $1")
        .bind(prompt)
        .fetch_one(change.sql())
        .await?;
    let hash = checked.content.hash();
    sqlx::query(
        "INSERT INTO versions (prompt_id, version, content, source, hash, message, author, created_at, parent) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(prompt)
    .bind(latest + 1)
    .bind(text(&checked.content))
    .bind(&checked.source)
    .bind(&hash)
    .bind(by.message)
    .bind(by.actor.name)
    .bind(at_us)
    .bind(parent.map(i64::from))
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
        parent,
    })
}

impl Registry {
    /// Adds a version to a prompt: normalises the content, freezes its partials, checks it and numbers it.
    ///
    /// Partials are resolved and the template compiled before the write lock is taken: versions are immutable, so what
    /// was read then is still true.
    ///
    /// # Errors
    /// When the message is blank, there is no such prompt, the content is not valid or that of another version, or the
    /// database fails.
    pub async fn create_version(
        &self,
        prompt: &str,
        content: Content,
        by: By<'_>,
    ) -> Result<Published<VersionSummary>, RegistryError> {
        require_message(by.message)?;
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        let checked = prepare(&mut tx, &prompt, content).await?;
        tx.commit().await?;

        let mut change = Change::begin(self, by.actor).await?;
        // It may have been renamed since.
        let prompt = prompts::require(change.sql(), &prompt).await?;
        let value = add(&mut change, &prompt, &checked, None, by).await?;
        let generation = change.end().await?;
        Ok(Published { value, generation })
    }

    /// Returns a version with its content and what it shares with others.
    ///
    /// # Errors
    /// When the prompt or the version does not exist, or the database fails.
    pub async fn version(&self, prompt: &str, version: u32) -> Result<Version, RegistryError> {
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        type Row = (String, String, String, String, String, i64, Option<i64>);
        let row: Option<Row> = sqlx::query_as(
            "SELECT content, source, hash, message, author, created_at, parent FROM versions \
             WHERE prompt_id = $1 AND version = $2",
        )
        .bind(&prompt)
        .bind(i64::from(version))
        .fetch_optional(&mut *tx)
        .await?;
        let Some((content, source, hash, message, author, created_at_us, parent)) = row else {
            return Err(Missing::Version { prompt, version }.into());
        };
        let uses = sqlx::query_as(
            "SELECT partial_id, partial_version FROM partials WHERE prompt_id = $1 AND version = $2 \
             ORDER BY partial_id, partial_version",
        );
        let uses = uses.bind(&prompt).bind(i64::from(version)).fetch_all(&mut *tx).await?;
        let used_by = sqlx::query_as(
            "SELECT prompt_id, version FROM partials WHERE partial_id = $1 AND partial_version = $2 \
             ORDER BY prompt_id, version LIMIT 200",
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
                parent: parent.map(number).transpose()?,
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
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT prompt_id, version, hash, message, author, created_at, parent FROM versions \
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

    /// Returns the effective content of a version, named by the prompt's uid.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn content(&self, uid: &str, version: u32) -> Result<Option<Content>, RegistryError> {
        let row: Option<(String,)> = sqlx::query_as(
            "SELECT v.content FROM prompts p JOIN versions v ON v.prompt_id = p.id WHERE p.uid = $1 AND v.version = $2",
        )
        .bind(uid)
        .bind(i64::from(version))
        .fetch_optional(self.reader()?)
        .await?;
        row.map(|(content,)| parse(&content)).transpose()
    }
}
