//! What a snapshot holds.

use std::sync::Arc;

use http::HeaderValue;

use super::routing::Routing;
use super::sharded::Sharded;
use crate::domain::version::CompiledVersion;

/// One immutable state of everything that requests look up.
#[derive(Debug)]
pub struct Snapshot {
    pub generation: u64,
    pub generation_header: HeaderValue,
    /// Identifies the registry.
    pub epoch: Arc<str>,
    /// Keys the hashes of units and users.
    pub pseudonym_key: Arc<str>,
    /// Names the node's configuration file by its hash.
    pub config_hash: Arc<str>,
    pub routing: Arc<Routing>,
    pub(super) prompts: Sharded<Arc<str>, Arc<PromptEntry>>,
    pub(super) keys: Sharded<[u8; 32], Arc<Key>>,
    pub(super) environments: Vec<Environment>,
}

#[derive(Debug, Clone)]
pub struct Environment {
    pub name: Arc<str>,
    pub protected: bool,
}

impl Snapshot {
    /// Finds a prompt by its id or an alias.
    pub fn prompt(&self, name: &str) -> Option<&Arc<PromptEntry>> {
        self.prompts.get(name)
    }

    /// Finds a key by the SHA-256 of its secret.
    pub fn key(&self, digest: &[u8; 32]) -> Option<&Arc<Key>> {
        self.keys.get(digest)
    }

    pub fn environment(&self, name: &str) -> Option<&Environment> {
        self.environments.iter().find(|environment| *environment.name == *name)
    }

    pub fn environment_names(&self) -> Vec<&str> {
        self.environments
            .iter()
            .map(|environment| environment.name.as_ref())
            .collect()
    }

    /// Returns how many prompts and aliases, and how many keys there are.
    pub fn sizes(&self) -> (usize, usize) {
        (self.prompts.len(), self.keys.len())
    }

    /// Says whether a version is live somewhere; series of others can be retired.
    pub fn is_live(&self, prompt: &str, version: u32) -> bool {
        // By its present id: series under a former one can go.
        let entry = self.prompt(prompt).filter(|entry| *entry.id == *prompt);
        let mut live = entry.into_iter().flat_map(|entry| &entry.live);
        live.any(|live| live.arms.iter().any(|arm| arm.version == version))
    }
}

/// A prompt and what is live of it.
#[derive(Debug)]
pub struct PromptEntry {
    /// The same for ever: ids move when prompts are renamed, and may be given to another one later.
    pub uid: Arc<str>,
    pub id: Arc<str>,
    pub id_header: HeaderValue,
    pub aliases: Vec<Arc<str>>,
    /// Versions are numbered from 1 to this one without gaps.
    pub latest_version: u32,
    pub live: Vec<Arc<Live>>,
}

impl PromptEntry {
    pub fn live_in(&self, environment: &str) -> Option<&Arc<Live>> {
        self.live.iter().find(|live| *live.environment == *environment)
    }
}

/// A deployment: what is live of one prompt in one environment.
#[derive(Debug)]
pub struct Live {
    pub environment: Arc<str>,
    pub environment_header: HeaderValue,
    pub deployment: u32,
    /// Salt of the assignment.
    pub salt: Box<str>,
    pub arms: Vec<Arc<Arm>>,
    /// Versions that were ever deployed in this environment.
    pub ever_deployed: Vec<u32>,
}

/// One arm of a split.
#[derive(Debug)]
pub struct Arm {
    pub variant: Arc<str>,
    pub variant_header: HeaderValue,
    pub version: u32,
    pub version_header: HeaderValue,
    /// Exclusive upper end of the arm's bucket range, of 10,000.
    pub upper: u16,
    /// The version; the reason if this build cannot compile what an earlier one stored. Other prompts go on working.
    pub compiled: Result<Arc<CompiledVersion>, Arc<str>>,
}

/// An application's key.
#[derive(Debug)]
pub struct Key {
    pub id: Arc<str>,
    /// Where its requests go unless they name another environment.
    pub environment: Arc<str>,
    /// All it may name, its default included.
    pub environments: Vec<Arc<str>>,
    /// `None`: all models.
    pub models: Option<Vec<Box<str>>>,
    /// May send requests without a prompt.
    pub raw: bool,
    /// May name a version.
    pub pin: bool,
    /// May choose its variant.
    pub force_variant: bool,
}

impl Key {
    /// Returns the key of requests when the data plane asks for none: production, everything allowed but forcing.
    pub fn anonymous() -> Self {
        Self {
            id: "anonymous".into(),
            environment: "production".into(),
            environments: vec!["production".into()],
            models: None,
            raw: true,
            pin: true,
            force_variant: false,
        }
    }

    pub fn may_use_model(&self, model: &str) -> bool {
        match &self.models {
            None => true,
            Some(models) => models.iter().any(|allowed| **allowed == *model),
        }
    }
}
