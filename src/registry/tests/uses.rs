use super::*;

async fn with_tone() -> TestRegistry {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("tone", 1).await;
    registry.prompt_with_versions("greet", 0).await;
    registry.version_of("greet", "{% include 'prompt:tone' %} Hi").await;
    registry
        .version_of("greet", "{% include 'prompt:tone:1' %} pinned")
        .await;
    registry
}

#[tokio::test]
async fn uses_are_told_both_ways_with_where_they_are_live() {
    let registry = with_tone().await;
    registry
        .deploy("greet", "production", all_on(1), None, ADA)
        .await
        .unwrap();
    registry.version_of("tone", "new").await;
    let uses = registry.list_uses("greet", FIRST).await.unwrap().items;
    let versions: Vec<u32> = uses.iter().map(|uses| uses.version).collect();
    assert_eq!(versions, [2, 1]);
    assert_eq!(
        uses[1].uses,
        [Included {
            prompt: "tone".to_owned(),
            version: 1,
            latest: 2
        }]
    );
    let one = PageOf { limit: 1, cursor: None };
    let first = registry.list_used_by("tone", one).await.unwrap();
    assert_eq!(
        (first.items[0].version, &first.items[0].live[..]),
        (1, &["production".to_owned()][..])
    );
    let next = PageOf {
        limit: 1,
        cursor: first.next_cursor.as_deref(),
    };
    let second = registry.list_used_by("tone", next).await.unwrap();
    assert_eq!((second.items[0].version, second.items[0].live.len()), (2, 0));
    assert_eq!(second.next_cursor, None);
}

#[tokio::test]
async fn newer_partial_is_offered_and_never_slipped_in() {
    let registry = with_tone().await;
    registry
        .deploy("greet", "production", all_on(1), None, ADA)
        .await
        .unwrap();
    assert_eq!(registry.list_updates("greet").await.unwrap(), []);
    let before = registry.version("greet", 1).await.unwrap();
    registry.version_of("tone", "tone 2").await;
    assert_eq!(registry.version("greet", 1).await.unwrap().content, before.content);

    let updates = registry.list_updates("greet").await.unwrap();
    assert_eq!(updates.len(), 1, "what names its version wants it so: {updates:?}");
    assert_eq!(
        (updates[0].version, &updates[0].live[..]),
        (1, &["production".to_owned()][..])
    );
    let written = updates[0].outcome.as_ref().unwrap().to_string();
    assert!(written.contains("- prompt:tone:1\n    tone 1"), "{written}");
    assert!(written.contains("+ prompt:tone:2\n    tone 2"), "{written}");

    let made = registry.refresh_version("greet", 1, ADA).await.unwrap().value;
    assert_eq!((made.version, made.parent), (3, Some(1)));
    let version = registry.version("greet", 3).await.unwrap();
    assert_eq!(version.source, before.source);
    assert_eq!(version.uses[0].version, 2);
    match registry.refresh_version("greet", 1, ADA).await {
        Err(RegistryError::InUse { details, .. }) => assert_eq!(details["version"], 3),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn identical_content_is_refused_with_its_twin() {
    let registry = with_tone().await;
    registry.version_of("tone", "tone 2").await;
    let text = json!({"text": "tone 1", "notes": "another note"});
    match registry.create_version("tone", content(text), ADA).await {
        Err(RegistryError::InUse { message, details }) => {
            assert_eq!(
                message,
                "version 1 of prompt \"tone\" has the same content: use that one"
            );
            assert_eq!(details["version"], 1);
        }
        other => panic!("not refused: {other:?}"),
    }
}
