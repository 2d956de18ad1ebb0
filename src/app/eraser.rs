//! Carries out what the registry has been asked to erase, and goes on doing so: what comes late out of a backlog or a
//! resent dead letter is erased as well.
//!
//! An erasure is done once everything that had been spooled when it was asked for has been shipped and erased. From then on
//! it is looked at again only when something as old has been stored. At the start all are: whatever an earlier process
//! stored last, it may have died before this was done.
//!
//! While anything is to be erased, spool files are not used twice: a spare would keep bytes of records that are shipped.

use std::sync::Arc;
use std::time::Duration;

use crate::registry::{Erasure, Registry};
use crate::spool::{Spares, SpoolStats};
use crate::telemetry::Store;
use crate::telemetry::erase::Erase;

/// How often to look.
const EVERY: Duration = Duration::from_secs(1);

/// How many are carried out together.
const TOGETHER: u32 = 100;

pub struct Eraser {
    pub registry: Arc<Registry>,
    pub store: Arc<Store>,
    pub spool: Arc<SpoolStats>,
    pub spares: Spares,
}

impl Eraser {
    pub async fn run(self) {
        // Began by then: not yet looked at.
        let mut since = i64::MIN;
        let mut fresh_since = None;
        let mut failing = false;
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            since = since.min(self.spool.take_oldest_stored().unwrap_or(i64::MAX));
            let result = self.round(since, &mut fresh_since).await;
            match &result {
                Ok(()) => since = i64::MAX,
                Err(error) if !failing => tracing::warn!(%error, "cannot erase now, will try again"),
                Err(_) => {}
            }
            failing = result.is_err();
            self.reuse_again(&mut fresh_since);
        }
    }

    /// Erases what is due: what is not done, and what concerns exchanges that began at `since` or later.
    async fn round(&self, since: i64, fresh_since: &mut Option<i64>) -> anyhow::Result<()> {
        let mut after = String::new();
        loop {
            // Before the store is looked at: what is shipped by now is in it.
            let unshipped = self.spool.figures().oldest_unshipped_at;
            let due = self.registry.due_erasures(since, &after, TOGETHER).await?;
            let Some(last) = due.last() else { return Ok(()) };
            after.clone_from(&last.id);
            if due.iter().any(|erasure| erasure.done_at_us.is_none()) && fresh_since.is_none() {
                *fresh_since = Some(jiff::Timestamp::now().as_microsecond());
                self.spares.set_fresh(true);
            }
            let erase = |erasure: &Erasure| Erase {
                user_hash: erasure.user_hash.clone(),
                until: erasure.until_us,
            };
            let erase: Vec<Erase> = due.iter().map(erase).collect();
            let counts = self.store.erase(&erase).await?;
            for (erasure, count) in due.iter().zip(counts) {
                let done = unshipped.is_none_or(|oldest| oldest > erasure.until_us);
                if count > 0 || (done && erasure.done_at_us.is_none()) {
                    self.registry.note_erased(&erasure.id, count, done).await?;
                }
            }
        }
    }

    /// Lets spool files be used again once those are gone that were in use when erasing began.
    fn reuse_again(&self, fresh_since: &mut Option<i64>) {
        let Some(since) = *fresh_since else { return };
        let unshipped = self.spool.figures().oldest_unshipped_at;
        if unshipped.is_none_or(|oldest| oldest > since) {
            self.spares.set_fresh(false);
            *fresh_since = None;
        }
    }
}
