//! Builds the parts, starts them, and drains them: the only wiring.
//!
//! Threads: one per data plane worker, each with a single-threaded runtime of its own, and the control runtime, on which
//! everything else lives (the accept loop, the control plane, the registry, the publisher, the shipper).

mod control;
mod eraser;
mod gauges;
mod listener;
mod nodes;
mod shifts;
mod start;
mod webhooks;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{RehearsalSettings, ThisNode};
use crate::config::{self, Config, Sink};
use crate::domain::price::PriceTable;
use crate::metrics::Metrics;
use crate::proxy::Settings;
use crate::registry::Registry;
use crate::snapshot::{Cell, Pinned, Routing, Snapshot};
use crate::telemetry::{Durability, SinkOptions, SpoolLimits, Store, Telemetry, TelemetryOptions};

pub use gauges::Gauges;

/// How long the spool may take to ship what is left at the end.
const SHIP_AT_EXIT: Duration = Duration::from_secs(10);

/// A running gateway.
pub struct App {
    pub data_address: SocketAddr,
    pub control_address: SocketAddr,
    /// The admin token, if this start made one: to be shown once.
    pub new_admin_token: Option<String>,
    pub store: Option<Arc<Store>>,
    ready: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    /// Ends the control plane, which stays up while requests are finished: operators watch it then.
    stop_control: watch::Sender<bool>,
    workers: Vec<worker::Handle>,
    tasks: Vec<JoinHandle<()>>,
    telemetry: Telemetry,
    registry: Arc<Registry>,
    node_id: String,
    drain: Duration,
}

/// What was left when the gateway stopped.
#[derive(Debug)]
pub struct Stopped {
    /// Sealed segments that the sink has not taken; the next start ships them.
    pub unshipped_segments: usize,
}

impl App {
    /// Starts the gateway; it serves when this returns. Must be called on the control runtime.
    ///
    /// # Errors
    /// What cannot be opened, read or bound, with the way to mend it.
    pub async fn start(config: Config, admin_token: Option<&str>) -> anyhow::Result<Self> {
        let control = tokio::runtime::Handle::current();
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        let prices = match &config.prices_file {
            None => PriceTable::builtin(),
            Some(path) => PriceTable::load(path)?,
        };
        let routing = Arc::new(Routing::new(&config)?);
        let cell = Arc::new(Cell::new(Snapshot::empty(routing, &config.hash)));
        let start::Started {
            registry,
            publisher,
            new_admin_token,
            away,
        } = start::start(&config, &cell, admin_token).await?;
        let telemetry = start_telemetry(&config, &metrics, control.clone()).await?;
        let store = telemetry.store();

        let data = listener::bind(config.server.listen, "server.listen")?;
        let admin = listener::bind(config.server.admin_listen, "server.admin_listen")?;
        let (data_address, control_address) = (data.local_addr()?, admin.local_addr()?);

        let (stop, stopped) = watch::channel(false);
        let (stop_control, control_stopped) = watch::channel(false);
        let rehearsal = Arc::new(RehearsalSettings {
            prices: prices.clone(),
            max_render_bytes: usize::try_from(config.limits.max_render_bytes).unwrap_or(usize::MAX),
        });
        let shared = worker::Shared {
            cell: Arc::clone(&cell),
            pinned: Arc::new(Pinned::new(Arc::clone(&registry), control)),
            settings: Arc::new(Settings::new(&config, prices)),
            http: worker::HttpLimits::new(&config),
            drain: config.server.drain,
            refused: metrics.connections_refused.clone(),
        };
        let workers = (0..config.server.workers)
            .map(|index| {
                worker::start(
                    index,
                    shared.clone(),
                    telemetry.recorder_seed(index),
                    metrics.worker(),
                    stopped.clone(),
                )
            })
            .collect::<std::io::Result<Vec<_>>>()
            .context("cannot start a worker thread")?;
        let ready = Arc::new(AtomicBool::new(true));
        let gauges = Gauges::new(
            Arc::clone(&metrics),
            Arc::clone(&publisher),
            telemetry.stats(),
            telemetry.watch(),
            telemetry.ship_stats(),
        );
        let node = Arc::new(ThisNode {
            id: uuid::Uuid::now_v7().simple().to_string(),
            name: config.server.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: data_address.to_string(),
            started_at_us: jiff::Timestamp::now().as_microsecond(),
        });
        let plane = control::Plane {
            node: Arc::clone(&node),
            registry: Arc::clone(&registry),
            publisher: Arc::clone(&publisher),
            store: store.clone(),
            rehearsal,
            metrics: Arc::clone(&metrics),
            gauges: Arc::new(gauges),
            ready: Arc::clone(&ready),
        };
        let inboxes = workers.iter().map(worker::Handle::inbox).collect();
        let accept = listener::Accept {
            inboxes,
            max_connections: config.limits.max_connections,
            refused: metrics.connections_refused.clone(),
        };
        let webhooks = webhooks::Webhooks {
            registry: Arc::clone(&registry),
            settings: config.webhooks.clone(),
            metrics: Arc::clone(&metrics),
        };
        let mut tasks = vec![
            tokio::spawn(listener::accept(data, accept, stopped)),
            tokio::spawn(control::serve(admin, plane, control_stopped)),
            tokio::spawn(shifts::run(Arc::clone(&registry), Arc::clone(&publisher))),
            tokio::spawn(webhooks.run()),
            tokio::spawn(nodes::run(
                Arc::clone(&registry),
                Arc::clone(&publisher),
                Arc::clone(&node),
            )),
            tokio::spawn(publisher.follow()),
        ];
        if away {
            let token = admin_token.map(str::to_owned);
            tasks.push(tokio::spawn(start::reach(Arc::clone(&registry), token)));
        }
        if let (Some(store), Some(spares)) = (store.clone(), telemetry.spares()) {
            let eraser = eraser::Eraser {
                registry: Arc::clone(&registry),
                store,
                spool: telemetry.stats(),
                spares,
            };
            tasks.push(tokio::spawn(eraser.run()));
        }
        Ok(Self {
            data_address,
            control_address,
            new_admin_token,
            store,
            ready,
            stop,
            stop_control,
            workers,
            tasks,
            telemetry,
            registry,
            node_id: node.id.clone(),
            drain: config.server.drain,
        })
    }

    /// Stops: not ready, no new connections, open requests finished within `server.drain`, everything recorded.
    pub async fn stop(self) -> Stopped {
        self.ready.store(false, Ordering::Relaxed);
        let _ = self.stop.send(true);
        let workers = self.workers;
        let joined = tokio::task::spawn_blocking(move || workers.into_iter().for_each(worker::Handle::join));
        if tokio::time::timeout(self.drain + Duration::from_secs(5), joined)
            .await
            .is_err()
        {
            tracing::error!("a worker did not stop in time");
        }
        let _ = self.stop_control.send(true);
        for task in &self.tasks {
            task.abort();
        }
        if self.registry.is_shared() {
            // Said once, so that nobody looks for a node that stopped in good order.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.registry.forget_node(&self.node_id)).await;
        }
        let unshipped_segments = self.telemetry.drain(SHIP_AT_EXIT).await;
        self.registry.close().await;
        Stopped { unshipped_segments }
    }
}

async fn start_telemetry(
    config: &Config,
    metrics: &Metrics,
    control: tokio::runtime::Handle,
) -> anyhow::Result<Telemetry> {
    let options = TelemetryOptions {
        spool_dir: config.telemetry.spool_dir.clone(),
        seal_after: config.telemetry.seal_after,
        limits: SpoolLimits {
            durability: match config.telemetry.durability {
                config::Durability::Process => Durability::Process,
                config::Durability::Disk => Durability::Disk,
                config::Durability::Relaxed => Durability::Relaxed,
            },
            max_bytes: config.telemetry.spool_max_bytes,
            min_free_bytes: config.telemetry.spool_min_free,
        },
        sink: match &config.telemetry.sink {
            Sink::Sqlite(sqlite) => SinkOptions::Sqlite(sqlite.clone()),
            Sink::ClickHouse(server) => SinkOptions::ClickHouse {
                server: server.clone(),
                node: config.server.node.clone(),
            },
            Sink::None => SinkOptions::None,
        },
        workers: config.server.workers,
        insert_duration: metrics.sink_insert_duration_seconds.clone(),
    };
    // Opening recovers what an earlier run left, which reads files.
    let started = tokio::task::spawn_blocking(move || Telemetry::start(options, control)).await?;
    Ok(started?)
}
