use super::*;

#[tokio::test]
async fn environments_are_labelled_and_put_in_order() {
    let registry = TestRegistry::new().await;
    let first = EnvironmentEdit {
        label: Some("Live".to_owned()),
        position: Some(1),
        settings: EnvironmentUpdate {
            protected: Some(true),
            ..EnvironmentUpdate::default()
        },
    };
    let made = registry
        .edit_environment("production", first, Some(1), ADA)
        .await
        .unwrap();
    assert_eq!(
        (made.value.label.as_str(), made.value.position, made.value.protected),
        ("Live", 1, true)
    );
    let listed = registry.list_environments().await.unwrap();
    let names: Vec<(&str, u32)> = listed.iter().map(|e| (e.name.as_str(), e.position)).collect();
    assert_eq!(names, [("production", 1), ("development", 2), ("staging", 3)]);
    let late = registry
        .edit_environment("production", EnvironmentEdit::default(), Some(1), ADA)
        .await;
    match late {
        Err(RegistryError::Edited(edited)) => assert_eq!(*edited, Edited::Environment(made.value)),
        other => panic!("not refused: {other:?}"),
    }
    let beyond = EnvironmentEdit {
        position: Some(4),
        ..EnvironmentEdit::default()
    };
    let refused = registry.edit_environment("production", beyond, None, ADA).await;
    assert!(matches!(
        refused,
        Err(RegistryError::InvalidField { field: "position", .. })
    ));
}

#[tokio::test]
async fn environment_that_was_used_cannot_be_deleted() {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 1).await;
    registry.deploy("a", "staging", all_on(1), None, ADA).await.unwrap();
    registry
        .take_down("a", "staging", None, Glass::Whole, ADA)
        .await
        .unwrap();
    match registry.delete_environment("staging", ADA).await {
        Err(RegistryError::Conflict(why)) => assert!(why.contains("2 deployments"), "{why}"),
        other => panic!("not refused: {other:?}"),
    }
    let key = NewKey {
        name: "app".to_owned(),
        environment: "production".to_owned(),
        environments: vec!["development".to_owned()],
        models: None,
        raw: true,
        pin: true,
        force_variant: false,
    };
    registry.create_key(key, "ada").await.unwrap();
    for name in ["production", "development"] {
        let refused = registry.delete_environment(name, ADA).await;
        assert!(
            matches!(refused, Err(RegistryError::Conflict(why)) if why.contains("1 keys")),
            "{name}"
        );
    }
    registry.set_protected("canary", false, "ada").await.unwrap();
    registry.delete_environment("canary", ADA).await.unwrap();
    assert!(registry.environment("canary").await.is_err());
}
