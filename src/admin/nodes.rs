//! `/nodes`: the processes that serve this registry, and how far each is.

use std::time::Duration;

use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::{Call, found, time};
use super::errors::Failure;
use crate::domain::role::{Permission, Scope};
use crate::registry::{Node, NodeReport};
use crate::snapshot::Publisher;

/// Who this process is.
#[derive(Debug, Clone, Default)]
pub struct ThisNode {
    /// Of this run.
    pub id: String,
    pub name: String,
    pub version: String,
    /// Where applications reach it.
    pub address: String,
    /// Microseconds since the Unix epoch.
    pub started_at_us: i64,
}

impl ThisNode {
    /// Says what this process serves.
    pub fn report(&self, publisher: &Publisher) -> NodeReport {
        let (epoch, config_hash) = publisher.origin();
        NodeReport {
            id: self.id.clone(),
            name: self.name.clone(),
            version: self.version.clone(),
            address: self.address.clone(),
            config_hash: config_hash.to_string(),
            started_at_us: self.started_at_us,
            generation: publisher.generation(),
            epoch: epoch.to_string(),
            age: publisher.age(),
        }
    }
}

/// `lag` is 0 and 0 for a node that serves the newest; else the seconds are at most how long it has not.
fn view(node: &Node, newest: u64, this: &str) -> Value {
    let report = &node.report;
    let behind = newest.saturating_sub(report.generation);
    let age = report.age.as_secs_f64();
    let state = match (node.is_gone(), behind) {
        (true, _) => "gone",
        (false, 0) => "current",
        (false, _) => "behind",
    };
    json!({
        "id": report.id,
        "name": report.name,
        "version": report.version,
        "address": report.address,
        "config_hash": report.config_hash,
        "started_at": time(report.started_at_us),
        "seen_at": time(Timestamp::now().as_microsecond() - node.seen.as_micros() as i64),
        "generation": report.generation,
        "lag": {"generations": behind, "seconds": if behind == 0 { 0.0 } else { age }},
        "snapshot_age_seconds": age,
        "state": state,
        "this": report.id == this,
    })
}

/// `GET /nodes`: by name; only this process where the registry is a file.
pub async fn list(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let (registry, publisher, this) = (call.registry(), call.publisher(), call.this_node());
    let mut nodes = registry.nodes().await?;
    // What this process says of itself needs no report.
    let own = Node {
        report: this.report(publisher),
        seen: Duration::ZERO,
    };
    nodes.retain(|node| node.report.id != this.id);
    nodes.insert(0, own);
    nodes.sort_by(|one, other| one.report.name.cmp(&other.report.name));
    let newest = registry.generation().await?;
    let items: Vec<Value> = nodes.iter().map(|node| view(node, newest, &this.id)).collect();
    let kind = if registry.is_shared() { "postgresql" } else { "sqlite" };
    Ok(found(json!({
        "items": items,
        "generation": newest,
        "registry": {"kind": kind, "reachable": publisher.is_up()},
    })))
}
