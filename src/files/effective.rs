//! What a text becomes with its partials, before the registry makes it so: the same steps as `src/registry/partials.rs`, from
//! what files and registry will have then.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::domain::content::Content;
use crate::domain::partial::{self, frozen_name, includable_text};
use crate::domain::version::{self, Problem};

/// A prompt whose text can be included.
#[derive(Debug, Clone)]
pub struct Partial {
    pub id: String,
    pub version: u32,
    /// Effective.
    pub content: Content,
}

/// What a version would be.
#[derive(Debug, Clone)]
pub struct Effective {
    pub content: Content,
    /// The partials that its own text includes.
    pub uses: BTreeSet<(String, u32)>,
}

/// Returns the names that a content includes, each with the version it asks for.
pub fn includes(source: &Content) -> Vec<(String, Option<u32>)> {
    let mut names = Vec::new();
    let mut normal = source.clone().normalise().unwrap_or_default();
    partial::visit_templates(&mut normal, &mut |_, template| {
        for reference in partial::references(template).unwrap_or_default() {
            let name = (reference.id.to_owned(), reference.version);
            if !names.contains(&name) {
                names.push(name);
            }
        }
    });
    names
}

/// Freezes partials into a content and checks the result.
///
/// # Errors
/// Every problem found.
pub fn effective(
    source: &Content,
    find: impl Fn(&str, Option<u32>) -> Result<Partial, String>,
) -> Result<Effective, Vec<Problem>> {
    let mut content = source.clone().normalise().map_err(|why| vec![Problem::new("", why)])?;
    let (mut problems, mut uses) = (Vec::new(), BTreeSet::new());
    let mut partials: Vec<Partial> = Vec::new();
    partial::visit_templates(&mut content, &mut |path, template| {
        let references = match partial::references(template) {
            Ok(references) => references,
            Err(sentences) => {
                problems.extend(sentences.into_iter().map(|why| Problem::new(path, why)));
                return;
            }
        };
        let mut names = BTreeMap::new();
        for reference in &references {
            match find(reference.id, reference.version) {
                Ok(partial) => {
                    names.insert(reference.place.start, frozen_name(&partial.id, partial.version));
                    partials.push(partial);
                }
                Err(why) => problems.push(Problem::new(path, why)),
            }
        }
        let name = |reference: &partial::Reference<'_>| names.get(&reference.place.start).cloned().unwrap_or_default();
        let frozen = partial::rewrite(template, &references, name);
        *template = frozen;
    });
    for partial in partials {
        match includable_text(&partial.content) {
            Ok(text) => {
                let name = frozen_name(&partial.id, partial.version);
                content.partials.insert(name, Value::String(text.to_owned()));
            }
            Err(why) => problems.push(Problem::new("messages", format!("partial {:?}: {why}", partial.id))),
        }
        content.partials.extend(partial.content.partials);
        uses.insert((partial.id, partial.version));
    }
    content.partials.sort_keys();
    if problems.is_empty() {
        version::check(&content)?;
        return Ok(Effective { content, uses });
    }
    Err(problems)
}
