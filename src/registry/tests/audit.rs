use super::upgrade::first_release;
use super::*;
use crate::domain::audit::{START, hex};

/// Five entries, the last three of them about `a`.
async fn logged() -> TestRegistry {
    let registry = TestRegistry::new().await;
    registry.set_protected("staging", true, "eve").await.unwrap();
    registry.prompt_with_versions("a", 1).await;
    registry.deploy("a", "production", all_on(1), None, ADA).await.unwrap();
    registry.set_protected("staging", false, "eve").await.unwrap();
    registry
}

/// What somebody does to the file who gets past the triggers.
async fn tamper(registry: &TestRegistry, statements: &str) {
    let triggers = match registry.database.is_postgres() {
        true => "DROP TRIGGER IF EXISTS audit_is_not_changed ON audit;",
        false => "DROP TRIGGER IF EXISTS audit_is_not_updated; DROP TRIGGER IF EXISTS audit_is_not_deleted;",
    };
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("{triggers} {statements}")))
        .execute(registry.writer().unwrap())
        .await
        .unwrap();
}

/// The entry where the chain breaks, 0 for none.
async fn broken(registry: &TestRegistry, head: Option<&str>) -> i64 {
    let verified = registry.verify_audit(head).await.unwrap();
    verified.broken.map_or(0, |broken| broken.entry)
}

#[tokio::test]
async fn chain_of_untouched_log_verifies_and_gives_its_head() {
    let registry = TestRegistry::new().await;
    let empty = registry.verify_audit(Some(&hex(&START))).await.unwrap();
    assert_eq!((empty.entries, empty.broken), (0, None));
    assert_eq!(empty.head, hex(&START));
    registry.prompt_with_versions("a", 2).await;
    let early = registry.verify_audit(None).await.unwrap();
    assert_eq!(early.entries, 3);
    registry.deploy("a", "production", all_on(1), None, ADA).await.unwrap();
    registry
        .note(ADA.actor, "content.read", "exchanges", json!({"filter": "ä"}))
        .await
        .unwrap();
    let later = registry.verify_audit(Some(&early.head)).await.unwrap();
    assert_eq!(
        (later.entries, later.broken),
        (5, None),
        "an earlier head is in the chain"
    );
    let log = registry.list_audit(&AuditFilter::default(), FIRST).await.unwrap().items;
    assert_eq!(log[0].hash, later.head);
    assert_eq!(log[2].hash, early.head);
}

#[tokio::test]
async fn tampering_shows_and_says_where() {
    for (statements, entry) in [
        ("UPDATE audit SET actor = 'bob' WHERE id = 4", 4),
        ("UPDATE audit SET detail = '{}' WHERE id = 2", 2),
        ("UPDATE audit SET at = at + 1 WHERE id = 5", 5),
        ("UPDATE audit SET environment = 'x' WHERE id = 1", 1),
        ("UPDATE audit SET hash = 'x' WHERE id = 3", 3),
        ("DELETE FROM audit WHERE id = 3", 3),
        (
            "DELETE FROM audit WHERE id = 3; UPDATE audit SET id = id - 1 WHERE id > 3",
            3,
        ),
        ("DELETE FROM audit WHERE id = 1", 1),
        ("DELETE FROM audit WHERE id > 3", 4),
        ("DELETE FROM audit", 1),
        ("UPDATE audit SET id = 6 WHERE id = 5", 5),
        (
            "INSERT INTO audit SELECT 6, at, actor, action, subject, detail, actor_id, token_id, request_id, environment, \
             hash FROM audit WHERE id = 5",
            6,
        ),
        ("UPDATE audit_head SET hash = 'x'", 5),
        ("UPDATE audit_head SET entries = 9", 6),
    ] {
        let registry = logged().await;
        assert_eq!(broken(&registry, None).await, 0);
        tamper(&registry, statements).await;
        assert_eq!(broken(&registry, None).await, entry, "{statements}");
    }
}

/// Whoever rewrites the end and the note of it leaves a whole chain: only a head kept elsewhere tells.
#[tokio::test]
async fn cut_tail_shows_against_a_recorded_head() {
    let registry = logged().await;
    let head = registry.verify_audit(None).await.unwrap().head;
    tamper(
        &registry,
        "DELETE FROM audit WHERE id > 3; \
         UPDATE audit_head SET entries = 3, hash = (SELECT hash FROM audit WHERE id = 3)",
    )
    .await;
    assert_eq!(broken(&registry, None).await, 0);
    assert_eq!(broken(&registry, Some(&head)).await, 4);
    registry.set_protected("staging", true, "eve").await.unwrap();
    assert_eq!(broken(&registry, None).await, 0);
    assert_eq!(broken(&registry, Some(&head)).await, 5, "also after it grew again");
}

#[tokio::test]
async fn database_refuses_to_change_or_delete_entries() {
    let registry = logged().await;
    for statement in [
        "UPDATE audit SET actor = 'bob' WHERE id = 2",
        "DELETE FROM audit WHERE id = 2",
    ] {
        let refused = sqlx::query(statement)
            .execute(registry.writer().unwrap())
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
    assert_eq!(broken(&registry, None).await, 0);
}

#[tokio::test]
async fn log_of_the_first_release_is_chained() {
    let registry = first_release().await;
    let verified = registry.verify_audit(None).await.unwrap();
    assert_eq!((verified.entries, verified.broken), (4, None));
    registry.set_protected("staging", true, "eve").await.unwrap();
    assert_eq!(broken(&registry, Some(&verified.head)).await, 0);
    let filter = AuditFilter {
        environment: "production".to_owned(),
        ..AuditFilter::default()
    };
    let log = registry.list_audit(&filter, FIRST).await.unwrap().items;
    assert_eq!(log.len(), 1, "the old deployment");
}

#[tokio::test]
async fn log_is_filtered_and_ordered() {
    let registry = logged().await;
    registry.prompt_with_versions("a_b", 1).await;
    registry.prompt_with_versions("axb", 1).await;
    let everything = registry.list_audit(&AuditFilter::default(), FIRST).await.unwrap().items;
    let at = |id: i64| everything.iter().find(|e| e.id == id).unwrap().at_us;
    let none = AuditFilter::default;
    for (filter, expected) in [
        (
            AuditFilter {
                actor: "eve".to_owned(),
                ..none()
            },
            vec![5, 1],
        ),
        (
            AuditFilter {
                action: "version.create".to_owned(),
                ..none()
            },
            vec![9, 7, 3],
        ),
        (
            AuditFilter {
                action: "deployment".to_owned(),
                ..none()
            },
            vec![4],
        ),
        (
            AuditFilter {
                action: "deploy".to_owned(),
                ..none()
            },
            vec![],
        ),
        (
            AuditFilter {
                subject: "a".to_owned(),
                ..none()
            },
            vec![4, 3, 2],
        ),
        (
            AuditFilter {
                subject: "a_b".to_owned(),
                ..none()
            },
            vec![7, 6],
        ),
        (
            AuditFilter {
                subject: "a@production".to_owned(),
                ..none()
            },
            vec![4],
        ),
        (
            AuditFilter {
                environment: "staging".to_owned(),
                ..none()
            },
            vec![5, 1],
        ),
        (
            AuditFilter {
                from_us: Some(at(8)),
                ..none()
            },
            vec![9, 8],
        ),
        (
            AuditFilter {
                to_us: Some(at(2)),
                ..none()
            },
            vec![1],
        ),
        (
            AuditFilter {
                actor: "eve".to_owned(),
                environment: "moon".to_owned(),
                ..none()
            },
            vec![],
        ),
    ] {
        let found = registry.list_audit(&filter, FIRST).await.unwrap().items;
        let ids: Vec<i64> = found.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, expected, "{filter:?}");
    }
    let filter = AuditFilter {
        oldest_first: true,
        ..none()
    };
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let page = PageOf {
            limit: 2,
            cursor: cursor.as_deref(),
        };
        let page = registry.list_audit(&filter, page).await.unwrap();
        ids.extend(page.items.iter().map(|entry| entry.id));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(ids, (1..=9).collect::<Vec<i64>>());
}

#[tokio::test]
async fn log_is_read_beside_a_running_gateway_but_not_written() {
    let registry = logged().await;
    let reader = Registry::open_read_only(&registry.database.url).await.unwrap();
    assert_eq!(reader.verify_audit(None).await.unwrap().entries, 5);
    assert!(reader.set_protected("staging", true, "eve").await.is_err());
    registry.set_protected("staging", true, "eve").await.unwrap();
    assert_eq!(reader.verify_audit(None).await.unwrap().entries, 6);
    let nowhere = format!(
        "sqlite:{}",
        registry.database.folder.path().join("nothing.db").display()
    );
    assert!(Registry::open_read_only(&nowhere).await.is_err());
}
