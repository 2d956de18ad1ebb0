//! The content of a version, as written over the API and as stored.
//!
//! Stored content is *effective*: a text prompt has become one user message, partials are frozen into it, and nothing in
//! it depends on anything that can change later. Its SHA-256 is the version's hash.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::exchange::Capture;

/// What a version says: messages, variables, model and parameters.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// `{role, content, …}` or `{placeholder: name}`, in order. `content` is a template, or parts whose strings are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Value>,
    /// Short form of one user message; never stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// JSON Schema by variable name; each is required unless it has a `default` or `optional: true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Generation parameters sent to the provider as they are: `temperature`, `max_tokens`, …
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// Fields in which the caller's value wins over this version's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    /// Turns everything that would be ignored into an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// Whether callers may add `system` or `developer` messages.
    #[serde(default, skip_serializing_if = "CallerSystem::is_reject")]
    pub caller_system: CallerSystem,
    /// Which content of its requests is recorded, in place of the configuration's `telemetry.capture`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
    /// Free text for colleagues; not part of the hash.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// Frozen partials by name (`prompt:support/tone:3`); filled in when the version is created.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub partials: Map<String, Value>,
}

/// Whether callers may add `system` or `developer` messages to a prompt's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallerSystem {
    #[default]
    Reject,
    Allow,
}

impl CallerSystem {
    fn is_reject(&self) -> bool {
        *self == Self::Reject
    }
}

impl Content {
    /// Turns the short form into messages, and drops what says nothing.
    ///
    /// # Errors
    /// A sentence when there are both `text` and `messages`, or neither, or `partials`, which only the registry fills.
    pub fn normalise(mut self) -> Result<Self, String> {
        if !self.partials.is_empty() {
            return Err(
                "partials are frozen by the registry, use {% include \"prompt:id\" %} in a template".to_owned(),
            );
        }
        match (self.text.take(), self.messages.is_empty()) {
            (Some(_), false) => return Err("give either text or messages, not both".to_owned()),
            (None, true) => {
                return Err("messages is missing, write for instance \
                     {\"messages\": [{\"role\": \"user\", \"content\": \"Hello {{ name }}\"}]}"
                    .to_owned());
            }
            (Some(text), true) => self.messages = vec![serde_json::json!({"role": "user", "content": text})],
            (None, false) => {}
        }
        self.response_format = self.response_format.filter(|format| !format.is_null());
        self.parameters.retain(|_, value| !value.is_null());
        Ok(self)
    }

    /// Returns the SHA-256, in lowercase hexadecimal, of everything that decides what a request becomes.
    ///
    /// The order of keys is content: it reaches the model (a tool's properties, say).
    pub fn hash(&self) -> String {
        let mut effective = self.clone();
        effective.notes.clear();
        let text = serde_json::to_vec(&effective).expect("content serialises: its keys are strings");
        format!("{:x}", Sha256::digest(&text))
    }
}
