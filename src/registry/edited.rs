//! What somebody else made of a thing meanwhile: the answer to an edit that began with an older state.

use std::fmt;

use super::{Draft, Environment, Prompt, RegistryError, VersionSummary};

/// The present state of what was to be changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Edited {
    Prompt(Prompt),
    Environment(Environment),
    Draft(Draft),
    /// A version newer than the one that a draft began with.
    Version(VersionSummary),
}

impl fmt::Display for Edited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prompt(prompt) => write!(
                f,
                "prompt {:?} was changed meanwhile and is at revision {}: look at it, then send that as if-match",
                prompt.id, prompt.revision
            ),
            Self::Environment(environment) => write!(
                f,
                "environment {:?} was changed meanwhile and is at {}: look at it, then send that as if-match",
                environment.name, environment.generation
            ),
            Self::Draft(draft) => write!(
                f,
                "draft {:?} was saved meanwhile by {:?} and is at revision {}: merge what it says now, then send that as \
                 if-match",
                draft.name, draft.updated_by, draft.revision
            ),
            Self::Version(version) => write!(
                f,
                "{:?} made version {} since the draft was begun: look at the difference, then commit with \"onto\": {}",
                version.author, version.version, version.version
            ),
        }
    }
}

impl From<Edited> for RegistryError {
    fn from(edited: Edited) -> Self {
        Self::Edited(Box::new(edited))
    }
}
