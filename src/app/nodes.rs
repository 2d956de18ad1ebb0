//! Reports what this process serves to the registry it shares with others: when that changes, and now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::admin::ThisNode;
use crate::registry::Registry;
use crate::snapshot::Publisher;

/// How often to report if nothing changes; several times within the time after which a node counts as gone.
const EVERY: Duration = Duration::from_secs(5);

/// How long changes are gathered into one report.
const GATHER: Duration = Duration::from_millis(200);

/// How often to look for nodes that are long gone.
const TIDY_EVERY: Duration = Duration::from_secs(3600);

/// Runs for as long as it is polled; ends at once where nobody shares the registry.
pub async fn run(registry: Arc<Registry>, publisher: Arc<Publisher>, node: Arc<ThisNode>) {
    if !registry.is_shared() {
        return;
    }
    let mut generations = publisher.generations();
    let mut tidied: Option<Instant> = None;
    loop {
        generations.mark_unchanged();
        // What goes wrong here goes wrong for whoever follows the registry as well, and is said there.
        let reported = registry.report_node(&node.report(&publisher)).await;
        if reported.is_ok() && tidied.is_none_or(|at| at.elapsed() > TIDY_EVERY) {
            let _ = registry.forget_gone_nodes().await;
            tidied = Some(Instant::now());
        }
        sleep(GATHER).await;
        let _ = timeout(EVERY, generations.changed()).await;
    }
}
