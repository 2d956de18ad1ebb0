//! Chat completions as a stream of chunks: a role, the words, a finish reason for each choice, usage, `[DONE]`.

use super::{
    Answer, Controls,
    chat::{Choice, Completion, put_tool_call, put_usage},
    put, put_json,
};
use crate::mock_provider::{events::EventStream, text::pieces};

/// The stream under construction, and what its chunks have in common.
struct Chunks {
    events: EventStream,
    /// Up to the `[` of the choices.
    head: Vec<u8>,
    end: &'static str,
}

/// Builds the whole stream; several choices take turns word by word.
pub(super) fn stream(completion: &Completion<'_>, controls: &Controls) -> Answer {
    let mut head = Vec::with_capacity(256);
    completion.put_head(&mut head, "chat.completion.chunk");
    let end = if completion.has_usage_chunk() {
        r#"],"usage":null}"#
    } else {
        "]}"
    };
    let events = EventStream::new(controls, completion.completion_tokens + 8, head.len() + 112);
    let mut chunks = Chunks { events, head, end };
    for (index, choice) in completion.choices.iter().enumerate() {
        match choice {
            Choice::Text(_) => chunks.push_role(index),
            Choice::ToolCall(name) => chunks.push_tool_call(index, completion, name),
        }
    }
    let mut texts: Vec<_> = completion.choices.iter().map(|choice| pieces(choice.text())).collect();
    let mut all_said = false;
    while !all_said {
        all_said = true;
        for (index, text) in texts.iter_mut().enumerate() {
            if let Some(piece) = text.next() {
                chunks.push_text(index, piece);
                all_said = false;
            }
        }
    }
    for (index, choice) in completion.choices.iter().enumerate() {
        chunks.push(index, Some(choice.finish_reason()), |_| {});
    }
    if completion.has_usage_chunk() {
        chunks.push_usage(completion);
    }
    chunks.events.push_done();
    Answer::Stream(chunks.events)
}

impl Chunks {
    fn push(&mut self, index: usize, finish_reason: Option<&str>, write_delta: impl FnOnce(&mut Vec<u8>)) {
        self.events.push(None, |out| {
            out.extend_from_slice(&self.head);
            put(out, r#"{"index":"#);
            put_json(out, &index);
            put(out, r#","delta":{"#);
            write_delta(out);
            put(out, r#"},"logprobs":null,"finish_reason":"#);
            put_json(out, &finish_reason);
            put(out, "}");
            put(out, self.end);
        });
    }

    fn push_role(&mut self, index: usize) {
        self.push(index, None, |out| {
            put(out, r#""role":"assistant","content":"","refusal":null"#)
        });
    }

    fn push_text(&mut self, index: usize, piece: &str) {
        self.push(index, None, |out| {
            put(out, r#""content":"#);
            put_json(out, piece);
        });
    }

    /// The call with no arguments yet, then these in two fragments.
    fn push_tool_call(&mut self, index: usize, completion: &Completion<'_>, name: &str) {
        self.push(index, None, |out| {
            put(out, r#""role":"assistant","content":null,"tool_calls":[{"index":0,"#);
            put_tool_call(out, completion.stamp, index, name);
            put(out, r#""}}]"#);
        });
        for fragment in ["{", "}"] {
            self.push(index, None, |out| {
                put(out, r#""tool_calls":[{"index":0,"function":{"arguments":""#);
                put(out, fragment);
                put(out, r#""}}]"#);
            });
        }
    }

    fn push_usage(&mut self, completion: &Completion<'_>) {
        self.events.push(None, |out| {
            out.extend_from_slice(&self.head);
            put(out, "],");
            put_usage(out, completion.prompt_tokens, completion.completion_tokens);
            put(out, "}");
        });
    }
}
