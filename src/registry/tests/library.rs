use super::*;

async fn library() -> TestRegistry {
    let registry = TestRegistry::new().await;
    for (id, owner, tags) in [
        ("support", "", &["top"][..]),
        ("support/eu/de", "ada", &["GDPR"]),
        ("support/greet", "ada", &["top", "gdpr"]),
        ("sales/pitch", "Team Sales", &[]),
    ] {
        let new = NewPrompt {
            id: id.to_owned(),
            description: format!("about {id}"),
            tags: tags.iter().map(ToString::to_string).collect(),
            owner: owner.to_owned(),
        };
        registry.create_prompt(new, "ada").await.unwrap();
    }
    registry
}

impl TestRegistry {
    async fn ids(&self, filter: PromptFilter<'_>) -> Vec<String> {
        let page = self.list_prompts(filter, FIRST).await.unwrap();
        page.items.into_iter().map(|item| item.prompt.id).collect()
    }

    async fn find(&self, text: &str) -> Vec<Listed> {
        let filter = PromptFilter {
            query: Some(text),
            ..PromptFilter::default()
        };
        self.list_prompts(filter, FIRST).await.unwrap().items
    }
}

#[tokio::test]
async fn prompts_are_listed_by_folder_tag_and_owner() {
    let registry = library().await;
    let all = PromptFilter::default();
    let folder = |folder, recursive| PromptFilter {
        folder: Some(folder),
        recursive,
        ..all
    };
    assert_eq!(registry.ids(folder("support/", false)).await, ["support/greet"]);
    assert_eq!(
        registry.ids(folder("support", true)).await,
        ["support/eu/de", "support/greet"]
    );
    assert_eq!(registry.ids(folder("", false)).await, ["support"]);
    assert_eq!(registry.ids(folder("s%", true)).await, [""; 0]);
    let tag = |tag| PromptFilter { tag: Some(tag), ..all };
    assert_eq!(
        registry.ids(tag("gdpr")).await,
        ["support/greet"],
        "whole tags, as written"
    );
    assert_eq!(registry.ids(tag("to")).await, [""; 0]);
    let owner = PromptFilter {
        owner: Some("ada"),
        ..folder("support", true)
    };
    assert_eq!(registry.ids(owner).await, ["support/eu/de", "support/greet"]);
    let ids = registry.prompt_ids("support", Archived::Hidden).await.unwrap();
    assert_eq!(ids, ["support/eu/de", "support/greet"]);
}

#[tokio::test]
async fn search_finds_text_of_latest_and_live_versions_and_says_where() {
    let registry = library().await;
    registry.version_of("support", "Say \"ÄRGER\"\nmit Umtausch").await;
    registry.version_of("support", "second").await;
    registry.version_of("support", "third").await;
    assert!(registry.find("ärger").await.is_empty(), "neither latest nor live");
    registry
        .deploy("support", "staging", all_on(1), None, ADA)
        .await
        .unwrap();
    let found = registry.find("\"ärger\" MIT").await;
    assert_eq!(found.len(), 1);
    let place = found[0].found.clone().unwrap();
    assert_eq!((place.place, place.version), ("version", Some(1)));
    assert_eq!(place.path.as_deref(), Some("messages[0].content"));
    assert_eq!(place.snippet, "Say \"ÄRGER\" mit Umtausch");
    assert!(registry.find("second").await.is_empty());
    assert_eq!(registry.find("third").await.len(), 1);
    assert!(
        registry.find("messages").await.is_empty(),
        "the form of the content is no text"
    );
    registry.add_alias("sales/pitch", "Pmpt_Ü", "ada").await.unwrap();
    for (text, id, place) in [
        ("team SALES", "sales/pitch", "owner"),
        ("pmpt_ü", "sales/pitch", "alias"),
        ("GDPR", "support/eu/de", "tag"),
        ("about sales", "sales/pitch", "description"),
        ("S/PITCH", "sales/pitch", "id"),
    ] {
        let found = registry.find(text).await;
        let hit = found.iter().find(|item| item.prompt.id == id);
        assert_eq!(hit.unwrap().found.as_ref().unwrap().place, place, "{text}");
    }
    let long = "x".repeat(201);
    let filter = PromptFilter {
        query: Some(&long),
        ..PromptFilter::default()
    };
    let refused = registry.list_prompts(filter, FIRST).await;
    assert!(matches!(refused, Err(RegistryError::InvalidField { field: "q", .. })));
}

/// A page is made of several batches when most candidates turn out to be none.
#[tokio::test]
async fn search_pages_through_more_than_a_batch() {
    let registry = TestRegistry::new().await;
    for at in 0..450 {
        let tags = vec![if at % 100 == 0 { "wanted" } else { "Wanted" }.to_owned()];
        let new = NewPrompt {
            id: format!("p{at:03}"),
            tags,
            ..NewPrompt::default()
        };
        registry.create_prompt(new, "ada").await.unwrap();
    }
    let filter = PromptFilter {
        tag: Some("wanted"),
        ..PromptFilter::default()
    };
    let (mut cursor, mut ids) = (None, Vec::new());
    loop {
        let page = PageOf {
            limit: 2,
            cursor: cursor.as_deref(),
        };
        let page = registry.list_prompts(filter, page).await.unwrap();
        ids.extend(page.items.into_iter().map(|item| item.prompt.id));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(ids, ["p000", "p100", "p200", "p300", "p400"]);
}

#[tokio::test]
async fn two_editors_of_a_description_do_not_overwrite_each_other() {
    let registry = library().await;
    let update = |text: &str| PromptUpdate {
        description: Some(text.to_owned()),
        ..PromptUpdate::default()
    };
    let generation = registry.generation().await.unwrap();
    let first = registry
        .update_prompt("support", update("one"), Some(1), ADA)
        .await
        .unwrap();
    assert_eq!((first.value.revision, first.value.tags.len()), (2, 1));
    match registry.update_prompt("support", update("two"), Some(1), ADA).await {
        Err(RegistryError::Edited(edited)) => assert_eq!(*edited, Edited::Prompt(first.value)),
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(
        registry.generation().await.unwrap(),
        generation,
        "requests do not depend on it"
    );
    let log = registry.list_audit(&AuditFilter::default(), FIRST).await.unwrap().items;
    assert_eq!(log[0].action, "prompt.update");
    assert_eq!(log[0].detail["from"]["description"], "about support");
    assert_eq!(log[0].detail["to"]["description"], "one");
    let tags = |tags: &[&str]| PromptUpdate {
        tags: Some(tags.iter().map(ToString::to_string).collect()),
        ..PromptUpdate::default()
    };
    for bad in [
        tags(&[""]),
        tags(&["a", "a"]),
        tags(&["a"; 51]),
        update(&"x".repeat(4_001)),
    ] {
        let refused = registry.update_prompt("support", bad, None, ADA).await;
        assert!(matches!(refused, Err(RegistryError::InvalidField { .. })));
    }
}

#[tokio::test]
async fn archive_hides_a_prompt_and_refuses_it_deployments() {
    let registry = library().await;
    registry.version_of("support", "x").await;
    let put_away = registry.archive_prompt("support", ADA).await.unwrap();
    assert!(put_away.value.archived_at_us.is_some());
    let again = registry.archive_prompt("support", ADA).await.unwrap();
    assert_eq!(again.value, put_away.value);
    let top = |archived| PromptFilter {
        archived,
        folder: Some(""),
        ..PromptFilter::default()
    };
    assert_eq!(registry.ids(top(Archived::Hidden)).await, [""; 0]);
    assert_eq!(registry.ids(top(Archived::Included)).await, ["support"]);
    assert_eq!(registry.ids(top(Archived::Only)).await, ["support"]);
    let refused = registry.deploy("support", "staging", all_on(1), None, ADA).await;
    assert!(matches!(refused, Err(RegistryError::Conflict(why)) if why.contains("archived")));
    let problems = registry
        .problems_of("sales/pitch", text_content("{% include 'prompt:support' %}"))
        .await;
    assert!(problems[0].message.contains("archived"), "{problems:?}");
    registry.restore_prompt("support", ADA).await.unwrap();
    registry
        .deploy("support", "staging", all_on(1), None, ADA)
        .await
        .unwrap();
}

#[tokio::test]
async fn archive_is_refused_with_everything_that_needs_the_prompt() {
    let registry = library().await;
    registry.version_of("support", "deep").await;
    registry
        .version_of("support/greet", "{% include 'prompt:support' %}")
        .await;
    registry
        .version_of("sales/pitch", "{% include 'prompt:support/greet' %}")
        .await;
    registry.archive_prompt("support", ADA).await.unwrap();
    registry.restore_prompt("support", ADA).await.unwrap();
    registry
        .deploy("sales/pitch", "production", all_on(1), None, ADA)
        .await
        .unwrap();
    registry
        .deploy("support", "staging", all_on(1), None, ADA)
        .await
        .unwrap();
    match registry.archive_prompt("support", ADA).await {
        Err(RegistryError::InUse { message, details }) => {
            assert_eq!(
                message,
                "prompt \"support\" is in use: it is frozen into sales/pitch:1, live in \"production\"; its version 1 is \
                 live in \"staging\""
            );
            assert_eq!(
                details["uses"][0],
                json!({"prompt": "sales/pitch", "version": 1, "environment": "production", "kind": "partial"})
            );
            assert_eq!(details["uses"].as_array().unwrap().len(), 2);
        }
        other => panic!("not refused: {other:?}"),
    }
    registry
        .take_down("support", "staging", None, Glass::Whole, ADA)
        .await
        .unwrap();
    registry
        .take_down("sales/pitch", "production", None, Glass::Whole, ADA)
        .await
        .unwrap();
    registry.archive_prompt("support", ADA).await.unwrap();
}
