//! Versions that requests name themselves: compiled on first use, and kept while they are used.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use tokio::runtime::Handle;

use crate::domain::content::Content;
use crate::domain::version::CompiledVersion;
use crate::registry::Registry;

/// A compiled version is big, up to tens of kilobytes.
const CAPACITY: usize = 1_024;

/// A bounded cache of compiled versions, shared by all workers.
pub struct Pinned {
    registry: Arc<Registry>,
    /// Where the registry's connections live.
    control: Handle,
    /// Held for a look-up or an insert only.
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// By the prompt's uid: an id may have been given to another prompt since.
    versions: HashMap<(Arc<str>, u32), Entry>,
    clock: u64,
    /// The registry's, when the versions were read.
    lineage: u64,
}

struct Entry {
    version: Arc<CompiledVersion>,
    used: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum PinnedError {
    #[error("the registry cannot be read now: {0}")]
    Registry(String),
    #[error("the version is not there")]
    Missing,
    #[error("this build cannot compile the version: {0}")]
    Broken(String),
}

impl Pinned {
    pub fn new(registry: Arc<Registry>, control: Handle) -> Self {
        Self {
            registry,
            control,
            cache: Mutex::default(),
        }
    }

    /// Returns a version of the prompt with that uid, compiled.
    ///
    /// # Errors
    /// See [`PinnedError`].
    pub async fn get(&self, prompt: &Arc<str>, version: u32) -> Result<Arc<CompiledVersion>, PinnedError> {
        if let Some(found) = self.cached(prompt, version) {
            return Ok(found);
        }
        let content = self.content(prompt, version).await?;
        let compiled = CompiledVersion::compile(&content).map_err(|problems| {
            let first = problems.into_iter().next();
            PinnedError::Broken(first.map(|p| format!("{}: {}", p.path, p.message)).unwrap_or_default())
        })?;
        let compiled = Arc::new(compiled);
        self.insert(Arc::clone(prompt), version, Arc::clone(&compiled));
        Ok(compiled)
    }

    /// Reads a version of the prompt with that uid: its effective content.
    ///
    /// # Errors
    /// See [`PinnedError`].
    pub async fn content(&self, prompt: &Arc<str>, version: u32) -> Result<Content, PinnedError> {
        let (registry, uid) = (Arc::clone(&self.registry), Arc::clone(prompt));
        let read = self.control.spawn(async move { registry.content(&uid, version).await });
        match read.await {
            Ok(Ok(content)) => content.ok_or(PinnedError::Missing),
            Ok(Err(error)) => Err(PinnedError::Registry(error.to_string())),
            Err(error) => Err(PinnedError::Registry(error.to_string())),
        }
    }

    fn cached(&self, prompt: &Arc<str>, version: u32) -> Option<Arc<CompiledVersion>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.lineage != self.registry.lineage() {
            cache.lineage = self.registry.lineage();
            cache.versions.clear();
        }
        cache.clock += 1;
        let now = cache.clock;
        let entry = cache.versions.get_mut(&(Arc::clone(prompt), version))?;
        entry.used = now;
        Some(Arc::clone(&entry.version))
    }

    fn insert(&self, prompt: Arc<str>, version: u32, compiled: Arc<CompiledVersion>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.versions.len() >= CAPACITY {
            let oldest = cache
                .versions
                .iter()
                .min_by_key(|(_, entry)| entry.used)
                .map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                cache.versions.remove(&oldest);
            }
        }
        let used = cache.clock;
        cache.versions.insert(
            (prompt, version),
            Entry {
                version: compiled,
                used,
            },
        );
    }
}
