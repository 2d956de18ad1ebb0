use super::*;

fn target(prompt: &str, version: u32) -> Target {
    Target {
        prompt: prompt.to_owned(),
        split: all_on(version),
        expected: None,
    }
}

async fn two() -> TestRegistry {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 2).await;
    registry.prompt_with_versions("b", 2).await;
    registry
}

#[tokio::test]
async fn several_prompts_go_live_in_one_generation_or_none_does() {
    let registry = two().await;
    let before = registry.generation().await.unwrap();
    for bad in [
        vec![target("a", 1), target("b", 9)],
        vec![target("a", 1), target("a", 2)],
        vec![],
    ] {
        assert!(
            registry
                .deploy_together("production", bad, Glass::Whole, ADA)
                .await
                .is_err()
        );
    }
    assert_eq!(registry.generation().await.unwrap(), before);
    assert!(registry.deployment("a", "production").await.is_err());
    let targets = vec![target("a", 1), target("b", 2)];
    let made = registry
        .deploy_together("production", targets.clone(), Glass::Whole, ADA)
        .await
        .unwrap();
    assert_eq!((made.generation, made.value.len()), (before + 1, 2));
    let delta = registry.changes_since(before).await.unwrap();
    assert_eq!((delta.generation, delta.prompts.len()), (before + 1, 2));
    let stale = Target {
        expected: Some(0),
        ..target("b", 1)
    };
    let refused = registry
        .deploy_together("production", vec![target("a", 2), stale], Glass::Whole, ADA)
        .await;
    assert!(matches!(refused, Err(RegistryError::Stale { .. })));
    registry.set_protected("production", true, "ada").await.unwrap();
    match registry.deploy_together("production", targets, Glass::Whole, ADA).await {
        Err(RegistryError::ApprovalRequired { change }) => assert_eq!(change["deployments"][1]["prompt"], "b"),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn promotion_copies_the_split_through_the_same_gate() {
    let registry = two().await;
    let split = vec![arm("control", 1, 80.0), arm("b", 2, 20.0)];
    let nothing = registry
        .promote("a", ("staging", "production"), None, Glass::Whole, ADA)
        .await;
    assert!(matches!(
        nothing,
        Err(RegistryError::NotFound(Missing::NothingLive { .. }))
    ));
    registry.deploy("a", "staging", split.clone(), None, ADA).await.unwrap();
    let made = registry
        .promote("a", ("staging", "production"), Some(0), Glass::Whole, ADA)
        .await
        .unwrap()
        .value;
    assert_eq!(
        (made.environment.as_str(), &made.split, made.number),
        ("production", &split, 1)
    );
    let again = registry
        .promote("a", ("staging", "production"), None, Glass::Whole, ADA)
        .await;
    assert!(matches!(again, Err(RegistryError::Conflict(_))));
    registry.deploy("a", "staging", all_on(2), None, ADA).await.unwrap();
    let stale = registry
        .promote("a", ("staging", "production"), Some(0), Glass::Whole, ADA)
        .await;
    assert!(matches!(stale, Err(RegistryError::Stale { .. })));
    registry.set_protected("production", true, "ada").await.unwrap();
    let refused = registry
        .promote("a", ("staging", "production"), None, Glass::Whole, ADA)
        .await;
    assert!(matches!(refused, Err(RegistryError::ApprovalRequired { .. })));
    let silent = By { message: "", ..ADA };
    let refused = registry
        .promote("a", ("staging", "production"), None, Glass::Broken, silent)
        .await;
    assert!(matches!(
        refused,
        Err(RegistryError::InvalidField { field: "message", .. })
    ));
    let broken = registry
        .promote("a", ("staging", "production"), None, Glass::Broken, ADA)
        .await
        .unwrap();
    assert!(broken.value.break_glass);
}

#[tokio::test]
async fn taken_off_prompt_has_nothing_live_and_comes_back_by_rollback() {
    let registry = two().await;
    registry.deploy("a", "production", all_on(1), None, ADA).await.unwrap();
    let off = registry
        .take_down("a", "production", Some(1), Glass::Whole, ADA)
        .await
        .unwrap();
    assert_eq!((off.value.number, off.value.kind), (2, DeploymentKind::TakeDown));
    let live = registry.deployment("a", "production").await;
    assert!(matches!(
        live,
        Err(RegistryError::NotFound(Missing::NothingLive { .. }))
    ));
    assert_eq!(registry.prompt("a").await.unwrap().live, []);
    let delta = registry.changes_since(off.generation - 1).await.unwrap();
    assert_eq!(delta.prompts[0].live[0].split, []);
    assert_eq!(delta.prompts[0].live[0].ever_deployed, [1]);
    let again = registry.take_down("a", "production", None, Glass::Whole, ADA).await;
    assert!(matches!(again, Err(RegistryError::NotFound(_))));
    let back = registry.rollback("a", "production", None, ADA).await.unwrap().value;
    assert_eq!((back.number, back.rolled_back_to), (3, Some(1)));
    let to_nothing = registry.rollback("a", "production", Some(2), ADA).await;
    assert!(matches!(to_nothing, Err(RegistryError::Conflict(_))));
    registry
        .take_down("a", "production", None, Glass::Whole, ADA)
        .await
        .unwrap();
    registry
        .deploy("a", "production", all_on(2), Some(0), ADA)
        .await
        .unwrap();
    let back = registry.rollback("a", "production", None, ADA).await.unwrap().value;
    assert_eq!(back.rolled_back_to, Some(3), "not to nothing");
}
