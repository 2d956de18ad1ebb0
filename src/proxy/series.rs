//! Metric handles of one worker, looked up once per combination of labels.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::{Equivalent, HashMap};
use prometheus::{Counter, Histogram, IntCounter};

use crate::domain::exchange::Outcome;
use crate::domain::usage::Usage;
use crate::metrics::WorkerMetrics;
use crate::tokenizer::Method;

/// What a request's series are named after.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Labels<'a> {
    pub prompt: &'a str,
    /// 0 without a prompt.
    pub version: u32,
    pub variant: &'a str,
    pub environment: &'a str,
    pub model: &'a str,
    pub provider: &'a str,
}

/// What is observed of a request.
pub struct Observation {
    pub endpoint: &'static str,
    pub outcome: Outcome,
    pub usage: Usage,
    /// How the tokens were counted, if not by the provider.
    pub estimated_by: Option<Method>,
    /// `None` if the model has no price.
    pub cost_nanodollars: Option<u64>,
    pub total: Duration,
    pub overhead: Duration,
    pub upstream: Option<Duration>,
    pub first_token: Option<Duration>,
}

/// The worker's metrics with their handles.
pub struct Series {
    pub metrics: WorkerMetrics,
    prompts: RefCell<HashMap<Owned, Rc<Handles>, RandomState>>,
    histograms: RefCell<HashMap<(&'static str, Outcome), Timers, RandomState>>,
    attempts: RefCell<Vec<(Arc<str>, &'static str, IntCounter)>>,
    max_prompts: usize,
}

/// The most handles of attempts kept at hand.
const MAX_ATTEMPT_HANDLES: usize = 64;

#[derive(Debug, PartialEq, Eq, Hash, Clone)]
struct Owned {
    prompt: Box<str>,
    version: u32,
    variant: Box<str>,
    environment: Box<str>,
    model: Box<str>,
    provider: Box<str>,
}

impl Equivalent<Owned> for Labels<'_> {
    fn equivalent(&self, other: &Owned) -> bool {
        self.version == other.version
            && *self.prompt == *other.prompt
            && *self.variant == *other.variant
            && *self.environment == *other.environment
            && *self.model == *other.model
            && *self.provider == *other.provider
    }
}

struct Handles {
    requests: RefCell<Vec<(&'static str, Outcome, IntCounter)>>,
    tokens: [IntCounter; 4],
    cost: Counter,
    first_token: Histogram,
    upstream: RefCell<Vec<(Outcome, Histogram)>>,
    used: Cell<bool>,
}

struct Timers {
    total: Histogram,
    overhead: Histogram,
}

/// The token types, in the order of [`Handles::tokens`].
const TOKEN_TYPES: [&str; 4] = ["input", "cached_input", "output", "reasoning"];

/// Stands for the prompts beyond the configured number.
const OTHER: &str = "other";

impl Series {
    pub fn new(metrics: WorkerMetrics, max_prompts: usize) -> Self {
        Self {
            metrics,
            prompts: RefCell::default(),
            histograms: RefCell::default(),
            attempts: RefCell::default(),
            max_prompts,
        }
    }

    /// Counts one request.
    pub fn observe(&self, labels: &Labels<'_>, seen: &Observation) {
        let handles = self.handles(labels);
        handles.used.set(true);
        handles.requests(seen.endpoint, seen.outcome, self, labels).inc();
        let usage = seen.usage;
        let counts = [usage.input, usage.cached_input, usage.output, usage.reasoning];
        for (counter, count) in handles.tokens.iter().zip(counts) {
            if count > 0 {
                counter.inc_by(u64::from(count));
            }
        }
        match seen.cost_nanodollars {
            Some(0) => {}
            Some(cost) => handles.cost.inc_by(cost as f64 / 1e9),
            None => self.unpriced(labels),
        }
        if let Some(method) = seen.estimated_by {
            self.metrics.token_estimates.with_label_values(&[method.as_str()]).inc();
        }
        if let Some(first_token) = seen.first_token {
            handles.first_token.observe(first_token.as_secs_f64());
        }
        if let Some(upstream) = seen.upstream {
            handles
                .upstream(seen.outcome, self, labels)
                .observe(upstream.as_secs_f64());
        }
        let mut timers = self.histograms.borrow_mut();
        let timers = timers.entry((seen.endpoint, seen.outcome)).or_insert_with(|| Timers {
            total: self
                .metrics
                .request_duration_seconds
                .with_label_values(&[seen.endpoint, seen.outcome.as_str()]),
            overhead: self.metrics.overhead_seconds.with_label_values(&[seen.endpoint]),
        });
        timers.total.observe(seen.total.as_secs_f64());
        timers.overhead.observe(seen.overhead.as_secs_f64());
    }

    /// Counts one try against a provider.
    pub fn attempt(&self, provider: &Arc<str>, result: &'static str) {
        let mut attempts = self.attempts.borrow_mut();
        if let Some((_, _, counter)) = attempts
            .iter()
            .find(|(p, r, _)| *r == result && Arc::ptr_eq(p, provider))
        {
            return counter.inc();
        }
        let counter = self.metrics.upstream_attempts.with_label_values(&[provider, result]);
        counter.inc();
        // Reloaded providers come under new pointers; the list is for speed and need not remember them all.
        if attempts.len() >= MAX_ATTEMPT_HANDLES {
            attempts.clear();
        }
        attempts.push((Arc::clone(provider), result, counter));
    }

    /// Counts a request whose model has no price. The first is worth a line in the log.
    fn unpriced(&self, labels: &Labels<'_>) {
        let (model, provider) = (labels.model, labels.provider);
        let counter = self.metrics.requests_unpriced.with_label_values(&[model, provider]);
        if counter.get() == 0 {
            tracing::warn!(
                model,
                provider,
                "the model has no price: its requests cost 0 in records; add a price to its [[models]] table"
            );
        }
        counter.inc();
    }

    /// Drops the series that were not used since the last call and whose version is not live.
    pub fn retire(&self, is_live: impl Fn(&str, u32) -> bool) {
        self.prompts.borrow_mut().retain(|owned, handles| {
            let keep = handles.used.replace(false) || owned.version == 0 || is_live(&owned.prompt, owned.version);
            if !keep {
                handles.remove(self, owned);
            }
            keep
        });
    }

    fn handles(&self, labels: &Labels<'_>) -> Rc<Handles> {
        let mut prompts = self.prompts.borrow_mut();
        if let Some(handles) = prompts.get(labels) {
            return Rc::clone(handles);
        }
        let other = Labels {
            prompt: OTHER,
            version: 0,
            variant: "",
            ..*labels
        };
        let labels = if prompts.len() < self.max_prompts || labels.prompt.is_empty() {
            labels
        } else {
            &other
        };
        let handles = Rc::new(Handles::new(&self.metrics, labels));
        prompts.entry(labels.to_owned()).or_insert(handles).clone()
    }
}

impl Labels<'_> {
    fn to_owned(&self) -> Owned {
        Owned {
            prompt: self.prompt.into(),
            version: self.version,
            variant: self.variant.into(),
            environment: self.environment.into(),
            model: self.model.into(),
            provider: self.provider.into(),
        }
    }
}

fn values<'a>(labels: &Labels<'a>, version: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let Labels {
        prompt,
        variant,
        environment,
        model,
        provider,
        ..
    } = *labels;
    let mut all = vec![prompt, version, variant, environment, model, provider];
    all.extend_from_slice(more);
    all
}

fn version_text(version: u32) -> String {
    if version == 0 {
        String::new()
    } else {
        version.to_string()
    }
}

impl Handles {
    fn new(metrics: &WorkerMetrics, labels: &Labels<'_>) -> Self {
        let version = version_text(labels.version);
        Self {
            requests: RefCell::default(),
            tokens: TOKEN_TYPES.map(|kind| metrics.tokens.with_label_values(&values(labels, &version, &[kind]))),
            cost: metrics.cost_dollars.with_label_values(&values(labels, &version, &[])),
            first_token: metrics
                .time_to_first_token_seconds
                .with_label_values(&[labels.model, labels.provider]),
            upstream: RefCell::default(),
            used: Cell::new(true),
        }
    }

    fn requests(&self, endpoint: &'static str, outcome: Outcome, series: &Series, labels: &Labels<'_>) -> IntCounter {
        let mut requests = self.requests.borrow_mut();
        if let Some((_, _, counter)) = requests.iter().find(|(e, o, _)| *e == endpoint && *o == outcome) {
            return counter.clone();
        }
        // Beyond the bound, the handles are those of `other`.
        let labels = if series.prompts.borrow().contains_key(labels) {
            labels
        } else {
            &Labels {
                prompt: OTHER,
                version: 0,
                variant: "",
                ..*labels
            }
        };
        let version = version_text(labels.version);
        let all = values(labels, &version, &[endpoint, outcome.as_str()]);
        let counter = series.metrics.requests.with_label_values(&all);
        requests.push((endpoint, outcome, counter.clone()));
        counter
    }

    fn upstream(&self, outcome: Outcome, series: &Series, labels: &Labels<'_>) -> Histogram {
        let mut upstream = self.upstream.borrow_mut();
        if let Some((_, histogram)) = upstream.iter().find(|(o, _)| *o == outcome) {
            return histogram.clone();
        }
        let all = [labels.provider, outcome.as_str()];
        let histogram = series.metrics.upstream_duration_seconds.with_label_values(&all);
        upstream.push((outcome, histogram.clone()));
        histogram
    }

    fn remove(&self, series: &Series, owned: &Owned) {
        let version = version_text(owned.version);
        let labels = Labels {
            prompt: &owned.prompt,
            version: owned.version,
            variant: &owned.variant,
            environment: &owned.environment,
            model: &owned.model,
            provider: &owned.provider,
        };
        // The series may be gone already, which is what is wanted.
        for (endpoint, outcome, _) in self.requests.borrow().iter() {
            let _ =
                series
                    .metrics
                    .requests
                    .remove_label_values(&values(&labels, &version, &[endpoint, outcome.as_str()]));
        }
        for kind in TOKEN_TYPES {
            let _ = series
                .metrics
                .tokens
                .remove_label_values(&values(&labels, &version, &[kind]));
        }
        let _ = series
            .metrics
            .cost_dollars
            .remove_label_values(&values(&labels, &version, &[]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn observation() -> Observation {
        Observation {
            endpoint: "chat_completions",
            outcome: Outcome::Ok,
            usage: Usage {
                input: 3,
                ..Usage::default()
            },
            estimated_by: None,
            cost_nanodollars: Some(5),
            total: Duration::from_millis(1),
            overhead: Duration::from_micros(1),
            upstream: None,
            first_token: None,
        }
    }

    fn labels(prompt: &str, version: u32) -> Labels<'_> {
        Labels {
            prompt,
            version,
            variant: "b",
            environment: "production",
            model: "m",
            provider: "x",
        }
    }

    fn count(text: &str, part: &str) -> usize {
        text.lines()
            .filter(|line| line.starts_with("promptgate_requests_total") && line.contains(part))
            .count()
    }

    #[test]
    fn prompts_beyond_the_bound_count_as_other() {
        let metrics = Metrics::new("1");
        let series = Series::new(metrics.worker(), 2);
        for prompt in ["a", "b", "c", "d"] {
            series.observe(&labels(prompt, 1), &observation());
        }
        let text = metrics.render();
        assert_eq!((count(&text, r#"prompt="a""#), count(&text, r#"prompt="c""#)), (1, 0));
        assert!(
            text.contains(r#"outcome="ok",prompt="other",provider="x",variant="",version=""} 2"#),
            "{text}"
        );
    }

    #[test]
    fn estimates_and_missing_prices_are_counted() {
        let metrics = Metrics::new("1");
        let series = Series::new(metrics.worker(), 2);
        let unpriced = Observation {
            cost_nanodollars: None,
            estimated_by: Some(Method::Characters),
            ..observation()
        };
        series.observe(&labels("a", 1), &unpriced);
        series.observe(&labels("b", 1), &unpriced);
        series.observe(&labels("b", 1), &observation());
        let text = metrics.render();
        for line in [
            r#"promptgate_requests_unpriced_total{model="m",provider="x"} 2"#,
            r#"promptgate_token_estimates_total{method="characters"} 2"#,
            r#"promptgate_token_estimates_total{method="tokenizer"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn series_of_a_version_no_longer_live_is_retired_after_a_quiet_round() {
        let metrics = Metrics::new("1");
        let series = Series::new(metrics.worker(), 10);
        series.observe(&labels("a", 1), &observation());
        series.observe(&labels("a", 2), &observation());
        series.retire(|_, version| version == 2);
        assert_eq!(count(&metrics.render(), r#"version="1""#), 1);
        series.retire(|_, version| version == 2);
        let text = metrics.render();
        assert_eq!((count(&text, r#"version="1""#), count(&text, r#"version="2""#)), (0, 1));
        assert!(!text.contains(r#"version="1"} 3"#), "{text}");
    }
}
