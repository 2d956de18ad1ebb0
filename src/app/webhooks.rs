//! Delivers what webhooks are to be told: one task of the process.
//!
//! It asks the registry, which several processes may share, what is due; who leases a webhook delivers to it, alone and
//! one event after the other. An event that does not arrive holds back what follows it for the same prompts, and nothing
//! else. What a process that dies was sending is sent again by the next, with the same id.

mod send;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::config;
use crate::domain::webhook::{PATIENCE_US, pause_us, sendable};
use crate::metrics::Metrics;
use crate::registry::{Attempt, Receiver, Registry, RegistryError, Waiting};

/// How often the registry is asked.
const POLL: Duration = Duration::from_millis(250);

/// How often what is over is forgotten.
const FORGET: Duration = Duration::from_secs(3600);

/// How many webhooks are delivered to at the same time.
const TOGETHER: usize = 16;

/// How long a lease lasts beyond an attempt, in microseconds: whoever died is missed for no longer.
const LEASE_US: i64 = 5_000_000;

pub struct Webhooks {
    pub registry: Arc<Registry>,
    pub settings: config::Webhooks,
    pub metrics: Arc<Metrics>,
}

fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

impl Webhooks {
    /// Runs for as long as it is polled.
    pub async fn run(self) {
        let this = Arc::new(self);
        // Of this process: two with the same node name must not share a lease.
        let holder = uuid::Uuid::now_v7().simple().to_string();
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut forget = interval(FORGET);
        let (mut working, mut busy) = (JoinSet::new(), HashSet::new());
        let mut failing = false;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                Some(done) = working.join_next() => {
                    match done {
                        Ok(webhook) => { busy.remove(&webhook); }
                        Err(error) => {
                            tracing::error!(%error, "a delivery to a webhook panicked");
                            busy.clear();
                        }
                    }
                    continue;
                }
                _ = forget.tick() => {
                    let _ = this.registry.forget_deliveries(now_us()).await;
                    continue;
                }
            }
            match this.due().await {
                Ok(due) => {
                    failing = false;
                    for webhook in due {
                        if busy.len() < TOGETHER && busy.insert(webhook.clone()) {
                            working.spawn(deliver(Arc::clone(&this), webhook, holder.clone()));
                        }
                    }
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(%error, "cannot look for events that webhooks wait for, trying again");
                }
                Err(_) => {}
            }
        }
    }

    async fn due(&self) -> Result<Vec<String>, RegistryError> {
        let now = now_us();
        let (waiting, oldest) = self.registry.webhook_backlog().await?;
        self.metrics.webhook_waiting.set(waiting.cast_signed());
        let age = oldest.map_or(0.0, |at| now.saturating_sub(at) as f64 / 1e6);
        self.metrics.webhook_oldest_age_seconds.set(age);
        match waiting {
            0 => Ok(Vec::new()),
            _ => self.registry.due_webhooks(now).await,
        }
    }

    /// Delivers what is due to one webhook, as long as there is something.
    async fn round(&self, webhook: &str, holder: &str) -> Result<(), RegistryError> {
        loop {
            let waiting = self.registry.waiting_deliveries(webhook).await?;
            let now = now_us();
            let due = waiting
                .iter()
                .map(|one| (one.prompts.as_slice(), one.next_at_us <= now));
            let sendable = sendable(due);
            if sendable.is_empty() {
                return Ok(());
            }
            for place in sendable {
                let now = now_us();
                let until = now + i64::try_from(self.settings.timeout.as_micros()).unwrap_or(i64::MAX / 2) + LEASE_US;
                // Asked for again each time: meanwhile it may lead elsewhere, be disabled or gone.
                let Some(to) = self.registry.lease_webhook(webhook, holder, now, until).await? else {
                    return Ok(());
                };
                let attempt = self.attempt(&to, &waiting[place]).await;
                self.registry
                    .note_attempt(webhook, waiting[place].seq, &attempt)
                    .await?;
            }
        }
    }

    async fn attempt(&self, to: &Receiver, what: &Waiting) -> Attempt {
        let began = now_us();
        let answer = send::send(&self.settings, to, what, began / 1_000_000).await;
        let took_us = now_us().saturating_sub(began);
        let (status, error) = match answer {
            Ok(status @ 200..=299) => (Some(status), String::new()),
            Ok(status @ 300..=399) => (Some(status), "redirects are not followed".to_owned()),
            Ok(status) => (Some(status), format!("answered {status}")),
            Err(why) => (None, why),
        };
        let delivered = error.is_empty();
        let is_over = began.saturating_sub(what.at_us) > PATIENCE_US;
        let state = match (delivered, is_over) {
            (true, _) => "delivered",
            (false, true) => "failed",
            (false, false) => "waiting",
        };
        let result = if delivered { "delivered" } else { "failed" };
        self.metrics.webhook_attempts.with_label_values(&[result]).inc();
        if state == "failed" {
            tracing::warn!(
                webhook = to.webhook,
                event = what.event_id,
                error,
                "an event was given up"
            );
        }
        Attempt {
            state,
            next_at_us: now_us() + pause_us(what.attempts + 1, rand::random()),
            at_us: began,
            status,
            error,
            took_us,
        }
    }
}

async fn deliver(this: Arc<Webhooks>, webhook: String, holder: String) -> String {
    if let Err(error) = this.round(&webhook, &holder).await {
        tracing::warn!(%error, webhook, "cannot deliver to a webhook, trying again");
    }
    webhook
}
