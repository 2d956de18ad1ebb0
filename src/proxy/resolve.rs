//! Stage 2: the prompt, its version and variant. Pure functions of the snapshot's tables.

use std::sync::Arc;

use super::reference::{Reference, Selector};
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::split;
use crate::snapshot::{Arm, Key, Live, Model, PromptEntry, Snapshot};

/// Header with which a key that may do so chooses its variant.
pub const VARIANT_HEADER: &str = "x-promptgate-variant";

/// What a reference means for this key and unit.
#[derive(Debug)]
pub struct Resolved {
    pub prompt: Arc<PromptEntry>,
    pub environment: Arc<str>,
    pub choice: Choice,
}

#[derive(Debug)]
pub enum Choice {
    Live {
        live: Arc<Live>,
        arm: Arc<Arm>,
        forced: bool,
    },
    /// The request names the version itself.
    Pinned(u32),
}

/// Resolves a reference.
///
/// # Errors
/// 404 for a prompt, version, environment or variant that is not there, 403 for what the key may not do.
pub fn resolve(
    snapshot: &Snapshot,
    key: &Key,
    reference: &Reference<'_>,
    unit: &[u8],
    forced: Option<&str>,
) -> Result<Resolved, ApiError> {
    let name = reference.name.as_ref();
    let prompt = snapshot.prompt(name).ok_or_else(|| {
        let shown: String = name.chars().take(200).collect();
        ApiError::new(ErrorCode::PromptNotFound, format!("there is no prompt {shown:?}")).param("prompt.id")
    })?;
    let (environment, choice) = match &reference.selector {
        Selector::Version(version) => {
            if forced.is_some() {
                let why = format!("a version and {VARIANT_HEADER} exclude each other");
                return Err(ApiError::new(ErrorCode::Contradiction, why).param(VARIANT_HEADER));
            }
            may_pin(snapshot, key, prompt, *version)?;
            (Arc::clone(&key.environment), Choice::Pinned(*version))
        }
        Selector::Environment(name) => {
            let environment = permitted(snapshot, key, name)?;
            let choice = choose(prompt, &environment, key, unit, forced)?;
            (environment, choice)
        }
        Selector::Default => {
            let choice = choose(prompt, &key.environment, key, unit, forced)?;
            (Arc::clone(&key.environment), choice)
        }
    };
    Ok(Resolved {
        prompt: Arc::clone(prompt),
        environment,
        choice,
    })
}

fn permitted(snapshot: &Snapshot, key: &Key, name: &str) -> Result<Arc<str>, ApiError> {
    let param = "prompt.environment";
    if snapshot.environment(name).is_none() {
        let known = snapshot.environment_names().join(", ");
        let shown: String = name.chars().take(64).collect();
        let why = format!("there is no environment {shown:?}, there are {known}");
        return Err(ApiError::new(ErrorCode::EnvironmentNotFound, why).param(param));
    }
    let allowed = key.environments.iter().find(|environment| ***environment == *name);
    allowed.cloned().ok_or_else(|| {
        let allowed = key.environments.join(", ");
        ApiError::new(
            ErrorCode::NotAllowed,
            format!("this key may not use environment {name:?}, only {allowed}"),
        )
        .param(param)
    })
}

fn may_pin(snapshot: &Snapshot, key: &Key, prompt: &PromptEntry, version: u32) -> Result<(), ApiError> {
    let refused = |code, why| Err(ApiError::new(code, why).param("prompt.version"));
    if !key.pin {
        let why = "this key may not name a version; leave it out to get the live one".to_owned();
        return refused(ErrorCode::NotAllowed, why);
    }
    if version > prompt.latest_version {
        let why = format!(
            "prompt {:?} has no version {version}, its latest is {}",
            prompt.id, prompt.latest_version
        );
        return refused(ErrorCode::VersionNotFound, why);
    }
    let environment = snapshot.environment(&key.environment);
    if environment.is_some_and(|environment| environment.protected) {
        let live = prompt.live_in(&key.environment);
        if !live.is_some_and(|live| live.ever_deployed.contains(&version)) {
            let why = format!(
                "version {version} of prompt {:?} was never deployed in {:?}, which is protected",
                prompt.id, key.environment
            );
            return refused(ErrorCode::NotAllowed, why);
        }
    }
    Ok(())
}

fn choose(
    prompt: &PromptEntry,
    environment: &Arc<str>,
    key: &Key,
    unit: &[u8],
    forced: Option<&str>,
) -> Result<Choice, ApiError> {
    let live = prompt
        .live_in(environment)
        .filter(|live| !live.arms.is_empty())
        .ok_or_else(|| {
            ApiError::new(
                ErrorCode::NothingLive,
                format!(
                    "prompt {:?} has nothing live in environment {environment:?}, deploy a version there",
                    prompt.id
                ),
            )
            .param("prompt.id")
        })?;
    let arm = match forced {
        None => assign(live, unit),
        Some(variant) => force(live, key, variant)?,
    };
    Ok(Choice::Live {
        live: Arc::clone(live),
        arm: Arc::clone(arm),
        forced: forced.is_some(),
    })
}

/// Returns the arm of a unit; a single arm needs no hash.
fn assign<'a>(live: &'a Live, unit: &[u8]) -> &'a Arc<Arm> {
    if let [only] = live.arms.as_slice() {
        return only;
    }
    let bucket = split::bucket(live.salt.as_bytes(), unit);
    &live.arms[split::arm_of(live.arms.iter().map(|arm| arm.upper), bucket)]
}

fn force<'a>(live: &'a Live, key: &Key, variant: &str) -> Result<&'a Arc<Arm>, ApiError> {
    if !key.force_variant {
        let why = format!("this key may not choose its variant; leave {VARIANT_HEADER} out");
        return Err(ApiError::new(ErrorCode::NotAllowed, why).param(VARIANT_HEADER));
    }
    live.arms.iter().find(|arm| *arm.variant == *variant).ok_or_else(|| {
        let known: Vec<&str> = live.arms.iter().map(|arm| arm.variant.as_ref()).collect();
        let shown: String = variant.chars().take(64).collect();
        let why = format!("there is no variant {shown:?} now, there are {}", known.join(", "));
        ApiError::new(ErrorCode::InvalidField, why).param(VARIANT_HEADER)
    })
}

/// Finds the model that a request goes to.
///
/// # Errors
/// 404 for an unknown model, 403 for one that the key may not use.
pub fn model<'a>(snapshot: &'a Snapshot, key: &Key, name: &str) -> Result<&'a Arc<Model>, ApiError> {
    let shown = || -> String { name.chars().take(200).collect() };
    if !key.may_use_model(name) {
        let why = format!("this key may not use model {:?}", shown());
        return Err(ApiError::new(ErrorCode::NotAllowed, why).param("model"));
    }
    snapshot.routing.model(name).ok_or_else(|| {
        let why = format!(
            "there is no model {:?}; add it to the configuration under [[models]]",
            shown()
        );
        ApiError::new(ErrorCode::ModelNotFound, why).param("model")
    })
}
