//! Last stage: the record and the metrics of an exchange, made once.

use std::time::Duration;

use super::exchange::Exchange;
use super::open_calls::NOTED_CONTENT_BYTES;
use super::series::{Labels, Observation};
use crate::domain::error::{ErrorCode, ErrorKind};
use crate::domain::exchange::{Attempt, ExchangeRecord, Outcome};
use crate::domain::usage::Usage;
use crate::telemetry::Ticket;
use crate::tokenizer::Method;

impl Exchange {
    /// Records the exchange; what is done afterwards no longer changes it.
    ///
    /// The record is durable once the ticket is flushed; an answer's last bytes wait for that.
    pub fn record(&mut self, outcome: Outcome, status: u16, error: Option<ErrorCode>) -> Ticket {
        self.recorded = true;
        self.upstream_ended();
        let (usage, estimated_by) = self.usage(outcome);
        let end = self.end((outcome, status, error), usage, estimated_by);
        self.worker.series.observe(
            &self.labels(),
            &Observation {
                endpoint: self.endpoint,
                outcome,
                usage: end.usage,
                estimated_by,
                cost_nanodollars: end.cost,
                total: end.total,
                overhead: end.overhead,
                upstream: self.times.upstream,
                first_token: self.times.first_token,
            },
        );
        let limit = self.worker.settings.capture_max_field;
        let worker = &self.worker;
        let ticket = if error.is_some_and(|code| worker.refusals.take(self, code)) {
            Ticket::default()
        } else {
            self.with_record(&end, limit, |record| {
                if record.variables_truncated || record.request_truncated || record.response_truncated {
                    let reason = if self.content.starved { "budget" } else { "field" };
                    worker
                        .series
                        .metrics
                        .capture_truncated
                        .with_label_values(&[reason])
                        .inc();
                }
                worker.recorder.exchange(record)
            })
        };
        self.reservation = None;
        self.no_longer_open();
        ticket
    }

    /// Encodes what is known of an exchange that is not over, as the record it leaves if this process dies now.
    pub(super) fn open_row(&self) -> Vec<u8> {
        let limit = self.worker.settings.capture_max_field.min(NOTED_CONTENT_BYTES);
        // What is counted by then: to estimate the rest takes too long for every call.
        let usage = self.facts().usage.unwrap_or_default();
        let end = self.end((Outcome::Aborted, self.status_sent, None), usage, None);
        self.with_record(&end, limit, |record| {
            record.response = b"";
            record.response_truncated = record.response_bytes > 0;
            self.worker.recorder.encode_open(record)
        })
    }

    fn end(
        &self,
        (outcome, status, error): (Outcome, u16, Option<ErrorCode>),
        usage: Usage,
        estimated_by: Option<Method>,
    ) -> End {
        let total = self.started.elapsed();
        let upstream = self.times.upstream.unwrap_or_default();
        End {
            outcome,
            status,
            error,
            cost: self.cost(&usage),
            usage,
            estimated_by,
            total,
            upstream,
            overhead: total.saturating_sub(upstream).saturating_sub(self.times.body),
        }
    }

    /// Builds the record, with at most `limit` bytes of each field of content, and hands it on.
    fn with_record<R>(&self, end: &End, limit: usize, then: impl FnOnce(&mut ExchangeRecord<'_>) -> R) -> R {
        let content = self.kept_content(limit);
        let small = self.small_texts();
        let prompt = self.prompt.as_ref();
        let call = &self.call;
        let attempts: Vec<Attempt<'_>> = call
            .attempts
            .iter()
            .map(|attempt| Attempt {
                target: &attempt.target,
                status: attempt.status,
                duration_us: micros(attempt.duration),
                error: attempt.error,
            })
            .collect();
        let usage = end.usage;
        let mut record = ExchangeRecord {
            exchange_id: self.id,
            started_at: self.started_at,
            node: &self.worker.settings.node,
            generation: self.state.generation,
            config_hash: &self.state.config_hash,
            key_id: &self.key_id,
            environment: &self.environment,
            unit: &self.caller.unit,
            user: &self.caller.user,
            session: &small.session,
            tags: small.tags.iter().map(|(name, value)| (&**name, &**value)).collect(),
            trace_id: &self.caller.trace_id,
            span_id: &self.caller.span_id,
            client_retries: self.caller.retries,
            prompt_id: prompt.map_or("", |prompt| &prompt.id),
            version: prompt.map_or(0, |prompt| prompt.version),
            variant: prompt.map_or("", |prompt| &prompt.variant),
            assignment: prompt.map_or("", |prompt| prompt.assignment),
            deployment: prompt.map_or(0, |prompt| prompt.deployment),
            experiment_id: "",
            document_ids: small.document_ids.iter().map(|id| &**id).collect(),
            endpoint: self.endpoint,
            streaming: call.streaming,
            request_model: &small.request_model,
            model: call.model.as_deref().unwrap_or_default(),
            response_model: &small.response_model,
            provider: call.target.as_ref().map_or("", |target| &target.endpoint.name),
            target: attempts.last().map_or("", |attempt| attempt.target),
            attempts,
            cache_status: "",
            outcome: end.outcome.as_str(),
            error_kind: error_kind(end.outcome, end.error),
            error_code: end.error.map_or("", ErrorCode::as_str),
            status_code: end.status,
            finish_reason: &small.finish_reason,
            response_id: &small.response_id,
            upstream_request_id: &small.upstream_request_id,
            total_us: micros(end.total),
            upstream_us: micros(end.upstream),
            time_to_first_token_us: self.times.first_token.map_or(0, micros),
            overhead_us: micros(end.overhead),
            queue_us: 0,
            input_tokens: usage.input,
            cached_input_tokens: usage.cached_input,
            output_tokens: usage.output,
            reasoning_tokens: usage.reasoning,
            total_tokens: usage.total,
            tokens_estimated: end.estimated_by.is_some(),
            cost_nanodollars: end.cost.unwrap_or(0),
            request_bytes: self.content.request_bytes,
            response_bytes: self.content.response_bytes,
            variables: &content.variables.bytes,
            request: &content.request.bytes,
            response: &content.response.bytes,
            variables_truncated: content.variables.truncated,
            request_truncated: content.request.truncated,
            response_truncated: content.response.truncated,
            capture: self.capture.as_str(),
        };
        then(&mut record)
    }

    /// Nano-dollars; `None` if tokens were used and their price is not known.
    ///
    /// A model that the table does not know by the name it was called by (a deployment, an alias) may be known by the one it
    /// answers with.
    fn cost(&self, usage: &Usage) -> Option<u64> {
        if *usage == Usage::default() {
            return Some(0);
        }
        let call = &self.call;
        let prices = &self.worker.settings.prices;
        let at = self.started_at / 1_000_000;
        let listed = |model: &str| prices.rates(model, at);
        let rates = call
            .rates
            .or_else(|| listed(&call.upstream_model))
            .or_else(|| listed(&call.facts.model))?;
        Some(rates.cost(usage))
    }

    fn labels(&self) -> Labels<'_> {
        let prompt = self.prompt.as_ref();
        Labels {
            prompt: prompt.map_or("", |prompt| &prompt.id),
            version: prompt.map_or(0, |prompt| prompt.version),
            variant: prompt.map_or("", |prompt| &prompt.variant),
            environment: &self.environment,
            model: self.call.model.as_deref().unwrap_or("other"),
            provider: self.call.target.as_ref().map_or("", |target| &target.endpoint.name),
        }
    }
}

/// How an exchange ended, and what that comes to.
struct End {
    outcome: Outcome,
    status: u16,
    error: Option<ErrorCode>,
    usage: Usage,
    /// How, if the provider did not count.
    estimated_by: Option<Method>,
    /// Nano-dollars; None if there is no price.
    cost: Option<u64>,
    total: Duration,
    upstream: Duration,
    overhead: Duration,
}

/// Which outcome an error of ours means.
pub fn outcome_of(code: ErrorCode) -> Outcome {
    match code.kind() {
        ErrorKind::UpstreamUnavailable | ErrorKind::UpstreamRejected => Outcome::UpstreamError,
        ErrorKind::UpstreamTimeout => Outcome::Timeout,
        ErrorKind::Internal => Outcome::Aborted,
        _ if code == ErrorCode::BodyTimeout => Outcome::Timeout,
        _ => Outcome::Rejected,
    }
}

fn error_kind(outcome: Outcome, error: Option<ErrorCode>) -> &'static str {
    match (error, outcome) {
        (Some(code), _) => code.kind().as_str(),
        (None, Outcome::ClientDisconnected) => ErrorKind::ClientDisconnected.as_str(),
        (None, Outcome::ClientError | Outcome::UpstreamError) => ErrorKind::UpstreamRejected.as_str(),
        (None, _) => "",
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}
