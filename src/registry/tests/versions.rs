use super::*;

const GREET: &str = "support/greet";
const TONE: &str = "support/tone";

async fn with_tone() -> TestRegistry {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions(GREET, 0).await;
    registry.prompt_with_versions(TONE, 0).await;
    registry.version_of(TONE, "Be kind.").await;
    registry
}

#[tokio::test]
async fn versions_are_numbered_stored_and_listed() {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 2).await;
    let short = content(json!({"text": "Hi {{ name }}", "notes": "x", "parameters": {"top_p": null}}));
    let made = registry.create_version("a", short.clone(), ADA).await.unwrap();
    assert_eq!((made.value.version, made.generation), (3, 5));
    let version = registry.version("a", 3).await.unwrap();
    assert_eq!(version.source, short);
    assert_eq!(
        version.content.messages,
        [json!({"role": "user", "content": "Hi {{ name }}"})]
    );
    assert_eq!(version.content.text, None);
    assert_eq!(version.summary, made.value);
    assert_eq!(version.summary.hash, version.content.hash());
    let uid = registry.changes_since(0).await.unwrap().prompts[0].uid.clone();
    assert_eq!(registry.content(&uid, 3).await.unwrap(), Some(version.content));
    assert_eq!(registry.content(&uid, 4).await.unwrap(), None);
    let listed = registry.list_versions("a", FIRST).await.unwrap();
    let numbers: Vec<u32> = listed.items.iter().map(|v| v.version).collect();
    assert_eq!(numbers, [3, 2, 1]);
    let missing = registry.version("a", 9).await;
    assert!(matches!(
        missing,
        Err(RegistryError::NotFound(Missing::Version { version: 9, .. }))
    ));
}

#[tokio::test]
async fn versions_made_at_the_same_time_get_numbers_without_gaps() {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 0).await;
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..20 {
        let registry = registry.registry.clone();
        tasks.spawn(async move {
            let made = registry
                .create_version("a", text_content(&format!("{at}")), ADA)
                .await
                .unwrap();
            (made.value.version, made.generation)
        });
    }
    let mut made = tasks.join_all().await;
    made.sort_unstable();
    let expected: Vec<(u32, u64)> = (1..=20).map(|version| (version, u64::from(version) + 2)).collect();
    assert_eq!(made, expected);
}

#[tokio::test]
async fn versions_without_message_prompt_or_valid_content_are_refused() {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 0).await;
    let blank = By {
        actor: Actor::named("ada"),
        message: " ",
    };
    let refused = registry.create_version("a", text_content("x"), blank).await;
    assert!(matches!(
        refused,
        Err(RegistryError::InvalidField { field: "message", .. })
    ));
    let refused = registry.create_version("b", text_content("x"), ADA).await;
    assert!(matches!(refused, Err(RegistryError::NotFound(Missing::Prompt(_)))));
    let problems = registry.problems_of("a", Content::default()).await;
    assert_eq!(problems[0].path, "content");
    assert_eq!(registry.prompt("a").await.unwrap().latest_version, 0);
}

#[tokio::test]
async fn partials_are_frozen_at_their_latest_version() {
    let registry = with_tone().await;
    let first = registry
        .version_of(GREET, "Hi. {% include 'prompt:support/tone' %}")
        .await;
    registry.version_of(TONE, "Be rude.").await;
    let version = registry.version(GREET, first.value.version).await.unwrap();
    assert_eq!(
        version.content.messages[0]["content"],
        "Hi. {% include 'prompt:support/tone:1' %}"
    );
    assert_eq!(version.content.partials["prompt:support/tone:1"], "Be kind.");
    assert_eq!(
        version.source.messages[0]["content"],
        "Hi. {% include 'prompt:support/tone' %}"
    );
    let name = |prompt: &str, version| VersionName {
        prompt: prompt.to_owned(),
        version,
    };
    assert_eq!(version.uses, [name(TONE, 1)]);
    assert_eq!(registry.version(TONE, 1).await.unwrap().used_by, [name(GREET, 1)]);
    assert_eq!(registry.version(TONE, 2).await.unwrap().used_by, []);

    let second = registry
        .version_of(GREET, "Hi. {% include 'prompt:support/tone' %}")
        .await;
    assert_ne!(first.value.hash, second.value.hash, "same source, other effective text");
    let back = text_content("Hi. {% include 'prompt:support/tone:1' %}");
    match registry.create_version(GREET, back, ADA).await {
        Err(RegistryError::InUse { details, .. }) => assert_eq!(details["version"], 1, "same effective text"),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn partials_bring_their_own_partials() {
    let registry = with_tone().await;
    registry.prompt_with_versions("mid", 0).await;
    registry.add_alias("mid", "Imported:Mid", "ada").await.unwrap();
    registry
        .version_of("mid", "[{% include \"prompt:support/tone\" %}]")
        .await;
    let parts = content(json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "{% include \"prompt:Imported:Mid\" %}{% include \"prompt:support/tone\" %}"},
    ]}]}));
    let made = registry.create_version(GREET, parts, ADA).await.unwrap();
    let version = registry.version(GREET, made.value.version).await.unwrap();
    assert_eq!(
        version.content.messages[0]["content"][0]["text"],
        "{% include \"prompt:mid:1\" %}{% include \"prompt:support/tone:1\" %}"
    );
    assert_eq!(
        serde_json::Value::Object(version.content.partials),
        json!({
            "prompt:mid:1": "[{% include \"prompt:support/tone:1\" %}]",
            "prompt:support/tone:1": "Be kind.",
        })
    );
    assert_eq!(version.uses.len(), 2);
}

#[tokio::test]
async fn partials_that_cannot_be_included_are_problems_with_their_place() {
    let registry = with_tone().await;
    registry.prompt_with_versions("empty", 0).await;
    registry.prompt_with_versions("two", 0).await;
    let two = content(json!({"messages": [
        {"role": "system", "content": "a"}, {"role": "user", "content": "b"},
    ]}));
    registry.create_version("two", two, ADA).await.unwrap();
    let before = registry.generation().await.unwrap();
    for (tag, message) in [
        ("{% include 'prompt:nope' %}", "the partial \"nope\" does not exist"),
        (
            "{% include 'prompt:support/tone:7' %}",
            "the partial \"support/tone\" has no version 7",
        ),
        (
            "{% include 'prompt:support/tone:0' %}",
            "the partial \"support/tone\" has no version 0",
        ),
        (
            "{% include 'prompt:empty' %}",
            "the partial \"empty\" has no version yet",
        ),
        (
            "{% include 'prompt:support/greet' %}",
            "prompt \"support/greet\" includes itself",
        ),
        ("{% include 'prompt:two' %}", "only a prompt of exactly one message"),
        (
            "{% include name %}",
            "includes from disk or computed names are not available",
        ),
    ] {
        let body = content(json!({"messages": [{"placeholder": "history"}, {"role": "user", "content": tag}]}));
        let problems = registry.problems_of(GREET, body).await;
        assert_eq!(problems.len(), 1, "{tag}");
        assert_eq!(problems[0].path, "messages[1].content", "{tag}");
        assert!(problems[0].message.contains(message), "{tag}: {}", problems[0].message);
    }
    let all = registry
        .problems_of(GREET, text_content("{% include 'prompt:x' %}{% include 'prompt:y' %}"))
        .await;
    assert_eq!(all.len(), 2);
    assert_eq!(registry.generation().await.unwrap(), before, "nothing is stored");
    assert_eq!(registry.prompt(GREET).await.unwrap().latest_version, 0);
}

#[tokio::test]
async fn partials_given_by_the_caller_are_refused() {
    let registry = with_tone().await;
    let mut body = text_content("x");
    body.partials.insert("prompt:support/tone:1".to_owned(), json!("mine"));
    let problems = registry.problems_of(GREET, body).await;
    assert!(problems[0].message.contains("partials are frozen"));
}

#[tokio::test]
async fn effective_content_is_bounded() {
    let registry = TestRegistry::new().await;
    for id in ["big/1", "big/2", "big/3", "sum"] {
        registry.prompt_with_versions(id, 0).await;
    }
    for id in ["big/1", "big/2", "big/3"] {
        registry.version_of(id, &"x".repeat(1_500_000)).await;
    }
    let sum = "{% include 'prompt:big/1' %}{% include 'prompt:big/2' %}{% include 'prompt:big/3' %}";
    let problems = registry.problems_of("sum", text_content(sum)).await;
    assert!(problems[0].message.contains("at most 4194304"), "{problems:?}");
}
