//! OpenAI's API: its calls, and what their answers and streams say.
//!
//! Source: <https://platform.openai.com/docs/api-reference>.

pub mod chat;
pub mod responses;

use serde::Deserialize;

use crate::domain::json::{Text, string_into};
use crate::domain::text_size::TextSize;
use crate::domain::usage::Usage;

/// A call of the API that has a body of ours to shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    ChatCompletions,
    Responses,
    /// The former text completions; their `prompt` is an ordinary field.
    Completions,
    Embeddings,
}

impl Call {
    /// Returns the path below a provider's base URL.
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Responses => "/responses",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
        }
    }

    /// Returns the name used in metrics and records.
    pub fn endpoint(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Responses => "responses",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
        }
    }

    /// Says whether a request may name a prompt.
    pub fn takes_prompt(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Responses)
    }

    /// Says whether a stream sends its usage only when asked.
    pub fn asks_for_usage(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }
}

/// What an answer says of itself.
#[derive(Debug, PartialEq, Default)]
pub struct Facts {
    pub id: String,
    pub model: String,
    pub finish_reason: String,
    pub usage: Option<Usage>,
}

/// What one event of a stream was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Carries text or part of a tool call.
    Content,
    /// The extra chunk with nothing but usage.
    UsageOnly,
    /// The last event of an answer that went well.
    Done,
    /// The last event of an answer that failed.
    Failed,
    /// An error inside a stream that began well.
    Error,
    /// Anything else: the role, a finish reason, a comment.
    Other,
    /// Not what such a stream has.
    Malformed,
}

/// How much of a streamed answer has come, also of what is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said {
    /// Content, refusals, tool calls.
    pub text: TextSize,
    pub reasoning: TextSize,
}

/// A streamed answer put together again, as far as it has come.
#[derive(Debug)]
pub enum Assembly {
    Chat(chat::Assembly),
    Responses(responses::Assembly),
}

impl Assembly {
    /// Starts an assembly that keeps at most `limit` bytes of text.
    pub fn new(call: Call, limit: usize) -> Self {
        match call {
            Call::Responses => Self::Responses(responses::Assembly::new(limit)),
            Call::ChatCompletions | Call::Completions | Call::Embeddings => Self::Chat(chat::Assembly::new(limit)),
        }
    }

    /// Bytes of text kept so far.
    pub fn kept(&self) -> usize {
        match self {
            Self::Chat(assembly) => assembly.kept,
            Self::Responses(assembly) => assembly.kept,
        }
    }

    /// From here on keeps at most `limit` bytes of text, what it has included.
    pub fn set_limit(&mut self, limit: usize) {
        match self {
            Self::Chat(assembly) => assembly.limit = limit,
            Self::Responses(assembly) => assembly.limit = limit,
        }
    }

    /// Takes the data of one event.
    pub fn read(&mut self, data: &[u8]) -> EventKind {
        match self {
            Self::Chat(assembly) => assembly.read(data),
            Self::Responses(assembly) => assembly.read(data),
        }
    }

    pub fn facts(&self) -> &Facts {
        match self {
            Self::Chat(assembly) => &assembly.facts,
            Self::Responses(assembly) => &assembly.facts,
        }
    }

    pub fn take_facts(&mut self) -> Facts {
        match self {
            Self::Chat(assembly) => std::mem::take(&mut assembly.facts),
            Self::Responses(assembly) => std::mem::take(&mut assembly.facts),
        }
    }

    pub fn said(&self) -> Said {
        match self {
            Self::Chat(assembly) => assembly.said,
            Self::Responses(assembly) => assembly.said,
        }
    }

    /// Says whether text was left out.
    pub fn truncated(&self) -> bool {
        match self {
            Self::Chat(assembly) => assembly.truncated,
            Self::Responses(assembly) => assembly.truncated,
        }
    }

    /// Returns the assembled answer as JSON; empty if nothing came. `unfinished` is asked what to write of a text whose end
    /// was left out.
    pub fn to_json(&self, unfinished: &dyn Fn(&str) -> String) -> Vec<u8> {
        match self {
            Self::Chat(assembly) => assembly.to_json(unfinished),
            Self::Responses(assembly) => assembly.to_json(unfinished),
        }
    }
}

/// Reads a plain answer; `None` if it is not such a call's JSON.
pub fn read_answer(call: Call, body: &[u8]) -> Option<Facts> {
    match call {
        Call::Responses => responses::read_answer(body),
        Call::ChatCompletions | Call::Completions | Call::Embeddings => chat::read_answer(body),
    }
}

/// Reads the usage from the end of a plain answer too large to be read whole.
///
/// The name in quotes cannot be part of a text, where its quotes would be escaped.
pub fn usage_at_end(tail: &[u8]) -> Option<Usage> {
    const NAME: &[u8] = b"\"usage\"";
    let at = memchr::memmem::rfind(tail, NAME)? + NAME.len();
    let value = tail[at..].trim_ascii_start().strip_prefix(b":")?;
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<WireUsage>();
    Some(values.next()?.ok()?.into())
}

/// Token counts under either of the API's names.
#[derive(Debug, Deserialize, Default)]
struct WireUsage {
    #[serde(default, alias = "input_tokens")]
    prompt_tokens: Option<u32>,
    #[serde(default, alias = "output_tokens")]
    completion_tokens: Option<u32>,
    #[serde(default)]
    total_tokens: Option<u32>,
    #[serde(default, alias = "input_tokens_details")]
    prompt_tokens_details: Option<InputDetails>,
    #[serde(default, alias = "output_tokens_details")]
    completion_tokens_details: Option<OutputDetails>,
}

#[derive(Debug, Deserialize, Default)]
struct InputDetails {
    #[serde(default)]
    cached_tokens: Option<u32>,
}

#[derive(Debug, Deserialize, Default)]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Option<u32>,
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let (input, output) = (wire.prompt_tokens.unwrap_or(0), wire.completion_tokens.unwrap_or(0));
        Self {
            input,
            output,
            cached_input: wire.prompt_tokens_details.and_then(|d| d.cached_tokens).unwrap_or(0),
            reasoning: wire
                .completion_tokens_details
                .and_then(|d| d.reasoning_tokens)
                .unwrap_or(0),
            total: wire.total_tokens.unwrap_or_else(|| input.saturating_add(output)),
        }
    }
}

fn owned(text: Option<Text<'_>>) -> String {
    text.map(|text| text.0.into_owned()).unwrap_or_default()
}

/// A text that is put together from its parts, as far as there is room for it.
#[derive(Debug, Default)]
struct Kept {
    text: String,
    /// Its end was left out.
    is_cut: bool,
}

impl Kept {
    /// Appends as much of `text` as fits into `limit` bytes, counted in `kept`; says whether all of it did.
    fn push(&mut self, text: &str, kept: &mut usize, limit: usize) -> bool {
        // Once cut, what comes later has no place to be.
        let room = if self.is_cut { 0 } else { limit.saturating_sub(*kept) };
        let fits = text.floor_char_boundary(room.min(text.len()));
        self.text.push_str(&text[..fits]);
        *kept += fits;
        self.is_cut |= fits < text.len();
        fits == text.len()
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Appends it as a JSON string.
    fn write(&self, out: &mut Vec<u8>, unfinished: &dyn Fn(&str) -> String) {
        match self.is_cut {
            true => string_into(out, &unfinished(&self.text)),
            false => string_into(out, &self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_an_answers_end() {
        let usage = |tail: &str| usage_at_end(tail.as_bytes()).map(|usage| (usage.input, usage.total));
        let end = r#"3,0.4]}],"model":"m","usage": {"prompt_tokens":8,"total_tokens":8}}"#;
        assert_eq!(usage(end), Some((8, 8)));
        assert_eq!(usage(r#"content":"say \"usage\":{\"prompt_tokens\":1}"}]}"#), None);
        for none in ["", r#""usage""#, r#""usage":null}"#, r#""usage":{"prompt_to"#] {
            assert_eq!(usage(none), None, "{none}");
        }
    }
}
