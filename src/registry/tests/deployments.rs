use super::*;

async fn deployed(versions: &[u32]) -> TestRegistry {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 4).await;
    for version in versions {
        deploy(&registry, *version).await;
    }
    registry
}

async fn deploy(registry: &TestRegistry, version: u32) {
    registry
        .deploy("a", "production", all_on(version), None, ADA)
        .await
        .unwrap();
}

/// Rolls back and returns the new deployment's number, the version live then, and where it comes from.
async fn rollback(registry: &TestRegistry, to: Option<u32>) -> Result<(u32, u32, Option<u32>), RegistryError> {
    let made = registry.rollback("a", "production", to, ADA).await?.value;
    assert_eq!(made, registry.deployment("a", "production").await.unwrap());
    assert_eq!(made.kind, DeploymentKind::Rollback);
    Ok((made.number, made.split[0].version, made.rolled_back_to))
}

#[tokio::test]
async fn deploy_is_numbered_per_environment_and_kept() {
    let registry = deployed(&[1, 2]).await;
    let staging = registry.deploy("a", "staging", all_on(3), None, ADA).await.unwrap();
    assert_eq!(staging.value.number, 1);
    assert_eq!(staging.value.generation, staging.generation);
    let history = registry.list_deployments("a", "production", FIRST).await.unwrap().items;
    let seen: Vec<(u32, u32)> = history.iter().map(|d| (d.number, d.split[0].version)).collect();
    assert_eq!(seen, [(2, 2), (1, 1)]);
    assert_eq!((history[0].message.as_str(), history[0].actor.as_str()), ("why", "ada"));
    let nothing = registry.deployment("a", "development").await;
    assert!(matches!(
        nothing,
        Err(RegistryError::NotFound(Missing::NothingLive { .. }))
    ));
}

#[tokio::test]
async fn deploy_refuses_what_is_not_there_or_not_a_split() {
    let registry = deployed(&[]).await;
    let half = vec![arm("control", 1, 50.0)];
    let refused = registry.deploy("a", "production", half, None, ADA).await;
    assert!(matches!(
        refused,
        Err(RegistryError::InvalidField { field: "split", .. })
    ));
    let refused = registry.deploy("a", "production", all_on(9), None, ADA).await;
    assert!(matches!(
        refused,
        Err(RegistryError::NotFound(Missing::Version { version: 9, .. }))
    ));
    let refused = registry.deploy("a", "moon", all_on(1), None, ADA).await;
    assert!(matches!(refused, Err(RegistryError::NotFound(Missing::Environment(_)))));
    let refused = registry.deploy("b", "production", all_on(1), None, ADA).await;
    assert!(matches!(refused, Err(RegistryError::NotFound(Missing::Prompt(_)))));
}

#[tokio::test]
async fn deploy_with_a_stale_expectation_is_refused_with_the_live_one() {
    let registry = deployed(&[1]).await;
    for expected in [0, 2] {
        match registry.deploy("a", "production", all_on(2), Some(expected), ADA).await {
            Err(RegistryError::Stale { current: Some(current) }) => assert_eq!(current.number, 1),
            other => panic!("{other:?}"),
        }
    }
    registry
        .deploy("a", "production", all_on(2), Some(1), ADA)
        .await
        .unwrap();
    registry.deploy("a", "staging", all_on(2), Some(0), ADA).await.unwrap();
    let refused = registry.deploy("a", "development", all_on(2), Some(1), ADA).await;
    assert!(matches!(refused, Err(RegistryError::Stale { current: None })));
}

#[tokio::test]
async fn deploy_to_a_protected_environment_needs_approval_and_rollback_does_not() {
    let registry = deployed(&[1, 2]).await;
    registry.set_protected("production", true, "ada").await.unwrap();
    match registry.deploy("a", "production", all_on(3), None, ADA).await {
        Err(RegistryError::ApprovalRequired { change }) => assert_eq!(
            *change,
            json!({"environment": "production", "message": "why", "deployments": [
                {"prompt": "a", "split": [{"variant": "control", "version": 3, "weight": 100.0}]}]})
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(rollback(&registry, None).await.unwrap(), (3, 1, Some(1)));
}

#[tokio::test]
async fn rollback_goes_back_step_by_step_until_there_is_nothing() {
    let registry = deployed(&[1, 2, 3]).await;
    assert_eq!(rollback(&registry, None).await.unwrap(), (4, 2, Some(2)));
    assert_eq!(rollback(&registry, None).await.unwrap(), (5, 1, Some(1)));
    let error = rollback(&registry, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Conflict(_)));
    assert!(error.to_string().contains("nothing to roll back to"), "{error}");
}

#[tokio::test]
async fn rollback_after_a_new_deployment_skips_what_was_given_up() {
    let registry = deployed(&[1, 2]).await;
    assert_eq!(rollback(&registry, None).await.unwrap(), (3, 1, Some(1)));
    deploy(&registry, 3).await;
    assert_eq!(rollback(&registry, None).await.unwrap(), (5, 1, Some(3)));
}

#[tokio::test]
async fn rollback_to_a_named_deployment_reproduces_it_exactly() {
    let registry = deployed(&[]).await;
    let split = vec![arm("control", 2, 33.33), arm("b", 1, 66.66), arm("c", 2, 0.01)];
    registry
        .deploy("a", "production", split.clone(), None, ADA)
        .await
        .unwrap();
    deploy(&registry, 3).await;
    deploy(&registry, 4).await;
    let made = registry.rollback("a", "production", Some(1), ADA).await.unwrap();
    assert_eq!(made.value.split, split);
    assert_eq!(made.value.rolled_back_to, Some(1));
    let live = &registry.changes_since(made.generation - 1).await.unwrap().prompts[0].live[0];
    assert_eq!(live.split, split);
    assert_eq!(live.ever_deployed, [1, 2, 3, 4]);
}

#[tokio::test]
async fn rollback_to_what_is_live_or_never_was_is_refused() {
    let registry = deployed(&[1, 2]).await;
    assert!(matches!(
        rollback(&registry, Some(2)).await,
        Err(RegistryError::Conflict(_))
    ));
    for number in [0, 3] {
        let refused = rollback(&registry, Some(number)).await;
        assert!(
            matches!(refused, Err(RegistryError::NotFound(Missing::Deployment { .. }))),
            "{number}"
        );
    }
    let refused = registry.rollback("a", "staging", None, ADA).await;
    assert!(matches!(refused, Err(RegistryError::Conflict(_))));
}
