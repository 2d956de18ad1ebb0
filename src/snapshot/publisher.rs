//! How a change becomes a new snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::cell::Cell;
use super::tables::Snapshot;
use crate::registry::{Registry, RegistryError};

/// How often the registry is asked whether something changed that nobody told us of.
const POLL: Duration = Duration::from_secs(1);

/// Reads the registry's changes and swaps in tables that have them.
pub struct Publisher {
    registry: Arc<Registry>,
    cell: Arc<Cell>,
    /// Held while a table is built: tables are built one after the other. Old tables wait here until no request has them
    /// any more.
    retired: Mutex<Vec<Arc<Snapshot>>>,
    started: Instant,
    /// Milliseconds from `started` to the last successful look at the registry.
    confirmed: AtomicU64,
}

impl Publisher {
    /// Reads the whole registry and publishes the first table.
    ///
    /// # Errors
    /// The registry's.
    pub async fn start(registry: Arc<Registry>, cell: Arc<Cell>) -> Result<Arc<Self>, RegistryError> {
        let publisher = Arc::new(Self {
            registry,
            cell,
            retired: Mutex::default(),
            started: Instant::now(),
            confirmed: AtomicU64::new(0),
        });
        publisher.refresh(None).await?;
        Ok(publisher)
    }

    /// Returns once this node serves `generation` or a later one.
    ///
    /// Cancel safe: a swap that has begun is finished even if the caller goes away.
    ///
    /// # Errors
    /// The registry's; the present table goes on being served.
    pub async fn catch_up(self: &Arc<Self>, generation: u64) -> Result<(), RegistryError> {
        let publisher = Arc::clone(self);
        let work = tokio::spawn(async move { publisher.refresh(Some(generation)).await });
        match work.await {
            Ok(result) => result,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Returns the generation being served.
    pub fn generation(&self) -> u64 {
        self.cell.load().generation
    }

    /// Returns how long ago the registry last confirmed the table being served.
    pub fn age(&self) -> Duration {
        let confirmed = Duration::from_millis(self.confirmed.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(confirmed)
    }

    /// Follows the registry for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        let mut tick = tokio::time::interval(POLL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tick.tick().await;
            let result = self.refresh(None).await;
            if let Err(error) = &result
                && !failing
            {
                tracing::warn!(%error, "cannot read the registry, serving the last table");
            }
            failing = result.is_err();
            if let Err(error) = self.registry.checkpoint().await {
                tracing::debug!(%error, "cannot copy the registry's log");
            }
        }
    }

    async fn refresh(&self, wanted: Option<u64>) -> Result<(), RegistryError> {
        let mut retired = self.retired.lock().await;
        // The last holder of a table frees it, and that must be us.
        retired.retain(|table| Arc::strong_count(table) > 1);
        let present = self.cell.load().generation;
        if wanted.is_some_and(|wanted| wanted <= present) {
            return Ok(());
        }
        let delta = self.registry.changes_since(present).await?;
        let millis = self.started.elapsed().as_millis() as u64;
        self.confirmed.store(millis, Ordering::Relaxed);
        if delta.generation > present || self.cell.load().epoch.is_empty() {
            let next = self.cell.load().with(delta);
            retired.push(self.cell.swap(next));
        }
        Ok(())
    }
}
