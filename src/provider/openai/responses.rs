//! The Responses API: what an answer and its events say, and a chat-shaped prompt in its form.
//!
//! Source: <https://platform.openai.com/docs/api-reference/responses> and
//! <https://platform.openai.com/docs/api-reference/responses-streaming>.

mod shape;

use serde::Deserialize;
use serde_json::value::RawValue;

pub use shape::{input, parameter};

use super::{EventKind, Facts, Kept, Said, WireUsage, owned};
use crate::domain::json::Text;

#[derive(Debug, Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    model: Option<Text<'a>>,
    #[serde(borrow, default)]
    status: Option<Text<'a>>,
    #[serde(borrow, default)]
    incomplete_details: Option<IncompleteDetails<'a>>,
    #[serde(default)]
    usage: Option<WireUsage>,
}

#[derive(Debug, Deserialize)]
struct IncompleteDetails<'a> {
    #[serde(borrow, default)]
    reason: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    delta: Option<Text<'a>>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
}

/// Reads a plain answer; `None` if it is not a response's JSON.
pub fn read_answer(body: &[u8]) -> Option<Facts> {
    let response: Response<'_> = serde_json::from_slice(body).ok()?;
    Some(facts(response))
}

/// The finish reason is why it is incomplete, or else its status.
fn facts(response: Response<'_>) -> Facts {
    let reason = response.incomplete_details.and_then(|details| details.reason);
    Facts {
        id: owned(response.id),
        model: owned(response.model),
        finish_reason: owned(reason.or(response.status)),
        usage: response.usage.map(Into::into),
    }
}

/// A streamed response as far as it has come.
#[derive(Debug, Default)]
pub struct Assembly {
    pub facts: Facts,
    /// The whole response, from the last event.
    last: Vec<u8>,
    text: Kept,
    pub(super) kept: usize,
    pub(super) limit: usize,
    pub truncated: bool,
    pub said: Said,
}

/// The deltas that are text of the answer; those of sound and images are base64.
const SAID: [&str; 6] = [
    "response.output_text.delta",
    "response.refusal.delta",
    "response.function_call_arguments.delta",
    "response.mcp_call_arguments.delta",
    "response.custom_tool_call_input.delta",
    "response.code_interpreter_call_code.delta",
];

const REASONED: [&str; 2] = ["response.reasoning_text.delta", "response.reasoning_summary_text.delta"];

impl Assembly {
    /// Starts an assembly that keeps at most `limit` bytes of text.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Takes the data of one event.
    pub fn read(&mut self, data: &[u8]) -> EventKind {
        let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else {
            return EventKind::Malformed;
        };
        match event.kind.0.as_ref() {
            "response.created" => {
                self.take(event.response, false);
                EventKind::Other
            }
            "response.completed" | "response.incomplete" => {
                self.take(event.response, true);
                EventKind::Done
            }
            "response.failed" => {
                self.take(event.response, true);
                EventKind::Failed
            }
            "error" => EventKind::Error,
            kind if kind.ends_with(".delta") => {
                if let Some(Text(delta)) = &event.delta {
                    if SAID.contains(&kind) {
                        self.said.text.add(delta);
                    } else if REASONED.contains(&kind) {
                        self.said.reasoning.add(delta);
                    }
                }
                // Of the many kinds of delta, text is what a record of a broken answer wants.
                if let (true, Some(Text(delta))) = (kind == "response.output_text.delta", &event.delta) {
                    let kept_all = self.text.push(delta, &mut self.kept, self.limit);
                    self.truncated |= !kept_all && (self.limit > 0 || self.kept > 0);
                }
                EventKind::Content
            }
            _ => EventKind::Other,
        }
    }

    fn take(&mut self, response: Option<&RawValue>, last: bool) {
        let Some(raw) = response else { return };
        if let Ok(response) = serde_json::from_str(raw.get()) {
            self.facts = facts(response);
        }
        if !last {
            // It is in progress, which is no reason to finish.
            self.facts.finish_reason.clear();
        } else if raw.get().len() <= self.limit {
            self.last = raw.get().as_bytes().to_vec();
            self.truncated = false;
        }
    }

    /// Returns the response as its last event gave it, or what text came of one that broke off.
    pub fn to_json(&self, unfinished: &dyn Fn(&str) -> String) -> Vec<u8> {
        if !self.last.is_empty() || self.text.is_empty() {
            return self.last.clone();
        }
        let mut out = b"{\"role\":\"assistant\",\"content\":".to_vec();
        self.text.write(&mut out, unfinished);
        out.push(b'}');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::text_size::TextSize;

    #[test]
    fn plain_answer_gives_its_facts() {
        let body = br#"{"id":"resp_1","object":"response","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},
            "model":"m","output":[],"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":2},"output_tokens":3,
            "output_tokens_details":{"reasoning_tokens":1},"total_tokens":8}}"#;
        let facts = read_answer(body).unwrap();
        assert_eq!(
            (facts.id.as_str(), facts.finish_reason.as_str()),
            ("resp_1", "max_output_tokens")
        );
        let usage = facts.usage.unwrap();
        assert_eq!(
            (
                usage.input,
                usage.cached_input,
                usage.output,
                usage.reasoning,
                usage.total
            ),
            (5, 2, 3, 1, 8)
        );
    }

    #[test]
    fn stream_is_read_to_its_last_event() {
        let mut assembly = Assembly::new(1 << 20);
        for (data, kind) in [
            (
                r#"{"type":"response.created","response":{"id":"r","model":"m","status":"in_progress"}}"#,
                EventKind::Other,
            ),
            (
                r#"{"type":"response.output_text.delta","delta":"Hé"}"#,
                EventKind::Content,
            ),
            (
                r#"{"type":"response.function_call_arguments.delta","delta":"{}"}"#,
                EventKind::Content,
            ),
            (r#"{"type":"error","message":"m"}"#, EventKind::Error),
            ("{", EventKind::Malformed),
        ] {
            assert_eq!(assembly.read(data.as_bytes()), kind, "{data}");
        }
        assert_eq!(assembly.said.text.tokens(), TextSize::of("Hé{}").tokens());
        assert_eq!(assembly.facts.finish_reason, "");
        assert_eq!(
            assembly.to_json(&str::to_owned),
            r#"{"role":"assistant","content":"Hé"}"#.as_bytes()
        );
        let done = r#"{"type":"response.completed","response":{"id":"r","status":"completed","usage":{"input_tokens":1,"output_tokens":2}}}"#;
        assert_eq!(assembly.read(done.as_bytes()), EventKind::Done);
        assert_eq!(assembly.facts.usage.unwrap().total, 3);
        assert!(
            assembly
                .to_json(&str::to_owned)
                .starts_with(br#"{"id":"r","status":"completed""#)
        );
        assert_eq!(
            assembly.read(br#"{"type":"response.failed","response":{"id":"r","status":"failed"}}"#),
            EventKind::Failed
        );
    }
}
