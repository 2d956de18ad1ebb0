//! An answer relayed as it comes.
//!
//! Events are forwarded as the bytes that came, an incomplete one once it is complete. The terminal event (`[DONE]`) waits
//! until the record is durable; of an answer that is no event stream, the last piece does. A failure after the first byte
//! is an error event in the stream, which then ends.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;
use tokio::time::Sleep;

use super::opaque::Opaque;
use super::{broken, outcome_of, scrub};
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::exchange::Outcome;
use crate::provider::openai::{Assembly, Call, EventKind};
use crate::provider::sse::{self, Piece, Splitter};
use crate::proxy::exchange::{Captured, Exchange};
use crate::proxy::finish;
use crate::telemetry::Flushed;
use crate::upstream::UpstreamBody;

/// After its terminal event, a provider gets this long to end its answer, so that the connection can be kept.
/// Longer than a worker's heartbeat, so that its timer is not the earliest.
const LINGER: Duration = Duration::from_millis(1_500);

/// Time limits of the rest of an answer.
pub struct Limits {
    pub idle: Duration,
    pub deadline: Instant,
}

impl Limits {
    /// Returns the error of whichever limit has passed.
    pub fn passed(&self) -> ApiError {
        let why = if Instant::now() >= self.deadline {
            "the provider's answer took too long in all (timeouts.total)".to_owned()
        } else {
            format!(
                "the provider sent nothing for {} s (timeouts.idle)",
                self.idle.as_secs_f64()
            )
        };
        ApiError::new(ErrorCode::UpstreamTimeout, why)
    }
}

/// The body of a relayed answer.
pub struct Relay {
    exchange: Box<Exchange>,
    upstream: Option<UpstreamBody>,
    limits: Limits,
    mode: Mode,
    /// Bytes that may leave.
    ready: VecDeque<Bytes>,
    phase: Phase,
    timer: Pin<Box<Sleep>>,
    /// Since when we have been waiting for the provider.
    waiting_since: Instant,
    waiting: bool,
    announced: Option<u64>,
}

enum Mode {
    Events {
        splitter: Splitter,
        withhold_usage: bool,
        /// An in-band error or a malformed event came by.
        failed: bool,
        finished: bool,
        /// The most text that is kept.
        limit: usize,
    },
    Opaque(Opaque),
}

impl Mode {
    /// The provider's status.
    fn status(&self) -> StatusCode {
        match self {
            Self::Opaque(opaque) => opaque.status(),
            Self::Events { .. } => StatusCode::OK,
        }
    }
}

enum Phase {
    Relaying,
    /// The record is being made durable; then these bytes may leave.
    Holding(Flushed, Bytes, Then),
    /// Everything has left; the provider may end its answer.
    Lingering(Instant),
    Ended,
    /// The caller must see that the answer is incomplete.
    Broken,
}

#[derive(Clone, Copy)]
enum Then {
    Linger,
    End,
    Break,
}

impl Relay {
    /// Relays an event stream.
    pub fn events(
        mut exchange: Box<Exchange>,
        upstream: UpstreamBody,
        limits: Limits,
        withhold_usage: bool,
    ) -> Box<Self> {
        let limit = match exchange.keeps_content() {
            true => exchange.hold_stream(),
            false => 0,
        };
        exchange.content.response = Captured::Stream(Box::new(Assembly::new(exchange.call.kind, 0)));
        // It may break off before its usage; until then the vocabulary is there.
        crate::tokenizer::prepare(&exchange.call.upstream_model);
        let mode = Mode::Events {
            splitter: Splitter::default(),
            withhold_usage,
            failed: false,
            finished: false,
            limit,
        };
        Self::new(exchange, upstream, limits, mode)
    }

    /// Relays an answer that is too large to hold, after its `beginning`.
    pub fn opaque(
        mut exchange: Box<Exchange>,
        beginning: Bytes,
        upstream: UpstreamBody,
        limits: Limits,
        status: StatusCode,
    ) -> Box<Self> {
        let opaque = Opaque::new(&mut exchange, status);
        let announced = upstream.announced_bytes().filter(|_| !opaque.may_change_length());
        let announced = announced.map(|rest| rest + beginning.len() as u64);
        let mut relay = Self::new(exchange, upstream, limits, Mode::Opaque(opaque));
        relay.announced = announced;
        relay.take(beginning);
        relay
    }

    fn new(mut exchange: Box<Exchange>, upstream: UpstreamBody, limits: Limits, mode: Mode) -> Box<Self> {
        exchange.status_sent = mode.status().as_u16();
        exchange.relaying();
        exchange.worker.series.metrics.streams_open.inc();
        Box::new(Self {
            timer: Box::pin(tokio::time::sleep(limits.idle)),
            exchange,
            upstream: Some(upstream),
            limits,
            mode,
            ready: VecDeque::new(),
            phase: Phase::Relaying,
            waiting_since: Instant::now(),
            waiting: false,
            announced: None,
        })
    }

    pub fn announced_bytes(&self) -> Option<u64> {
        self.announced
    }

    /// Returns the next bytes for the caller.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, std::io::Error>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            match &mut self.phase {
                Phase::Ended => return Poll::Ready(None),
                Phase::Broken => {
                    self.phase = Phase::Ended;
                    let why = "the provider's answer broke off";
                    return Poll::Ready(Some(Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, why))));
                }
                Phase::Holding(flushed, bytes, then) => {
                    ready!(pin!(flushed).poll(cx));
                    if !bytes.is_empty() {
                        self.ready.push_back(std::mem::take(bytes));
                    }
                    self.phase = match then {
                        Then::Linger => Phase::Lingering(Instant::now() + LINGER),
                        Then::End => Phase::Ended,
                        Then::Break => Phase::Broken,
                    };
                }
                Phase::Lingering(until) => {
                    let until = *until;
                    ready!(self.poll_end(cx, until));
                    self.phase = Phase::Ended;
                }
                Phase::Relaying => match ready!(self.poll_upstream(cx)) {
                    Ok(Some(data)) => self.take(data),
                    Ok(None) => self.end(),
                    Err(error) => self.fail(&error),
                },
            }
        }
    }

    /// Waits for the provider's next bytes within the limits, which count only while we wait.
    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ApiError>> {
        let Some(upstream) = &mut self.upstream else {
            return Poll::Ready(Ok(None));
        };
        if let Poll::Ready(next) = upstream.poll_data(cx) {
            self.waiting = false;
            return Poll::Ready(match next {
                None => Ok(None),
                Some(Ok(data)) => Ok(Some(data)),
                Some(Err(error)) => {
                    tracing::debug!(%error, "upstream answer broke off");
                    Err(broken())
                }
            });
        }
        if !std::mem::replace(&mut self.waiting, true) {
            self.waiting_since = Instant::now();
        }
        // The timer is set anew only when it fires too early, not with every event.
        while self.timer.as_mut().poll(cx).is_ready() {
            let limit = (self.waiting_since + self.limits.idle).min(self.limits.deadline);
            if Instant::now() >= limit {
                return Poll::Ready(Err(self.limits.passed()));
            }
            self.timer.as_mut().reset(limit.into());
        }
        Poll::Pending
    }

    /// Reads what is left after the terminal event.
    fn poll_end(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        while let Some(upstream) = &mut self.upstream {
            match upstream.poll_data(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => break,
                Poll::Pending => {
                    self.timer.as_mut().reset(until.into());
                    if self.timer.as_mut().poll(cx).is_ready() {
                        break;
                    }
                    return Poll::Pending;
                }
            }
        }
        self.upstream = None;
        Poll::Ready(())
    }

    fn take(&mut self, data: Bytes) {
        let Self {
            exchange, mode, ready, ..
        } = self;
        match mode {
            Mode::Opaque(opaque) => ready.extend(opaque.take(data, exchange)),
            Mode::Events {
                splitter,
                withhold_usage,
                failed,
                finished,
                limit,
            } => {
                let mut terminal = None;
                let mut runs = Runs::new(data.clone(), ready);
                splitter.push(data, |piece| {
                    if terminal.is_some() {
                        return;
                    }
                    let bytes = match piece {
                        Piece::Opaque(bytes) => bytes,
                        Piece::Event(event) => match read_event(exchange, &event, *limit) {
                            EventKind::UsageOnly if *withhold_usage => return,
                            kind @ (EventKind::Done | EventKind::Failed) => {
                                *failed |= kind == EventKind::Failed;
                                let event = match kind {
                                    EventKind::Failed => scrub(exchange, event),
                                    _ => event,
                                };
                                exchange.content.response_bytes += event.len() as u64;
                                terminal = Some(event);
                                return;
                            }
                            EventKind::Error | EventKind::Malformed => {
                                *failed = true;
                                scrub(exchange, event)
                            }
                            EventKind::Content | EventKind::UsageOnly | EventKind::Other => event,
                        },
                    };
                    exchange.content.response_bytes += bytes.len() as u64;
                    runs.add(bytes);
                });
                runs.end();
                if let Some(terminal) = terminal {
                    *finished = true;
                    let failed = *failed;
                    self.hold(terminal, failed, Then::Linger);
                }
            }
        }
    }

    /// The provider ended its answer without a terminal event.
    fn end(&mut self) {
        self.upstream = None;
        match &mut self.mode {
            Mode::Opaque(opaque) => {
                let (earlier, last) = opaque.end(&mut self.exchange);
                self.ready.extend(earlier);
                self.hold(last, false, Then::End);
            }
            Mode::Events {
                splitter,
                failed,
                limit,
                ..
            } => {
                // Some compatible providers send a finish reason and no `[DONE]`, or leave out its blank line.
                let tail = scrub(&self.exchange, splitter.finish());
                let done = !tail.is_empty() && read_event(&mut self.exchange, &tail, *limit) == EventKind::Done;
                let failed = *failed;
                if failed || done || !self.exchange.facts().finish_reason.is_empty() {
                    self.exchange.content.response_bytes += tail.len() as u64;
                    self.hold(tail, failed, Then::End);
                } else {
                    self.fail(&broken());
                }
            }
        }
    }

    /// Records the exchange; `last` and the end wait for the record.
    fn hold(&mut self, last: Bytes, failed: bool, then: Then) {
        self.settle();
        let status = self.mode.status();
        let outcome = if failed {
            Outcome::UpstreamError
        } else {
            outcome_of(status)
        };
        let error = failed.then_some(ErrorCode::UpstreamInvalid);
        let ticket = self.exchange.record(outcome, status.as_u16(), error);
        self.phase = Phase::Holding(self.exchange.worker.recorder.flushed(ticket), last, then);
    }

    fn fail(&mut self, error: &ApiError) {
        self.upstream = None;
        self.settle();
        let status = self.mode.status().as_u16();
        let ticket = self
            .exchange
            .record(finish::outcome_of(error.code), status, Some(error.code));
        let flushed = self.exchange.worker.recorder.flushed(ticket);
        let (last, then) = match &self.mode {
            Mode::Opaque(_) => (Bytes::new(), Then::Break),
            Mode::Events { .. } => (error_event(self.exchange.call.kind, error), Then::End),
        };
        self.phase = Phase::Holding(flushed, last, then);
    }

    /// Moves what was learnt from the answer to where the record finds it.
    fn settle(&mut self) {
        self.exchange.upstream_ended();
        if let Mode::Opaque(opaque) = &mut self.mode {
            opaque.settle(&mut self.exchange);
        }
        self.exchange.take_facts();
    }
}

/// Puts events that came in one piece, and all leave, back into one piece: a frame of its own for each would be sent as a
/// chunk of its own.
struct Runs<'a> {
    chunk: Bytes,
    /// The part of `chunk` that is to leave next.
    run: Range<usize>,
    ready: &'a mut VecDeque<Bytes>,
}

impl<'a> Runs<'a> {
    fn new(chunk: Bytes, ready: &'a mut VecDeque<Bytes>) -> Self {
        Self {
            chunk,
            run: 0..0,
            ready,
        }
    }

    fn add(&mut self, bytes: Bytes) {
        let start = (bytes.as_ptr() as usize).wrapping_sub(self.chunk.as_ptr() as usize);
        let is_part = start
            .checked_add(bytes.len())
            .is_some_and(|end| end <= self.chunk.len());
        if !is_part {
            // It was put together from this chunk and earlier ones.
            self.end();
            self.ready.push_back(bytes);
        } else if start == self.run.end && !self.run.is_empty() {
            self.run.end += bytes.len();
        } else {
            self.end();
            self.run = start..start + bytes.len();
        }
    }

    fn end(&mut self) {
        let run = std::mem::take(&mut self.run);
        if !run.is_empty() {
            self.ready.push_back(self.chunk.slice(run));
        }
    }
}

/// The error as the stream's last event, in the form of the call.
///
/// Source: <https://platform.openai.com/docs/api-reference/responses-streaming/error> for responses.
fn error_event(call: Call, error: &ApiError) -> Bytes {
    if call == Call::Responses {
        let data = json!({"type": "error", "code": error.code.as_str(), "message": error.message, "param": null});
        return Bytes::from(format!("event: error\ndata: {data}\n\n"));
    }
    Bytes::from(format!("data: {}\n\n", error.to_json()))
}

/// Reads one event into the exchange, of whose text at most `limit` bytes are kept.
fn read_event(exchange: &mut Exchange, event: &[u8], limit: usize) -> EventKind {
    let Some(data) = sse::data(event) else {
        return EventKind::Other;
    };
    let kept = match &exchange.content.response {
        Captured::Stream(assembly) => assembly.kept(),
        _ => return EventKind::Other,
    };
    let granted = exchange.content.draw(kept + data.len(), limit);
    let Captured::Stream(assembly) = &mut exchange.content.response else {
        return EventKind::Other;
    };
    assembly.set_limit(granted);
    let kind = assembly.read(&data);
    if kind == EventKind::Content && exchange.times.first_token.is_none() {
        exchange.times.first_token = Some(exchange.started.elapsed());
    }
    kind
}

impl Drop for Relay {
    fn drop(&mut self) {
        let metrics = &self.exchange.worker.series.metrics;
        metrics.streams_open.dec();
        if !self.exchange.recorded {
            // The caller left: the exchange's own drop records what had come by then.
            self.settle();
        } else if !matches!(self.phase, Phase::Ended | Phase::Lingering(_)) {
            metrics.answers_undelivered.inc();
        }
    }
}
