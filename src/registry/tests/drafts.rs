use super::*;

const BEA: Actor<'static> = Actor::named("bea");

fn of<'a>(owner: &'a str, name: &'a str) -> DraftName<'a> {
    DraftName {
        prompt: "a",
        owner,
        name,
    }
}

fn save(text: &str, expected: Option<u32>) -> DraftSave {
    DraftSave {
        content: json!({ "text": text }),
        base_version: None,
        expected,
    }
}

async fn prompt() -> TestRegistry {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 1).await;
    registry
}

/// Two editors saving at once: one gets the other's text; nothing is lost.
#[tokio::test]
async fn of_two_editors_saving_at_once_one_gets_the_others_draft() {
    let registry = prompt().await;
    let first = registry
        .save_draft(of("ada", "x"), save("begun", None), ADA.actor)
        .await
        .unwrap()
        .0;
    let seen = Some(first.value.revision);
    let (ada, bea) = tokio::join!(
        registry.save_draft(of("ada", "x"), save("by ada", seen), ADA.actor),
        registry.save_draft(of("ada", "x"), save("by bea", seen), BEA),
    );
    let (won, refused) = match (ada, bea) {
        (Ok(won), Err(refused)) | (Err(refused), Ok(won)) => (won.0.value, refused),
        other => panic!("{other:?}"),
    };
    match refused {
        RegistryError::Edited(edited) => assert_eq!(*edited, Edited::Draft(won.clone()), "the other's, whole"),
        other => panic!("{other:?}"),
    }
    let merged = registry
        .save_draft(of("ada", "x"), save("both", Some(won.revision)), BEA)
        .await
        .unwrap();
    assert_eq!(
        (merged.0.value.revision, merged.0.value.updated_by.as_str()),
        (3, "bea")
    );
    let blind = registry
        .save_draft(of("ada", "x"), save("blind", None), ADA.actor)
        .await;
    assert!(matches!(blind, Err(RegistryError::Edited(_))));
}

#[tokio::test]
async fn broken_draft_is_kept_with_its_problems_and_cannot_be_committed() {
    let registry = prompt().await;
    let broken = DraftSave {
        content: json!({"messages": [{"role": "nobody", "content": "{% if %}"}], "variables": {"x": {"type": "strin"}}}),
        base_version: None,
        expected: None,
    };
    let (saved, problems) = registry.save_draft(of("ada", "x"), broken, ADA.actor).await.unwrap();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_eq!(registry.draft(of("ada", "x")).await.unwrap(), (saved.value, problems));
    let refused = registry.commit_draft(of("ada", "x"), None, None, ADA).await;
    assert!(matches!(refused, Err(RegistryError::Invalid(problems)) if problems.len() == 3));
    let no_content = DraftSave {
        content: json!({"mesages": []}),
        base_version: None,
        expected: Some(1),
    };
    let (_, problems) = registry
        .save_draft(of("ada", "x"), no_content, ADA.actor)
        .await
        .unwrap();
    assert!(problems[0].message.contains("mesages"), "{problems:?}");
    let list = DraftSave {
        content: json!([]),
        base_version: None,
        expected: Some(2),
    };
    let refused = registry.save_draft(of("ada", "x"), list, ADA.actor).await;
    assert!(matches!(
        refused,
        Err(RegistryError::InvalidField { field: "content", .. })
    ));
}

#[tokio::test]
async fn commit_makes_a_version_unless_somebody_was_quicker() {
    let registry = prompt().await;
    registry
        .save_draft(of("ada", "x"), save("mine", None), ADA.actor)
        .await
        .unwrap();
    registry.version_of("a", "theirs").await;
    let draft = registry.draft(of("ada", "x")).await.unwrap().0;
    assert_eq!((draft.base_version, draft.latest_version), (1, 2));
    match registry.commit_draft(of("ada", "x"), None, None, ADA).await {
        Err(RegistryError::Edited(edited)) => {
            assert!(
                matches!(*edited, Edited::Version(VersionSummary { version: 2, .. })),
                "{edited:?}"
            );
        }
        other => panic!("not told: {other:?}"),
    }
    let made = registry
        .commit_draft(of("ada", "x"), Some(1), Some(2), ADA)
        .await
        .unwrap();
    assert_eq!((made.value.version, made.value.parent), (3, Some(1)));
    let gone = registry.draft(of("ada", "x")).await;
    assert!(matches!(gone, Err(RegistryError::NotFound(Missing::Draft { .. }))));
    let late = registry
        .save_draft(of("ada", "x"), save("late", Some(1)), ADA.actor)
        .await;
    assert!(
        matches!(late, Err(RegistryError::NotFound(Missing::Draft { .. }))),
        "it is told, not begun anew"
    );
    let log = registry.list_audit(&AuditFilter::default(), FIRST).await.unwrap().items;
    let actions: Vec<&str> = log.iter().take(3).map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["draft.commit", "version.create", "version.create"]);
}

#[tokio::test]
async fn drafts_are_listed_deleted_and_bounded() {
    let registry = prompt().await;
    for (owner, name) in [("bea", "x"), ("ada", "y"), ("ada", "x")] {
        registry
            .save_draft(of(owner, name), save("t", None), ADA.actor)
            .await
            .unwrap();
    }
    let page = PageOf { limit: 2, cursor: None };
    let first = registry.list_drafts("a", page).await.unwrap();
    let names = |page: &Page<Draft>| -> Vec<String> {
        page.items
            .iter()
            .map(|draft| format!("{}/{}", draft.owner, draft.name))
            .collect()
    };
    assert_eq!(names(&first), ["ada/x", "ada/y"]);
    let rest = PageOf {
        limit: 2,
        cursor: first.next_cursor.as_deref(),
    };
    assert_eq!(names(&registry.list_drafts("a", rest).await.unwrap()), ["bea/x"]);
    let stale = registry.delete_draft(of("ada", "x"), Some(7), ADA.actor).await;
    assert!(matches!(stale, Err(RegistryError::Edited(_))));
    registry.delete_draft(of("ada", "x"), Some(1), ADA.actor).await.unwrap();
    for at in 0..49 {
        let name = format!("d{at}");
        registry
            .save_draft(of("ada", &name), save("t", None), ADA.actor)
            .await
            .unwrap();
    }
    let full = registry.save_draft(of("ada", "more"), save("t", None), ADA.actor).await;
    assert!(matches!(full, Err(RegistryError::Conflict(_))));
    registry.rename_prompt("a", "b", ADA).await.unwrap();
    assert_eq!(registry.draft(of("bea", "x")).await.unwrap().0.prompt, "b");
}
