//! Every metric family, in one place.
//!
//! Units are seconds, bytes and dollars. Labels are closed sets: prompts, versions, variants, environments, configured
//! models and providers, outcomes; never users, keys, units or free text. Each worker counts in families of its own, and
//! a scrape adds them up: a histogram shared by two threads costs ten times what one thread's own does.

mod merge;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

/// Buckets of durations that include a model's work, in seconds.
const SLOW_SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Buckets of our own work, in seconds.
const FAST_SECONDS: [f64; 13] = [
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 250e-3, 1.0,
];

/// Why a connection never became a request.
pub const REFUSALS: [&str; 6] = [
    "accept",
    "max_connections",
    "worker_busy",
    "head_too_large",
    "malformed_head",
    "head_timeout",
];

/// Labels of the families that follow prompts.
pub const PROMPT_LABELS: [&str; 6] = ["prompt", "version", "variant", "environment", "model", "provider"];

/// All metrics of this process.
pub struct Metrics {
    shared: Registry,
    workers: Mutex<Vec<Registry>>,
    pub snapshot_generation: IntGauge,
    pub snapshot_age_seconds: Gauge,
    pub snapshot_lag_generations: IntGauge,
    pub registry_up: IntGauge,
    pub spool_bytes: IntGauge,
    pub spool_capacity_bytes: IntGauge,
    pub spool_level: IntGauge,
    pub spool_oldest_record_age_seconds: Gauge,
    pub records: IntCounterVec,
    pub sink_insert_duration_seconds: Histogram,
    pub config_reloads: IntCounterVec,
    /// Connections and heads that never became a request.
    pub connections_refused: IntCounterVec,
    /// Deployments to protected environments without approval.
    pub break_glass_deployments: IntCounterVec,
    pub webhook_waiting: IntGauge,
    pub webhook_oldest_age_seconds: Gauge,
    pub webhook_attempts: IntCounterVec,
}

/// The families of one worker.
pub struct WorkerMetrics {
    pub requests: IntCounterVec,
    pub request_duration_seconds: HistogramVec,
    pub time_to_first_token_seconds: HistogramVec,
    pub overhead_seconds: HistogramVec,
    pub upstream_duration_seconds: HistogramVec,
    pub tokens: IntCounterVec,
    pub cost_dollars: CounterVec,
    /// By how they were made.
    pub token_estimates: IntCounterVec,
    pub requests_unpriced: IntCounterVec,
    pub streams_open: IntGauge,
    pub upstream_attempts: IntCounterVec,
    /// Records whose content was cut, by reason.
    pub capture_truncated: IntCounterVec,
    /// What the caller's socket did after a complete answer was handed to it.
    pub answers_undelivered: IntCounter,
}

impl Metrics {
    pub fn new(version: &str) -> Arc<Self> {
        let shared = Registry::new();
        let build = registered(
            &shared,
            GaugeVec::new(
                Opts::new("promptgate_build_info", "The running version; always 1."),
                &["version"],
            ),
        );
        build.with_label_values(&[version]).set(1.0);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        shared
            .register(Box::new(process))
            .expect("process metrics have names of their own");
        let metrics = Self {
            snapshot_generation: registered(
                &shared,
                IntGauge::new(
                    "promptgate_snapshot_generation",
                    "The registry state being served. If nodes differ for long, look at their logs for registry errors.",
                ),
            ),
            snapshot_lag_generations: registered(
                &shared,
                IntGauge::new(
                    "promptgate_snapshot_lag_generations",
                    "Generations this node was told of and does not serve yet. Above 0 for long: it cannot read the registry.",
                ),
            ),
            registry_up: registered(
                &shared,
                IntGauge::new(
                    "promptgate_registry_up",
                    "1 if the registry answered when it was last asked. 0: nothing can be changed, applications are served on.",
                ),
            ),
            snapshot_age_seconds: registered(
                &shared,
                Gauge::new(
                    "promptgate_snapshot_age_seconds",
                    "Since the registry last confirmed what is served. Growing: the registry cannot be read.",
                ),
            ),
            spool_bytes: registered(
                &shared,
                IntGauge::new(
                    "promptgate_spool_bytes",
                    "Records on disk that the sink has not taken yet. Growing: the sink is down or too slow.",
                ),
            ),
            spool_capacity_bytes: registered(
                &shared,
                IntGauge::new(
                    "promptgate_spool_capacity_bytes",
                    "Records that may wait on disk: the size cap, or what the disk has left. Shrinking: the disk is filling up.",
                ),
            ),
            spool_level: registered(
                &shared,
                IntGauge::new(
                    "promptgate_spool_level",
                    "0: there is room. 1: from 80 % on, content is left out. 2: full, or not writable: records are lost or requests refused.",
                ),
            ),
            spool_oldest_record_age_seconds: registered(
                &shared,
                Gauge::new(
                    "promptgate_spool_oldest_record_age_seconds",
                    "Age of the oldest record that the sink has not taken. Growing: the sink is down or too slow.",
                ),
            ),
            records: registered(
                &shared,
                IntCounterVec::new(
                    Opts::new(
                        "promptgate_records_total",
                        "Records by stage (spool, ship, sink) and result. Any `lost` or `dead` is an alarm: look at disk, log, `promptgate dead-letters`.",
                    ),
                    &["stage", "result"],
                ),
            ),
            sink_insert_duration_seconds: registered(
                &shared,
                histogram(
                    "promptgate_sink_insert_duration_seconds",
                    "Time the sink took for one batch. Growing: the sink is overloaded.",
                    &SLOW_SECONDS,
                ),
            ),
            config_reloads: registered(
                &shared,
                IntCounterVec::new(
                    Opts::new(
                        "promptgate_config_reloads_total",
                        "Reloads of the configuration file by result.",
                    ),
                    &["result"],
                ),
            ),
            connections_refused: registered(
                &shared,
                IntCounterVec::new(
                    Opts::new(
                        "promptgate_connections_refused_total",
                        "Connections that never became a request, by reason. Growing: a broken client or a scan.",
                    ),
                    &["reason"],
                ),
            ),
            break_glass_deployments: registered(
                &shared,
                IntCounterVec::new(
                    Opts::new(
                        "promptgate_break_glass_deployments_total",
                        "Deployments to a protected environment without approval. Any: ask who and why, see the audit log.",
                    ),
                    &["environment"],
                ),
            ),
            webhook_waiting: registered(
                &shared,
                IntGauge::new(
                    "promptgate_webhook_deliveries_waiting",
                    "Events that webhooks have not taken yet. Growing: a receiver is down, see promptgate webhooks list.",
                ),
            ),
            webhook_oldest_age_seconds: registered(
                &shared,
                Gauge::new(
                    "promptgate_webhook_oldest_waiting_seconds",
                    "Age of the oldest of them. After three days it is given up.",
                ),
            ),
            webhook_attempts: registered(
                &shared,
                IntCounterVec::new(
                    Opts::new(
                        "promptgate_webhook_attempts_total",
                        "Attempts to tell a webhook of an event, by result.",
                    ),
                    &["result"],
                ),
            ),
            workers: Mutex::default(),
            shared,
        };
        // From the start, so that the first event is seen as a change.
        for reason in REFUSALS {
            metrics.connections_refused.with_label_values(&[reason]);
        }
        for result in ["delivered", "failed"] {
            metrics.webhook_attempts.with_label_values(&[result]);
        }
        for result in ["ok", "failed"] {
            metrics.config_reloads.with_label_values(&[result]);
        }
        Arc::new(metrics)
    }

    /// Adds the families of one more worker.
    pub fn worker(&self) -> WorkerMetrics {
        let registry = Registry::new();
        let metrics = WorkerMetrics::new(&registry);
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(registry);
        metrics
    }

    /// Returns all metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut families = self.shared.gather();
        families.extend(merge::add_up(workers.iter().map(Registry::gather)));
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot encode metrics");
            String::new()
        })
    }
}

impl WorkerMetrics {
    fn new(registry: &Registry) -> Self {
        let with = |more: &[&'static str]| -> Vec<&'static str> { PROMPT_LABELS.iter().chain(more).copied().collect() };
        Self {
            requests: registered(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "promptgate_requests_total",
                        "Requests by what they asked for and how they ended.",
                    ),
                    &with(&["endpoint", "outcome"]),
                ),
            ),
            request_duration_seconds: registered(
                registry,
                histograms(
                    "promptgate_request_duration_seconds",
                    "From the request's head to the last byte, the model's work included.",
                    &SLOW_SECONDS,
                    &["endpoint", "outcome"],
                ),
            ),
            time_to_first_token_seconds: registered(
                registry,
                histograms(
                    "promptgate_time_to_first_token_seconds",
                    "From the request's head to the first content of a stream.",
                    &SLOW_SECONDS,
                    &["model", "provider"],
                ),
            ),
            overhead_seconds: registered(
                registry,
                histograms(
                    "promptgate_overhead_seconds",
                    "Our own share of a request. Growing: the machine is overloaded, or templates are heavy.",
                    &FAST_SECONDS,
                    &["endpoint"],
                ),
            ),
            upstream_duration_seconds: registered(
                registry,
                histograms(
                    "promptgate_upstream_duration_seconds",
                    "From sending a request to a provider to its last byte. Growing: the provider is slow.",
                    &SLOW_SECONDS,
                    &["provider", "outcome"],
                ),
            ),
            tokens: registered(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "promptgate_tokens_total",
                        "Tokens by type (input, cached_input, output, reasoning).",
                    ),
                    &with(&["type"]),
                ),
            ),
            cost_dollars: registered(
                registry,
                CounterVec::new(
                    Opts::new("promptgate_cost_dollars_total", "Cost by the price table, in dollars."),
                    &with(&[]),
                ),
            ),
            token_estimates: with_every(
                registered(
                    registry,
                    IntCounterVec::new(
                        Opts::new(
                            "promptgate_token_estimates_total",
                            "Requests whose tokens are our estimate, as the provider's count never came. Growing: callers \
                             leave or streams break off, so the cost is an estimate too.",
                        ),
                        &["method"],
                    ),
                ),
                &["tokenizer", "characters"],
            ),
            requests_unpriced: registered(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "promptgate_requests_unpriced_total",
                        "Requests with tokens whose model has no price, and which so count no cost: give it one.",
                    ),
                    &["model", "provider"],
                ),
            ),
            streams_open: registered(
                registry,
                IntGauge::new("promptgate_streams_open", "Streamed answers being relayed now."),
            ),
            upstream_attempts: registered(
                registry,
                IntCounterVec::new(
                    Opts::new("promptgate_upstream_attempts_total", "Tries by provider and result."),
                    &["provider", "result"],
                ),
            ),
            capture_truncated: registered(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "promptgate_capture_truncated_total",
                        "Records whose content was cut: at the cap of a field, or because open streams hold the capture budget.",
                    ),
                    &["reason"],
                ),
            ),
            answers_undelivered: registered(
                registry,
                IntCounter::new(
                    "promptgate_answers_undelivered_total",
                    "Complete answers whose caller was gone before the last byte. Growing: callers time out too early.",
                ),
            ),
        }
    }
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
}

fn histograms(name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> prometheus::Result<HistogramVec> {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
}

/// The same counters, each label there from the start, so that the first event is seen as a change.
fn with_every(counters: IntCounterVec, labels: &[&str]) -> IntCounterVec {
    for label in labels {
        counters.with_label_values(&[label]);
    }
    counters
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    let collector = collector.expect("names and labels are valid");
    registry
        .register(Box::new(collector.clone()))
        .expect("names are unique");
    collector
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A family without a sample is in no scrape, so the names are taken from the source.
    #[test]
    fn documentation_lists_every_family_and_no_other() {
        let families = |text: &str, before: &str, after: char| -> BTreeSet<String> {
            text.split(before)
                .skip(1)
                .filter_map(|rest| rest.split(after).next())
                .filter(|name| name.starts_with("promptgate_") && !name.contains(' '))
                .map(str::to_owned)
                .collect()
        };
        let (source, _) = include_str!("metrics.rs").split_once("#[cfg(test)]").unwrap();
        let registered = families(source, "\"", '"');
        let documented = families(include_str!("../docs/operations.md"), "\n| `", '`');
        assert!(registered.len() > 10, "{registered:?}");
        assert_eq!(registered, documented);
    }

    #[test]
    fn scrape_adds_up_the_workers() {
        let metrics = Metrics::new("1");
        let workers = [metrics.worker(), metrics.worker()];
        for (n, worker) in workers.iter().enumerate() {
            worker
                .requests
                .with_label_values(&["p", "1", "b", "production", "m", "x", "chat_completions", "ok"])
                .inc_by(2);
            worker
                .upstream_duration_seconds
                .with_label_values(&["x", "ok"])
                .observe(n as f64);
            worker.streams_open.set(3);
        }
        workers[1].upstream_attempts.with_label_values(&["y", "ok"]).inc();
        let text = metrics.render();
        for line in [
            r#"promptgate_requests_total{endpoint="chat_completions",environment="production",model="m",outcome="ok",prompt="p",provider="x",variant="b",version="1"} 4"#,
            r#"promptgate_upstream_duration_seconds_bucket{outcome="ok",provider="x",le="0.005"} 1"#,
            r#"promptgate_upstream_duration_seconds_count{outcome="ok",provider="x"} 2"#,
            r#"promptgate_upstream_duration_seconds_sum{outcome="ok",provider="x"} 1"#,
            r#"promptgate_upstream_attempts_total{provider="y",result="ok"} 1"#,
            "promptgate_streams_open 6",
            r#"promptgate_build_info{version="1"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("# TYPE promptgate_requests_total counter").count(), 1);
    }
}
