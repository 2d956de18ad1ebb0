//! What is recorded of one request of an application, and of feedback on it.

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The complete answer was about to be released.
    Ok,
    /// The provider blamed the request (400, 404, 413, 422).
    ClientError,
    /// The provider failed, or its answer broke off.
    UpstreamError,
    /// A time limit passed.
    Timeout,
    /// The caller left before the answer was complete.
    ClientDisconnected,
    /// We refused it; nothing was forwarded.
    Rejected,
    /// We died, or were told to stop.
    Aborted,
}

impl Outcome {
    pub const ALL: [Outcome; 7] = [
        Self::Ok,
        Self::ClientError,
        Self::UpstreamError,
        Self::Timeout,
        Self::ClientDisconnected,
        Self::Rejected,
        Self::Aborted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::ClientDisconnected => "client_disconnected",
            Self::Rejected => "rejected",
            Self::Aborted => "aborted",
        }
    }
}

/// Which content is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// Variables, requests and responses.
    Full,
    /// None of it: sizes, times, tokens and costs only.
    Metadata,
}

impl Capture {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Metadata => "metadata",
        }
    }
}

/// One try against one target.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attempt<'a> {
    /// `provider/upstream model`.
    pub target: &'a str,
    /// HTTP status, 0 if there was no answer.
    pub status: u16,
    pub duration_us: u64,
    /// Empty, or why it failed: `connect`, `reset`, `timeout`, `status`.
    pub error: &'a str,
}

/// The exchange record: one request of an application and all that came of it.
///
/// Borrows everything: it is encoded at once from the request's context, and decoded in place from a segment.
/// Empty strings and zeros stand for "not known" or "does not apply". All durations are microseconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExchangeRecord<'a> {
    /// UUIDv7, 16 bytes.
    pub exchange_id: uuid::Uuid,
    /// Microseconds since the Unix epoch, UTC.
    pub started_at: i64,
    pub node: &'a str,
    pub generation: u64,
    pub config_hash: &'a str,

    pub key_id: &'a str,
    pub environment: &'a str,
    pub unit: &'a str,
    pub user: &'a str,
    pub session: &'a str,
    pub tags: Vec<(&'a str, &'a str)>,
    pub trace_id: &'a str,
    pub span_id: &'a str,
    pub client_retries: u16,

    pub prompt_id: &'a str,
    /// 0 without a prompt.
    pub version: u32,
    pub variant: &'a str,
    /// `split`, `forced`, `pinned`, or empty without a prompt.
    pub assignment: &'a str,
    /// 0 if pinned.
    pub deployment: u32,
    pub experiment_id: &'a str,
    pub document_ids: Vec<&'a str>,

    pub endpoint: &'a str,
    pub streaming: bool,
    /// The model the caller asked for, which a prompt may ignore: free text.
    pub request_model: &'a str,
    /// The configured model that was routed to; a pattern keeps its `*`. A closed set.
    pub model: &'a str,
    pub response_model: &'a str,
    pub provider: &'a str,
    /// `provider/upstream model` of the last attempt.
    pub target: &'a str,
    pub attempts: Vec<Attempt<'a>>,
    pub cache_status: &'a str,

    pub outcome: &'a str,
    pub error_kind: &'a str,
    pub error_code: &'a str,
    /// The status the caller got; 0 if none, 499 if it left before one.
    pub status_code: u16,
    pub finish_reason: &'a str,
    pub response_id: &'a str,
    pub upstream_request_id: &'a str,

    pub total_us: u64,
    /// Waiting for the provider: from sending the request to its last byte.
    pub upstream_us: u64,
    /// From the request's head to the first content of a stream; 0 if not streamed.
    pub time_to_first_token_us: u64,
    /// Ours: total less waiting for the provider and for the caller's body.
    pub overhead_us: u64,
    pub queue_us: u64,

    pub input_tokens: u32,
    pub cached_input_tokens: u32,
    pub output_tokens: u32,
    pub reasoning_tokens: u32,
    pub total_tokens: u32,
    /// The provider's count never came: they are ours, or the larger of both.
    pub tokens_estimated: bool,
    /// Billionths of a dollar; 0 also where the model has no price.
    pub cost_nanodollars: u64,

    pub request_bytes: u64,
    pub response_bytes: u64,

    /// JSON object as the caller gave it.
    pub variables: &'a [u8],
    /// Body as sent upstream.
    pub request: &'a [u8],
    /// Body of a plain answer; of a stream, the assembled message as JSON.
    pub response: &'a [u8],
    pub variables_truncated: bool,
    pub request_truncated: bool,
    pub response_truncated: bool,
    /// What was kept of the content: `full` (kept by policy, as far as the caps go), `metadata` (policy keeps none), `shed`
    /// (left out because the spool was nearly full), `erased` (taken out of the store later).
    pub capture: &'a str,
}

/// Requests that were refused in a flood, counted together: one row instead of one each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RefusalsRecord<'a> {
    /// UUIDv7, 16 bytes.
    pub refusals_id: uuid::Uuid,
    /// First and last of them, microseconds since the Unix epoch, UTC.
    pub since: i64,
    pub until: i64,
    pub node: &'a str,
    /// Empty if they named no key that we know.
    pub key_id: &'a str,
    pub endpoint: &'a str,
    pub error_code: &'a str,
    pub status_code: u16,
    /// How many; none of them has an exchange record.
    pub requests: u64,
}

impl ExchangeRecord<'_> {
    /// Whether it holds any captured content.
    pub fn has_content(&self) -> bool {
        !(self.variables.is_empty() && self.request.is_empty() && self.response.is_empty())
    }

    /// Leaves out the content, and says so.
    pub fn without_content(mut self) -> Self {
        self.variables_truncated |= !self.variables.is_empty();
        self.request_truncated |= !self.request.is_empty();
        self.response_truncated |= !self.response.is_empty();
        (self.variables, self.request, self.response) = (b"", b"", b"");
        self.capture = "shed";
        self
    }
}

/// A score attached to an exchange.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FeedbackRecord<'a> {
    pub feedback_id: uuid::Uuid,
    /// Microseconds since the Unix epoch, UTC.
    pub at: i64,
    /// Nil if only a provider's response id was given.
    pub exchange_id: uuid::Uuid,
    pub response_id: &'a str,
    pub key_id: &'a str,
    pub name: &'a str,
    /// `number`, `boolean` or `text`.
    pub kind: &'a str,
    /// The number; 1 or 0 for a boolean; 0 for a text.
    pub number: f64,
    pub text: &'a str,
    pub comment: &'a str,
}
