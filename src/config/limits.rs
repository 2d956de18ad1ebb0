//! What a request may take: bytes, depth, time.

use std::time::Duration;

use super::reader::Reader;
use super::units::{GIB, KIB, MIB};

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `[limits]`: what one request may take, and how many there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request body; a larger one is refused with 413.
    pub max_request_body: u64,
    /// Nested objects and lists in a request body.
    pub max_json_depth: usize,
    /// Bytes a prompt may render to.
    pub max_render_bytes: u64,
    /// Bytes of a request's head.
    pub max_headers_bytes: u64,
    /// Connections open at the same time on the data plane.
    pub max_connections: usize,
    /// Prompts with metric series of their own; the others count as `other`.
    pub max_prompt_series: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_request_body: 8 * MIB,
            max_json_depth: 64,
            max_render_bytes: 4 * MIB,
            max_headers_bytes: 64 * KIB,
            max_connections: 16_384,
            max_prompt_series: 2_000,
        }
    }
}

impl Limits {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let default = Limits::default();
        Limits {
            max_request_body: r.size("max_request_body", default.max_request_body, KIB..=GIB),
            // serde_json stops at 128.
            max_json_depth: r.integer("max_json_depth", default.max_json_depth, 4..=127),
            max_render_bytes: r.size("max_render_bytes", default.max_render_bytes, KIB..=GIB),
            max_headers_bytes: r.size("max_headers_bytes", default.max_headers_bytes, 8 * KIB..=MIB),
            max_connections: r.integer("max_connections", default.max_connections, 1..=1_000_000),
            max_prompt_series: r.integer("max_prompt_series", default.max_prompt_series, 0..=100_000),
        }
    }
}

/// `[timeouts]`: how long each phase of a request may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection to the provider stands, TLS included.
    pub connect: Duration,
    /// From the request sent to the head of the provider's answer.
    pub first_byte: Duration,
    /// Between two pieces of the provider's answer.
    pub idle: Duration,
    /// From the request's head to the last byte of the answer, all attempts together.
    pub total: Duration,
    /// Until an application has sent a request's head.
    pub request_head: Duration,
    /// Until an application has sent a request's body.
    pub request_body: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(5),
            first_byte: 5 * MINUTE,
            idle: MINUTE,
            total: 15 * MINUTE,
            request_head: Duration::from_secs(30),
            request_body: MINUTE,
        }
    }
}

impl Timeouts {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let default = Timeouts::default();
        Timeouts {
            request_head: r.duration("request_head", default.request_head, MILLISECOND..=DAY),
            request_body: r.duration("request_body", default.request_body, MILLISECOND..=DAY),
            ..default.read_upstream(r)
        }
    }

    /// The timeouts that a provider may set for itself, over those that hold for all.
    pub(super) fn read_upstream(self, r: &mut Reader<'_>) -> Self {
        Timeouts {
            connect: r.duration("connect", self.connect, MILLISECOND..=DAY),
            first_byte: r.duration("first_byte", self.first_byte, MILLISECOND..=DAY),
            idle: r.duration("idle", self.idle, MILLISECOND..=DAY),
            total: r.duration("total", self.total, MILLISECOND..=DAY),
            ..self
        }
    }
}
