//! Plans on a clock of the test's own.

use super::*;
use crate::domain::shift::{Due, Step};

const MINUTE: i64 = 60_000_000;
const START: i64 = 1_000 * MINUTE;

fn gradual() -> Plan {
    let steps = vec![
        (Due::After(0), 5.0),
        (Due::After(10 * MINUTE), 25.0),
        (Due::After(10 * MINUTE), 100.0),
    ];
    Plan::Gradual { version: 2, steps }
}

fn new(plan: Plan) -> NewShift<'static> {
    NewShift {
        prompt: "a",
        environment: "production",
        plan,
    }
}

async fn live() -> TestRegistry {
    let registry = TestRegistry::new().await;
    registry.prompt_with_versions("a", 3).await;
    registry.deploy("a", "production", all_on(1), None, ADA).await.unwrap();
    registry
}

impl TestRegistry {
    /// Carries out what is due, and returns what is live: versions and weights.
    async fn at(&self, now_us: i64) -> Vec<(u32, f64)> {
        self.run_due_shifts(now_us).await.unwrap();
        let live = self.deployment("a", "production").await.unwrap();
        live.split.iter().map(|arm| (arm.version, arm.weight)).collect()
    }
}

#[tokio::test]
async fn gradual_shift_goes_step_by_step_as_ordinary_deployments() {
    let registry = live().await;
    let made = registry.create_shift(new(gradual()), START, ADA).await.unwrap().value;
    assert_eq!(registry.next_shift_at().await.unwrap(), Some(START));
    assert_eq!(registry.at(START - 1).await, [(1, 100.0)]);
    assert_eq!(registry.at(START).await, [(1, 95.0), (2, 5.0)]);
    let first = registry.deployment("a", "production").await.unwrap();
    assert_eq!((first.number, first.actor), (2, format!("shift:{}", made.id)));
    assert_eq!(first.message, "why (step 1 of 3, by ada)");
    assert_eq!(registry.at(START + 10 * MINUTE - 1).await, [(1, 95.0), (2, 5.0)]);
    // Late by an hour: the next step keeps its distance all the same.
    let late = START + 70 * MINUTE;
    assert_eq!(registry.at(late).await, [(1, 75.0), (2, 25.0)]);
    assert_eq!(registry.at(late + 9 * MINUTE).await, [(1, 75.0), (2, 25.0)]);
    assert_eq!(registry.at(late + 10 * MINUTE).await, [(2, 100.0)]);
    let done = registry.shift(&made.id).await.unwrap();
    assert_eq!((done.state.as_str(), done.next_at_us), ("done", None));
    let numbers: Vec<Option<u32>> = done.steps.iter().map(|step| step.deployment).collect();
    assert_eq!(numbers, [Some(2), Some(3), Some(4)]);
    assert_eq!(registry.next_shift_at().await.unwrap(), None);
    let log = registry.list_audit(&AuditFilter::default(), FIRST).await.unwrap().items;
    assert_eq!(log[0].action, "deployment.deploy");
    assert_eq!(log[0].detail["shift"], json!({"id": made.id, "created_by": "ada"}));
}

#[tokio::test]
async fn shift_survives_a_restart_and_catches_up_with_fixed_times() {
    let registry = live().await;
    let at = |minute: i64, version| Step {
        due: Due::At(START + minute * MINUTE),
        split: all_on(version),
    };
    let plan = Plan::Steps(vec![at(1, 2), at(2, 3)]);
    registry.create_shift(new(plan), START, ADA).await.unwrap();
    registry.close().await;
    let again = TestRegistry {
        registry: registry.again().await.unwrap(),
        database: registry.database,
    };
    assert_eq!(again.at(START + 60 * MINUTE).await, [(3, 100.0)]);
    let history = again.list_deployments("a", "production", FIRST).await.unwrap().items;
    assert_eq!(history.len(), 3);
}

#[tokio::test]
async fn deployment_in_between_ends_the_shift_and_says_so() {
    let registry = live().await;
    let made = registry.create_shift(new(gradual()), START, ADA).await.unwrap().value;
    registry.at(START).await;
    registry.rollback("a", "production", None, ADA).await.unwrap();
    let ended = registry.shift(&made.id).await.unwrap();
    assert_eq!(ended.state, "cancelled");
    assert_eq!(ended.reason, "deployment 3 by \"ada\" came in between");
    assert_eq!(registry.at(START + 100 * MINUTE).await, [(1, 100.0)]);
    let again = registry.cancel_shift(&made.id, ADA).await;
    assert!(matches!(again, Err(RegistryError::Conflict(_))));
    registry.deploy("a", "staging", all_on(2), None, ADA).await.unwrap();
    let second = registry.create_shift(new(gradual()), START, ADA).await.unwrap().value;
    registry.deploy("a", "staging", all_on(3), None, ADA).await.unwrap();
    assert_eq!(
        registry.shift(&second.id).await.unwrap().state,
        "running",
        "another environment"
    );
    registry.cancel_shift(&second.id, ADA).await.unwrap();
    assert_eq!(registry.at(START + 100 * MINUTE).await, [(1, 100.0)]);
    let all = registry.list_shifts(Some("a"), false, FIRST).await.unwrap().items;
    assert_eq!(all.len(), 2);
    assert_eq!(registry.list_shifts(None, true, FIRST).await.unwrap().items, []);
}

#[tokio::test]
async fn of_two_processes_one_does_a_step() {
    let registry = live().await;
    registry.create_shift(new(gradual()), START, ADA).await.unwrap();
    let other = registry.again().await.unwrap();
    let (one, two) = tokio::join!(registry.run_due_shifts(START), other.run_due_shifts(START));
    let made = [one.unwrap(), two.unwrap()];
    assert_eq!(made.iter().flatten().count(), 1, "{made:?}");
    assert_eq!(registry.deployment("a", "production").await.unwrap().number, 2);
}

#[tokio::test]
async fn shift_needs_what_a_deployment_needs() {
    let registry = live().await;
    let unknown = Plan::Steps(vec![Step {
        due: Due::After(0),
        split: all_on(9),
    }]);
    let refused = registry.create_shift(new(unknown), START, ADA).await;
    assert!(matches!(refused, Err(RegistryError::NotFound(Missing::Version { .. }))));
    let made = registry.create_shift(new(gradual()), START, ADA).await.unwrap().value;
    let second = registry.create_shift(new(gradual()), START, ADA).await;
    assert!(matches!(second, Err(RegistryError::Conflict(_))));
    let archived = registry.archive_prompt("a", ADA).await;
    assert!(matches!(archived, Err(RegistryError::InUse { .. })));

    registry.set_protected("production", true, "ada").await.unwrap();
    assert_eq!(registry.at(START).await, [(1, 100.0)]);
    let failed = registry.shift(&made.id).await.unwrap();
    assert_eq!(failed.state, "failed");
    assert!(
        failed.reason.starts_with("step 1: the environment is protected"),
        "{}",
        failed.reason
    );
    match registry.create_shift(new(gradual()), START, ADA).await {
        Err(RegistryError::ApprovalRequired { change }) => assert_eq!(
            change["deployments"],
            json!([{"prompt": "a", "to_version": 2, "steps": [
                {"after": "0s", "percent": 5.0}, {"after": "600s", "percent": 25.0}, {"after": "600s", "percent": 100.0},
            ]}])
        ),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn shift_of_somebody_who_may_no_more_fails() {
    let registry = live().await;
    registry.ensure_admin_token(None).await.unwrap();
    let user = NewUser {
        name: "cleo".to_owned(),
        kind: UserKind::Person,
        display_name: String::new(),
        grants: vec![Grant::everywhere(Role::Deployer)],
    };
    let user = registry.create_user(user, "ada").await.unwrap().value;
    let by = By {
        actor: Actor {
            user_id: &user.id,
            ..Actor::named("cleo")
        },
        message: "",
    };
    let made = registry.create_shift(new(gradual()), START, by).await.unwrap().value;
    assert_eq!(registry.at(START).await.len(), 2);
    let disabled = UserUpdate {
        disabled: Some(true),
        ..UserUpdate::default()
    };
    registry.update_user("cleo", disabled, "ada").await.unwrap();
    assert_eq!(registry.at(START + 10 * MINUTE).await, [(1, 95.0), (2, 5.0)]);
    let failed = registry.shift(&made.id).await.unwrap();
    assert_eq!(
        failed.reason,
        "step 2: \"cleo\", who planned it, may not deploy there any more"
    );
}
