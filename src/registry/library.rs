//! The library: prompts by folder, tag, owner and text.

use std::collections::HashMap;
use std::sync::Arc;

use super::sql::{QueryBuilder, SqlConnection};
use serde_json::Value;

use super::prompts::{ids_of, load};
use super::{Page, PageOf, Prompt, Registry, RegistryError, number, parse};
use crate::domain::folder;
use crate::domain::search::Needle;

/// How many candidates are read at once where many of them may not be wanted.
const BATCH: i64 = 200;

/// The longest text to look for, in bytes.
const MAX_QUERY_BYTES: usize = 200;

/// Which prompts are asked for, put away or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Archived {
    #[default]
    Hidden,
    Included,
    Only,
}

/// Which prompts are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PromptFilter<'a> {
    /// `support` or `support/`: those directly inside, and with `recursive` those further down.
    pub folder: Option<&'a str>,
    pub recursive: bool,
    /// Text in ids, aliases, descriptions, tags, owners, and in the latest and the live versions.
    pub query: Option<&'a str>,
    /// The whole tag.
    pub tag: Option<&'a str>,
    /// The whole owner.
    pub owner: Option<&'a str>,
    pub archived: Archived,
}

/// Where a search found its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// `id`, `alias`, `tag`, `owner`, `description` or `version`.
    pub place: &'static str,
    pub version: Option<u32>,
    /// Where in the version: `messages[0].content`.
    pub path: Option<String>,
    /// The text around it.
    pub snippet: String,
}

/// A prompt of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub prompt: Prompt,
    /// If a text was looked for.
    pub found: Option<Match>,
}

/// Looks at what is written about a prompt.
fn match_about(needle: &Needle, prompt: &Prompt) -> Option<Match> {
    let texts = std::iter::once(("id", &prompt.id))
        .chain(prompt.aliases.iter().map(|alias| ("alias", alias)))
        .chain(prompt.tags.iter().map(|tag| ("tag", tag)))
        .chain([("owner", &prompt.owner), ("description", &prompt.description)]);
    texts.into_iter().find_map(|(place, text)| {
        Some(Match {
            place,
            version: None,
            path: None,
            snippet: needle.find(text)?,
        })
    })
}

fn like_prefix(prefix: &str) -> String {
    let escaped = prefix.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("{escaped}%")
}

fn push_archived(query: &mut QueryBuilder, archived: Archived) {
    match archived {
        Archived::Hidden => query.push(" AND p.archived_at IS NULL"),
        Archived::Only => query.push(" AND p.archived_at IS NOT NULL"),
        Archived::Included => query,
    };
}

/// Reads the ids of prompts that may be wanted, in order.
async fn candidates(
    sql: &mut SqlConnection,
    filter: PromptFilter<'_>,
    after: &str,
    rows: i64,
) -> Result<Vec<String>, RegistryError> {
    let mut query = QueryBuilder::new("SELECT p.id FROM prompts p WHERE p.id > ");
    query.push_bind(after.to_owned());
    push_archived(&mut query, filter.archived);
    if let Some(folder) = filter.folder {
        let prefix = like_prefix(&folder::prefix(folder));
        query
            .push(" AND p.id LIKE ")
            .push_bind(prefix.clone())
            .push(" ESCAPE '\\'");
        if !filter.recursive {
            query
                .push(" AND p.id NOT LIKE ")
                .push_bind(format!("{}/%", prefix))
                .push(" ESCAPE '\\'");
        }
    }
    if let Some(owner) = filter.owner {
        query.push(" AND p.owner = ").push_bind(owner.to_owned());
    }
    if let Some(needle) = filter.tag.and_then(Needle::new) {
        query
            .push(" AND LOWER(p.tags) LIKE ")
            .push_bind(needle.pattern())
            .push(" ESCAPE '\\'");
    }
    query.push(" ORDER BY p.id LIMIT ").push_bind(rows);
    let ids: Vec<(String,)> = query.build_query_as().fetch_all(sql).await?;
    Ok(ids.into_iter().map(|(id,)| id).collect())
}

/// The versions that are searched: the latest, and those that are live.
const PRESENT: &str = "(v.version = (SELECT MAX(l.version) FROM versions l WHERE l.prompt_id = v.prompt_id) \
     OR EXISTS (SELECT 1 FROM deployed_versions d WHERE d.prompt_id = v.prompt_id AND d.version = v.version \
     AND d.live = 1))";

/// Looks at the versions of prompts, the newest first.
async fn match_versions(
    sql: &mut SqlConnection,
    needle: &Needle,
    ids: &[String],
) -> Result<HashMap<String, Match>, RegistryError> {
    let mut matches = HashMap::new();
    if ids.is_empty() {
        return Ok(matches);
    }
    let mut query = QueryBuilder::new("SELECT v.prompt_id, v.version, v.content FROM versions v WHERE v.prompt_id IN ");
    ids_of(&mut query, ids);
    query
        .push(" AND ")
        .push(PRESENT)
        .push(" ORDER BY v.prompt_id, v.version DESC");
    let rows: Vec<(String, i64, String)> = query.build_query_as().fetch_all(sql).await?;
    for (id, version, content) in rows {
        if matches.contains_key(&id) {
            continue;
        }
        let content: Value = parse(&content)?;
        if let Some((path, snippet)) = needle.find_in(&content) {
            let found = Match {
                place: "version",
                version: Some(number(version)?),
                path: Some(path),
                snippet,
            };
            matches.insert(id, found);
        }
    }
    Ok(matches)
}

/// Decides which candidates are wanted.
async fn decide(
    sql: &mut SqlConnection,
    filter: PromptFilter<'_>,
    needle: Option<&Needle>,
    ids: &[String],
) -> Result<Vec<Listed>, RegistryError> {
    let prompts = load(sql, ids).await?;
    let tagged = |prompt: &Prompt| filter.tag.is_none_or(|tag| prompt.tags.iter().any(|own| own == tag));
    let mut listed: Vec<Listed> = prompts
        .into_iter()
        .filter(tagged)
        .map(|prompt| Listed {
            found: needle.and_then(|needle| match_about(needle, &prompt)),
            prompt,
        })
        .collect();
    let Some(needle) = needle else {
        return Ok(listed);
    };
    let open = listed.iter().filter(|item| item.found.is_none());
    let open: Vec<String> = open.map(|item| item.prompt.id.clone()).collect();
    let mut matches = match_versions(sql, needle, &open).await?;
    for item in &mut listed {
        if item.found.is_none() {
            item.found = matches.remove(&item.prompt.id);
        }
    }
    listed.retain(|item| item.found.is_some());
    Ok(listed)
}

impl Registry {
    /// Lists prompts by id.
    ///
    /// # Errors
    /// When the text to look for is too long, or the database fails.
    pub async fn list_prompts(
        &self,
        filter: PromptFilter<'_>,
        page: PageOf<'_>,
    ) -> Result<Page<Listed>, RegistryError> {
        let query = filter.query.unwrap_or_default();
        if query.len() > MAX_QUERY_BYTES {
            return Err(RegistryError::InvalidField {
                field: "q",
                message: format!("has {} bytes, at most {MAX_QUERY_BYTES} are allowed", query.len()),
            });
        }
        let needle = Needle::new(query);
        let wanted = page.rows();
        let batch = if filter.tag.is_some() { BATCH } else { wanted };
        let (mut tx, texts) = match needle {
            Some(_) => self.search.read(self).await?,
            None => (self.begin_read().await?, Arc::default()),
        };
        let mut after = page.cursor.unwrap_or_default().to_owned();
        let mut items: Vec<Listed> = Vec::new();
        while (items.len() as i64) < wanted {
            let ids = match &needle {
                Some(needle) => texts.candidates(filter, needle, &after, batch as usize),
                None => candidates(&mut tx, filter, &after, batch).await?,
            };
            items.extend(decide(&mut tx, filter, needle.as_ref(), &ids).await?);
            match ids.last() {
                Some(last) if ids.len() as i64 == batch => last.clone_into(&mut after),
                _ => break,
            }
        }
        // A batch may bring more than the one too many that a page is made of.
        items.truncate(wanted as usize);
        Ok(page.page(items, |item| item.prompt.id.clone()))
    }

    /// Lists the ids of a folder's prompts, at any depth, in order: for counting.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prompt_ids(&self, folder: &str, archived: Archived) -> Result<Vec<String>, RegistryError> {
        let mut query = QueryBuilder::new("SELECT p.id FROM prompts p WHERE p.id LIKE ");
        query
            .push_bind(like_prefix(&folder::prefix(folder)))
            .push(" ESCAPE '\\'");
        push_archived(&mut query, archived);
        query.push(" ORDER BY p.id");
        let ids: Vec<(String,)> = query.build_query_as().fetch_all(self.reader()?).await?;
        Ok(ids.into_iter().map(|(id,)| id).collect())
    }
}
