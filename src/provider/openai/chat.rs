//! Chat completions: what an answer and its chunks say. The former completions and embeddings read the same way.
//!
//! Source: <https://platform.openai.com/docs/api-reference/chat>.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{EventKind, Facts, Kept, Said, WireUsage, owned};
use crate::domain::json::{Text, as_str};
use crate::domain::usage::Usage;

/// The data of a stream's last event.
const DONE: &[u8] = b"[DONE]";

#[derive(Debug, Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    model: Option<Text<'a>>,
    #[serde(borrow, default)]
    choices: Vec<AnswerChoice<'a>>,
    #[serde(default)]
    usage: Option<WireUsage>,
}

#[derive(Debug, Deserialize)]
struct AnswerChoice<'a> {
    #[serde(borrow, default)]
    finish_reason: Option<Text<'a>>,
}

/// Reads a plain answer; `None` if it is not a chat completion's JSON.
pub fn read_answer(body: &[u8]) -> Option<Facts> {
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    Some(Facts {
        id: owned(answer.id),
        model: owned(answer.model),
        finish_reason: owned(
            answer
                .choices
                .into_iter()
                .next()
                .and_then(|choice| choice.finish_reason),
        ),
        usage: answer.usage.map(Usage::from),
    })
}

#[derive(Debug, Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    model: Option<Text<'a>>,
    #[serde(borrow, default)]
    choices: Option<Vec<ChunkChoice<'a>>>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct ChunkChoice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    /// The content of a former completion.
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Text<'a>>,
}

#[derive(Debug, Deserialize, Default)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Text<'a>>,
    #[serde(borrow, default)]
    refusal: Option<Text<'a>>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolCallDelta<'a>>>,
    /// Reasoning, as compatible providers name it; only its length is of interest, so any form of it is fine.
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct ToolCallDelta<'a> {
    #[serde(default)]
    index: u32,
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    function: Option<FunctionDelta<'a>>,
}

#[derive(Debug, Deserialize)]
struct FunctionDelta<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    arguments: Option<Text<'a>>,
}

/// A streamed answer put together again, as far as it has come.
#[derive(Debug, Default)]
pub struct Assembly {
    pub facts: Facts,
    choices: Vec<Choice>,
    /// Bytes of text kept so far.
    pub(super) kept: usize,
    /// The most bytes of text kept; what comes after is counted as truncated.
    pub(super) limit: usize,
    pub truncated: bool,
    pub said: Said,
}

#[derive(Debug, Default)]
struct Choice {
    content: Kept,
    refusal: Kept,
    tool_calls: Vec<ToolCall>,
}

#[derive(Debug, Default)]
struct ToolCall {
    id: Kept,
    name: Kept,
    arguments: Kept,
}

/// The most choices and tool calls that are put together; providers allow fewer.
const MAX_PARTS: u32 = 128;

impl Assembly {
    /// Starts an assembly that keeps at most `limit` bytes of text.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Takes the data of one event. The last usage wins; it is never added up.
    pub fn read(&mut self, data: &[u8]) -> EventKind {
        if data == DONE {
            return EventKind::Done;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            return EventKind::Malformed;
        };
        if chunk.error.is_some_and(|error| error.get() != "null") {
            return EventKind::Error;
        }
        if self.facts.id.is_empty() {
            self.facts.id = owned(chunk.id);
            self.facts.model = owned(chunk.model);
        }
        let choices = chunk.choices.unwrap_or_default();
        let mut kind = EventKind::Other;
        if let Some(usage) = chunk.usage {
            self.facts.usage = Some(usage.into());
            if choices.is_empty() {
                kind = EventKind::UsageOnly;
            }
        }
        for choice in choices {
            if let Some(Text(reason)) = choice.finish_reason {
                self.facts.finish_reason = reason.into_owned();
            }
            let delta = choice.delta.or_else(|| {
                let content = choice.text;
                content.is_some().then(|| Delta {
                    content,
                    ..Delta::default()
                })
            });
            if delta.is_some_and(|delta| self.add(choice.index, delta)) {
                kind = EventKind::Content;
            }
        }
        kind
    }

    /// Adds a delta, and says whether it had content.
    fn add(&mut self, index: u32, delta: Delta<'_>) -> bool {
        let tool_calls = delta.tool_calls.unwrap_or_default();
        let text = |text: &Option<Text<'_>>| text.as_ref().is_some_and(|text| !text.0.is_empty());
        let has_content = text(&delta.content) || text(&delta.refusal) || !tool_calls.is_empty();
        if let Some(reasoning) = delta.reasoning_content.or(delta.reasoning).and_then(as_str) {
            self.said.reasoning.add(&reasoning);
        }
        let functions = tool_calls.iter().filter_map(|call| call.function.as_ref());
        let parts = functions.flat_map(|function| [&function.name, &function.arguments]);
        for Text(text) in [&delta.content, &delta.refusal].into_iter().chain(parts).flatten() {
            self.said.text.add(text);
        }
        if (self.limit == 0 && self.kept == 0) || !has_content || index >= MAX_PARTS {
            return has_content;
        }
        let Self {
            choices,
            kept,
            limit,
            truncated,
            ..
        } = self;
        let mut keep = |to: &mut Kept, text: Option<Text<'_>>| {
            if let Some(Text(text)) = text {
                *truncated |= !to.push(&text, kept, *limit);
            }
        };
        let choice = slot(choices, index);
        keep(&mut choice.content, delta.content);
        keep(&mut choice.refusal, delta.refusal);
        for call in tool_calls.into_iter().filter(|call| call.index < MAX_PARTS) {
            let to = slot(&mut choice.tool_calls, call.index);
            keep(&mut to.id, call.id);
            if let Some(function) = call.function {
                keep(&mut to.name, function.name);
                keep(&mut to.arguments, function.arguments);
            }
        }
        has_content
    }

    /// Returns the assembled message as JSON; an array of them if there are several choices; empty if nothing came.
    pub fn to_json(&self, unfinished: &dyn Fn(&str) -> String) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.kept + 64);
        match self.choices.as_slice() {
            [] => {}
            [choice] => choice.write(&mut out, unfinished),
            choices => write_list(&mut out, choices, |choice, out| choice.write(out, unfinished)),
        }
        out
    }
}

impl Choice {
    fn write(&self, out: &mut Vec<u8>, unfinished: &dyn Fn(&str) -> String) {
        out.extend_from_slice(b"{\"role\":\"assistant\",\"content\":");
        if self.content.is_empty() && !self.tool_calls.is_empty() {
            out.extend_from_slice(b"null");
        } else {
            self.content.write(out, unfinished);
        }
        if !self.refusal.is_empty() {
            out.extend_from_slice(b",\"refusal\":");
            self.refusal.write(out, unfinished);
        }
        if !self.tool_calls.is_empty() {
            out.extend_from_slice(b",\"tool_calls\":");
            write_list(out, &self.tool_calls, |call, out| call.write(out, unfinished));
        }
        out.push(b'}');
    }
}

impl ToolCall {
    fn write(&self, out: &mut Vec<u8>, unfinished: &dyn Fn(&str) -> String) {
        out.extend_from_slice(b"{\"id\":");
        self.id.write(out, unfinished);
        out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
        self.name.write(out, unfinished);
        out.extend_from_slice(b",\"arguments\":");
        self.arguments.write(out, unfinished);
        out.extend_from_slice(b"}}");
    }
}

fn write_list<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

fn slot<T: Default>(items: &mut Vec<T>, index: u32) -> &mut T {
    let index = index as usize;
    while items.len() <= index {
        items.push(T::default());
    }
    &mut items[index]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::text_size::TextSize;

    #[test]
    fn plain_answer_gives_its_facts() {
        let body = br#"{"id":"c1","object":"x","model":"m","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],
            "usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":3},
            "completion_tokens_details":{"reasoning_tokens":1}}}"#;
        let facts = read_answer(body).unwrap();
        assert_eq!(
            (facts.id.as_str(), facts.model.as_str(), facts.finish_reason.as_str()),
            ("c1", "m", "stop")
        );
        let usage = Usage {
            input: 5,
            cached_input: 3,
            output: 2,
            reasoning: 1,
            total: 7,
        };
        assert_eq!(facts.usage, Some(usage));
        assert_eq!(read_answer(b"not json"), None);
    }

    #[test]
    fn stream_is_assembled_with_tool_calls_and_the_last_usage() {
        let mut assembly = Assembly::new(1 << 20);
        let chunks: [(&str, EventKind); 9] = [
            (
                r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}"#,
                EventKind::Other,
            ),
            (
                r#"{"choices":[{"index":0,"delta":{"content":"H\"é"}}]}"#,
                EventKind::Content,
            ),
            (
                r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":""}}]}}]}"#,
                EventKind::Content,
            ),
            (
                r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}"#,
                EventKind::Content,
            ),
            (
                r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
                EventKind::Other,
            ),
            (
                r#"{"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}"#,
                EventKind::UsageOnly,
            ),
            ("[DONE]", EventKind::Done),
            (r#"{"error":{"message":"m"}}"#, EventKind::Error),
            ("{broken", EventKind::Malformed),
        ];
        for (data, kind) in chunks {
            assert_eq!(assembly.read(data.as_bytes()), kind, "{data}");
        }
        let usage = assembly.facts.usage.unwrap();
        assert_eq!((usage.input, usage.output, usage.total), (4, 2, 6));
        assert_eq!(
            String::from_utf8(assembly.to_json(&str::to_owned)).unwrap(),
            r#"{"role":"assistant","content":"H\"é","tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{}"}}]}"#
        );
    }

    #[test]
    fn everything_said_is_measured_also_what_is_not_kept() {
        let mut assembly = Assembly::new(0);
        for delta in [
            r#"{"reasoning_content":"think"}"#,
            r#"{"reasoning":"more"}"#,
            r#"{"reasoning":{"unheard":"of"}}"#,
            r#"{"content":"Hé"}"#,
            r#"{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":"{}"}}]}"#,
        ] {
            let chunk = format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#);
            assert_ne!(assembly.read(chunk.as_bytes()), EventKind::Malformed, "{delta}");
        }
        assert_eq!(assembly.said.text, TextSize::of("Héf{}"));
        assert_eq!(assembly.said.reasoning, TextSize::of("thinkmore"));
        assert!(assembly.to_json(&str::to_owned).is_empty());
    }

    #[test]
    fn long_stream_is_cut_at_a_character() {
        let mut assembly = Assembly::new(4);
        assembly.read(r#"{"choices":[{"index":0,"delta":{"content":"aéé"}}]}"#.as_bytes());
        assembly.read(r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#.as_bytes());
        assert!(assembly.truncated);
        let marked = |text: &str| format!("{text}…");
        assert_eq!(
            String::from_utf8(assembly.to_json(&marked)).unwrap(),
            r#"{"role":"assistant","content":"aé…"}"#
        );
    }
}
