//! Reads from the control plane what files are compared with.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;

use super::super::{Remote, encode};
use crate::files::effective::includes;
use crate::files::prompt_file::ReadFile;
use crate::files::state::{LiveSplit, PromptState, State, VersionState, source_hash};

/// How many versions before the present ones are looked through for a text that includes others.
const LOOK_BACK: usize = 100;

/// Reads all prompts of a folder with what their files have to hold.
pub async fn everything(remote: &mut Remote, folder: &str) -> anyhow::Result<State> {
    let mut state = outline(remote).await?;
    state.prompts.retain(|id, _| id.starts_with(folder));
    for (id, prompt) in &mut state.prompts {
        if !prompt.archived {
            read_versions(remote, id, prompt, &prompt.kept()).await?;
        }
    }
    Ok(state)
}

/// Reads the prompts of these files, and what they include.
pub async fn for_files(remote: &mut Remote, files: &BTreeMap<String, ReadFile>) -> anyhow::Result<State> {
    let mut state = outline(remote).await?;
    for (id, read) in files {
        let Some(prompt) = state.prompts.get_mut(id) else {
            continue;
        };
        read_versions(remote, id, prompt, &prompt.kept()).await?;
        let unknown: Vec<_> = read
            .file
            .versions
            .iter()
            .filter(|(_, source)| {
                let hash = source_hash(source);
                !prompt
                    .versions
                    .values()
                    .any(|version| source_hash(&version.source) == hash)
            })
            .collect();
        if unknown.is_empty() {
            continue;
        }
        // A text that was there before is that version again.
        let list = remote.all(&format!("/prompts/{}/versions", encode(id))).await?;
        for version in &list {
            let (hash, number) = (
                version["hash"].as_str().unwrap_or_default(),
                number(&version["version"]),
            );
            prompt.hashes.insert(hash.to_owned(), number);
        }
        let mut older: Vec<u32> = list.iter().map(|version| number(&version["version"])).collect();
        if unknown.iter().any(|(_, source)| !includes(source).is_empty()) {
            older.truncate(LOOK_BACK);
        } else {
            let hashes: Vec<String> = unknown.iter().map(|(_, source)| source_hash(source)).collect();
            older.retain(|number| hashes.iter().any(|hash| prompt.hashes.get(hash) == Some(number)));
        }
        read_versions(remote, id, prompt, &older).await?;
    }
    let included = files.values().flat_map(|read| &read.file.versions);
    let included: Vec<(String, Option<u32>)> = included.flat_map(|(_, source)| includes(source)).collect();
    for (name, version) in included {
        let Some(id) = state.id_of(&name).map(str::to_owned) else {
            continue;
        };
        let Some(prompt) = state.prompts.get_mut(&id) else {
            continue;
        };
        let wanted = version.unwrap_or(prompt.latest);
        if (1..=prompt.latest).contains(&wanted) {
            read_versions(remote, &id, prompt, &[wanted]).await?;
        }
    }
    Ok(state)
}

/// Reads environments, and all prompts without their versions.
async fn outline(remote: &mut Remote) -> anyhow::Result<State> {
    let environments = remote.all("/environments").await?;
    let environments: Vec<(String, bool)> = environments
        .iter()
        .map(|one| (super::super::text(&one["name"]), one["protected"] == true))
        .collect();
    let mut prompts = BTreeMap::new();
    for prompt in remote.all("/prompts?archived=true&limit=200").await? {
        prompts.insert(super::super::text(&prompt["id"]), prompt_state(&prompt, &environments)?);
    }
    Ok(State { environments, prompts })
}

fn prompt_state(prompt: &Value, environments: &[(String, bool)]) -> anyhow::Result<PromptState> {
    let mut aliases: Vec<String> = serde_json::from_value(prompt["aliases"].clone())?;
    aliases.sort();
    let mut live = Vec::new();
    for (environment, _) in environments {
        let state = &prompt["live"][environment];
        if state.is_null() {
            continue;
        }
        live.push(LiveSplit {
            environment: environment.clone(),
            deployment: number(&state["deployment"]),
            split: serde_json::from_value(state["split"].clone())?,
        });
    }
    Ok(PromptState {
        description: super::super::text(&prompt["description"]),
        owner: super::super::text(&prompt["owner"]),
        tags: serde_json::from_value(prompt["tags"].clone())?,
        aliases,
        archived: !prompt["archived_at"].is_null(),
        revision: prompt["revision"].as_u64().unwrap_or_default(),
        latest: number(&prompt["latest_version"]),
        live,
        versions: BTreeMap::new(),
        hashes: BTreeMap::new(),
    })
}

async fn read_versions(remote: &mut Remote, id: &str, prompt: &mut PromptState, numbers: &[u32]) -> anyhow::Result<()> {
    for wanted in numbers {
        if prompt.versions.contains_key(wanted) {
            continue;
        }
        let path = format!("/prompts/{}/versions/{wanted}", encode(id));
        let version = remote.send(Method::GET, &path, &Value::Null).await?;
        let uses = version["uses"].as_array().into_iter().flatten();
        let uses = uses.map(|used| (super::super::text(&used["prompt"]), number(&used["version"])));
        let hash = super::super::text(&version["hash"]);
        prompt.hashes.insert(hash, *wanted);
        let state = VersionState {
            source: serde_json::from_value(version["source"].clone())?,
            effective: serde_json::from_value(version["content"].clone())?,
            uses: uses.collect(),
        };
        prompt.versions.insert(*wanted, state);
    }
    Ok(())
}

fn number(value: &Value) -> u32 {
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or_default()
}
