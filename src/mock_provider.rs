//! A stand-in for a paid LLM provider, for tests, benchmarks and the demo.
//!
//! It speaks OpenAI's dialect over HTTP/1.1 and HTTP/2 (prior knowledge) with real shapes and real usage
//! numbers, answers the same request with the same text, and misbehaves on request: late, slow, cut off,
//! silent, malformed. It is meant to cost as little as a static nginx page, so that a benchmark through it
//! measures the gateway: one current-thread runtime a worker, shallow parsing, an answer built in one
//! buffer, timers and counters only where needed, and no log line per request.
//!
//! What it never does: keep state between requests (counters aside), check an API key unless told to, or
//! look at anything but the request when it makes up an answer.
//!
//! # Routes
//!
//! `POST /v1/chat/completions`, `/v1/responses`, `/v1/completions`, `/v1/embeddings`, `GET /v1/models` (each
//! also without `/v1`), `GET /healthz`; for tests `GET /__mock/stats` and `POST /__mock/reset`.
//!
//! # Controls
//!
//! Given as a flag of the command (`--chunk-interval 2ms`) they are defaults; per request they come in the
//! model's name after a `?` (`mock-model?latency=20ms&tokens=5`; the `model` of the answer is what stands
//! before it), or in headers (`x-mock-latency: 20ms`). Headers win over the model's name, that over the
//! defaults. A *chunk* is one event of a stream, the one with the role and `[DONE]` included.
//!
//! | control | value | effect |
//! |---|---|---|
//! | `latency` | `20ms` | wait before the response head |
//! | `tokens` | `16` | words of the generated text; the request's own limit may cut it shorter (`length`) |
//! | `chunk-interval` | `2ms` | time between chunks; `0`: all at once |
//! | `status` | `503` | answer this error; 429 and 503 carry `Retry-After` |
//! | `retry-after` | `3` | that header's value (default 1) |
//! | `stall` | `head`, `body`, `N` | silent for ever: before the head, after it, after N chunks |
//! | `cut` | `head`, `body`, `N` | close the connection there (HTTP/2: reset the stream) |
//! | `malformed` | `N` | the Nth chunk is broken JSON |
//! | `error-in-stream` | `N` | after N chunks an error event, then the end |
//! | `no-usage` | flag | never report usage |
//! | `no-done` | flag | end a stream without `[DONE]` (Responses: `response.completed`) |
//! | `split` | `N` | write a stream in pieces of N bytes, each flushed alone |
//! | `text` | percent-encoded | the exact answer, one chunk a word |
//! | `size` | `4096` | generated text of exactly so many bytes |
//! | `crlf` | flag | CRLF line ends in a stream |
//! | `pad-comments` | flag | a `: keep-alive` comment before each event |
//! | `echo` | flag | the answer is the request's `messages` (`input`, `prompt`), byte for byte |
//! | `tool-call` | flag | call the request's first tool, as with `tool_choice: "required"` |
//! | `require-key` | key | 401 unless `Authorization: Bearer <key>` |
//! | `seed` | number | another text for the same request |
//!
//! A plain (not streamed) answer has no chunks: `malformed` breaks its JSON; `cut` and `stall` of 1 or more
//! stop in the middle of its body. `text`, `size` and `echo` are exact: the request's token limit does not
//! apply to them. Flags take no value, `true` or `false`. The last request is kept for `/__mock/stats` only if the
//! mock was started to `remember` it.
//!
//! # Layout
//!
//! `controls` and `args` say what is asked, `server` runs threads and connections, `respond` takes one
//! request from head to answer, `body` and `events` put it on the wire with its faults, `text` makes it up,
//! `stats` counts. A dialect is one file or folder (`openai`) that knows nothing of the wire.

mod args;
mod body;
mod controls;
mod events;
mod json;
mod openai;
mod respond;
mod server;
mod stats;
mod text;

#[cfg(test)]
mod tests;

pub use args::MockProviderArgs;
pub use controls::{ControlError, Controls, Point};
pub use server::{MockProvider, MockProviderOptions};
