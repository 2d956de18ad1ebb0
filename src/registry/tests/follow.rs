//! Following a registry that other processes change, and one that is not what it was.

use std::time::Duration;

use super::*;
use crate::registry::{Heard, Known, Mark, NodeReport};

fn known(delta: &Delta) -> Known {
    Known {
        epoch: delta.epoch.clone(),
        generation: delta.generation,
        mark: delta.mark.clone(),
    }
}

#[tokio::test]
async fn follower_gets_what_changed_and_nothing_twice() {
    let registry = TestRegistry::new().await;
    let first = registry.follow(&Known::default()).await.unwrap().unwrap();
    assert!(first.whole);
    assert_eq!(first.mark, Mark::start());
    assert_eq!(registry.follow(&known(&first)).await.unwrap(), None);
    registry.prompt_with_versions("a", 1).await;
    let second = registry.follow(&known(&first)).await.unwrap().unwrap();
    assert!(!second.whole && second.prompts.len() == 1, "{second:?}");
    registry
        .note(Actor::named("ada"), "refused", "x", json!({}))
        .await
        .unwrap();
    assert_eq!(registry.follow(&known(&second)).await.unwrap(), None, "no generation");
    let text = serde_json::to_string(&second).unwrap();
    assert_eq!(serde_json::from_str::<Delta>(&text).unwrap(), second);
}

/// What a node has of a registry that was put back to a backup since, or that is another one.
#[tokio::test]
async fn other_lineage_is_read_whole_and_raised_above_what_was_served() {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 2).await;
    let backup = registry.changes_since(0).await.unwrap();
    let entries = registry.list_audit(&AuditFilter::default(), FIRST).await.unwrap().items;
    let of_backup = Mark {
        entries: entries[0].id,
        hash: entries[0].hash.clone(),
    };
    assert_eq!(backup.mark, of_backup);

    // It went on for three changes after the backup, which are gone now.
    let lost = Known {
        generation: backup.generation + 3,
        mark: Mark {
            entries: of_backup.entries + 3,
            hash: "0".repeat(64),
        },
        ..known(&backup)
    };
    let whole = registry.follow(&lost).await.unwrap().unwrap();
    assert!(whole.whole && whole.generation < lost.generation);
    registry.raise_above(lost.generation).await.unwrap();
    registry.raise_above(lost.generation).await.unwrap();
    let raised = registry.follow(&lost).await.unwrap().unwrap();
    assert_eq!((raised.whole, raised.generation), (true, lost.generation + 1));
    assert_eq!(registry.follow(&known(&raised)).await.unwrap(), None);

    // As far as the node, but with other changes than it has.
    let other = Known {
        mark: Mark {
            entries: 1,
            hash: "f".repeat(64),
        },
        ..known(&raised)
    };
    assert!(registry.follow(&other).await.unwrap().unwrap().whole);
    let elsewhere = Known {
        epoch: "epoch_other".to_owned(),
        ..known(&raised)
    };
    assert!(registry.follow(&elsewhere).await.unwrap().unwrap().whole);
}

#[tokio::test]
async fn listener_hears_of_changes_once_they_can_be_read() {
    let registry = TestRegistry::new().await;
    let Some(mut listener) = registry.listen().await.unwrap() else {
        assert!(!registry.database.is_postgres());
        return;
    };
    let made = registry.set_protected("staging", true, "ada").await.unwrap();
    assert_eq!(listener.next().await, Heard::Generation(made.generation));
    let refused = registry.set_protected("No Spaces", true, "ada").await;
    assert!(refused.is_err());
    registry
        .execute_for_tests(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
             AND query LIKE 'LISTEN%'"
                .to_owned(),
        )
        .await;
    assert_eq!(listener.next().await, Heard::Silence);
}

#[tokio::test]
async fn nodes_are_listed_as_they_reported_themselves_last() {
    let registry = TestRegistry::new().await;
    let report = |id: &str, generation| NodeReport {
        id: id.to_owned(),
        name: format!("gateway-{id}"),
        version: "1".to_owned(),
        address: "127.0.0.1:8080".to_owned(),
        config_hash: "c".to_owned(),
        started_at_us: 5,
        generation,
        epoch: "e".to_owned(),
        age: Duration::from_secs(3),
    };
    for node in [report("b", 1), report("a", 1), report("b", 2)] {
        registry.report_node(&node).await.unwrap();
    }
    assert_eq!(registry.generation().await.unwrap(), 1, "a report is no change");
    let nodes = registry.nodes().await.unwrap();
    if !registry.database.is_postgres() {
        assert!(nodes.is_empty(), "a file belongs to one process");
        return;
    }
    let seen: Vec<(&str, u64, bool)> = nodes
        .iter()
        .map(|node| (node.report.id.as_str(), node.report.generation, node.is_gone()))
        .collect();
    assert_eq!(seen, [("a", 1, false), ("b", 2, false)]);
    assert!(nodes[0].report.age >= Duration::from_secs(3));
    let later = |seconds: u32| format!("UPDATE nodes SET seen_at = seen_at - {seconds}000000 WHERE id = 'a'");
    registry.execute_for_tests(later(60)).await;
    assert!(registry.nodes().await.unwrap()[0].is_gone());
    registry.forget_gone_nodes().await.unwrap();
    assert_eq!(registry.nodes().await.unwrap().len(), 2);
    registry.execute_for_tests(later(100_000)).await;
    registry.forget_gone_nodes().await.unwrap();
    registry.forget_node("b").await.unwrap();
    assert!(registry.nodes().await.unwrap().is_empty());
}

#[tokio::test]
async fn closed_registry_is_unavailable_until_it_is_reached() {
    let database = TestDatabase::new().await;
    let registry = Registry::closed(&database.url);
    let refused = registry.generation().await.unwrap_err();
    assert!(matches!(refused, RegistryError::Unavailable(_)), "{refused}");
    assert!(
        !format!("{registry:?}").contains(&database.url),
        "it may hold a password"
    );
    registry.connect().await.unwrap();
    assert_eq!(registry.generation().await.unwrap(), 1);
}
