//! The texts of all prompts, folded and in memory, so that a search answers while somebody types.
//!
//! A database would have to lower-case every text for every search (10,000 prompts: a second). Here a search compares
//! bytes, and the database only decides about what it shows. The texts are those of one state of the audit log, in which
//! every change leaves an entry: when it grew, what is written about prompts is read again, and the content of versions
//! that were not there before. Versions never change.

use std::collections::HashMap;
use std::sync::Arc;

use memchr::memmem::Finder;
use serde_json::Value;
use tokio::sync::Mutex;

use super::library::{Archived, PromptFilter};
use super::prompts::ids_of;
use super::sql::{QueryBuilder, SqlConnection, SqlTransaction};
use super::{Registry, RegistryError, number, parse};
use crate::domain::folder;
use crate::domain::search::{Needle, fold, fold_texts};

/// The most bytes of versions' texts. What goes beyond may match everything, and the database decides.
const MAX_BYTES: usize = 64 << 20;

/// Of how many prompts versions are read at once; in tests few, to have several times some.
const BATCH: usize = if cfg!(test) { 3 } else { 200 };

/// The texts as they were last needed.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Held while they are brought up to date, so that one search does it for all.
    texts: Mutex<Arc<Texts>>,
}

/// All texts of one state of the registry.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// How many entries the audit log had; none is no state yet.
    entries: i64,
    /// The registry's, when they were read.
    lineage: u64,
    /// By id.
    prompts: Vec<PromptTexts>,
}

#[derive(Debug)]
struct PromptTexts {
    id: String,
    /// The same for ever, whatever the prompt is called.
    uid: String,
    owner: String,
    archived: bool,
    /// Id, aliases, tags, owner and description: folded lines.
    about: String,
    /// The latest and the live versions, ascending.
    versions: Vec<(u32, Option<Arc<str>>)>,
}

impl Search {
    /// Begins to read, and returns the texts of the state that is read.
    pub async fn read(&self, registry: &Registry) -> Result<(SqlTransaction, Arc<Texts>), RegistryError> {
        let mut texts = self.texts.lock().await;
        let mut tx = registry.begin_read().await?;
        let (entries,): (i64,) = sqlx::query_as("SELECT entries FROM audit_head WHERE id = 1")
            .fetch_one(&mut *tx)
            .await?;
        let lineage = registry.lineage();
        if texts.lineage != lineage {
            *texts = Arc::default();
        }
        if texts.entries != entries || entries == 0 {
            let loaded = Texts::load(&mut tx, entries, &texts).await?;
            *texts = Arc::new(Texts { lineage, ..loaded });
        }
        Ok((tx, Arc::clone(&texts)))
    }
}

impl Texts {
    async fn load(sql: &mut SqlConnection, entries: i64, old: &Self) -> Result<Self, RegistryError> {
        let mut prompts = about_all(sql).await?;
        let places: HashMap<String, usize> = places(&prompts);
        let known: HashMap<(&str, u32), &Arc<str>> = old
            .prompts
            .iter()
            .flat_map(|prompt| {
                let texts = prompt.versions.iter();
                texts.filter_map(|(version, text)| Some(((prompt.uid.as_str(), *version), text.as_ref()?)))
            })
            .collect();
        let mut bytes = 0;
        let mut missing: Vec<usize> = Vec::new();
        for (id, version) in present_versions(sql).await? {
            let Some(at) = places.get(&id).copied() else { continue };
            let prompt = &mut prompts[at];
            let text = known.get(&(prompt.uid.as_str(), version)).map(|text| Arc::clone(text));
            match &text {
                Some(text) => bytes += text.len(),
                None if missing.last() == Some(&at) => {}
                None => missing.push(at),
            }
            prompt.versions.push((version, text));
        }
        missing.sort_unstable();
        missing.dedup();
        for batch in missing.chunks(BATCH) {
            if bytes > MAX_BYTES {
                break;
            }
            bytes += read_versions(sql, &mut prompts, batch).await?;
        }
        Ok(Self {
            entries,
            lineage: 0,
            prompts,
        })
    }

    /// Returns the ids behind `after`, in order and at most so many, of prompts that may be wanted: of those whose texts are
    /// here, the ones that have the needle.
    pub fn candidates(&self, filter: PromptFilter<'_>, needle: &Needle, after: &str, most: usize) -> Vec<String> {
        let prefix = folder::prefix(filter.folder.unwrap_or_default());
        let finder = Finder::new(needle.folded());
        let inside = |id: &str| {
            let rest = id.strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| filter.folder.is_none() || filter.recursive || !rest.contains('/'))
        };
        let first = self.prompts.partition_point(|prompt| prompt.id.as_str() <= after);
        let wanted = self.prompts[first..].iter().filter(|prompt| {
            inside(&prompt.id)
                && match filter.archived {
                    Archived::Hidden => !prompt.archived,
                    Archived::Included => true,
                    Archived::Only => prompt.archived,
                }
                && filter.owner.is_none_or(|owner| prompt.owner == owner)
                && prompt.may_have(&finder)
        });
        wanted.take(most).map(|prompt| prompt.id.clone()).collect()
    }
}

impl PromptTexts {
    fn may_have(&self, finder: &Finder<'_>) -> bool {
        let has = |text: &str| finder.find(text.as_bytes()).is_some();
        let mut versions = self.versions.iter();
        has(&self.about) || versions.any(|(_, text)| text.as_deref().is_none_or(has))
    }
}

fn places(prompts: &[PromptTexts]) -> HashMap<String, usize> {
    let ids = prompts.iter().enumerate();
    ids.map(|(at, prompt)| (prompt.id.clone(), at)).collect()
}

/// Reads what is written about every prompt.
async fn about_all(sql: &mut SqlConnection) -> Result<Vec<PromptTexts>, RegistryError> {
    type Row = (String, String, String, String, String, Option<i64>);
    let rows: Vec<Row> = sqlx::query_as("SELECT id, uid, owner, description, tags, archived_at FROM prompts")
        .fetch_all(&mut *sql)
        .await?;
    let mut prompts = Vec::with_capacity(rows.len());
    for (id, uid, owner, description, tags, archived_at) in rows {
        let tags: Vec<String> = parse(&tags)?;
        let mut about = String::new();
        for text in [&id, &owner, &description].into_iter().chain(&tags) {
            add_line(&mut about, text);
        }
        prompts.push(PromptTexts {
            id,
            uid,
            owner,
            archived: archived_at.is_some(),
            about,
            versions: Vec::new(),
        });
    }
    // As bytes, which is not every database's order.
    prompts.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    let places = places(&prompts);
    let aliases: Vec<(String, String)> = sqlx::query_as("SELECT prompt_id, alias FROM aliases")
        .fetch_all(sql)
        .await?;
    for (id, alias) in aliases {
        if let Some(at) = places.get(&id) {
            add_line(&mut prompts[*at].about, &alias);
        }
    }
    Ok(prompts)
}

fn add_line(lines: &mut String, text: &str) {
    lines.push_str(&fold(text));
    lines.push('\n');
}

/// The versions that are searched: the latest, and those that are live; each once, those of a prompt ascending.
async fn present_versions(sql: &mut SqlConnection) -> Result<Vec<(String, u32)>, RegistryError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT prompt_id, MAX(version) FROM versions GROUP BY prompt_id UNION \
         SELECT prompt_id, version FROM deployed_versions WHERE live = 1 ORDER BY 1, 2",
    )
    .fetch_all(sql)
    .await?;
    let version = |(id, version)| Ok((id, number(version)?));
    rows.into_iter().map(version).collect()
}

/// Reads the missing texts of some prompts; returns how many bytes they have.
async fn read_versions(
    sql: &mut SqlConnection,
    prompts: &mut [PromptTexts],
    batch: &[usize],
) -> Result<usize, RegistryError> {
    let ids: Vec<String> = batch.iter().map(|at| prompts[*at].id.clone()).collect();
    let places: HashMap<&str, usize> = ids.iter().map(String::as_str).zip(batch.iter().copied()).collect();
    let mut numbers: Vec<u32> = batch
        .iter()
        .flat_map(|at| prompts[*at].versions.iter().map(|(version, _)| *version))
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut query = QueryBuilder::new("SELECT prompt_id, version, content FROM versions WHERE prompt_id IN ");
    ids_of(&mut query, &ids);
    // More than are wanted, if prompts have different ones; few all the same.
    query.push(" AND version IN (");
    for (at, version) in numbers.into_iter().enumerate() {
        query
            .push(if at == 0 { "" } else { ", " })
            .push_bind(i64::from(version));
    }
    query.push(")");
    let rows: Vec<(String, i64, String)> = query.build_query_as().fetch_all(sql).await?;
    let mut bytes = 0;
    for (id, version, content) in rows {
        let version: u32 = number(version)?;
        let Some(at) = places.get(id.as_str()) else { continue };
        let mut versions = prompts[*at].versions.iter_mut();
        let place = versions.find(|(known, text)| *known == version && text.is_none());
        if let Some((_, text)) = place {
            let content: Value = parse(&content)?;
            let folded: Arc<str> = fold_texts(&content).into();
            bytes += folded.len();
            *text = Some(folded);
        }
    }
    Ok(bytes)
}
