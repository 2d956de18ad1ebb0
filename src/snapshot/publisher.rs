//! How a change becomes a new snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};

use super::cell::Cell;
use super::file::{FileError, SnapshotFile};
use super::routing::Routing;
use super::tables::Snapshot;
use crate::registry::{Delta, Heard, Known, Mark, Registry, RegistryError};

/// How long the registry may take to answer before it counts as away.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait before listening again where that failed.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// How long changes are gathered before a new snapshot file is written, and how often the registry's confirmation is.
const WRITE_AFTER: Duration = Duration::from_millis(500);
const WRITE_AGAIN: Duration = Duration::from_secs(30);
const CONFIRM_EVERY: Duration = Duration::from_secs(5);

/// How a registry is followed.
#[derive(Debug)]
pub struct Following {
    /// How often it is asked whether something changed that nobody told us of.
    pub poll: Duration,
    /// Where the last state is kept.
    pub file: Option<SnapshotFile>,
}

impl Default for Following {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            file: None,
        }
    }
}

/// Reads the registry's changes and swaps in tables that have them.
pub struct Publisher {
    registry: Arc<Registry>,
    cell: Arc<Cell>,
    following: Following,
    /// Held while a table is built: tables are built one after the other.
    building: Mutex<Building>,
    started: Instant,
    /// Milliseconds from `started` to the last time the registry confirmed the table, negative for before.
    confirmed: AtomicI64,
    /// Whether the registry answered when it was last asked.
    up: AtomicBool,
    /// The newest generation anybody told of.
    newest: AtomicU64,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Building {
    /// Old tables wait here until no request has them any more.
    retired: Vec<Arc<Snapshot>>,
    mark: Mark,
}

impl Publisher {
    /// Reads the whole registry and publishes the first table.
    ///
    /// # Errors
    /// The registry's.
    pub async fn start(
        registry: Arc<Registry>,
        cell: Arc<Cell>,
        following: Following,
    ) -> Result<Arc<Self>, RegistryError> {
        let publisher = Arc::new(Self::new(registry, cell, following));
        publisher.refresh(None).await?;
        Ok(publisher)
    }

    /// Publishes the table of the last run's file, because the registry is away.
    ///
    /// # Errors
    /// When there is no such file, or not one that can be used.
    pub async fn resume(
        registry: Arc<Registry>,
        cell: Arc<Cell>,
        following: Following,
        max_age: Duration,
    ) -> Result<Arc<Self>, FileError> {
        let publisher = Arc::new(Self::new(registry, cell, following));
        if let Some(file) = &publisher.following.file {
            let loaded = file.load(max_age)?;
            publisher.confirmed.store(-(loaded.age.as_millis() as i64), Relaxed);
            let mut building = publisher.building.lock().await;
            for delta in loaded.deltas {
                publisher.swap(&mut building, delta);
            }
        }
        Ok(publisher)
    }

    fn new(registry: Arc<Registry>, cell: Arc<Cell>, following: Following) -> Self {
        Self {
            registry,
            cell,
            following,
            building: Mutex::default(),
            started: Instant::now(),
            confirmed: AtomicI64::new(0),
            up: AtomicBool::new(false),
            newest: AtomicU64::new(0),
            woken: Notify::new(),
        }
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

    /// Returns the epoch of the registry being served, and the hash of this node's configuration.
    pub fn origin(&self) -> (Arc<str>, Arc<str>) {
        let table = self.cell.load();
        (Arc::clone(&table.epoch), Arc::clone(&table.config_hash))
    }

    /// Returns a receiver that sees each new generation.
    pub fn generations(&self) -> tokio::sync::watch::Receiver<u64> {
        self.cell.generations()
    }

    /// Returns the models of this node.
    pub fn routing(&self) -> Arc<Routing> {
        Arc::clone(&self.cell.load().routing)
    }

    /// Returns how long ago the registry last confirmed the table being served.
    pub fn age(&self) -> Duration {
        let since = self.started.elapsed().as_millis() as i64 - self.confirmed.load(Relaxed);
        Duration::from_millis(since.max(0).cast_unsigned())
    }

    /// Says whether the registry answered when it was last asked.
    pub fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Returns how many generations this node was told of that it does not serve yet.
    pub fn behind(&self) -> u64 {
        self.newest.load(Relaxed).saturating_sub(self.generation())
    }

    /// Follows the registry for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        tokio::join!(self.look(), self.listen(), self.keep());
    }

    /// Looks when woken, and now and then.
    async fn look(&self) {
        let mut tick = tokio::time::interval(self.following.poll);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.woken.notified() => {}
            }
            let result = self.refresh(None).await;
            match &result {
                Err(error) if !failing => {
                    tracing::warn!(%error, age = self.age().as_secs(), "cannot read the registry, serving the last table");
                }
                Ok(()) if failing => tracing::info!(generation = self.generation(), "the registry answers again"),
                _ => {}
            }
            failing = result.is_err();
            if let Err(error) = self.registry.checkpoint().await {
                tracing::debug!(%error, "cannot copy the registry's log");
            }
        }
    }

    /// Wakes whoever looks when the registry tells of a change.
    async fn listen(&self) {
        loop {
            match self.registry.listen().await {
                Ok(None) => return,
                Ok(Some(mut listener)) => {
                    // What was told before is lost.
                    self.woken.notify_one();
                    while let Heard::Generation(generation) = listener.next().await {
                        self.newest.fetch_max(generation, Relaxed);
                        if generation > self.generation() {
                            self.woken.notify_one();
                        }
                    }
                    tracing::info!("the connection that the registry tells of changes broke, making a new one");
                    self.woken.notify_one();
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot listen to the registry");
                    tokio::time::sleep(LISTEN_AGAIN).await;
                }
            }
        }
    }

    /// Keeps the snapshot's file up to date.
    async fn keep(&self) {
        let Some(file) = &self.following.file else { return };
        let mut failing = false;
        loop {
            let _ = tokio::time::timeout(CONFIRM_EVERY, file.woken.notified()).await;
            tokio::time::sleep(WRITE_AFTER).await;
            // Some KiB mostly; on a multi-threaded runtime, so that this stops nobody.
            let result = tokio::task::block_in_place(|| file.write(self.age()));
            if let Err(error) = &result
                && !failing
            {
                tracing::warn!(%error, "cannot write the snapshot's file: a start while the registry is away would be from an older one");
            }
            failing = result.is_err();
            if failing {
                tokio::time::sleep(WRITE_AGAIN).await;
            }
            if !matches!(result, Ok(false))
                && let Ok(whole) = self.registry.changes_since(0).await
            {
                file.push(&whole);
            }
        }
    }

    async fn refresh(&self, wanted: Option<u64>) -> Result<(), RegistryError> {
        let mut building = self.building.lock().await;
        // The last holder of a table frees it, and that must be us.
        building.retired.retain(|table| Arc::strong_count(table) > 1);
        if wanted.is_some_and(|wanted| wanted <= self.generation()) {
            return Ok(());
        }
        let read = tokio::time::timeout(PATIENCE, self.read(&building.mark));
        let read = read.await.unwrap_or_else(|_| {
            let seconds = PATIENCE.as_secs();
            Err(RegistryError::Unavailable(format!("no answer within {seconds} s")))
        });
        self.up.store(read.is_ok(), Relaxed);
        if let Some(delta) = read? {
            if let Some(file) = &self.following.file {
                file.push(&delta);
            }
            self.swap(&mut building, delta);
        }
        self.confirmed.store(self.started.elapsed().as_millis() as i64, Relaxed);
        Ok(())
    }

    /// Reads what changed since the present table. Generations grow, also when the registry was put back to an earlier state.
    async fn read(&self, mark: &Mark) -> Result<Option<Delta>, RegistryError> {
        let known = {
            let table = self.cell.load();
            Known {
                epoch: table.epoch.to_string(),
                generation: table.generation,
                mark: mark.clone(),
            }
        };
        let delta = self.registry.follow(&known).await?;
        match delta {
            Some(delta) if delta.whole && delta.generation <= known.generation => {
                tracing::warn!(
                    generation = delta.generation,
                    served = known.generation,
                    "the registry is another one than it was, or was put back to an earlier state: raising its generation above \
                     the one that is served, and reading all of it"
                );
                self.registry.raise_above(known.generation).await?;
                self.registry.follow(&known).await
            }
            Some(delta) if delta.whole && !known.epoch.is_empty() => {
                tracing::warn!(
                    generation = delta.generation,
                    served = known.generation,
                    "the registry is another one than it was, or was put back to an earlier state: all of it is read anew"
                );
                Ok(Some(delta))
            }
            delta => Ok(delta),
        }
    }

    fn swap(&self, building: &mut Building, delta: Delta) {
        building.mark = delta.mark.clone();
        if delta.whole {
            self.registry.begin_lineage();
        }
        self.newest.fetch_max(delta.generation, Relaxed);
        let next = self.cell.load().with(delta);
        building.retired.push(self.cell.swap(next));
    }
}
