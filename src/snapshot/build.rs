//! Building the next snapshot from the present one and the registry's changes.

use std::sync::Arc;

use http::HeaderValue;

use super::routing::Routing;
use super::sharded::Sharded;
use super::tables::{Arm, Environment, Key, Live, PromptEntry, Snapshot};
use crate::domain::content::Content;
use crate::domain::split;
use crate::domain::version::CompiledVersion;
use crate::registry::{Delta, KeyState, LiveState, PromptState};

impl Snapshot {
    /// Returns the table before anything was read from a registry.
    pub fn empty(routing: Arc<Routing>, config_hash: &str) -> Self {
        Self {
            generation: 0,
            generation_header: HeaderValue::from_static("0"),
            epoch: "".into(),
            pseudonym_key: "".into(),
            config_hash: config_hash.into(),
            routing,
            prompts: Sharded::new(),
            keys: Sharded::new(),
            environments: Vec::new(),
        }
    }

    /// Returns this table with the changes applied; what did not change is shared. A whole state leaves nothing of it.
    pub fn with(&self, delta: Delta) -> Self {
        if delta.whole && !self.epoch.is_empty() {
            let empty = Self::empty(Arc::clone(&self.routing), &self.config_hash);
            return empty.with(delta);
        }
        let mut prompts: Vec<(Arc<str>, Option<Arc<PromptEntry>>)> = Vec::with_capacity(delta.prompts.len());
        prompts.extend(delta.retired_names.into_iter().map(|name| (name.into(), None)));
        for state in delta.prompts {
            // A name may have belonged to another prompt before: what is shared must be of the same one.
            let names = std::iter::once(&state.id).chain(&state.aliases);
            let mut known = names.filter_map(|name| self.prompts.get(name.as_str()));
            let old = known.find(|entry| *entry.uid == *state.uid);
            let entry = Arc::new(prompt_entry(state, old.map(Arc::as_ref)));
            for name in entry.aliases.iter().chain([&entry.id]) {
                prompts.push((Arc::clone(name), Some(Arc::clone(&entry))));
            }
        }
        // A name that moved from one prompt to another was retired by the one and is set by the other: set last.
        prompts.sort_by_key(|(_, entry)| entry.is_some());
        let keys = delta.keys.into_iter().map(|key| {
            let revoked = key.revoked;
            (key.digest, (!revoked).then(|| Arc::new(compile_key(key))))
        });
        Self {
            generation: delta.generation,
            generation_header: HeaderValue::from(delta.generation),
            epoch: delta.epoch.into(),
            pseudonym_key: delta.pseudonym_key.into(),
            config_hash: Arc::clone(&self.config_hash),
            routing: Arc::clone(&self.routing),
            prompts: self.prompts.with(prompts),
            keys: self.keys.with(keys),
            environments: delta
                .environments
                .into_iter()
                .map(|environment| Environment {
                    name: environment.name.into(),
                    protected: environment.protected,
                })
                .collect(),
        }
    }
}

fn compile_key(state: KeyState) -> Key {
    Key {
        id: state.id.into(),
        environment: state.environment.into(),
        environments: state.environments.into_iter().map(Into::into).collect(),
        models: state.models.map(|models| models.into_iter().map(Into::into).collect()),
        raw: state.raw,
        pin: state.pin,
        force_variant: state.force_variant,
    }
}

fn prompt_entry(state: PromptState, old: Option<&PromptEntry>) -> PromptEntry {
    let id: Arc<str> = state.id.into();
    let live = state
        .live
        .into_iter()
        .map(|live| live_entry(&id, &state.salt_id, live, old))
        .collect();
    PromptEntry {
        uid: state.uid.into(),
        id_header: header(&id),
        id,
        aliases: state.aliases.into_iter().map(Into::into).collect(),
        latest_version: state.latest_version,
        live,
    }
}

fn live_entry(id: &str, salt_id: &str, state: LiveState, old: Option<&PromptEntry>) -> Arc<Live> {
    let same = old.and_then(|old| old.live_in(&state.environment));
    if let Some(same) =
        same.filter(|live| live.deployment == state.deployment && live.ever_deployed == state.ever_deployed)
    {
        return Arc::clone(same);
    }
    // The registry refuses splits that do not fit; one that does all the same must not bring down the table.
    let stored = match state.split.as_slice() {
        // Taken off.
        [] => Ok(Vec::new()),
        split => split::upper_bounds(split),
    };
    let bounds = stored.unwrap_or_else(|why| {
        tracing::error!(
            prompt = id,
            environment = state.environment,
            why,
            "stored split is not valid"
        );
        Vec::new()
    });
    let arms = state.split.into_iter().zip(bounds).map(|(arm, upper)| {
        let compiled = known(old, arm.version).unwrap_or_else(|| compile(id, arm.version, &state.contents));
        Arc::new(Arm {
            variant_header: header(&arm.variant),
            variant: arm.variant.into(),
            version: arm.version,
            version_header: HeaderValue::from(arm.version),
            upper,
            compiled,
        })
    });
    Arc::new(Live {
        salt: split::deployment_salt(salt_id, &state.environment).into(),
        arms: arms.collect(),
        environment_header: header(&state.environment),
        environment: state.environment.into(),
        deployment: state.deployment,
        ever_deployed: state.ever_deployed,
    })
}

type Compiled = Result<Arc<CompiledVersion>, Arc<str>>;

/// Finds a version that the old table has compiled already: versions never change.
fn known(old: Option<&PromptEntry>, version: u32) -> Option<Compiled> {
    let arms = old?.live.iter().flat_map(|live| &live.arms);
    arms.into_iter()
        .find(|arm| arm.version == version)
        .map(|arm| arm.compiled.clone())
}

fn compile(id: &str, version: u32, contents: &[(u32, Arc<str>)]) -> Compiled {
    let content = contents.iter().find(|(number, _)| *number == version);
    let compiled = match content {
        Some((_, content)) => compile_stored(content),
        None => Err("its content is missing".to_owned()),
    };
    compiled.map(Arc::new).map_err(|why| {
        tracing::error!(prompt = id, version, why, "stored version does not compile");
        why.into()
    })
}

fn compile_stored(content: &str) -> Result<CompiledVersion, String> {
    let content: Content = serde_json::from_str(content).map_err(|why| why.to_string())?;
    CompiledVersion::compile(&content).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
        problems.join("; ")
    })
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("?"))
}

#[cfg(test)]
mod tests;
