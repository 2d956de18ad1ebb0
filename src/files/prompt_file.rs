//! The shape of a prompt's file.
//!
//! ```yaml
//! description: The first answer a customer gets
//! owner: ada@example.com
//! tags: [support, greeting]
//! aliases: [pmpt_68a1]
//! deployments:
//!   staging: latest                # everybody gets that version
//!   production:                    # a split, in the order of its arms
//!     - {variant: control, version: production-control, weight: 80}
//!     - {variant: b, version: latest, weight: 20}
//! versions:                        # oldest first; the names are this file's own
//!   production-control:
//!     messages: …
//!   latest:
//!     messages: …
//! ```
//!
//! The prompt's id is the file's path.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::node::{Kind, Node, Place};
use super::state::source_hash;
use super::yaml;
use crate::domain::content::Content;
use crate::domain::prompt::validate_name;
use crate::domain::split::{Arm, upper_bounds};

const FIELDS: [&str; 6] = ["description", "owner", "tags", "aliases", "deployments", "versions"];

/// The most versions of one file.
const MAX_VERSIONS: usize = 100;

/// The variant of a split that is one version for everybody.
pub const ONLY_VARIANT: &str = "control";

/// What a team says about a prompt.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PromptFile {
    pub description: String,
    pub owner: String,
    pub tags: Vec<String>,
    /// Sorted.
    pub aliases: Vec<String>,
    /// By environment, in the order of the file.
    pub deployments: Vec<(String, Vec<FileArm>)>,
    /// By name, oldest first, as written.
    pub versions: Vec<(String, Content)>,
}

/// One arm of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct FileArm {
    pub variant: String,
    /// A name of the file's versions.
    pub version: String,
    /// Percent, at most two decimals.
    pub weight: f64,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FileProblem {
    /// From 1; 0 where that is not known.
    pub line: u64,
    pub column: u64,
    /// `versions.latest.messages[0].content`.
    pub path: String,
    pub message: String,
}

/// A file that was read, with the places of its parts.
#[derive(Debug, Clone)]
pub struct ReadFile {
    pub file: PromptFile,
    node: Node,
}

impl ReadFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Every problem of its shape.
    pub fn parse(text: &str) -> Result<Self, Vec<FileProblem>> {
        let node = Node::parse(text).map_err(|(place, message)| vec![problem(place, "", message)])?;
        let mut reader = Reader {
            root: &node,
            problems: Vec::new(),
        };
        let file = reader.file();
        if reader.problems.is_empty() {
            Ok(Self { file, node })
        } else {
            Err(reader.problems)
        }
    }

    /// Says that something is wrong at a path.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> FileProblem {
        problem(self.node.place_of(path), path, message.into())
    }
}

fn problem(place: Place, path: &str, message: String) -> FileProblem {
    FileProblem {
        line: place.line,
        column: place.column,
        path: path.to_owned(),
        message,
    }
}

struct Reader<'a> {
    root: &'a Node,
    problems: Vec<FileProblem>,
}

impl Reader<'_> {
    fn wrong(&mut self, path: &str, message: impl Into<String>) {
        self.problems
            .push(problem(self.root.place_of(path), path, message.into()));
    }

    fn file(&mut self) -> PromptFile {
        let mut file = PromptFile::default();
        let Some(fields) = self.root.fields() else {
            self.wrong("", format!("must be a mapping of {}", FIELDS.join(", ")));
            return file;
        };
        for (name, node) in fields {
            match name.as_str() {
                "description" => file.description = self.text(name, node),
                "owner" => file.owner = self.text(name, node),
                "tags" => file.tags = self.texts(name, node),
                "aliases" => {
                    file.aliases = self.texts(name, node);
                    file.aliases.sort();
                    file.aliases.dedup();
                }
                "deployments" => file.deployments = self.deployments(node),
                "versions" => file.versions = self.versions(node),
                other => self.wrong(other, unknown(other)),
            }
        }
        for (environment, arms) in &file.deployments {
            let path = format!("deployments.{environment}");
            for arm in arms {
                if !file.versions.iter().any(|(name, _)| *name == arm.version) {
                    let names: Vec<&str> = file.versions.iter().map(|(name, _)| name.as_str()).collect();
                    let message = format!(
                        "{:?} is none of this file's versions ({})",
                        arm.version,
                        names.join(", ")
                    );
                    self.wrong(&path, message);
                }
            }
        }
        file
    }

    fn text(&mut self, path: &str, node: &Node) -> String {
        match &node.kind {
            Kind::Scalar(Value::String(text)) => text.clone(),
            Kind::Scalar(Value::Null) => String::new(),
            _ => {
                self.wrong(path, "must be a text");
                String::new()
            }
        }
    }

    fn texts(&mut self, path: &str, node: &Node) -> Vec<String> {
        match &node.kind {
            Kind::List(items) => {
                let items = items.iter().enumerate();
                items
                    .map(|(at, item)| self.text(&format!("{path}[{at}]"), item))
                    .collect()
            }
            Kind::Scalar(Value::Null) => Vec::new(),
            _ => {
                self.wrong(path, "must be a list of texts");
                Vec::new()
            }
        }
    }

    /// The fields of a mapping that may be left empty.
    fn mapping<'n>(&mut self, path: &str, node: &'n Node) -> &'n [(String, Node)] {
        match &node.kind {
            Kind::Fields(fields) => fields,
            Kind::Scalar(Value::Null) => &[],
            _ => {
                self.wrong(path, "must be a mapping");
                &[]
            }
        }
    }

    fn deployments(&mut self, node: &Node) -> Vec<(String, Vec<FileArm>)> {
        let mut deployments = Vec::new();
        for (environment, node) in self.mapping("deployments", node) {
            let path = format!("deployments.{environment}");
            let arms = match &node.kind {
                Kind::Scalar(Value::String(version)) => vec![FileArm {
                    variant: ONLY_VARIANT.to_owned(),
                    version: version.clone(),
                    weight: 100.0,
                }],
                Kind::List(items) => self.arms(&path, items),
                _ => {
                    self.wrong(
                        &path,
                        "must be the name of a version, or a list of arms like \
                         {variant: control, version: latest, weight: 100}",
                    );
                    continue;
                }
            };
            deployments.push((environment.clone(), arms));
        }
        deployments
    }

    fn arms(&mut self, path: &str, items: &[Node]) -> Vec<FileArm> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Shape {
            variant: String,
            version: String,
            weight: f64,
        }
        let before = self.problems.len();
        let mut arms = Vec::new();
        for (at, item) in items.iter().enumerate() {
            match serde_json::from_value::<Shape>(item.value()) {
                Ok(Shape {
                    variant,
                    version,
                    weight,
                }) => arms.push(FileArm {
                    variant,
                    version,
                    weight,
                }),
                Err(why) => self.wrong(&format!("{path}[{at}]"), why.to_string()),
            }
        }
        let split: Vec<Arm> = arms.iter().map(|arm| arm.numbered(0)).collect();
        if self.problems.len() == before
            && let Err(why) = upper_bounds(&split)
        {
            self.wrong(path, why);
        }
        arms
    }

    fn versions(&mut self, node: &Node) -> Vec<(String, Content)> {
        let mut versions = Vec::new();
        let fields = self.mapping("versions", node);
        if fields.len() > MAX_VERSIONS {
            self.wrong(
                "versions",
                format!("has {} versions, at most {MAX_VERSIONS} are allowed", fields.len()),
            );
        }
        for (name, node) in fields.iter().take(MAX_VERSIONS) {
            let path = format!("versions.{name}");
            if let Err(why) = validate_name("version", name) {
                self.wrong(&path, why);
            }
            match serde_path_to_error::deserialize::<_, Content>(node.value()) {
                Ok(content) => {
                    if let Err(why) = content.clone().normalise() {
                        self.wrong(&path, why);
                    }
                    versions.push((name.clone(), content));
                }
                Err(why) => {
                    let inner = match why.path().to_string() {
                        inner if inner == "." => path,
                        inner => format!("{path}.{inner}"),
                    };
                    self.wrong(&inner, why.inner().to_string());
                }
            }
        }
        versions
    }
}

fn unknown(name: &str) -> String {
    let near = FIELDS.iter().map(|known| (strsim::jaro_winkler(known, name), known));
    match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, near)) if score > 0.8 => format!("{name:?} is not known, did you mean {near:?}?"),
        _ if ["messages", "text", "model", "variables", "parameters"].contains(&name) => {
            format!("{name:?} belongs into a version: write versions: {{latest: {{{name}: …}}}}")
        }
        _ => format!("{name:?} is not known, use {}", FIELDS.join(", ")),
    }
}

impl FileArm {
    /// Returns it with a version's number.
    pub fn numbered(&self, version: u32) -> Arm {
        Arm {
            variant: self.variant.clone(),
            version,
            weight: self.weight,
        }
    }
}

impl PromptFile {
    /// Whether another file means the same: names of versions, the order of environments and notes apart.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let hashes = |file: &Self| -> Vec<(String, String)> {
            let hash = |(name, content): &(String, Content)| (name.clone(), source_hash(content));
            file.versions.iter().map(hash).collect()
        };
        let (ours, theirs) = (hashes(self), hashes(other));
        let splits = |file: &Self, hashes: &[(String, String)]| {
            let hash = |name: &str| {
                hashes
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, hash)| hash.clone())
            };
            let arm = |arm: &FileArm| {
                (
                    arm.variant.clone(),
                    hash(&arm.version),
                    (arm.weight * 100.0).round() as u32,
                )
            };
            let mut splits: Vec<_> = file
                .deployments
                .iter()
                .map(|(environment, arms)| (environment.clone(), arms.iter().map(arm).collect::<Vec<_>>()))
                .collect();
            splits.sort();
            splits
        };
        let texts =
            |hashes: &[(String, String)]| -> Vec<String> { hashes.iter().map(|(_, hash)| hash.clone()).collect() };
        (&self.description, &self.owner, &self.tags, &self.aliases)
            == (&other.description, &other.owner, &other.tags, &other.aliases)
            && splits(self, &ours) == splits(other, &theirs)
            && texts(&theirs) == texts(&ours)
    }

    /// Writes the file: the same bytes for the same prompt.
    pub fn write(&self) -> String {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value, empty: bool| {
            if !empty {
                fields.insert(name.to_owned(), value);
            }
        };
        put("description", json!(self.description), self.description.is_empty());
        put("owner", json!(self.owner), self.owner.is_empty());
        put("tags", json!(self.tags), self.tags.is_empty());
        put("aliases", json!(self.aliases), self.aliases.is_empty());
        let deployments: Map<String, Value> = self
            .deployments
            .iter()
            .map(|(environment, arms)| (environment.clone(), written_split(arms)))
            .collect();
        put("deployments", json!(deployments), deployments.is_empty());
        let versions: Map<String, Value> = self
            .versions
            .iter()
            .map(|(name, content)| (name.clone(), json!(content)))
            .collect();
        put("versions", json!(versions), versions.is_empty());
        if fields.is_empty() {
            return "{}\n".to_owned();
        }
        yaml::document(&fields, &["deployments", "versions", "messages"])
    }
}

fn written_split(arms: &[FileArm]) -> Value {
    match arms {
        [arm] if arm.variant == ONLY_VARIANT && arm.weight == 100.0 => json!(arm.version),
        arms => {
            let arm = |arm: &FileArm| {
                let whole = arm.weight.fract() == 0.0;
                let weight = if whole {
                    json!(arm.weight as u64)
                } else {
                    json!(arm.weight)
                };
                json!({"variant": arm.variant, "version": arm.version, "weight": weight})
            };
            arms.iter().map(arm).collect()
        }
    }
}
