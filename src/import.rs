//! The way in from other systems: exports become prompts of ours, with a list of what could not be carried.
//!
//! One file a system, all into one model ([`Prompt`]), which becomes prompts' files ([`Imported::files`]); so an import is
//! planned, shown and applied as files are. Everything here is pure.
//!
//! Nothing is dropped silently: what a converter does not know, or we have no place for, is in [`Prompt::notes`]. A version whose text
//! does not compile here is left out, with the reason.
//!
//! | file | what |
//! |---|---|
//! | [`text`] | other template languages into ours: Mustache's variables, Python's format strings |
//! | [`handlebars`] | Handlebars, as dotprompt uses it |
//! | [`parameters`] | model settings, under their many names |
//! | [`langfuse`], [`promptlayer`], [`helicone`], [`openai`], [`tensorzero`], [`dotprompt`] | one system each |

pub mod dotprompt;
pub mod handlebars;
pub mod helicone;
pub mod langfuse;
pub mod openai;
pub mod parameters;
pub mod promptlayer;
pub mod tensorzero;
pub mod text;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::domain::content::Content;
use crate::domain::prompt::{MAX_PROMPT_ID_BYTES, RESERVED_BEHIND, RESERVED_SEGMENTS};
use crate::domain::version;
use crate::files::effective::includes;
use crate::files::prompt_file::{FileArm, ONLY_VARIANT, PromptFile};

/// A file of an export.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Below the path that was given.
    pub path: &'a str,
    pub text: &'a str,
}

/// What an export has.
#[derive(Debug, Clone, Default)]
pub struct Imported {
    pub prompts: Vec<Prompt>,
    /// What could not be carried and belongs to no prompt.
    pub notes: Vec<String>,
}

/// A prompt of another system.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    /// Its name or id there.
    pub source: String,
    /// Its id here.
    pub id: String,
    /// Names that callers go on using.
    pub aliases: Vec<String>,
    pub description: String,
    pub owner: String,
    pub tags: Vec<String>,
    /// Oldest first.
    pub versions: Vec<Version>,
    /// Splits by the label that stands for them.
    pub splits: BTreeMap<String, Vec<Arm>>,
    /// What could not be carried.
    pub notes: Vec<String>,
}

/// A version of another system.
#[derive(Debug, Clone, Default)]
pub struct Version {
    /// What it is called there: `3`, `2.1`.
    pub name: String,
    /// Why it was made.
    pub message: String,
    /// Labels or environments that point at it.
    pub labels: Vec<String>,
    pub content: Content,
}

/// An arm of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    pub variant: String,
    /// The version's name.
    pub version: String,
    /// Percent.
    pub weight: f64,
}

/// The systems that exports can come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    Langfuse,
    PromptLayer,
    Helicone,
    OpenAi,
    TensorZero,
    Dotprompt,
}

/// Reads the files of an export.
pub fn import(system: System, sources: &[Source<'_>]) -> Imported {
    let mut imported = match system {
        System::Langfuse => langfuse::import(sources),
        System::PromptLayer => promptlayer::import(sources),
        System::Helicone => helicone::import(sources),
        System::OpenAi => openai::import(sources),
        System::TensorZero => tensorzero::import(sources),
        System::Dotprompt => dotprompt::import(sources),
    };
    imported.settle();
    imported
}

impl Imported {
    /// Returns the prompt of that name, made if need be.
    fn prompt(&mut self, source: &str) -> &mut Prompt {
        let at = self
            .prompts
            .iter()
            .position(|prompt| prompt.source == source)
            .unwrap_or_else(|| {
                self.prompts.push(Prompt {
                    source: source.to_owned(),
                    id: prompt_id(source),
                    ..Prompt::default()
                });
                self.prompts.len() - 1
            });
        &mut self.prompts[at]
    }

    /// Makes ids unique, keeps the names that callers know, and leaves out what does not compile.
    fn settle(&mut self) {
        let mut taken: BTreeSet<String> = BTreeSet::new();
        for prompt in &mut self.prompts {
            let wanted = prompt.id.clone();
            let mut count = 1;
            while !taken.insert(prompt.id.clone()) {
                count += 1;
                prompt.id = format!("{wanted}-{count}");
            }
        }
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for prompt in &mut self.prompts {
            if prompt.source != prompt.id {
                prompt.aliases.push(prompt.source.clone());
            }
            prompt.aliases.sort();
            prompt.aliases.dedup();
            let (id, notes) = (prompt.id.clone(), &mut prompt.notes);
            prompt.aliases.retain(|alias| {
                let owner = match taken.contains(alias) {
                    true => Some(alias.clone()).filter(|owner| *owner != id),
                    false => names.insert(alias.clone(), id.clone()),
                };
                if let Some(owner) = &owner {
                    notes.push(format!("the name {alias:?} leads to prompt {owner:?}, not here"));
                }
                owner.is_none() && *alias != id
            });
            prompt.merge_twins();
            prompt.leave_out_broken();
        }
        self.prompts.sort_by(|a, b| a.id.cmp(&b.id));
    }

    /// Makes the prompts' files. `deploy` maps labels to environments.
    pub fn files(&self, deploy: &[(String, String)]) -> BTreeMap<String, PromptFile> {
        let file = |prompt: &Prompt| (prompt.id.clone(), prompt.file(deploy));
        self.prompts.iter().map(file).collect()
    }
}

impl Prompt {
    /// Notes something that could not be carried, once.
    fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// One version may be in an export several times: by its number, and by each of its labels.
    fn merge_twins(&mut self) {
        let mut kept: Vec<Version> = Vec::new();
        for version in std::mem::take(&mut self.versions) {
            let name = Self::file_name(&version.name);
            match kept.iter_mut().find(|known| Self::file_name(&known.name) == name) {
                None => kept.push(version),
                Some(known) if known.content == version.content => {
                    known.labels.extend(version.labels.iter().cloned());
                }
                Some(_) => self.note(format!(
                    "version {} is there twice with different texts: the first is taken",
                    version.name
                )),
            }
        }
        self.versions = kept;
    }

    fn leave_out_broken(&mut self) {
        let mut gone = Vec::new();
        self.versions.retain(|version| {
            let checked = version
                .content
                .clone()
                .normalise()
                .map_err(|why| vec![version::Problem::new("", why)]);
            // What includes others is checked when it is known what those say.
            let checked = checked.and_then(|content| match includes(&content).is_empty() {
                true => version::check(&content),
                false => Ok(()),
            });
            let Err(problems) = checked else { return true };
            let problem = |problem: &version::Problem| format!("{}: {}", problem.path, problem.message);
            let problems: Vec<String> = problems.iter().map(problem).collect();
            gone.push(format!("version {} is left out: {}", version.name, problems.join("; ")));
            false
        });
        self.notes.extend(gone);
        let known: Vec<&String> = self.versions.iter().map(|version| &version.name).collect();
        self.splits
            .retain(|_, arms| arms.iter().all(|arm| known.contains(&&arm.version)));
        if self.versions.is_empty() {
            self.note("no version could be carried");
        }
    }

    /// Returns what a file calls a version.
    pub fn file_name(name: &str) -> String {
        let slug = slug(name);
        match slug.is_empty() {
            true => "v1".to_owned(),
            false if slug.starts_with(|c: char| c.is_ascii_digit()) => format!("v{slug}"),
            false => slug,
        }
    }

    fn file(&self, deploy: &[(String, String)]) -> PromptFile {
        let mut deployments: Vec<(String, Vec<FileArm>)> = Vec::new();
        for (label, environment) in deploy {
            let labelled = self
                .versions
                .iter()
                .rev()
                .find(|version| version.labels.contains(label));
            let newest = || self.versions.last().filter(|_| label == "latest");
            let whole = labelled.or_else(newest).map(|version| {
                vec![FileArm {
                    variant: ONLY_VARIANT.to_owned(),
                    version: Self::file_name(&version.name),
                    weight: 100.0,
                }]
            });
            let split = self.splits.get(label).map(|arms| {
                let arm = |arm: &Arm| FileArm {
                    variant: slug(&arm.variant),
                    version: Self::file_name(&arm.version),
                    weight: arm.weight,
                };
                arms.iter().map(arm).collect()
            });
            if let Some(arms) = split.or(whole) {
                deployments.retain(|(known, _)| known != environment);
                deployments.push((environment.clone(), arms));
            }
        }
        PromptFile {
            description: self.description.clone(),
            owner: self.owner.clone(),
            tags: self.tags.clone(),
            aliases: self.aliases.clone(),
            deployments,
            versions: self
                .versions
                .iter()
                .map(|version| (Self::file_name(&version.name), version.content.clone()))
                .collect(),
        }
    }
}

/// Lowercases, and puts `-` in the place of what a segment cannot have.
fn slug(text: &str) -> String {
    let lower = text.trim().to_lowercase();
    let mut out = String::new();
    for c in lower.chars() {
        match c {
            'a'..='z' | '0'..='9' | '.' | '_' => out.push(c),
            _ if out.ends_with('-') => {}
            _ => out.push('-'),
        }
    }
    let out = out.trim_start_matches(['-', '.', '_']).trim_end_matches('-');
    out.chars().take(64).collect()
}

/// Makes a prompt id of any name: folders stay folders.
pub fn prompt_id(name: &str) -> String {
    let segments = name.split('/').map(slug).filter(|segment| !segment.is_empty());
    let mut id = String::new();
    for segment in segments {
        let reserved = RESERVED_SEGMENTS.contains(&segment.as_str())
            || (!id.is_empty() && RESERVED_BEHIND.contains(&segment.as_str()));
        let segment = if reserved { format!("{segment}-prompt") } else { segment };
        // Room for the number of a second one of that name.
        if id.len() + 1 + segment.len() > MAX_PROMPT_ID_BYTES - 8 {
            break;
        }
        if !id.is_empty() {
            id.push('/');
        }
        id.push_str(&segment);
    }
    match id.is_empty() {
        true => "imported".to_owned(),
        false => id,
    }
}

/// Reads the objects of a JSON file: one, a list, the items of a page (`data`, `items`, `prompts`), or one a line.
fn objects(source: &Source<'_>) -> Result<Vec<Value>, String> {
    let whole: Result<Value, _> = serde_json::from_str(source.text);
    let values: Vec<Value> = match whole {
        Ok(value) => vec![value],
        Err(why) => {
            let lines = source.text.lines().filter(|line| !line.trim().is_empty());
            let lines: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
            lines.map_err(|_| format!("{}: is not JSON: {why}", source.path))?
        }
    };
    let mut found = Vec::new();
    values.into_iter().for_each(|value| flatten(value, &mut found));
    Ok(found)
}

fn flatten(mut value: Value, found: &mut Vec<Value>) {
    match &mut value {
        Value::Array(items) => std::mem::take(items).into_iter().for_each(|item| flatten(item, found)),
        Value::Object(fields) => {
            for name in ["data", "items", "prompts"] {
                if fields.get(name).is_some_and(Value::is_array) {
                    return flatten(fields.remove(name).unwrap_or_default(), found);
                }
            }
            found.push(value);
        }
        _ => {}
    }
}

/// Reads every JSON object of the files; what is no JSON is noted.
fn all_objects(sources: &[Source<'_>], imported: &mut Imported) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for source in sources {
        match objects(source) {
            Ok(values) => all.extend(values.into_iter().map(|value| (source.path.to_owned(), value))),
            Err(why) => imported.notes.push(why),
        }
    }
    all
}

/// A field as text: numbers too, nothing for what is missing.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

fn texts_of(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A file's name without its last extension.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}
