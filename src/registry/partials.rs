//! Freezes partials into a new version: afterwards its text depends on nothing that can change.

use std::collections::{BTreeMap, BTreeSet};

use crate::registry::sql::SqlConnection;
use serde_json::Value;

use super::{RegistryError, about, parse, prompts};
use crate::domain::content::Content;
use crate::domain::partial::{self, Reference, frozen_name, includable_text};
use crate::domain::version::Problem;

/// The largest effective content, partials included.
const MAX_EFFECTIVE_BYTES: usize = 4 << 20;

/// What a tag asks for: the id or alias as written, and the version if it names one.
type Asked = (String, Option<u32>);

/// A prompt's version that another one includes.
pub(super) type Used = (String, u32);

/// A partial as it was found.
struct Found {
    id: String,
    version: u32,
    text: String,
    partials: serde_json::Map<String, Value>,
}

/// Resolves every include of `content`, writes explicit versions into its templates, and copies the text into its
/// `partials`. Returns what it names itself, not what its partials name in turn.
pub(super) async fn freeze(
    sql: &mut SqlConnection,
    prompt: &str,
    content: &mut Content,
) -> Result<BTreeSet<Used>, RegistryError> {
    let (asked, mut problems) = asked(content);
    let mut found = BTreeMap::new();
    for (asked, paths) in asked {
        match resolve(sql, prompt, &asked).await? {
            Ok(partial) => {
                found.insert(asked, partial);
            }
            Err(message) => problems.extend(paths.iter().map(|path| partial::problem(path, message.clone()))),
        }
    }
    if !problems.is_empty() {
        return Err(RegistryError::Invalid(problems));
    }
    partial::visit_templates(content, &mut |_, template| {
        if let Ok(references) = partial::references(template) {
            *template = partial::rewrite(template, &references, |reference| frozen(&found, reference));
        }
    });
    let mut used = BTreeSet::new();
    let mut mixed_up = Vec::new();
    for partial in found.into_values() {
        let own = (frozen_name(&partial.id, partial.version), Value::String(partial.text));
        for (name, text) in partial.partials.into_iter().chain([own]) {
            // Names are frozen too: a partial's partial may have been renamed since, and its old name given away.
            if content.partials.get(&name).is_some_and(|known| *known != text) {
                mixed_up.push(partial::problem(
                    "messages",
                    format!(
                        "{name} stands for two different texts in what is included, give one of them a new version"
                    ),
                ));
            }
            content.partials.insert(name, text);
        }
        used.insert((partial.id, partial.version));
    }
    if !mixed_up.is_empty() {
        return Err(RegistryError::Invalid(mixed_up));
    }
    content.partials.sort_keys();
    check_size(content)?;
    Ok(used)
}

fn frozen(found: &BTreeMap<Asked, Found>, reference: &Reference<'_>) -> String {
    let partial = found
        .get(&(reference.id.to_owned(), reference.version))
        .expect("every reference was resolved before");
    frozen_name(&partial.id, partial.version)
}

/// Collects what the templates ask for, with the places that ask, and what they may not ask for.
fn asked(content: &mut Content) -> (BTreeMap<Asked, Vec<String>>, Vec<Problem>) {
    let mut asked: BTreeMap<Asked, Vec<String>> = BTreeMap::new();
    let mut problems = Vec::new();
    partial::visit_templates(content, &mut |path, template| match partial::references(template) {
        Ok(references) => {
            for reference in references {
                let paths = asked.entry((reference.id.to_owned(), reference.version)).or_default();
                if paths.last().is_none_or(|last| last != path) {
                    paths.push(path.to_owned());
                }
            }
        }
        Err(sentences) => problems.extend(sentences.into_iter().map(|sentence| partial::problem(path, sentence))),
    });
    (asked, problems)
}

/// Reads the version that is asked for, or says why it cannot be included.
async fn resolve(
    sql: &mut SqlConnection,
    prompt: &str,
    (name, version): &Asked,
) -> Result<Result<Found, String>, RegistryError> {
    let Some(id) = prompts::find(sql, name).await? else {
        return Ok(Err(format!("the partial {name:?} does not exist")));
    };
    if id == prompt {
        return Ok(Err(format!("prompt {prompt:?} includes itself")));
    }
    if let Err(RegistryError::Conflict(why)) = about::require_in_use(sql, &id).await {
        return Ok(Err(why));
    }
    let row: Option<(i64, String)> = sqlx::query_as(
        "SELECT version, content FROM versions WHERE prompt_id = $1 AND ($2 = 0 OR version = $2) \
         ORDER BY version DESC LIMIT 1",
    )
    .bind(&id)
    .bind(version.map_or(0, i64::from))
    .fetch_optional(sql)
    .await?;
    let Some((found, content)) = row.filter(|_| *version != Some(0)) else {
        return Ok(Err(match version {
            Some(version) => format!("the partial {id:?} has no version {version}"),
            None => format!("the partial {id:?} has no version yet"),
        }));
    };
    let content: Content = parse(&content)?;
    let text = match includable_text(&content) {
        Ok(text) => text.to_owned(),
        Err(why) => return Ok(Err(format!("partial {id:?} version {found}: {why}"))),
    };
    Ok(Ok(Found {
        id,
        version: super::number(found)?,
        text,
        partials: content.partials,
    }))
}

fn check_size(content: &Content) -> Result<(), RegistryError> {
    let bytes = serde_json::to_vec(content).map_or(usize::MAX, |text| text.len());
    if bytes <= MAX_EFFECTIVE_BYTES {
        return Ok(());
    }
    Err(RegistryError::Invalid(vec![partial::problem(
        "messages",
        format!("the content has {bytes} bytes with its partials, at most {MAX_EFFECTIVE_BYTES} are allowed"),
    )]))
}
