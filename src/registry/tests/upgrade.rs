//! A database of the first release opens, and everything in it goes on working.

use sqlx::Connection;

use super::*;
use crate::registry::secret::digest_hex;

const FIRST_SCHEMA: &str = include_str!("../migrations/0001_init.sql");

/// What the first release would have left: a token, a prompt that is live, and an audit log.
const FIRST_ROWS: &str = "
CREATE TABLE migrations (number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL);
INSERT INTO migrations VALUES (1, '0001_init', 1);
INSERT INTO meta (id, epoch, generation) VALUES (1, 'epoch_1', 4);
INSERT INTO prompts VALUES ('support/greet', '', '[]', 10, 'bootstrap', 4);
INSERT INTO versions VALUES ('support/greet', 1,
    '{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}', '{\"text\":\"hi\"}', 'h', 'first', 'bootstrap', 11);
INSERT INTO deployments VALUES ('support/greet', 'production', 1,
    '[{\"variant\":\"control\",\"version\":1,\"weight\":100.0}]', 'go', 'bootstrap', 12, 'deploy', NULL, 4);
INSERT INTO live VALUES ('support/greet', 'production', 1);
INSERT INTO deployed_versions VALUES ('support/greet', 'production', 1, 1);
INSERT INTO audit VALUES (1, 9, 'promptgate', 'token.set', 'bootstrap', '{\"role\":\"admin\",\"generated\":false}');
INSERT INTO audit VALUES (2, 10, 'bootstrap', 'prompt.create', 'support/greet', '{\"description\":\"\",\"tags\":[]}');
INSERT INTO audit VALUES (3, 11, 'bootstrap', 'version.create', 'support/greet:1', '{\"hash\":\"h\",\"message\":\"first\"}');
INSERT INTO audit VALUES (4, 12, 'bootstrap', 'deployment.deploy', 'support/greet@production',
    '{\"from\":null,\"to\":{\"deployment\":1,\"split\":[{\"variant\":\"control\",\"version\":1,\"weight\":100.0}]}}');
";

/// Opens a database of the first release.
pub(super) async fn first_release() -> TestRegistry {
    let database = TestDatabase::new().await;
    let mut sql = database.sql().await;
    sqlx::raw_sql(FIRST_SCHEMA).execute(&mut sql).await.unwrap();
    sqlx::raw_sql(FIRST_ROWS).execute(&mut sql).await.unwrap();
    sqlx::query("INSERT INTO tokens VALUES ('tok_1', 'bootstrap', $1, 'admin', 9)")
        .bind(digest_hex("old token"))
        .execute(&mut sql)
        .await
        .unwrap();
    sql.close().await.unwrap();
    let registry = Registry::open(&database.url).await.unwrap();
    TestRegistry { registry, database }
}

#[tokio::test]
async fn database_of_the_first_release_is_upgraded() {
    let registry = first_release().await;
    let caller = registry.authenticate_token("old token").await.unwrap().unwrap();
    assert_eq!((caller.user.as_str(), caller.token_id.as_str()), ("admin", "tok_1"));
    assert_eq!(caller.grants, [Grant::everywhere(Role::Admin)]);
    assert_eq!(registry.ensure_admin_token(Some("old token")).await.unwrap(), None);
    assert_eq!(registry.ensure_admin_token(None).await.unwrap(), None);

    let version = registry.version("support/greet", 1).await.unwrap();
    assert_eq!(version.summary.author, "admin", "the same person as the token's user");
    let live = registry.deployment("support/greet", "production").await.unwrap();
    assert_eq!((live.number, live.actor.as_str()), (1, "admin"));
    let log = registry.list_audit(&AuditFilter::default(), FIRST).await.unwrap().items;
    assert_eq!(log.len(), 4, "the upgrade is no act of anybody");
    assert_eq!(log[0].actor, "bootstrap", "the log stays as it was written");
}
