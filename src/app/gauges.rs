//! Metrics that are read when somebody looks, instead of being kept up to date.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::metrics::Metrics;
use crate::snapshot::Publisher;
use crate::spool::{SpoolStats, SpoolWatch};
use crate::telemetry::ship::ShipStats;

/// Everything a scrape needs.
pub struct Gauges {
    metrics: Arc<Metrics>,
    publisher: Arc<Publisher>,
    spool: Arc<SpoolStats>,
    /// None if nothing is recorded.
    watch: Option<SpoolWatch>,
    shipped: Arc<ShipStats>,
}

impl Gauges {
    pub fn new(
        metrics: Arc<Metrics>,
        publisher: Arc<Publisher>,
        spool: Arc<SpoolStats>,
        watch: Option<SpoolWatch>,
        shipped: Arc<ShipStats>,
    ) -> Self {
        Self {
            metrics,
            publisher,
            spool,
            watch,
            shipped,
        }
    }

    /// Returns all metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let metrics = &self.metrics;
        metrics.snapshot_generation.set(self.publisher.generation() as i64);
        metrics.snapshot_lag_generations.set(self.publisher.behind() as i64);
        metrics.registry_up.set(i64::from(self.publisher.is_up()));
        metrics.snapshot_age_seconds.set(self.publisher.age().as_secs_f64());
        let figures = self.spool.figures();
        metrics.spool_bytes.set(figures.unshipped_bytes as i64);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_micros() as i64;
        let oldest = figures
            .oldest_unshipped_at
            .map_or(0, |at| now.saturating_sub(at).max(0));
        metrics.spool_oldest_record_age_seconds.set(oldest as f64 / 1e6);
        if let Some(watch) = &self.watch {
            metrics.spool_capacity_bytes.set(watch.capacity() as i64);
            metrics.spool_level.set(watch.level().number());
        }
        for (stage, result, count) in [
            ("spool", "kept", figures.appended.saturating_sub(figures.lost)),
            ("spool", "lost", figures.lost),
            ("spool", "dropped_full", figures.full),
            ("spool", "shed", figures.shed),
            ("spool", "recovered", figures.recovered_frames),
            ("spool", "recovered_open", figures.recovered_open),
            ("spool", "write_error", figures.write_errors + figures.sync_errors),
            ("spool", "damaged", figures.damaged_frames),
            ("ship", "stored", figures.shipped),
            ("ship", "failed_attempt", figures.ship_errors),
            ("ship", "dead_segment", figures.dead_segments),
            ("ship", "dead", self.shipped.dead_rows.load(Relaxed)),
            ("ship", "resent", self.shipped.resent_rows.load(Relaxed)),
            ("ship", "refused", self.shipped.refused.load(Relaxed)),
            ("sink", "pruned", self.shipped.pruned.load(Relaxed)),
        ] {
            let counter = metrics.records.with_label_values(&[stage, result]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        metrics.render()
    }
}
