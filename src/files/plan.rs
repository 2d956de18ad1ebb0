//! What would have to change in a registry for it to be as the files say.

use serde::Serialize;
use serde_json::Value;

use crate::domain::content::Content;
use crate::domain::diff::ContentDiff;
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
    pub fn new(id: &str, action: Action) -> Self {
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
