//! Carries out the steps of planned shifts when they are due: one task of the process.
//!
//! It asks the registry, which several processes may share, once a second; who finds a step first does it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::registry::{Registry, RegistryError};
use crate::snapshot::Publisher;

/// How often the registry is asked; a step is late by that much at most.
const POLL: Duration = Duration::from_secs(1);

/// Runs for as long as it is polled.
pub async fn run(registry: Arc<Registry>, publisher: Arc<Publisher>) {
    let mut tick = interval(POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tick.tick().await;
        let result = carry_out(&registry, &publisher).await;
        if let Err(error) = &result
            && !failing
        {
            tracing::warn!(%error, "cannot carry out planned shifts, trying again");
        }
        failing = result.is_err();
    }
}

async fn carry_out(registry: &Registry, publisher: &Arc<Publisher>) -> Result<(), RegistryError> {
    let now_us = jiff::Timestamp::now().as_microsecond();
    let due = registry.next_shift_at().await?;
    if due.is_some_and(|at_us| at_us <= now_us)
        && let Some(generation) = registry.run_due_shifts(now_us).await?
    {
        publisher.catch_up(generation).await?;
    }
    Ok(())
}
