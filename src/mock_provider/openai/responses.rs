//! The Responses API: one message as output, plain or as its typed events.
//!
//! Source: platform.openai.com/docs/api-reference/responses-streaming.

use super::{Answer, Controls, Failure, Request, Stamp, put, put_json};
use crate::mock_provider::{
    events::EventStream,
    text::{Reply, pieces},
};

struct Output<'a> {
    request: &'a Request<'a>,
    stamp: &'a Stamp,
    reply: Reply<'a>,
    input_tokens: usize,
    reports_usage: bool,
}

pub(super) fn answer(request: &Request<'_>, controls: &Controls, stamp: &Stamp) -> Result<Answer, Failure> {
    let input = request.input()?;
    let reply = Reply::new(
        controls,
        input.seed_of(0, controls),
        input.raw,
        request.max_output_tokens,
    );
    let output = Output {
        request,
        stamp,
        reply,
        input_tokens: input.tokens,
        reports_usage: !controls.no_usage,
    };
    if request.streams() {
        return Ok(output.stream(controls));
    }
    let mut out = Vec::with_capacity(1024 + output.reply.text.len() * 9 / 8);
    output.put_response(&mut out, Some(output.status()));
    Ok(Answer::Plain(out))
}

/// The data of the event that breaks a stream off after so many.
pub(super) fn error_event(sequence_number: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    put(&mut out, r#"{"type":"error","sequence_number":"#);
    put_json(&mut out, &sequence_number);
    put(&mut out, r#","code":"server_error","param":null,"#);
    put(
        &mut out,
        r#""message":"the mock provider was asked to fail within the stream"}"#,
    );
    out
}

impl Output<'_> {
    fn status(&self) -> &'static str {
        if self.reply.limited { "incomplete" } else { "completed" }
    }

    fn stream(&self, controls: &Controls) -> Answer {
        let words = self.reply.words;
        let mut events = Events {
            events: EventStream::new(controls, words + 12, 208),
            next: 0,
        };
        for name in ["response.created", "response.in_progress"] {
            events.push(name, |out| {
                put(out, r#""response":"#);
                self.put_response(out, None);
            });
        }
        events.push("response.output_item.added", |out| {
            put(out, r#""output_index":0,"item":"#);
            self.put_message(out, None);
        });
        let text = &*self.reply.text;
        events.push("response.content_part.added", |out| {
            self.put_in_part(out, "part", |out| put_part(out, ""))
        });
        for piece in pieces(text) {
            events.push("response.output_text.delta", |out| {
                self.put_in_part(out, "delta", |out| put_json(out, piece))
            });
        }
        events.push("response.output_text.done", |out| {
            self.put_in_part(out, "text", |out| put_json(out, text))
        });
        events.push("response.content_part.done", |out| {
            self.put_in_part(out, "part", |out| put_part(out, text))
        });
        events.push("response.output_item.done", |out| {
            put(out, r#""output_index":0,"item":"#);
            self.put_message(out, Some(self.status()));
        });
        if !controls.no_done {
            let last = if self.reply.limited {
                "response.incomplete"
            } else {
                "response.completed"
            };
            events.push(last, |out| {
                put(out, r#""response":"#);
                self.put_response(out, Some(self.status()));
            });
        }
        Answer::Stream(events.events)
    }

    /// Appends the response object: as it ended, or without `ended` as it begins.
    fn put_response(&self, out: &mut Vec<u8>, ended: Option<&str>) {
        put(out, r#"{"id":"resp_"#);
        put(out, self.stamp.id());
        put(out, r#"","object":"response","created_at":"#);
        put_json(out, &self.stamp.created_unix_seconds);
        put(out, r#","status":""#);
        put(out, ended.unwrap_or("in_progress"));
        put(out, r#"","error":null,"incomplete_details":"#);
        put(
            out,
            if ended == Some("incomplete") {
                r#"{"reason":"max_output_tokens"}"#
            } else {
                "null"
            },
        );
        put(out, r#","instructions":null,"max_output_tokens":"#);
        put_json(out, &self.request.max_output_tokens);
        put(out, r#","model":"#);
        put_json(out, self.request.model_name());
        put(out, r#","output":["#);
        if ended.is_some() {
            self.put_message(out, ended);
        }
        put(
            out,
            r#"],"parallel_tool_calls":true,"previous_response_id":null,"store":true,"temperature":1.0,"#,
        );
        put(
            out,
            r#""text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_p":1.0,"#,
        );
        put(out, r#""truncation":"disabled","metadata":{},"usage":"#);
        if ended.is_some() && self.reports_usage {
            self.put_usage(out);
        } else {
            put(out, "null");
        }
        put(out, "}");
    }

    fn put_message(&self, out: &mut Vec<u8>, ended: Option<&str>) {
        put(out, r#"{"id":"msg_"#);
        put(out, self.stamp.id());
        put(out, r#"","type":"message","status":""#);
        put(out, ended.unwrap_or("in_progress"));
        put(out, r#"","role":"assistant","content":["#);
        if ended.is_some() {
            put_part(out, &self.reply.text);
        }
        put(out, "]}");
    }

    /// Appends the fields of an event about the one part of the one message.
    fn put_in_part(&self, out: &mut Vec<u8>, field: &str, write_value: impl FnOnce(&mut Vec<u8>)) {
        put(out, r#""item_id":"msg_"#);
        put(out, self.stamp.id());
        put(out, r#"","output_index":0,"content_index":0,""#);
        put(out, field);
        put(out, r#"":"#);
        write_value(out);
    }

    fn put_usage(&self, out: &mut Vec<u8>) {
        put(out, r#"{"input_tokens":"#);
        put_json(out, &self.input_tokens);
        put(out, r#","input_tokens_details":{"cached_tokens":0},"output_tokens":"#);
        put_json(out, &self.reply.words);
        put(
            out,
            r#","output_tokens_details":{"reasoning_tokens":0},"total_tokens":"#,
        );
        put_json(out, &(self.input_tokens + self.reply.words));
        put(out, "}");
    }
}

/// The stream under construction; numbers its events.
struct Events {
    events: EventStream,
    next: usize,
}

impl Events {
    fn push(&mut self, name: &str, write_fields: impl FnOnce(&mut Vec<u8>)) {
        self.events.push(Some(name), |out| {
            put(out, r#"{"type":""#);
            put(out, name);
            put(out, r#"","sequence_number":"#);
            put_json(out, &self.next);
            put(out, ",");
            write_fields(out);
            put(out, "}");
        });
        self.next += 1;
    }
}

fn put_part(out: &mut Vec<u8>, text: &str) {
    put(out, r#"{"type":"output_text","annotations":[],"logprobs":[],"text":"#);
    put_json(out, text);
    put(out, "}");
}
