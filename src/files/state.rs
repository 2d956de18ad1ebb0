//! What a registry has, as far as files are concerned, and the file it amounts to.

use std::collections::BTreeMap;

use super::prompt_file::{FileArm, PromptFile};
use crate::domain::content::Content;
use crate::domain::split::Arm;

/// A registry's prompts and environments.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// In their order, with whether they are protected.
    pub environments: Vec<(String, bool)>,
    /// By id, also those put away.
    pub prompts: BTreeMap<String, PromptState>,
}

#[derive(Debug, Clone, Default)]
pub struct PromptState {
    pub description: String,
    pub owner: String,
    pub tags: Vec<String>,
    /// Sorted.
    pub aliases: Vec<String>,
    pub archived: bool,
    /// Counts the changes of what people write about it.
    pub revision: u64,
    /// 0 as long as there is none.
    pub latest: u32,
    /// By environment, in the order of environments.
    pub live: Vec<LiveSplit>,
    /// Those that were read: the live ones, the latest, and whatever else files may mean.
    pub versions: BTreeMap<u32, VersionState>,
    /// Numbers by the hash of effective content, of versions that were not read as well.
    pub hashes: BTreeMap<String, u32>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct LiveSplit {
    pub environment: String,
    /// The deployment's number.
    pub deployment: u32,
    pub split: Vec<Arm>,
}

#[derive(Debug, Clone, Default)]
pub struct VersionState {
    /// As it was submitted.
    pub source: Content,
    pub effective: Content,
    /// The partials its own text includes.
    pub uses: Vec<(String, u32)>,
}

/// What tells contents apart in files: the hash of what was written, without what partials became.
pub fn source_hash(source: &Content) -> String {
    source.clone().normalise().unwrap_or_default().hash()
}

impl State {
    /// Returns the prompt that a name leads to.
    pub fn id_of(&self, name: &str) -> Option<&str> {
        if let Some((id, _)) = self.prompts.get_key_value(name) {
            return Some(id);
        }
        let mut prompts = self.prompts.iter();
        let named = prompts.find(|(_, prompt)| prompt.aliases.iter().any(|alias| alias == name));
        named.map(|(id, _)| id.as_str())
    }
}

impl PromptState {
    /// Returns the numbers that a file has to hold: what is live, and the latest.
    pub fn kept(&self) -> Vec<u32> {
        let live = self
            .live
            .iter()
            .flat_map(|live| live.split.iter().map(|arm| arm.version));
        let mut kept: Vec<u32> = live.chain(Some(self.latest).filter(|latest| *latest > 0)).collect();
        kept.sort_unstable();
        kept.dedup();
        kept
    }

    /// Makes the file of this prompt. Contents that `before`, the file so far, has keep their names.
    pub fn to_file(&self, before: Option<&PromptFile>) -> PromptFile {
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let mut versions: Vec<(String, Content)> = Vec::new();
        for number in self.kept() {
            let Some(version) = self.versions.get(&number) else {
                continue;
            };
            let hash = source_hash(&version.source);
            // Versions that differ by their partials alone are one text.
            if let Some(name) = names.get(&hash) {
                let at = versions.iter().position(|(known, _)| known == name);
                if let Some(moved) = at.map(|at| versions.remove(at)) {
                    versions.push(moved);
                }
                continue;
            }
            let name = self.name_of(number, &hash, before, |name| {
                versions.iter().any(|(taken, _)| taken == name)
            });
            names.insert(hash, name.clone());
            versions.push((name, version.source.clone()));
        }
        let name = |number: u32| -> String {
            let version = self.versions.get(&number);
            let named = version.and_then(|version| names.get(&source_hash(&version.source)));
            named.cloned().unwrap_or_default()
        };
        let arms = |split: &[Arm]| -> Vec<FileArm> {
            let arm = |arm: &Arm| FileArm {
                variant: arm.variant.clone(),
                version: name(arm.version),
                weight: arm.weight,
            };
            split.iter().map(arm).collect()
        };
        PromptFile {
            description: self.description.clone(),
            owner: self.owner.clone(),
            tags: self.tags.clone(),
            aliases: self.aliases.clone(),
            deployments: self
                .live
                .iter()
                .map(|live| (live.environment.clone(), arms(&live.split)))
                .collect(),
            versions,
        }
    }

    /// Names a version: as whoever wrote the file did, `latest`, or after the first place where it is live.
    fn name_of(&self, number: u32, hash: &str, before: Option<&PromptFile>, taken: impl Fn(&str) -> bool) -> String {
        let before: Vec<&(String, Content)> = before.into_iter().flat_map(|file| &file.versions).collect();
        let chosen = |name: &str| !self.is_derived(name);
        let mut known = before
            .iter()
            .filter(|(name, content)| chosen(name) && source_hash(content) == hash && !taken(name));
        if let Some((name, _)) = known.next() {
            return name.clone();
        }
        let newest = self.versions.get(&self.latest);
        let wanted = match newest.is_some_and(|latest| source_hash(&latest.source) == hash) {
            true => "latest".to_owned(),
            false => self.place_of(number),
        };
        let reserved = |name: &str| taken(name) || (chosen(name) && before.iter().any(|(other, _)| other == name));
        let mut names = (1..).map(|count| match count {
            1 => wanted.clone(),
            count => format!("{wanted}-{count}"),
        });
        names.find(|name| !reserved(name)).unwrap_or_else(|| wanted.clone())
    }

    /// Whether a name says something about the registry, which may have changed since.
    fn is_derived(&self, name: &str) -> bool {
        let numbered = |name: &str| {
            name.strip_prefix('v')
                .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
        };
        let mut places = self.live.iter().map(|live| live.environment.as_str());
        name.starts_with("latest") || numbered(name) || places.any(|place| name.starts_with(place))
    }

    fn place_of(&self, number: u32) -> String {
        for live in &self.live {
            if let Some(arm) = live.split.iter().find(|arm| arm.version == number) {
                return match live.split.len() {
                    1 => live.environment.clone(),
                    _ => format!("{}-{}", live.environment, arm.variant),
                };
            }
        }
        format!("v{number}")
    }
}
