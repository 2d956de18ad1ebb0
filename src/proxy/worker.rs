//! What the requests of one worker share. Nothing in it is shared with another thread's requests on the hot path.

use std::cell::{Cell as StdCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::open_calls::OpenCalls;
use super::refusals::Refusals;
use super::series::Series;
use crate::config::{Auth, Capture, CaptureByPrompt, Config, WhenFull};
use crate::domain::price::PriceTable;
use crate::metrics::WorkerMetrics;
use crate::snapshot::{Cell, Key, Pinned};
use crate::telemetry::Recorder;
use crate::telemetry::capture::{Budget, Redactor};
use crate::upstream::Pool;

/// The part of the configuration that requests read, the same for all workers.
pub struct Settings {
    /// The key of all requests when the data plane asks for none.
    pub anonymous: Option<Arc<Key>>,
    pub node: Box<str>,
    pub capture: Capture,
    pub capture_by_prompt: CaptureByPrompt,
    pub redactor: Redactor,
    pub hash_users: bool,
    /// Of all workers together.
    pub capture_budget: Arc<Budget>,
    /// Requests are refused when there is no room to record them.
    pub reject_when_full: bool,
    /// Of each worker: refusals for want of a key that are recorded one by one.
    pub refusals_per_second: u32,
    /// The most bytes kept of each captured field.
    pub capture_max_field: usize,
    pub max_request_body: usize,
    pub max_json_depth: usize,
    pub max_render_bytes: usize,
    pub max_prompt_series: usize,
    pub request_body_timeout: std::time::Duration,
    pub prices: PriceTable,
}

impl Settings {
    pub fn new(config: &Config, prices: PriceTable) -> Self {
        Self {
            anonymous: (config.server.auth == Auth::Off).then(|| Arc::new(Key::anonymous())),
            node: config.server.node.as_str().into(),
            capture: config.telemetry.capture,
            capture_by_prompt: config.telemetry.capture_by_prompt,
            redactor: Redactor::new(&config.telemetry.redaction),
            hash_users: config.telemetry.redaction.hash_users,
            capture_budget: Budget::new(usize::try_from(config.telemetry.capture_budget).unwrap_or(usize::MAX)),
            reject_when_full: config.telemetry.when_full == WhenFull::Reject,
            refusals_per_second: config
                .telemetry
                .refusals_per_second
                .div_ceil(config.server.workers.max(1) as u32),
            capture_max_field: config.telemetry.capture_max_field as usize,
            max_request_body: config.limits.max_request_body as usize,
            max_json_depth: config.limits.max_json_depth,
            max_render_bytes: config.limits.max_render_bytes as usize,
            max_prompt_series: config.limits.max_prompt_series,
            request_body_timeout: config.timeouts.request_body,
            prices,
        }
    }
}

/// What a worker is built from, on its own thread.
pub struct WorkerParts {
    pub cell: Arc<Cell>,
    pub pinned: Arc<Pinned>,
    pub recorder: Recorder,
    pub metrics: WorkerMetrics,
    pub settings: Arc<Settings>,
}

/// The context of one worker.
pub struct Worker {
    pub(super) cell: Arc<Cell>,
    pub(super) pinned: Arc<Pinned>,
    pub(super) recorder: Recorder,
    pub(super) series: Series,
    pub(super) settings: Arc<Settings>,
    pub(super) pool: Rc<Pool>,
    pub(super) open_calls: OpenCalls,
    pub(super) refusals: Refusals,
    /// Ids must be hard to guess, so the generator is seeded by the system and cryptographic.
    random: RefCell<rand::rngs::StdRng>,
    /// Picks targets; need not be hard to guess.
    dice: RefCell<SmallRng>,
    stopping: StdCell<bool>,
}

impl Worker {
    pub fn new(parts: WorkerParts) -> Rc<Self> {
        let mut system = rand::rng();
        Rc::new(Self {
            series: Series::new(parts.metrics, parts.settings.max_prompt_series),
            cell: parts.cell,
            pinned: parts.pinned,
            recorder: parts.recorder,
            settings: parts.settings,
            pool: Rc::default(),
            open_calls: OpenCalls::default(),
            refusals: Refusals::default(),
            random: RefCell::new(rand::rngs::StdRng::from_rng(&mut system)),
            dice: RefCell::new(SmallRng::from_rng(&mut system)),
            stopping: StdCell::new(false),
        })
    }

    /// Makes a UUIDv7 for the given time.
    pub(super) fn new_id(&self, unix_micros: i64) -> uuid::Uuid {
        let random: [u8; 10] = self.random.borrow_mut().random();
        uuid::Builder::from_unix_timestamp_millis((unix_micros / 1_000).max(0) as u64, &random).into_uuid()
    }

    pub(super) fn roll(&self) -> u32 {
        self.dice.borrow_mut().random()
    }

    /// Says that requests still open are now being ended by us.
    pub fn stop(&self) {
        self.stopping.set(true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Notes the calls that take long; to be called every [`SWEEP_EVERY`](super::SWEEP_EVERY).
    pub fn sweep(&self) {
        self.recorder.refresh();
        self.open_calls.sweep(&self.recorder);
        self.refusals.write(self, Some(Instant::now()));
    }

    /// Drops the series of versions that are no longer live and were not used lately.
    pub fn retire_series(&self) {
        let snapshot = self.cell.load();
        self.series.retire(|prompt, version| snapshot.is_live(prompt, version));
    }

    /// Waits until everything recorded so far is durable.
    pub async fn close(&self) {
        self.refusals.write(self, None);
        self.recorder.close().await;
    }
}
