use super::*;
use crate::registry::dump::DumpError;

async fn exported(registry: &Registry) -> Vec<u8> {
    let mut out = Vec::new();
    registry.export(&mut out).await.unwrap();
    out
}

async fn restored(export: &[u8]) -> Result<TestRegistry, DumpError> {
    let registry = TestRegistry::new().await;
    let mut input = export;
    registry.restore(&mut input).await?;
    Ok(registry)
}

/// A registry with rows of many kinds; more than one page of one table.
async fn used() -> TestRegistry {
    let registry = TestRegistry::new().await;
    registry
        .ensure_admin_token(Some("a secret token of the admin"))
        .await
        .unwrap();
    registry.prompt_with_versions("support/a", 1).await;
    registry
}

#[tokio::test]
async fn export_restored_is_exported_to_the_same_bytes() {
    let first = TestRegistry::new().await;
    first
        .ensure_admin_token(Some("a secret token of the admin"))
        .await
        .unwrap();
    first.prompt_with_versions("support/greet", 3).await;
    first.add_alias("support/greet", "pmpt_\"1\"\n", "ada").await.unwrap();
    first.prompt_with_versions("other", 1).await;
    let split = vec![Arm {
        variant: "control".to_owned(),
        version: 2,
        weight: 100.0,
    }];
    first
        .deploy("support/greet", "production", split, None, ADA)
        .await
        .unwrap();
    for number in 0..600 {
        first
            .add_alias("other", &format!("alias {number}"), "ada")
            .await
            .unwrap();
    }
    let export = exported(&first).await;
    let second = restored(&export).await.unwrap();
    assert!(exported(&second).await == export, "the second export differs");
    assert!(
        !String::from_utf8_lossy(&export).contains("a secret token"),
        "a secret is in the export"
    );

    // It goes on where the first one stands, as another lineage.
    let (one, other) = (
        first.changes_since(0).await.unwrap(),
        second.changes_since(0).await.unwrap(),
    );
    assert_eq!(
        (one.generation, &one.prompts, &one.keys),
        (other.generation, &other.prompts, &other.keys)
    );
    assert_ne!(one.epoch, other.epoch);
    assert!(second.verify_audit(None).await.unwrap().broken.is_none());
    assert!(
        second
            .authenticate_token("a secret token of the admin")
            .await
            .unwrap()
            .is_some()
    );
    second.add_alias("other", "one more", "ada").await.unwrap();
    assert!(second.verify_audit(None).await.unwrap().broken.is_none());
}

#[tokio::test]
async fn restore_is_all_or_nothing_and_only_into_an_empty_registry() {
    let export = exported(&*used().await).await;
    let used = used().await;
    let why = used.restore(&mut export.as_slice()).await.unwrap_err();
    assert!(matches!(why, DumpError::NotEmpty { .. }), "{why}");

    let text = String::from_utf8(export).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let cut = lines[..lines.len() - 1].join("\n");
    let changed = text.replacen("support/a", "support/o", 1);
    let longer = format!("{text}{{}}\n");
    let column = text.replacen("\"description\":", "\"desc\":", 1);
    let schema = text.replacen("\"schema\":", "\"schema\":1", 1);
    for (broken, expected) in [
        ("", "the file is empty"),
        ("{}\n", "is not the beginning"),
        (cut.as_str(), "it was cut off"),
        (changed.as_str(), "line "),
        (longer.as_str(), "something behind the last line"),
        (column.as_str(), "has no column \"desc\""),
        (schema.as_str(), "then upgrade"),
    ] {
        let registry = TestRegistry::new().await;
        let why = registry.restore(&mut broken.as_bytes()).await.unwrap_err().to_string();
        assert!(why.contains(expected), "{why}");
        // Nothing of it stayed: the whole file goes in.
        registry.restore(&mut text.as_bytes()).await.unwrap();
    }
}

/// Fails when a migration adds rows to a new registry, or a column that the export must not have.
#[tokio::test]
async fn every_table_of_the_schema_is_covered() {
    use crate::registry::dump::covered;
    let registry = TestRegistry::new().await;
    let mut sql = registry.database.sql().await;
    let catalog = match registry.database.is_postgres() {
        true => "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()",
        false => "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    };
    let all: Vec<(String,)> = sqlx::query_as(catalog).fetch_all(&mut sql).await.unwrap();
    let (mut tables, secrets) = covered(&mut sql).await.unwrap();
    let known = |name: &String| !["migrations", "nodes"].contains(&name.as_str());
    let mut all: Vec<String> = all.into_iter().map(|(name,)| name).filter(known).collect();
    all.sort();
    tables.sort();
    assert!(all.len() > 20 && all == tables, "{all:?} {tables:?}");
    assert_eq!(
        secrets,
        ["meta.pseudonym_key", "users.password_hash", "webhooks.secret"],
        "a column of secrets: is it a hash, or needed as it is?"
    );
    // A new registry can be restored into.
    let export = exported(&registry).await;
    assert!(exported(&restored(&export).await.unwrap()).await == export);
}
