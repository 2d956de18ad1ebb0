//! Chat completions, plain and streamed.

use std::borrow::Cow;

use super::{Answer, Controls, FINGERPRINT, Failure, Request, Stamp, chat_stream, prompt::Prompt, put, put_json};
use crate::mock_provider::text::Reply;

/// A tool call counts as its name and its arguments.
const TOOL_CALL_TOKENS: usize = 2;

/// Everything an answer is made of.
pub(super) struct Completion<'a> {
    request: &'a Request<'a>,
    pub(super) stamp: &'a Stamp,
    pub(super) prompt_tokens: usize,
    /// Of all choices.
    pub(super) completion_tokens: usize,
    pub(super) choices: Vec<Choice<'a>>,
    reports_usage: bool,
}

pub(super) enum Choice<'a> {
    Text(Reply<'a>),
    ToolCall(Cow<'a, str>),
}

pub(super) fn answer(request: &Request<'_>, controls: &Controls, stamp: &Stamp) -> Result<Answer, Failure> {
    let prompt = request.messages()?;
    let function = request.called_function(controls)?;
    let choices: Vec<Choice> = (0..request.choices())
        .map(|index| match &function {
            Some(name) => Choice::ToolCall(name.clone()),
            None => Choice::Text(reply(&prompt, index, request, controls)),
        })
        .collect();
    let completion = Completion {
        request,
        stamp,
        prompt_tokens: prompt.tokens,
        completion_tokens: choices.iter().map(Choice::tokens).sum(),
        choices,
        reports_usage: !controls.no_usage,
    };
    Ok(if request.streams() {
        chat_stream::stream(&completion, controls)
    } else {
        completion.plain()
    })
}

pub(super) fn reply<'a>(prompt: &Prompt<'a>, index: usize, request: &Request<'_>, controls: &'a Controls) -> Reply<'a> {
    Reply::new(
        controls,
        prompt.seed_of(index, controls),
        prompt.raw,
        request.token_limit(),
    )
}

impl Completion<'_> {
    /// Appends the fields that answers and chunks begin with.
    pub(super) fn put_head(&self, out: &mut Vec<u8>, object: &str) {
        put(out, r#"{"id":"chatcmpl-"#);
        put(out, self.stamp.id());
        put(out, r#"","object":""#);
        put(out, object);
        put(out, r#"","created":"#);
        put_json(out, &self.stamp.created_unix_seconds);
        put(out, r#","model":"#);
        put_json(out, self.request.model_name());
        put(out, r#","service_tier":"default","system_fingerprint":""#);
        put(out, FINGERPRINT);
        put(out, r#"","choices":["#);
    }

    /// Whether a stream ends with a chunk for usage.
    pub(super) fn has_usage_chunk(&self) -> bool {
        self.reports_usage && self.request.wants_usage_chunk()
    }

    fn plain(&self) -> Answer {
        let text_bytes: usize = self.choices.iter().map(|choice| choice.text().len() + 192).sum();
        let mut out = Vec::with_capacity(512 + text_bytes + text_bytes / 8);
        self.put_head(&mut out, "chat.completion");
        for (index, choice) in self.choices.iter().enumerate() {
            put(&mut out, if index == 0 { r#"{"index":"# } else { r#",{"index":"# });
            put_json(&mut out, &index);
            put(&mut out, r#","message":{"role":"assistant","content":"#);
            match choice {
                Choice::Text(reply) => put_json(&mut out, &*reply.text),
                Choice::ToolCall(name) => {
                    put(&mut out, r#"null,"tool_calls":[{"#);
                    put_tool_call(&mut out, self.stamp, index, name);
                    put(&mut out, r#"{}"}}]"#);
                }
            }
            put(
                &mut out,
                r#","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":""#,
            );
            put(&mut out, choice.finish_reason());
            put(&mut out, r#""}"#);
        }
        put(&mut out, "]");
        if self.reports_usage {
            put(&mut out, ",");
            put_usage(&mut out, self.prompt_tokens, self.completion_tokens);
        }
        put(&mut out, "}");
        Answer::Plain(out)
    }
}

impl Choice<'_> {
    /// What a choice says; a tool call says nothing.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(reply) => &reply.text,
            Self::ToolCall(_) => "",
        }
    }

    pub(super) fn finish_reason(&self) -> &'static str {
        match self {
            Self::Text(reply) => finish_reason(reply),
            Self::ToolCall(_) => "tool_calls",
        }
    }

    fn tokens(&self) -> usize {
        match self {
            Self::Text(reply) => reply.words,
            Self::ToolCall(_) => TOOL_CALL_TOKENS,
        }
    }
}

pub(super) fn finish_reason(reply: &Reply<'_>) -> &'static str {
    if reply.limited { "length" } else { "stop" }
}

/// Appends the start of a tool call, up to where its arguments go.
pub(super) fn put_tool_call(out: &mut Vec<u8>, stamp: &Stamp, choice: usize, name: &str) {
    put(out, r#""id":"call_"#);
    put(out, stamp.id());
    put_json(out, &choice);
    put(out, r#"","type":"function","function":{"name":"#);
    put_json(out, name);
    put(out, r#","arguments":""#);
}

/// Appends the `usage` field.
pub(super) fn put_usage(out: &mut Vec<u8>, prompt_tokens: usize, completion_tokens: usize) {
    put(out, r#""usage":{"prompt_tokens":"#);
    put_json(out, &prompt_tokens);
    put(out, r#","completion_tokens":"#);
    put_json(out, &completion_tokens);
    put(out, r#","total_tokens":"#);
    put_json(out, &(prompt_tokens + completion_tokens));
    put(
        out,
        r#","prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}"#,
    );
}
