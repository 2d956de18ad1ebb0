//! Who may approve, deploy and see what.

use super::*;

#[tokio::test]
async fn nobody_approves_what_they_proposed_or_wrote_by_any_token() {
    let team = Team::new(protected()).await;
    // rhea writes version 4, and may review.
    let body = json!({"content": {"text": "Yo {{ name }}"}, "message": "m"});
    team.post_as(&team.rhea, "/prompts/support/greet/versions", body)
        .await
        .expect(201);
    let other = team
        .post("/users/rhea/tokens", json!({"name": "other"}))
        .await
        .expect(201);
    let other = other["secret"].as_str().unwrap();

    let own = team.propose(&team.rhea, 2, 0).await;
    let written = team.propose(&team.dan, 4, 0).await;
    let partly = json!({"environment": "production", "message": "m", "deployments": [{"prompt": "support/greet",
        "split": [{"variant": "a", "version": 1, "weight": 99}, {"variant": "b", "version": 4, "weight": 1}]}]});
    let partly = team.post_as(&team.dan, "/changes", partly).await.expect(201);
    for change in [&own, &written, &partly] {
        for token in [team.rhea.as_str(), other] {
            let error = team
                .act(token, change, "approve", json!({}))
                .await
                .refused(403, "not_allowed");
            assert!(
                error["message"]
                    .as_str()
                    .unwrap()
                    .contains("somebody else must approve"),
                "{error}"
            );
        }
        team.act(&team.dan, change, "apply", json!({}))
            .await
            .refused(403, "approval_required");
    }
    // An admin, too, approves no change of their own.
    let admins = team.propose(TOKEN, 2, 0).await;
    team.act(TOKEN, &admins, "approve", json!({}))
        .await
        .refused(403, "not_allowed");
    team.act(&team.rob, &own, "approve", json!({})).await.expect(200);
    assert_eq!(team.live().await, 1);
    let refused = team.get("/audit?action=refused&actor=rhea").await.expect(200);
    assert_eq!(
        refused["items"].as_array().unwrap().len(),
        6,
        "every refusal is in the log"
    );
}

#[tokio::test]
async fn who_may_not_approve_or_deploy_does_neither() {
    let team = Team::new(protected()).await;
    let body = json!({"split": all_on(2), "message": "m"});
    for token in [&team.ada, &team.rob, &team.viewer, &team.ci] {
        let error = team
            .put_as(token, GREET, body.clone())
            .await
            .refused(403, "not_allowed");
        assert_eq!(error["details"]["permission"], "deploy");
    }
    let change = team.propose(&team.viewer, 2, 0).await;
    for token in [&team.ada, &team.dan, &team.viewer, &team.ci] {
        for what in ["approve", "reject"] {
            let refused = team.act(token, &change, what, json!({"message": "m"})).await;
            refused.refused(403, "not_allowed");
        }
    }
    for token in [&team.ada, &team.rob, &team.dan, &team.viewer] {
        team.check(token, &change, "eval", "pass")
            .await
            .refused(403, "not_allowed");
    }
    team.act(&team.rob, &change, "approve", json!({})).await.expect(200);
    for token in [&team.ada, &team.rob, &team.viewer, &team.ci] {
        team.act(token, &change, "apply", json!({}))
            .await
            .refused(403, "not_allowed");
    }
    assert_eq!(team.live().await, 1);
    team.act(&team.dan, &change, "apply", json!({})).await.expect(200);
    assert_eq!(team.live().await, 2);
}

#[tokio::test]
async fn deployer_skips_neither_approvals_nor_checks() {
    let policy = json!({"protected": true, "approvals": 2, "required_checks": ["eval", "lint"]});
    let team = Team::new(policy).await;
    let change = team.propose(&team.dan, 2, 0).await;
    let apply = async || team.act(&team.dan, &change, "apply", json!({})).await;
    let error = apply().await.refused(403, "approval_required");
    assert_eq!(error["details"]["approvals"], json!({"given": 0, "needed": 2}));
    let once = team.act(&team.rob, &change, "approve", json!({})).await.expect(200);
    assert_eq!(once["state"], "open");
    team.act(&team.rob, &change, "approve", json!({}))
        .await
        .refused(409, "conflict");
    apply().await.refused(403, "approval_required");
    let twice = team.act(&team.rhea, &change, "approve", json!({})).await.expect(200);
    assert_eq!((&twice["state"], &twice["ready"]), (&json!("approved"), &json!(false)));

    let error = apply().await.refused(403, "checks_required");
    assert_eq!(
        error["details"]["checks"],
        json!([{"name": "eval", "state": "pending"}, {"name": "lint", "state": "pending"}])
    );
    team.check(&team.ci, &change, "eval", "pass").await.expect(200);
    team.check(&team.ci, &change, "lint", "fail").await.expect(200);
    team.check(&team.ci, &change, "extra", "fail").await.expect(200);
    let error = apply().await.refused(403, "checks_required");
    assert_eq!(error["details"]["checks"], json!([{"name": "lint", "state": "fail"}]));
    let passed = team.check(&team.ci, &change, "lint", "pass").await.expect(200);
    assert_eq!(passed["ready"], true, "checks that are not required do not hold it up");
    assert_eq!(team.live().await, 1);
    // The bar is raised: what was enough before is not now.
    team.put("/environments/production", json!({"approvals": 3}))
        .await
        .expect(200);
    apply().await.refused(403, "approval_required");
    team.put("/environments/production", json!({"approvals": 2}))
        .await
        .expect(200);
    apply().await.expect(200);
    assert_eq!(team.live().await, 2);
}

#[tokio::test]
async fn approval_of_who_lost_the_role_counts_no_more() {
    let team = Team::new(protected()).await;
    let change = team.propose(&team.ada, 2, 0).await;
    team.act(&team.rob, &change, "approve", json!({})).await.expect(200);
    team.put("/users/rob", json!({"disabled": true})).await.expect(200);
    team.act(&team.dan, &change, "apply", json!({}))
        .await
        .refused(403, "approval_required");
    let other = team.act(&team.rhea, &change, "approve", json!({})).await.expect(200);
    assert_eq!(other["approvals"]["given"], 1);
    team.call(Method::DELETE, "/users/rhea/grants?role=reviewer", "")
        .await
        .expect(200);
    team.act(&team.dan, &change, "apply", json!({}))
        .await
        .refused(403, "approval_required");
    team.put("/users/rob", json!({"disabled": false})).await.expect(200);
    team.act(&team.dan, &change, "apply", json!({})).await.expect(200);
}

#[tokio::test]
async fn changes_of_other_folders_are_neither_seen_nor_touched() {
    let team = Team::new(protected()).await;
    let limited = team
        .user("lea", &["deployer@production:sales", "reviewer@*:sales"])
        .await;
    let change = team.propose(&team.ada, 2, 0).await;
    assert_eq!(team.get_as(&limited, "/changes").await.expect(200)["items"], json!([]));
    let path = format!("/changes/{}", change["id"]);
    team.get_as(&limited, &path).await.refused(403, "not_allowed");
    for what in ["approve", "apply", "comments", "withdraw"] {
        team.act(&limited, &change, what, json!({}))
            .await
            .refused(403, "not_allowed");
    }
    let body = json!({"environment": "production", "message": "m",
        "deployments": [{"prompt": "support/greet", "split": all_on(2)}]});
    team.post_as(&limited, "/changes", body)
        .await
        .refused(403, "not_allowed");
}

#[tokio::test]
async fn broken_glass_is_for_admins_and_loud() {
    let team = Team::new(protected()).await;
    let body = |message: &str| json!({"split": all_on(2), "message": message, "break_glass": true});
    let error = team
        .put_as(&team.dan, GREET, body("fire"))
        .await
        .refused(403, "not_allowed");
    assert_eq!(error["details"]["permission"], "break_glass");
    let error = team.put(GREET, body(" ")).await.refused(400, "invalid_field");
    assert_eq!(error["param"], "message");
    let made = team.put(GREET, body("fire")).await.expect(200);
    assert_eq!((&made["break_glass"], team.live().await), (&json!(true), 2));
    let log = team.get("/audit?action=deployment.break_glass").await.expect(200);
    assert_eq!(log["items"][0]["detail"]["message"], "fire");
    assert_eq!(log["items"][0]["actor"], "admin");
    let counter = &team.admin.state.metrics.break_glass_deployments;
    assert_eq!(counter.with_label_values(&["production"]).get(), 1);

    // What nobody approved is no place to roll back to.
    let change = team.propose(&team.dan, 3, 0).await;
    team.act(&team.rob, &change, "approve", json!({})).await.expect(200);
    team.act(&team.dan, &change, "apply", json!({})).await.expect(200);
    let rollback = format!("{GREET}/rollback");
    let error = team
        .post_as(&team.dan, &rollback, json!({"to": 2}))
        .await
        .refused(403, "approval_required");
    assert_eq!(error["details"]["change"]["deployments"][0]["split"], all_on(2));
    let back = team.post_as(&team.dan, &rollback, json!({})).await.expect(200);
    assert_eq!((&back["rolled_back_to"], team.live().await), (&json!(1), 1));

    // Where nothing is protected there is no glass.
    let staging = "/prompts/support/greet/deployments/staging";
    let made = team.put(staging, body("habit")).await.expect(200);
    assert_eq!(made["break_glass"], false);
    assert_eq!(counter.with_label_values(&["staging"]).get(), 0);
}

/// Taking a name away ends the service of whoever uses it, as a deployment would.
#[tokio::test]
async fn alias_of_what_is_live_and_protected_is_removed_by_deployers_only() {
    let team = Team::new(protected()).await;
    let path = "/prompts/support/greet/aliases/pmpt_1";
    team.put_as(&team.ada, path, Value::Null).await.expect(200);
    let error = team
        .call_as(&team.ada, Method::DELETE, path, "")
        .await
        .refused(403, "not_allowed");
    assert_eq!(error["details"]["environment"], "production");
    let both = team.user("eve", &["editor", "deployer"]).await;
    team.call_as(&both, Method::DELETE, path, "").await.expect(200);
}
