//! What would have to change in a registry for it to be as the files say.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::effective::{Effective, Partial, effective, includes};
use super::prompt_file::{FileArm, FileProblem, PromptFile, ReadFile};
use super::state::{LiveSplit, PromptState, State, source_hash};
use crate::domain::content::Content;
use crate::domain::diff::{ContentDiff, diff};
use crate::domain::prompt::validate_prompt_id;
use crate::domain::split::Arm;

/// What the caller wants beyond what files say.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Also take away what no file has: aliases, deployments, prompts.
    pub prune: bool,
    /// Make new versions where only a partial is newer.
    pub refresh_partials: bool,
    /// Move only what is live there; empty is everywhere.
    pub environments: Vec<String>,
    /// Only prompts of this folder, written `support/`; empty is all.
    pub folder: String,
}

/// Everything that is to be done.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Plan {
    /// By id; those with nothing to do or to say are left out.
    pub prompts: Vec<PromptPlan>,
    /// The prompts that get versions, those first whose text others include.
    pub order: Vec<String>,
    /// Prompts without a file that stay as they are.
    pub without_file: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Create,
    Restore,
    Update,
    Archive,
    /// There is only something to say.
    Nothing,
}

/// What is to be done with one prompt.
#[derive(Debug, Clone, Serialize)]
pub struct PromptPlan {
    pub id: String,
    pub action: Action,
    /// What people write about it: description, owner, tags.
    pub fields: Vec<Field>,
    #[serde(skip)]
    pub revision: u64,
    pub aliases_added: Vec<String>,
    pub aliases_removed: Vec<String>,
    pub versions: Vec<NewVersion>,
    pub deployments: Vec<PlannedDeployment>,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    pub name: &'static str,
    pub from: Value,
    pub to: Value,
}

#[derive(Debug, Clone, Serialize)]
pub struct NewVersion {
    /// In the file.
    pub name: String,
    /// What the registry will call it.
    pub version: u32,
    /// The version it is compared with.
    pub base: Option<u32>,
    /// As it is to be submitted.
    #[serde(skip)]
    pub source: Content,
    pub diff: ContentDiff,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedDeployment {
    pub environment: String,
    /// Whether others have to approve it.
    pub protected: bool,
    /// The number of the deployment that is live, 0 for none.
    pub base: u32,
    pub from: Vec<Arm>,
    /// Empty takes the prompt off.
    pub to: Vec<Arm>,
}

impl PromptPlan {
    fn new(id: &str, action: Action) -> Self {
        Self {
            id: id.to_owned(),
            action,
            fields: Vec::new(),
            revision: 0,
            aliases_added: Vec::new(),
            aliases_removed: Vec::new(),
            versions: Vec::new(),
            deployments: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl Plan {
    /// Whether the registry is as the files say.
    pub fn is_empty(&self) -> bool {
        self.prompts.iter().all(|prompt| prompt.action == Action::Nothing)
    }
}

/// A problem of the file of one prompt.
pub type Problem = (String, FileProblem);

/// Compares files with a registry.
///
/// # Errors
/// Every problem of every file: nothing can be done as long as there is one.
pub fn plan(files: &BTreeMap<String, ReadFile>, state: &State, options: &Options) -> Result<Plan, Vec<Problem>> {
    let mut planner = Planner {
        files,
        state,
        options,
        resolved: BTreeMap::new(),
        under_way: Vec::new(),
        order: Vec::new(),
        problems: Vec::new(),
    };
    planner.names();
    for id in files.keys() {
        planner.resolve(id);
    }
    let prompts: Vec<PromptPlan> = files.iter().filter_map(|(id, file)| planner.prompt(id, file)).collect();
    let mut problems = planner.problems;
    problems.sort_by(|a, b| (&a.0, a.1.line, a.1.column).cmp(&(&b.0, b.1.line, b.1.column)));
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut plan = Plan {
        prompts,
        order: planner.order,
        without_file: Vec::new(),
    };
    for (id, prompt) in &state.prompts {
        if files.contains_key(id) || prompt.archived || !id.starts_with(&options.folder) {
            continue;
        }
        if options.prune && prompt.live.is_empty() {
            plan.prompts.push(PromptPlan::new(id, Action::Archive));
        } else {
            plan.without_file.push(id.clone());
        }
    }
    Ok(plan)
}

/// What a version of a file is in the registry.
#[derive(Debug, Clone)]
enum Resolved {
    Existing(u32),
    New(u32, Box<Effective>),
}

impl Resolved {
    fn number(&self) -> u32 {
        match self {
            Self::Existing(number) | Self::New(number, _) => *number,
        }
    }
}

struct Planner<'a> {
    files: &'a BTreeMap<String, ReadFile>,
    state: &'a State,
    options: &'a Options,
    /// By prompt: the versions of its file, in their order.
    resolved: BTreeMap<String, Vec<Resolved>>,
    under_way: Vec<String>,
    order: Vec<String>,
    problems: Vec<Problem>,
}

impl Planner<'_> {
    fn wrong(&mut self, id: &str, path: &str, message: impl Into<String>) {
        let problem = self.files[id].problem(path, message);
        self.problems.push((id.to_owned(), problem));
    }

    /// Checks ids, aliases and environments.
    fn names(&mut self) {
        let (files, state) = (self.files, self.state);
        let mut aliases: BTreeMap<&str, &str> = BTreeMap::new();
        for (id, read) in files {
            if let Err(why) = validate_prompt_id(id) {
                self.wrong(id, "", format!("the file's path is the prompt's id: {why}"));
            }
            if let Some(owner) = state.id_of(id).filter(|owner| owner != id) {
                let why = format!("{id:?} is an alias of prompt {owner:?} by now: rename the file to {owner}.yaml");
                self.wrong(id, "", why);
            }
            for (at, alias) in read.file.aliases.iter().enumerate() {
                let others = aliases.insert(alias, id);
                let owner = state.id_of(alias).filter(|owner| owner != id);
                let owner = owner.or(others).or(files.contains_key(alias).then_some(alias.as_str()));
                if let Some(owner) = owner {
                    self.wrong(
                        id,
                        &format!("aliases[{at}]"),
                        format!("{alias:?} names prompt {owner:?} already"),
                    );
                }
            }
            for (environment, _) in &read.file.deployments {
                if !state.environments.iter().any(|(known, _)| known == environment) {
                    let known: Vec<&str> = state.environments.iter().map(|(name, _)| name.as_str()).collect();
                    let why = format!(
                        "environment {environment:?} does not exist, there are {}",
                        known.join(", ")
                    );
                    self.wrong(id, &format!("deployments.{environment}"), why);
                }
            }
        }
    }

    /// Finds out which versions of a file the registry has, partials first.
    fn resolve(&mut self, id: &str) {
        if self.resolved.contains_key(id) || self.under_way.iter().any(|other| other == id) {
            return;
        }
        self.under_way.push(id.to_owned());
        let (files, state) = (self.files, self.state);
        let none = PromptState::default();
        let known = state.prompts.get(id).unwrap_or(&none);
        let mut resolved: Vec<Resolved> = Vec::new();
        for (name, source) in &files[id].file.versions {
            let hash = source_hash(source);
            let twins = known
                .versions
                .iter()
                .rev()
                .filter(|(_, version)| source_hash(&version.source) == hash);
            let included = includes(source);
            let twin = if self.options.refresh_partials {
                included.iter().for_each(|(name, _)| self.resolve_named(name));
                let mut twins = twins;
                twins.find(|(_, version)| self.is_current(&included, &version.uses))
            } else {
                let mut twins = twins;
                twins.next()
            };
            if let Some((number, _)) = twin {
                resolved.push(Resolved::Existing(*number));
                continue;
            }
            included.iter().for_each(|(name, _)| self.resolve_named(name));
            match effective(source, |name, version| self.find(id, name, version)) {
                Ok(new) => {
                    let hash = new.content.hash();
                    let same =
                        |other: &&Resolved| matches!(other, Resolved::New(_, other) if other.content.hash() == hash);
                    let twin = known
                        .hashes
                        .get(&hash)
                        .copied()
                        .or(resolved.iter().find(same).map(Resolved::number));
                    let count = resolved.iter().filter(|one| matches!(one, Resolved::New(..))).count() as u32;
                    resolved.push(match twin {
                        Some(number) if number <= known.latest => Resolved::Existing(number),
                        Some(number) => Resolved::New(number, Box::new(new)),
                        None => Resolved::New(known.latest + 1 + count, Box::new(new)),
                    });
                }
                Err(problems) => {
                    for problem in problems {
                        let path = format!("versions.{name}.{}", problem.path);
                        self.wrong(id, path.trim_end_matches('.'), problem.message);
                    }
                    resolved.push(Resolved::Existing(0));
                }
            }
        }
        if resolved.iter().any(|one| matches!(one, Resolved::New(..))) {
            self.order.push(id.to_owned());
        }
        self.under_way.pop();
        self.resolved.insert(id.to_owned(), resolved);
    }

    fn resolve_named(&mut self, name: &str) {
        if let Some(id) = self.id_of(name).filter(|id| self.files.contains_key(id)) {
            self.resolve(&id);
        }
    }

    /// Returns the prompt that a name leads to when everything is done.
    fn id_of(&self, name: &str) -> Option<String> {
        if self.files.contains_key(name) {
            return Some(name.to_owned());
        }
        let mut files = self.files.iter();
        let named = files.find(|(_, read)| read.file.aliases.iter().any(|alias| alias == name));
        let known = || self.state.id_of(name);
        named.map(|(id, _)| id.as_str()).or_else(known).map(str::to_owned)
    }

    /// Returns what an include of `name` is when everything is done.
    fn find(&self, by: &str, name: &str, version: Option<u32>) -> Result<Partial, String> {
        let id = self
            .id_of(name)
            .ok_or_else(|| format!("the partial {name:?} does not exist"))?;
        if id == by {
            return Err(format!("prompt {by:?} includes itself"));
        }
        let new = self.resolved.get(&id).into_iter().flatten();
        let new = new.filter_map(|one| match one {
            Resolved::New(number, effective) => Some((*number, &effective.content)),
            Resolved::Existing(_) => None,
        });
        let known = self.state.prompts.get(&id);
        let known = known.into_iter().flat_map(|known| &known.versions);
        let known = known.map(|(number, version)| (*number, &version.effective));
        let mut all = known
            .chain(new)
            .filter(|(number, _)| version.is_none_or(|wanted| wanted == *number));
        let first = all.next();
        let newest = first.map(|first| all.fold(first, |best, next| if next.0 > best.0 { next } else { best }));
        match (newest, version) {
            (Some((version, content)), _) => Ok(Partial {
                id,
                version,
                content: content.clone(),
            }),
            (None, Some(version)) => Err(format!("the partial {id:?} has no version {version}")),
            (None, None) if self.under_way.contains(&id) => Err(format!("{by:?} and {id:?} include each other")),
            (None, None) => Err(format!("the partial {id:?} has no version yet")),
        }
    }

    /// Whether a version has in it what its partials are by now.
    fn is_current(&self, included: &[(String, Option<u32>)], uses: &[(String, u32)]) -> bool {
        let follows = included.iter().filter(|(_, version)| version.is_none());
        let mut newest = follows.filter_map(|(name, _)| self.find("", name, None).ok());
        newest.all(|partial| uses.contains(&(partial.id, partial.version)))
    }

    fn prompt(&mut self, id: &str, read: &ReadFile) -> Option<PromptPlan> {
        let (state, file) = (self.state, &read.file);
        let known = state.prompts.get(id);
        let action = match known {
            None => Action::Create,
            Some(known) if known.archived => Action::Restore,
            Some(_) => Action::Nothing,
        };
        let none = PromptState::default();
        let known = known.unwrap_or(&none);
        let mut plan = PromptPlan::new(id, action);
        plan.revision = known.revision;
        plan.fields = fields(known, file);
        let missing = |here: &[String], there: &[String]| -> Vec<String> {
            here.iter().filter(|alias| !there.contains(alias)).cloned().collect()
        };
        plan.aliases_added = missing(&file.aliases, &known.aliases);
        plan.aliases_removed = missing(&known.aliases, &file.aliases);
        self.versions(id, known, file, &mut plan);
        self.deployments(id, known, file, &mut plan);
        if !self.options.prune && !plan.aliases_removed.is_empty() {
            let aliases = std::mem::take(&mut plan.aliases_removed);
            plan.notes.push(format!(
                "also called {}, which the file does not say",
                aliases.join(", ")
            ));
        }
        let idle = plan.fields.is_empty()
            && plan.aliases_added.is_empty()
            && plan.aliases_removed.is_empty()
            && plan.versions.is_empty()
            && plan.deployments.is_empty();
        if plan.action == Action::Nothing && !idle {
            plan.action = Action::Update;
        }
        (plan.action != Action::Nothing || !plan.notes.is_empty()).then_some(plan)
    }

    fn versions(&self, id: &str, known: &PromptState, file: &PromptFile, plan: &mut PromptPlan) {
        let resolved = &self.resolved[id];
        let mut base = known
            .versions
            .get_key_value(&known.latest)
            .map(|(n, v)| (*n, v.effective.clone()));
        let mut done = BTreeSet::new();
        for ((name, source), one) in file.versions.iter().zip(resolved) {
            match one {
                Resolved::New(number, effective) if done.insert(*number) => {
                    let old = base
                        .as_ref()
                        .map_or_else(Content::default, |(_, content)| content.clone());
                    plan.versions.push(NewVersion {
                        name: name.clone(),
                        version: *number,
                        base: base.as_ref().map(|(number, _)| *number),
                        source: source.clone(),
                        diff: diff(&old, &effective.content),
                    });
                    base = Some((*number, effective.content.clone()));
                }
                Resolved::Existing(number) => {
                    let uses = known.versions.get(number).map(|version| &version.uses);
                    if uses.is_some_and(|uses| !self.is_current(&includes(source), uses)) {
                        plan.notes.push(format!(
                            "version {number} ({name}) includes older versions of its partials: --refresh-partials makes a new one"
                        ));
                    }
                }
                Resolved::New(..) => {}
            }
        }
        let newest = known
            .versions
            .get(&known.latest)
            .map(|version| source_hash(&version.source));
        let written = |hash: &String| file.versions.iter().any(|(_, source)| source_hash(source) == *hash);
        if newest.is_some_and(|newest| !written(&newest)) {
            let latest = known.latest;
            plan.notes
                .push(format!("version {latest}, the latest, is not in the file"));
        }
    }

    fn deployments(&self, id: &str, known: &PromptState, file: &PromptFile, plan: &mut PromptPlan) {
        let wanted =
            |name: &str| self.options.environments.is_empty() || self.options.environments.iter().any(|e| e == name);
        for (environment, protected) in self.state.environments.iter().filter(|(name, _)| wanted(name)) {
            let live = known.live.iter().find(|live| live.environment == *environment);
            let arms = file
                .deployments
                .iter()
                .find(|(name, _)| name == environment)
                .map(|(_, arms)| arms);
            let to: Vec<Arm> = match (arms, live) {
                (Some(arms), live) => arms.iter().map(|arm| self.arm(id, known, file, arm, live)).collect(),
                (None, None) => continue,
                (None, Some(_)) if self.options.prune => Vec::new(),
                (None, Some(_)) => {
                    plan.notes
                        .push(format!("live in {environment}, of which the file says nothing"));
                    continue;
                }
            };
            let from = live.map(|live| live.split.clone()).unwrap_or_default();
            if !same_split(&from, &to) {
                plan.deployments.push(PlannedDeployment {
                    environment: environment.clone(),
                    protected: *protected,
                    base: live.map_or(0, |live| live.deployment),
                    from,
                    to,
                });
            }
        }
    }

    /// Gives an arm its number: that of the live version if it says the same.
    fn arm(&self, id: &str, known: &PromptState, file: &PromptFile, arm: &FileArm, live: Option<&LiveSplit>) -> Arm {
        let at = file.versions.iter().position(|(name, _)| *name == arm.version);
        let Some(at) = at else { return arm.numbered(0) };
        let resolved = self.resolved[id].get(at).map_or(0, Resolved::number);
        if self.options.refresh_partials {
            return arm.numbered(resolved);
        }
        let hash = source_hash(&file.versions[at].1);
        let says_so = |number: &u32| {
            let version = known.versions.get(number);
            version.is_some_and(|version| source_hash(&version.source) == hash)
        };
        let arms = live.into_iter().flat_map(|live| &live.split);
        let mut numbers: Vec<&Arm> = arms.filter(|other| says_so(&other.version)).collect();
        numbers.sort_by_key(|other| other.variant != arm.variant);
        arm.numbered(numbers.first().map_or(resolved, |other| other.version))
    }
}

fn same_split(one: &[Arm], other: &[Arm]) -> bool {
    let same =
        |(a, b): (&Arm, &Arm)| a.variant == b.variant && a.version == b.version && (a.weight - b.weight).abs() < 0.001;
    one.len() == other.len() && one.iter().zip(other).all(same)
}

fn fields(known: &PromptState, file: &PromptFile) -> Vec<Field> {
    let all = [
        ("description", json!(known.description), json!(file.description)),
        ("owner", json!(known.owner), json!(file.owner)),
        ("tags", json!(known.tags), json!(file.tags)),
    ];
    let changed = all.into_iter().filter(|(_, from, to)| from != to);
    changed.map(|(name, from, to)| Field { name, from, to }).collect()
}
