//! Drafts: texts that people work on. A draft belongs to one user and one prompt, may be broken, and is no version until
//! it is committed.
//!
//! Saving asks for the revision that the editor saw, and a save that comes too late gets the other's text instead: nothing
//! is ever overwritten unseen. The audit log has who began, committed and deleted a draft and who wrote in another's, not
//! every save of one's own.

use crate::registry::sql::SqlConnection;
use serde_json::{Value, json};

use super::change::{Actor, By, Change};
use super::edited::Edited;
use super::versions::{self, prepare, require_message};
use super::{Missing, Page, PageOf, Published, Registry, RegistryError, VersionSummary, number, parse, prompts, text};
use crate::domain::prompt::validate_name;
use crate::domain::version::Problem;

/// The most drafts of one user for one prompt.
const MAX_DRAFTS: i64 = 50;

/// A text under work.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub prompt: String,
    /// The user whose it is, by name.
    pub owner: String,
    pub name: String,
    /// As submitted.
    pub content: Value,
    /// The version it began with, 0 for none.
    pub base_version: u32,
    /// The prompt's latest version.
    pub latest_version: u32,
    /// Counts the saves.
    pub revision: u32,
    /// Microseconds since the Unix epoch.
    pub created_at_us: i64,
    pub updated_at_us: i64,
    pub updated_by: String,
}

/// Which draft.
#[derive(Debug, Clone, Copy)]
pub struct DraftName<'a> {
    pub prompt: &'a str,
    pub owner: &'a str,
    pub name: &'a str,
}

/// What to save.
#[derive(Debug, Clone)]
pub struct DraftSave {
    pub content: Value,
    /// `None` keeps what it began with; for a new draft that is the latest version.
    pub base_version: Option<u32>,
    /// The revision that the editor saw; `None` or 0 for a new draft.
    pub expected: Option<u32>,
}

type Row = (String, String, String, String, i64, i64, i64, i64, String, i64);

const SELECT: &str = "SELECT d.prompt_id, d.owner, d.name, d.content, d.base_version, d.revision, d.created_at, \
     d.updated_at, d.updated_by, COALESCE((SELECT MAX(v.version) FROM versions v WHERE v.prompt_id = d.prompt_id), 0) \
     FROM drafts d WHERE d.prompt_id = $1";

fn draft(row: Row) -> Result<Draft, RegistryError> {
    let (prompt, owner, name, content, base, revision, created_at_us, updated_at_us, updated_by, latest) = row;
    Ok(Draft {
        prompt,
        owner,
        name,
        content: parse(&content)?,
        base_version: number(base)?,
        latest_version: number(latest)?,
        revision: number(revision)?,
        created_at_us,
        updated_at_us,
        updated_by,
    })
}

/// Reads a draft of a prompt by its id.
async fn find(sql: &mut SqlConnection, prompt: &str, of: DraftName<'_>) -> Result<Option<Draft>, RegistryError> {
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{SELECT} AND d.owner = $2 AND d.name = $3"
    )))
    .bind(prompt)
    .bind(of.owner)
    .bind(of.name)
    .fetch_optional(sql)
    .await?;
    row.map(draft).transpose()
}

async fn require(sql: &mut SqlConnection, prompt: &str, of: DraftName<'_>) -> Result<Draft, RegistryError> {
    let found = find(sql, prompt, of).await?;
    Ok(found.ok_or_else(|| Missing::Draft {
        prompt: prompt.to_owned(),
        owner: of.owner.to_owned(),
        name: of.name.to_owned(),
    })?)
}

/// Says what is wrong with a draft's content, as far as it could be a version now.
async fn problems(sql: &mut SqlConnection, prompt: &str, content: &Value) -> Result<Vec<Problem>, RegistryError> {
    let content = match serde_json::from_value(content.clone()) {
        Ok(content) => content,
        Err(why) => return Ok(vec![Problem::new("content", why.to_string())]),
    };
    match prepare(sql, prompt, content).await {
        Ok(_) => Ok(Vec::new()),
        Err(RegistryError::Invalid(problems)) => Ok(problems),
        Err(error) => Err(error),
    }
}

async fn require_room(sql: &mut SqlConnection, prompt: &str, owner: &str) -> Result<(), RegistryError> {
    let (drafts,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM drafts WHERE prompt_id = $1 AND owner = $2")
        .bind(prompt)
        .bind(owner)
        .fetch_one(sql)
        .await?;
    if drafts < MAX_DRAFTS {
        return Ok(());
    }
    Err(RegistryError::Conflict(format!(
        "{owner:?} has {drafts} drafts of prompt {prompt:?}, delete one first"
    )))
}

/// Makes sure that a draft's base is there, and fills in the usual one.
async fn base_of(
    sql: &mut SqlConnection,
    prompt: &str,
    asked: Option<u32>,
    before: Option<&Draft>,
) -> Result<i64, RegistryError> {
    let (latest,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(version), 0) FROM versions WHERE prompt_id = $1")
        .bind(prompt)
        .fetch_one(sql)
        .await?;
    match asked {
        Some(version) if i64::from(version) > latest => Err(Missing::Version {
            prompt: prompt.to_owned(),
            version,
        }
        .into()),
        Some(version) => Ok(i64::from(version)),
        None => Ok(before.map_or(latest, |draft| i64::from(draft.base_version))),
    }
}

impl Registry {
    /// Saves a draft, and says what is wrong with it.
    ///
    /// # Errors
    /// When the content is no JSON object, somebody saved it meanwhile (with their text), there are too many, the prompt or
    /// the base version does not exist, or the database fails.
    pub async fn save_draft(
        &self,
        of: DraftName<'_>,
        save: DraftSave,
        actor: Actor<'_>,
    ) -> Result<(Published<Draft>, Vec<Problem>), RegistryError> {
        let invalid = |field, message| RegistryError::InvalidField { field, message };
        validate_name("draft", of.name).map_err(|why| invalid("name", why))?;
        if !save.content.is_object() {
            return Err(invalid("content", "must be an object".to_owned()));
        }
        let mut change = Change::begin_quietly(self, actor).await?;
        let prompt = prompts::require(change.sql(), of.prompt).await?;
        let before = find(change.sql(), &prompt, of).await?;
        match (&before, save.expected) {
            (Some(before), expected) if expected != Some(before.revision) => {
                return Err(Edited::Draft(before.clone()).into());
            }
            (None, None | Some(0)) => require_room(change.sql(), &prompt, of.owner).await?,
            // It was committed or deleted meanwhile.
            (None, Some(_)) => {
                require(change.sql(), &prompt, of).await?;
            }
            (Some(_), _) => {}
        }
        let base = base_of(change.sql(), &prompt, save.base_version, before.as_ref()).await?;
        let at_us = change.at_us;
        sqlx::query(
            "INSERT INTO drafts (prompt_id, owner, name, content, base_version, revision, created_at, updated_at, \
             updated_by) VALUES ($1, $2, $3, $4, $5, 1, $6, $6, $7) ON CONFLICT (prompt_id, owner, name) DO UPDATE SET \
             content = excluded.content, base_version = excluded.base_version, revision = drafts.revision + 1, \
             updated_at = excluded.updated_at, updated_by = excluded.updated_by",
        )
        .bind(&prompt)
        .bind(of.owner)
        .bind(of.name)
        .bind(text(&save.content))
        .bind(base)
        .bind(at_us)
        .bind(actor.name)
        .execute(change.sql())
        .await?;
        let value = require(change.sql(), &prompt, of).await?;
        if before.is_none() || actor.name != of.owner {
            let detail = json!({
                "from": before.map(|before| json!({"revision": before.revision, "updated_by": before.updated_by})),
                "to": {"revision": value.revision, "base_version": value.base_version},
            });
            let subject = format!("{prompt}#{}/{}", of.owner, of.name);
            change.audit("draft.save", &subject, detail).await?;
        }
        let generation = change.end().await?;
        // Outside of the write lock: compiling takes its time.
        let problems = problems(&mut *self.reader()?.acquire().await?, &prompt, &value.content).await?;
        Ok((Published { value, generation }, problems))
    }

    /// Returns a draft, and what is wrong with it now.
    ///
    /// # Errors
    /// When there is no such draft, or the database fails.
    pub async fn draft(&self, of: DraftName<'_>) -> Result<(Draft, Vec<Problem>), RegistryError> {
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, of.prompt).await?;
        let draft = require(&mut tx, &prompt, of).await?;
        let problems = problems(&mut tx, &prompt, &draft.content).await?;
        Ok((draft, problems))
    }

    /// Lists everybody's drafts of a prompt, by user and name.
    ///
    /// # Errors
    /// When there is no such prompt, the cursor is not one of this list, or the database fails.
    pub async fn list_drafts(&self, prompt: &str, page: PageOf<'_>) -> Result<Page<Draft>, RegistryError> {
        let (owner, name) = match page.cursor {
            None => ("", ""),
            // A draft's name has no slash; a user's neither.
            Some(cursor) => cursor.split_once('/').ok_or_else(|| page.not_a_cursor(cursor))?,
        };
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, prompt).await?;
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "{SELECT} AND (d.owner > $2 OR (d.owner = $2 AND d.name > $3)) ORDER BY d.owner, d.name LIMIT $4"
        )))
        .bind(&prompt)
        .bind(owner)
        .bind(name)
        .bind(page.rows())
        .fetch_all(&mut *tx)
        .await?;
        let items = rows.into_iter().map(draft).collect::<Result<_, _>>()?;
        Ok(page.page(items, |draft| format!("{}/{}", draft.owner, draft.name)))
    }

    /// Deletes a draft. `expected` is the revision that the caller saw, if it says so.
    ///
    /// # Errors
    /// When there is no such draft, somebody saved it meanwhile, or the database fails.
    pub async fn delete_draft(
        &self,
        of: DraftName<'_>,
        expected: Option<u32>,
        actor: Actor<'_>,
    ) -> Result<Published<Draft>, RegistryError> {
        let mut change = Change::begin_quietly(self, actor).await?;
        let prompt = prompts::require(change.sql(), of.prompt).await?;
        let value = require(change.sql(), &prompt, of).await?;
        if expected.is_some_and(|expected| expected != value.revision) {
            return Err(Edited::Draft(value).into());
        }
        delete(change.sql(), &value).await?;
        let subject = format!("{prompt}#{}/{}", of.owner, of.name);
        let detail = json!({"from": {"revision": value.revision}, "to": null});
        let generation = change.commit("draft.delete", &subject, detail).await?;
        Ok(Published { value, generation })
    }

    /// Turns a draft into the next version, and deletes it.
    ///
    /// `expected` is the draft's revision that the caller saw; `onto` the latest version, if it is not the one that the
    /// draft began with.
    ///
    /// # Errors
    /// When the message is blank, the draft does not exist, is broken, or says what a version says already; when somebody
    /// saved it or made a version meanwhile; or the database fails.
    pub async fn commit_draft(
        &self,
        of: DraftName<'_>,
        expected: Option<u32>,
        onto: Option<u32>,
        by: By<'_>,
    ) -> Result<Published<VersionSummary>, RegistryError> {
        require_message(by.message)?;
        let mut tx = self.begin_read().await?;
        let prompt = prompts::require(&mut tx, of.prompt).await?;
        let seen = require(&mut tx, &prompt, of).await?;
        let content = serde_json::from_value(seen.content.clone())
            .map_err(|why| RegistryError::Invalid(vec![Problem::new("content", why.to_string())]))?;
        let checked = prepare(&mut tx, &prompt, content).await?;
        tx.commit().await?;

        let mut change = Change::begin(self, by.actor).await?;
        let prompt = prompts::require(change.sql(), &prompt).await?;
        let draft = require(change.sql(), &prompt, of).await?;
        if draft.revision != expected.unwrap_or(seen.revision) || draft.revision != seen.revision {
            return Err(Edited::Draft(draft).into());
        }
        if draft.latest_version != onto.unwrap_or(draft.base_version) {
            let latest = versions::latest(change.sql(), &prompt).await?;
            return Err(match latest {
                Some(latest) => Edited::Version(latest).into(),
                None => Missing::Version {
                    prompt,
                    version: onto.unwrap_or_default(),
                }
                .into(),
            });
        }
        let parent = (draft.base_version > 0).then_some(draft.base_version);
        let value = versions::add(&mut change, &prompt, &checked, parent, by).await?;
        delete(change.sql(), &draft).await?;
        let subject = format!("{prompt}#{}/{}", of.owner, of.name);
        let detail =
            json!({"from": {"revision": draft.revision}, "to": {"version": value.version}, "message": by.message});
        change.audit("draft.commit", &subject, detail).await?;
        let generation = change.end().await?;
        Ok(Published { value, generation })
    }
}

async fn delete(sql: &mut SqlConnection, draft: &Draft) -> Result<(), RegistryError> {
    sqlx::query("DELETE FROM drafts WHERE prompt_id = $1 AND owner = $2 AND name = $3")
        .bind(&draft.prompt)
        .bind(&draft.owner)
        .bind(&draft.name)
        .execute(sql)
        .await?;
    Ok(())
}
