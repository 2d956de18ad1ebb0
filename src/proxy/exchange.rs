//! The context of one request, from its parsed head to its record.
//!
//! Every exit leaves exactly one record: the regular ones call `record` (see `finish`); all others (the caller left, a
//! stage panicked, we are told to stop) drop the context, whose `Drop` records what is known by then.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use super::open_calls::Place;
use super::worker::Worker;
use crate::domain::error::ErrorCode;
use crate::domain::exchange::{Capture, Outcome};
use crate::domain::price::Rates;
use crate::domain::pseudonym;
use crate::provider::openai::{Assembly, Call, Facts};
use crate::snapshot::{Snapshot, Target};
use crate::telemetry::Reservation;
use crate::telemetry::capture::Held;

/// Where an application says whose request it is.
pub const UNIT_HEADER: &str = "x-promptgate-unit";
const SESSION_HEADER: &str = "x-promptgate-session";
const RETRY_HEADER: &str = "x-stainless-retry-count";

/// Longest text taken over for a record's small fields, which are redacted before they are cut.
const MAX_LABEL_BYTES: usize = 1024;

/// One request and what is known of it so far.
pub struct Exchange {
    pub worker: Rc<Worker>,
    pub id: Uuid,
    pub started: Instant,
    /// Microseconds since the Unix epoch.
    pub started_at: i64,
    pub endpoint: &'static str,
    pub state: State,
    pub key_id: Arc<str>,
    pub environment: Arc<str>,
    pub caller: Caller,
    pub prompt: Option<PromptFacts>,
    pub call: CallFacts,
    /// Whether content is recorded; a prompt's version may change it.
    pub capture: Capture,
    pub content: Content,
    pub times: Times,
    /// The status of a head that has been handed to the caller; 0 before that.
    pub status_sent: u16,
    pub(super) recorded: bool,
    /// Among the worker's open calls.
    pub(super) place: Place,
    /// Room for the record, where a full spool refuses requests.
    pub(super) reservation: Option<Reservation>,
}

/// Which table answered.
#[derive(Clone)]
pub struct State {
    pub generation: u64,
    pub generation_header: HeaderValue,
    pub pseudonym_key: Arc<str>,
    pub config_hash: Arc<str>,
}

/// What the caller says of itself. Unit and user are hashed with the registry's epoch as key.
#[derive(Default)]
pub struct Caller {
    /// Ids of people as they were written; never recorded.
    pub ids: Vec<String>,
    pub unit: String,
    pub user: String,
    pub session: String,
    pub tags: Vec<(String, String)>,
    pub trace_id: String,
    pub span_id: String,
    pub retries: u16,
}

/// The prompt, as resolved.
pub struct PromptFacts {
    pub id: Arc<str>,
    pub id_header: HeaderValue,
    pub version: u32,
    pub version_header: HeaderValue,
    pub variant: Arc<str>,
    pub variant_header: HeaderValue,
    pub environment_header: HeaderValue,
    /// `split`, `forced` or `pinned`.
    pub assignment: &'static str,
    /// 0 if pinned.
    pub deployment: u32,
    pub document_ids: Vec<String>,
}

/// The call to a provider.
pub struct CallFacts {
    pub kind: Call,
    pub streaming: bool,
    /// The model the caller asked for.
    pub request_model: String,
    /// The configured model's name: a closed set.
    pub model: Option<Arc<str>>,
    pub rates: Option<Rates>,
    pub target: Option<Arc<Target>>,
    pub upstream_model: Arc<str>,
    pub attempts: Vec<AttemptFacts>,
    pub facts: Facts,
    pub upstream_request_id: String,
    /// What was not used of the request.
    pub ignored: Vec<String>,
}

impl Default for CallFacts {
    fn default() -> Self {
        Self {
            kind: Call::ChatCompletions,
            streaming: false,
            request_model: String::new(),
            model: None,
            rates: None,
            target: None,
            upstream_model: "".into(),
            attempts: Vec::new(),
            facts: Facts::default(),
            upstream_request_id: String::new(),
            ignored: Vec::new(),
        }
    }
}

pub struct AttemptFacts {
    /// `provider/upstream model`.
    pub target: Arc<str>,
    pub status: u16,
    pub duration: Duration,
    pub error: &'static str,
}

/// Captured content, by policy.
#[derive(Default)]
pub struct Content {
    pub variables: Bytes,
    pub request: Bytes,
    pub response: Captured,
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// What a relayed answer has drawn of the capture budget.
    pub held: Option<Held>,
    /// The budget had no more.
    pub starved: bool,
}

#[derive(Default)]
pub enum Captured {
    #[default]
    Nothing,
    Body(Bytes),
    /// A body's beginning.
    Part(Vec<u8>),
    Stream(Box<Assembly>),
}

#[derive(Default)]
pub struct Times {
    /// Waiting for the caller's body.
    pub body: Duration,
    pub upstream_started: Option<Instant>,
    pub upstream: Option<Duration>,
    pub first_token: Option<Duration>,
}

impl Exchange {
    /// Starts the exchange of a request whose head has been parsed.
    pub fn begin(worker: &Rc<Worker>, head: &Parts, snapshot: &Snapshot) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_at = now.as_micros() as i64;
        Self {
            worker: Rc::clone(worker),
            id: worker.new_id(started_at),
            started: Instant::now(),
            started_at,
            endpoint: "other",
            state: State::of(snapshot),
            key_id: "".into(),
            environment: "".into(),
            caller: Caller::of(&head.headers),
            prompt: None,
            call: CallFacts::default(),
            capture: worker.settings.capture,
            content: Content::default(),
            times: Times::default(),
            status_sent: 0,
            recorded: false,
            place: Place::default(),
            reservation: None,
        }
    }

    /// Hashes a text that identifies a person, so that the record tells units apart but not who they are.
    pub fn pseudonym(&self, text: &str) -> String {
        pseudonym::pseudonym(&self.state.pseudonym_key, text)
    }

    /// Returns what the answer has said of itself so far.
    pub fn facts(&self) -> &Facts {
        match &self.content.response {
            Captured::Stream(assembly) => assembly.facts(),
            _ => &self.call.facts,
        }
    }

    /// Moves a stream's facts to the call's.
    pub fn take_facts(&mut self) {
        if let Captured::Stream(assembly) = &mut self.content.response {
            self.call.facts = assembly.take_facts();
        }
    }

    /// Notes that the provider's answer has ended, however it did.
    pub fn upstream_ended(&mut self) {
        if let (Some(started), None) = (self.times.upstream_started, self.times.upstream) {
            self.times.upstream = Some(started.elapsed());
        }
    }
}

impl State {
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            generation: snapshot.generation,
            generation_header: snapshot.generation_header.clone(),
            pseudonym_key: Arc::clone(&snapshot.pseudonym_key),
            config_hash: Arc::clone(&snapshot.config_hash),
        }
    }
}

impl Caller {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut caller = Self {
            session: text(SESSION_HEADER).map(label).unwrap_or_default(),
            retries: text(RETRY_HEADER).and_then(|n| n.parse().ok()).unwrap_or(0),
            ..Self::default()
        };
        if let Some((trace_id, span_id)) = text("traceparent").and_then(trace_context) {
            caller.trace_id = trace_id.to_owned();
            caller.span_id = span_id.to_owned();
        }
        caller
    }
}

/// Cuts a text from outside to what a small field of a record takes.
pub fn label(text: &str) -> String {
    text[..text.floor_char_boundary(text.len().min(MAX_LABEL_BYTES))].to_owned()
}

/// Reads trace and span id.
///
/// Source: W3C Trace Context, `traceparent` header, version 00.
fn trace_context(header: &str) -> Option<(&str, &str)> {
    let mut parts = header.split('-');
    let (_version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    (hex(trace, 32) && hex(span, 16)).then_some((trace, span))
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.recorded {
            return;
        }
        if std::thread::panicking() {
            self.record(Outcome::Aborted, 0, Some(ErrorCode::Internal));
        } else if self.worker.is_stopping() {
            self.record(Outcome::Aborted, self.status_sent, None);
        } else {
            let status = if self.status_sent > 0 { self.status_sent } else { 499 };
            self.record(Outcome::ClientDisconnected, status, None);
        }
    }
}
