//! An answer that is no event stream and too large to hold: what is done to its pieces on their way.
//!
//! A provider's error may repeat the credential it got, so its pieces leave, and are kept, without it. The bytes that may
//! be its beginning wait for more; if the answer breaks off there, nobody gets them.

use bytes::Bytes;
use http::StatusCode;

use crate::domain::scrub::Scrubbing;
use crate::provider::openai;
use crate::proxy::exchange::{Captured, Exchange};

/// What is looked at of an answer's end.
const TAIL_BYTES: usize = 1 << 10;

/// Such an answer on its way.
pub struct Opaque {
    status: StatusCode,
    /// Some for errors.
    scrubbing: Option<Scrubbing>,
    /// The piece that waits for the next one, or for the record.
    last: Bytes,
    kept: Vec<u8>,
    /// The most of it that is kept.
    limit: usize,
    /// The answer's end, where its usage is.
    tail: Vec<u8>,
}

impl Opaque {
    pub fn new(exchange: &mut Exchange, status: StatusCode) -> Self {
        let target = exchange.call.target.as_ref().filter(|_| !status.is_success());
        Self {
            status,
            scrubbing: target.and_then(|target| target.endpoint.scrubbing()),
            last: Bytes::new(),
            kept: Vec::new(),
            // Also where none is recorded: tokens may have to be estimated from it.
            limit: exchange.hold_stream(),
            tail: Vec::new(),
        }
    }

    /// The provider's status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the caller may get another number of bytes than the provider sends.
    pub fn may_change_length(&self) -> bool {
        self.scrubbing.is_some()
    }

    /// Takes the next bytes, and returns those that may leave.
    pub fn take(&mut self, data: Bytes, exchange: &mut Exchange) -> Option<Bytes> {
        let data = match &mut self.scrubbing {
            Some(scrubbing) => scrubbing.push(&data).into(),
            None => data,
        };
        self.pass(data, exchange)
    }

    /// Returns what may leave at the answer's end, at once and after the record.
    pub fn end(&mut self, exchange: &mut Exchange) -> (Option<Bytes>, Bytes) {
        let rest = self.scrubbing.take().map(|mut scrubbing| scrubbing.finish());
        let earlier = rest.and_then(|rest| self.pass(rest.into(), exchange));
        (earlier, std::mem::take(&mut self.last))
    }

    /// Keeps bytes, which leave after those before them.
    fn pass(&mut self, data: Bytes, exchange: &mut Exchange) -> Option<Bytes> {
        if data.is_empty() {
            return None;
        }
        exchange.content.response_bytes += data.len() as u64;
        let granted = exchange.content.draw(self.kept.len() + data.len(), self.limit);
        let room = granted.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&data[..data.len().min(room)]);
        self.tail
            .extend_from_slice(&data[data.len().saturating_sub(TAIL_BYTES)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        let earlier = std::mem::replace(&mut self.last, data);
        (!earlier.is_empty()).then_some(earlier)
    }

    /// Moves what was learnt to where the record finds it.
    pub fn settle(&mut self, exchange: &mut Exchange) {
        if self.status.is_success() && exchange.call.facts.usage.is_none() {
            exchange.call.facts.usage = openai::usage_at_end(&self.tail);
        }
        let kept = std::mem::take(&mut self.kept);
        let whole = kept.len() as u64 == exchange.content.response_bytes;
        exchange.content.response = if whole {
            Captured::Body(kept.into())
        } else {
            Captured::Part(kept)
        };
    }
}
