use super::*;

fn new(id: &str) -> NewPrompt {
    NewPrompt {
        id: id.to_owned(),
        description: format!("about {id}"),
        tags: vec!["x".to_owned()],
        owner: String::new(),
    }
}

#[tokio::test]
async fn create_prompt_refuses_bad_and_taken_ids() {
    let registry = TestRegistry::new().await;
    let made = registry.create_prompt(new("support/greet"), "ada").await.unwrap();
    assert_eq!((made.value.latest_version, made.generation), (0, 2));
    assert_eq!(made.value, registry.prompt("support/greet").await.unwrap());
    let again = registry.create_prompt(new("support/greet"), "ada").await;
    assert!(matches!(again, Err(RegistryError::Conflict(_))));
    let bad = registry.create_prompt(new("Support"), "ada").await;
    assert!(matches!(bad, Err(RegistryError::InvalidField { field: "id", .. })));
    let missing = registry.prompt("nope").await;
    assert!(matches!(missing, Err(RegistryError::NotFound(Missing::Prompt(_)))));
}

/// SQLite stores it, PostgreSQL does not.
#[tokio::test]
async fn text_with_the_character_nul_is_stored_or_refused_with_its_name() {
    let registry = TestRegistry::new().await;
    let odd = NewPrompt {
        description: "a\0b".to_owned(),
        ..new("odd")
    };
    let made = registry.create_prompt(odd, "ada").await;
    match registry.database.is_postgres() {
        true => assert!(made.unwrap_err().to_string().contains("NUL")),
        false => assert_eq!(made.unwrap().value.description, "a\0b"),
    }
}

#[tokio::test]
async fn aliases_resolve_and_cannot_be_taken_twice() {
    let registry = TestRegistry::new().await;
    registry.create_prompt(new("a"), "ada").await.unwrap();
    registry.create_prompt(new("b"), "ada").await.unwrap();
    let added = registry.add_alias("a", "Old Name/1", "ada").await.unwrap();
    assert_eq!(registry.prompt("Old Name/1").await.unwrap().id, "a");
    let again = registry.add_alias("a", "Old Name/1", "ada").await.unwrap();
    assert_eq!(again.generation, added.generation, "changes nothing");
    assert_eq!(registry.generation().await.unwrap(), added.generation);
    for (prompt, alias) in [("b", "Old Name/1"), ("b", "a"), ("a", "a")] {
        let taken = registry.add_alias(prompt, alias, "ada").await;
        assert!(matches!(taken, Err(RegistryError::Conflict(_))), "{prompt} {alias}");
    }
    registry.add_alias("b", "taken", "ada").await.unwrap();
    let taken = registry.create_prompt(new("taken"), "ada").await;
    assert!(matches!(taken, Err(RegistryError::Conflict(_))));
    let blank = registry.add_alias("b", " ", "ada").await;
    assert!(matches!(blank, Err(RegistryError::InvalidField { field: "alias", .. })));
}

#[tokio::test]
async fn removing_an_alias_shows_in_the_delta() {
    let registry = TestRegistry::new().await;
    registry.create_prompt(new("a"), "ada").await.unwrap();
    registry.add_alias("a", "one", "ada").await.unwrap();
    let added = registry.add_alias("a", "two", "ada").await.unwrap().generation;
    registry.remove_alias("a", "one", "ada").await.unwrap();
    let delta = registry.changes_since(added).await.unwrap();
    assert_eq!(delta.prompts.len(), 1);
    assert_eq!(delta.prompts[0].aliases, ["two"]);
    let gone = registry.remove_alias("a", "one", "ada").await;
    assert!(matches!(gone, Err(RegistryError::NotFound(Missing::Alias { .. }))));
}

#[tokio::test]
async fn list_prompts_pages_and_filters() {
    let registry = TestRegistry::new().await;
    for id in ["a", "b", "c_d", "cxd"] {
        registry.create_prompt(new(id), "ada").await.unwrap();
    }
    registry.version_of("b", "hello").await;
    registry.deploy("b", "staging", all_on(1), None, ADA).await.unwrap();
    let page = PageOf { limit: 3, cursor: None };
    let first = registry.list_prompts(PromptFilter::default(), page).await.unwrap();
    let ids: Vec<&str> = first.items.iter().map(|item| item.prompt.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c_d"]);
    assert_eq!(first.items[1].prompt.live[0].split, all_on(1));
    let cursor = first.next_cursor.unwrap();
    let page = PageOf {
        limit: 3,
        cursor: Some(&cursor),
    };
    let rest = registry.list_prompts(PromptFilter::default(), page).await.unwrap();
    assert_eq!((rest.items.len(), rest.next_cursor), (1, None));
    for (query, expected) in [("C_D", 1), ("about c", 2), ("%", 0), ("\\", 0), ("", 4)] {
        let filter = PromptFilter {
            query: Some(query),
            ..PromptFilter::default()
        };
        let found = registry.list_prompts(filter, FIRST).await.unwrap();
        assert_eq!(found.items.len(), expected, "{query}");
    }
}

#[tokio::test]
async fn delta_has_what_changed_and_nothing_else() {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 3).await;
    registry.prompt_with_versions("b", 1).await;
    let before = registry
        .deploy("a", "production", all_on(1), None, ADA)
        .await
        .unwrap()
        .generation;
    assert_eq!(registry.changes_since(before).await.unwrap().prompts, []);
    let split = vec![arm("control", 3, 33.33), arm("b", 2, 66.67)];
    registry
        .deploy("a", "production", split.clone(), None, ADA)
        .await
        .unwrap();
    registry.deploy("a", "staging", all_on(2), None, ADA).await.unwrap();

    let delta = registry.changes_since(before).await.unwrap();
    assert_eq!(delta.generation, before + 2);
    assert_eq!(delta.prompts.len(), 1);
    let prompt = &delta.prompts[0];
    assert_eq!((prompt.id.as_str(), prompt.latest_version), ("a", 3));
    let [staging, production] = prompt.live.as_slice() else {
        panic!("{:?}", prompt.live);
    };
    assert_eq!((staging.environment.as_str(), staging.deployment), ("staging", 1));
    assert_eq!(staging.ever_deployed, [2]);
    assert_eq!(
        (production.environment.as_str(), production.deployment),
        ("production", 2)
    );
    assert_eq!(production.split, split);
    assert_eq!(production.ever_deployed, [1, 2, 3]);
    let versions: Vec<u32> = production.contents.iter().map(|(version, _)| *version).collect();
    assert_eq!(versions, [2, 3]);
    let content = registry.content(&prompt.uid, 3).await.unwrap();
    assert_eq!(serde_json::from_str(&production.contents[1].1).ok(), content);

    let all = registry.changes_since(0).await.unwrap();
    assert_eq!(all.prompts.len(), 2);
    assert_eq!(all.prompts[0], *prompt);
    assert_eq!(all.prompts[1].live, []);
    assert_eq!(all.epoch, delta.epoch);
}
