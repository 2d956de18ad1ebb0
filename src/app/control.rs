//! The control listener: the REST API, and the operators' endpoints beside it.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;

use super::gauges::Gauges;
use crate::admin::{self, AdminState, RehearsalSettings, ThisNode};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::snapshot::Publisher;
use crate::telemetry::Store;

/// What the control listener serves.
#[derive(Clone)]
pub struct Plane {
    pub registry: Arc<Registry>,
    pub publisher: Arc<Publisher>,
    pub store: Option<Arc<Store>>,
    pub rehearsal: Arc<RehearsalSettings>,
    pub node: Arc<ThisNode>,
    pub metrics: Arc<Metrics>,
    pub gauges: Arc<Gauges>,
    pub ready: Arc<AtomicBool>,
}

/// Serves until told to stop.
pub async fn serve(listener: TcpListener, plane: Plane, mut stopped: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot serve the control plane"),
    };
    let stop = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let served = axum::serve(listener, router(plane)).with_graceful_shutdown(stop).await;
    if let Err(error) = served {
        tracing::error!(%error, "the control plane ended");
    }
}

fn router(plane: Plane) -> Router {
    let api = admin::router(AdminState {
        registry: Arc::clone(&plane.registry),
        publisher: Arc::clone(&plane.publisher),
        metrics: Arc::clone(&plane.metrics),
        store: plane.store.clone(),
        rehearsal: Arc::clone(&plane.rehearsal),
        node: Arc::clone(&plane.node),
    });
    let operations = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(plane);
    api.merge(operations)
}

async fn metrics(State(plane): State<Plane>) -> impl IntoResponse {
    ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], plane.gauges.render())
}

/// Ready: the table is loaded and we are not stopping. Whether a sink works is no reason to send callers away.
async fn ready(State(plane): State<Plane>) -> impl IntoResponse {
    if plane.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    }
}
