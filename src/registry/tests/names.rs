use super::*;

/// A prompt that is live, has an alias, a draft and a partial, and is a partial itself.
async fn entangled() -> TestRegistry {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("tone", 1).await;
    registry.prompt_with_versions("a", 1).await;
    registry.version_of("a", "{% include 'prompt:tone' %}").await;
    registry.prompt_with_versions("outer", 0).await;
    registry.version_of("outer", "{% include 'prompt:a' %}!").await;
    registry.add_alias("a", "Old Name", "ada").await.unwrap();
    registry.deploy("a", "production", all_on(1), None, ADA).await.unwrap();
    registry.deploy("a", "production", all_on(2), None, ADA).await.unwrap();
    registry.deploy("outer", "staging", all_on(1), None, ADA).await.unwrap();
    registry
}

#[tokio::test]
async fn rename_takes_everything_along_and_changes_no_text() {
    let registry = entangled().await;
    let before = registry.version("a", 2).await.unwrap();
    let outer = registry.version("outer", 1).await.unwrap();
    let generation = registry.generation().await.unwrap();
    let renamed = registry.rename_prompt("Old Name", "team/a", ADA).await.unwrap();
    assert_eq!(renamed.generation, generation + 1);
    assert_eq!(renamed.value.id, "team/a");
    assert_eq!(renamed.value.aliases, ["Old Name", "a"]);
    for name in ["a", "Old Name", "team/a"] {
        assert_eq!(registry.prompt(name).await.unwrap(), renamed.value, "{name}");
    }
    let after = registry.version("a", 2).await.unwrap();
    assert_eq!(
        (after.content, after.summary.hash),
        (before.content, before.summary.hash)
    );
    assert_eq!(after.uses[0].prompt, "tone");
    let again = registry.version("outer", 1).await.unwrap();
    assert_eq!(again.content, outer.content, "frozen names stay, too");
    assert_eq!(again.uses[0].prompt, "team/a");
    let history = registry.list_deployments("a", "production", FIRST).await.unwrap().items;
    assert_eq!(history.len(), 2);
    let back = registry.rollback("a", "production", None, ADA).await.unwrap();
    assert_eq!((back.value.number, back.value.rolled_back_to), (3, Some(1)));
    let more = registry.version_of("outer", "{% include 'prompt:a' %}?").await;
    assert_eq!(
        registry.version("outer", more.value.version).await.unwrap().uses[0].prompt,
        "team/a"
    );
}

#[tokio::test]
async fn rename_keeps_uid_and_salt_for_the_snapshot() {
    let registry = entangled().await;
    let find = |delta: Delta, id: &str| delta.prompts.into_iter().find(|prompt| prompt.id == id).unwrap();
    let before = find(registry.changes_since(0).await.unwrap(), "a");
    let generation = registry.generation().await.unwrap();
    registry.rename_prompt("a", "b", ADA).await.unwrap();
    let delta = registry.changes_since(generation).await.unwrap();
    assert!(delta.retired_names.is_empty());
    assert_eq!(delta.prompts.len(), 1);
    let after = find(delta, "b");
    assert_eq!((&after.uid, after.salt_id.as_str()), (&before.uid, "a"));
    assert_eq!(after.live, before.live);
    registry.remove_alias("b", "a", "ada").await.unwrap();
    let delta = registry.changes_since(generation).await.unwrap();
    assert_eq!(delta.retired_names, ["a"]);
    registry.prompt_with_versions("a", 1).await;
    let new = find(registry.changes_since(generation).await.unwrap(), "a");
    assert_ne!(new.uid, before.uid);
}

#[tokio::test]
async fn rename_there_and_back_and_refusals() {
    let registry = entangled().await;
    registry.rename_prompt("a", "b", ADA).await.unwrap();
    let back = registry.rename_prompt("b", "a", ADA).await.unwrap().value;
    assert_eq!(
        (back.id.as_str(), back.aliases),
        ("a", vec!["Old Name".to_owned(), "b".to_owned()])
    );
    for (to, field) in [("Bad", "to"), ("a/diff", "to")] {
        let refused = registry.rename_prompt("a", to, ADA).await;
        assert!(
            matches!(refused, Err(RegistryError::InvalidField { field: named, .. }) if named == field),
            "{to}"
        );
    }
    for to in ["a", "outer"] {
        let refused = registry.rename_prompt("a", to, ADA).await;
        assert!(matches!(refused, Err(RegistryError::Conflict(_))), "{to}");
    }
    let refused = registry.rename_prompt("outer", "b", ADA).await;
    assert!(
        matches!(refused, Err(RegistryError::Conflict(_))),
        "an alias of another"
    );
    let silent = By { message: " ", ..ADA };
    let refused = registry.rename_prompt("a", "c", silent).await;
    assert!(matches!(
        refused,
        Err(RegistryError::InvalidField { field: "message", .. })
    ));
}

/// The name in a frozen text outlives the prompt that had it.
#[tokio::test]
async fn two_texts_of_one_frozen_name_are_refused() {
    let registry = entangled().await;
    registry.rename_prompt("tone", "voice", ADA).await.unwrap();
    registry.remove_alias("voice", "tone", "ada").await.unwrap();
    registry.prompt_with_versions("tone", 0).await;
    registry.version_of("tone", "Be rude.").await;
    let both = text_content("{% include 'prompt:a' %}{% include 'prompt:tone' %}");
    let problems = registry.problems_of("outer", both).await;
    assert!(problems[0].message.contains("two different texts"), "{problems:?}");
}

/// A column or a table that a later migration adds must not be left behind by a rename.
#[tokio::test]
async fn rename_knows_every_column_and_table_of_a_prompt() {
    let registry = entangled().await;
    let columns = match registry.database.is_postgres() {
        true => {
            "SELECT table_name::TEXT, column_name::TEXT FROM information_schema.columns WHERE table_schema = 'public'"
        }
        false => "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'",
    };
    let columns = sqlx::query_as(columns).fetch_all(registry.reader().unwrap());
    let tables: Vec<(String, String)> = columns.await.unwrap();
    let moves = crate::registry::names::MOVES.join("; ");
    for (table, column) in &tables {
        if ["prompts", "versions", "deployments"].contains(&table.as_str()) {
            let insert = moves
                .split("; ")
                .find(|sql| sql.starts_with(&format!("INSERT INTO {table} (")))
                .unwrap();
            assert!(insert.matches(column.as_str()).count() >= 1, "{table}.{column}");
        } else if column == "prompt_id" {
            assert!(moves.contains(&format!("UPDATE {table} SET prompt_id")), "{table}");
        }
    }
    let of_prompts = tables.iter().filter(|(_, column)| column == "prompt_id").count();
    assert!(of_prompts >= 8, "{of_prompts}");
}
