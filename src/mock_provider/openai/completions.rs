//! The older text completions.

use super::{
    Answer, Controls, FINGERPRINT, Failure, Request, Stamp,
    chat::{finish_reason, put_usage, reply},
    put, put_json,
};
use crate::mock_provider::{
    events::EventStream,
    text::{Reply, pieces},
};

pub(super) fn answer(request: &Request<'_>, controls: &Controls, stamp: &Stamp) -> Result<Answer, Failure> {
    let prompt = request.prompt()?;
    let replies: Vec<Reply> = (0..request.choices())
        .map(|index| reply(&prompt, index, request, controls))
        .collect();
    let completion_tokens = replies.iter().map(|reply| reply.words).sum();
    let mut head = Vec::with_capacity(256);
    put_head(&mut head, request, stamp);
    if request.streams() {
        return Ok(stream(
            request,
            controls,
            &head,
            &replies,
            (prompt.tokens, completion_tokens),
        ));
    }
    let mut out = head;
    for (index, reply) in replies.iter().enumerate() {
        put(&mut out, if index == 0 { "" } else { "," });
        put_choice(&mut out, index, &reply.text, Some(finish_reason(reply)));
    }
    put(&mut out, "]");
    if !controls.no_usage {
        put(&mut out, ",");
        put_usage(&mut out, prompt.tokens, completion_tokens);
    }
    put(&mut out, "}");
    Ok(Answer::Plain(out))
}

fn stream(
    request: &Request<'_>,
    controls: &Controls,
    head: &[u8],
    replies: &[Reply<'_>],
    (prompt_tokens, completion_tokens): (usize, usize),
) -> Answer {
    let usage_chunk = request.wants_usage_chunk() && !controls.no_usage;
    let end = if usage_chunk { r#"],"usage":null}"# } else { "]}" };
    let mut events = EventStream::new(controls, completion_tokens + 4, head.len() + 80);
    let mut push = |index: usize, text: &str, finish_reason: Option<&str>| {
        events.push(None, |out| {
            out.extend_from_slice(head);
            put_choice(out, index, text, finish_reason);
            put(out, end);
        });
    };
    for (index, reply) in replies.iter().enumerate() {
        pieces(&reply.text).for_each(|piece| push(index, piece, None));
        push(index, "", Some(finish_reason(reply)));
    }
    if usage_chunk {
        events.push(None, |out| {
            out.extend_from_slice(head);
            put(out, "],");
            put_usage(out, prompt_tokens, completion_tokens);
            put(out, "}");
        });
    }
    events.push_done();
    Answer::Stream(events)
}

fn put_head(out: &mut Vec<u8>, request: &Request<'_>, stamp: &Stamp) {
    put(out, r#"{"id":"cmpl-"#);
    put(out, stamp.id());
    put(out, r#"","object":"text_completion","created":"#);
    put_json(out, &stamp.created_unix_seconds);
    put(out, r#","model":"#);
    put_json(out, request.model_name());
    put(out, r#","system_fingerprint":""#);
    put(out, FINGERPRINT);
    put(out, r#"","choices":["#);
}

fn put_choice(out: &mut Vec<u8>, index: usize, text: &str, finish_reason: Option<&str>) {
    put(out, r#"{"text":"#);
    put_json(out, text);
    put(out, r#","index":"#);
    put_json(out, &index);
    put(out, r#","logprobs":null,"finish_reason":"#);
    put_json(out, &finish_reason);
    put(out, "}");
}
