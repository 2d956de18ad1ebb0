//! From a proposal to live, and every way that is refused.

mod authority;
mod plans;

use super::*;

const GREET: &str = "/prompts/support/greet/deployments/production";

/// A protected production where version 1 is live; the versions are ada's.
struct Team {
    admin: TestAdmin,
    /// Editor: wrote the versions.
    ada: String,
    /// Reviewers.
    rob: String,
    rhea: String,
    /// Deployer.
    dan: String,
    /// External CI.
    ci: String,
    viewer: String,
}

impl std::ops::Deref for Team {
    type Target = TestAdmin;

    fn deref(&self) -> &TestAdmin {
        &self.admin
    }
}

impl Team {
    async fn new(policy: Value) -> Self {
        let admin = TestAdmin::new().await;
        let team = Self {
            ada: admin.user("ada", &["editor"]).await,
            rob: admin.user("rob", &["reviewer"]).await,
            rhea: admin.user("rhea", &["reviewer", "editor"]).await,
            dan: admin.user("dan", &["deployer"]).await,
            ci: admin.user("ci", &["checker"]).await,
            viewer: admin.user("vic", &["viewer"]).await,
            admin,
        };
        for id in ["support/greet", "support/bye"] {
            team.post_as(&team.ada, "/prompts", json!({"id": id})).await.expect(201);
            for text in ["Hello {{ name }}", "Hi {{ name }}", "Hey {{ name }}"] {
                let body = json!({"content": {"text": text}, "message": "try"});
                let path = format!("/prompts/{id}/versions");
                team.post_as(&team.ada, &path, body).await.expect(201);
            }
        }
        team.deploy(1).await.expect(200);
        team.put("/environments/production", policy).await.expect(200);
        team
    }

    /// Proposes versions of `support/greet` and, if not 0, `support/bye`; returns the change.
    async fn propose(&self, token: &str, greet: u32, bye: u32) -> Value {
        let mut deployments = vec![json!({"prompt": "support/greet", "split": all_on(greet)})];
        if bye > 0 {
            deployments.push(json!({"prompt": "support/bye", "split": all_on(bye)}));
        }
        let body = json!({"environment": "production", "deployments": deployments, "message": "shorter"});
        self.post_as(token, "/changes", body).await.expect(201)
    }

    async fn act(&self, token: &str, change: &Value, what: &str, body: Value) -> Answer {
        self.post_as(token, &format!("/changes/{}/{what}", change["id"]), body)
            .await
    }

    async fn check(&self, token: &str, change: &Value, name: &str, state: &str) -> Answer {
        let path = format!("/changes/{}/checks/{name}", change["id"]);
        let body = json!({"state": state, "url": "https://ci.example/1", "summary": "3 of 3"});
        self.put_as(token, &path, body).await
    }

    async fn live(&self) -> u64 {
        let live = self.get(GREET).await.expect(200);
        live["split"][0]["version"].as_u64().unwrap()
    }
}

fn protected() -> Value {
    json!({"protected": true})
}

#[tokio::test]
async fn refused_deployment_becomes_a_change_that_goes_live() {
    let team = Team::new(protected()).await;
    let body = json!({"split": all_on(2), "message": "shorter"});
    let error = team
        .put_as(&team.dan, GREET, body)
        .await
        .refused(403, "approval_required");
    let ready = error["details"]["change"].clone();
    let change = team.post_as(&team.dan, "/changes", ready).await.expect(201);
    assert_eq!(
        (&change["state"], &change["approvals"]["needed"]),
        (&json!("open"), &json!(1))
    );
    assert_eq!(change["authors"], json!(["ada"]));
    assert_eq!(
        (&change["ready"], &change["deployments"][0]["base"]),
        (&json!(false), &json!(1))
    );
    team.act(&team.viewer, &change, "comments", json!({"body": "looks good"}))
        .await
        .expect(201);
    let body = json!({"message": "fine", "revision": 1});
    let approved = team.act(&team.rob, &change, "approve", body).await.expect(200);
    assert_eq!(
        (&approved["state"], &approved["ready"]),
        (&json!("approved"), &json!(true))
    );
    assert_eq!(team.live().await, 1, "approved is not applied");

    let applied = team.act(&team.dan, &change, "apply", json!({})).await.expect(200);
    assert_eq!(
        (&applied["state"], &applied["applied_by"]),
        (&json!("applied"), &json!("dan"))
    );
    assert_eq!(applied["applied_generation"], applied["generation"]);
    assert_eq!(team.admin.state.publisher.generation(), applied["generation"]);
    let live = team.get(GREET).await.expect(200);
    assert_eq!(
        (&live["change"], &live["deployment"], &live["actor"]),
        (&json!(1), &json!(2), &json!("dan"))
    );
    assert_eq!(live["message"], "shorter");
    assert_eq!(
        team.log(7).await,
        [
            "dan change.apply change/1",
            "dan deployment.deploy support/greet@production",
            "rob change.approve change/1",
            "vic change.comment change/1",
            "dan change.preflight change/1",
            "dan change.propose change/1",
            &format!("dan refused {GREET}"),
        ]
    );
    let shown = team.get_as(&team.viewer, "/changes/1").await.expect(200);
    assert_eq!(shown["comments"][0]["body"], "looks good");
    assert_eq!(shown["reviews"][0]["by"], "rob");
    for what in ["approve", "apply", "withdraw", "refresh"] {
        team.act(TOKEN, &change, what, json!({})).await.refused(409, "conflict");
    }
}

#[tokio::test]
async fn another_proposal_voids_approvals_and_checks() {
    let team = Team::new(json!({"protected": true, "required_checks": ["eval"]})).await;
    let change = team.propose(&team.ada, 2, 0).await;
    team.act(&team.rob, &change, "approve", json!({})).await.expect(200);
    team.check(&team.ci, &change, "eval", "pass").await.expect(200);
    let path = format!("/changes/{}", change["id"]);
    let other = json!({"message": "other", "deployments": [{"prompt": "support/greet", "split": all_on(3)}]});
    team.put_as(&team.dan, &path, other.clone())
        .await
        .refused(403, "not_allowed");
    let revised = team.put_as(&team.ada, &path, other).await.expect(200);
    assert_eq!((&revised["revision"], &revised["state"]), (&json!(2), &json!("open")));
    assert_eq!(revised["approvals"]["given"], 0);
    assert_eq!(
        (&revised["checks"][0]["state"], &revised["checks"][0]["revision"]),
        (&json!("pending"), &json!(1))
    );
    assert_eq!(revised["reviews"][0]["counts"], false);
    team.act(&team.dan, &change, "apply", json!({}))
        .await
        .refused(403, "approval_required");

    let late = team.act(&team.rob, &change, "approve", json!({"revision": 1})).await;
    assert_eq!(late.refused(412, "stale")["details"]["revision"], 2);
    let late = json!({"state": "pass", "revision": 1});
    team.put_as(&team.ci, &format!("{path}/checks/eval"), late)
        .await
        .refused(412, "stale");
    team.act(&team.rob, &change, "approve", json!({"revision": 2}))
        .await
        .expect(200);
    team.check(&team.ci, &change, "eval", "pass").await.expect(200);
    team.act(&team.dan, &change, "apply", json!({})).await.expect(200);
    assert_eq!(team.live().await, 3);
}

#[tokio::test]
async fn change_is_stale_once_something_else_went_live() {
    let team = Team::new(protected()).await;
    let change = team.propose(&team.ada, 2, 1).await;
    team.act(&team.rob, &change, "approve", json!({})).await.expect(200);
    let first = team.propose(&team.ada, 3, 0).await;
    team.act(&team.dan, &change, "refresh", json!({}))
        .await
        .refused(409, "conflict");
    team.act(&team.rob, &first, "approve", json!({})).await.expect(200);
    team.act(&team.dan, &first, "apply", json!({})).await.expect(200);

    let error = team
        .act(&team.dan, &change, "apply", json!({}))
        .await
        .refused(412, "stale");
    let moved = &error["details"]["moved"];
    assert_eq!(moved.as_array().unwrap().len(), 1);
    assert_eq!(
        (&moved[0]["prompt"], &moved[0]["base"]),
        (&json!("support/greet"), &json!(1))
    );
    assert_eq!(moved[0]["current"]["split"], all_on(3));
    team.act(&team.rhea, &change, "approve", json!({}))
        .await
        .refused(412, "stale");
    let path = format!("/changes/{}", change["id"]);
    assert_eq!(team.get(&path).await.expect(200)["stale"], json!(["support/greet"]));
    assert_eq!(team.log(1).await, [format!("rhea refused {path}/approve")]);
    assert_eq!(team.live().await, 3);
    let bye = "/prompts/support/bye/deployments/production";
    team.get(bye).await.refused(404, "nothing_live");

    let fresh = team.act(&team.ada, &change, "refresh", json!({})).await.expect(200);
    assert_eq!(
        (&fresh["state"], &fresh["approvals"]["given"]),
        (&json!("open"), &json!(0))
    );
    assert_eq!(fresh["stale"], json!([]));
    team.act(&team.dan, &change, "apply", json!({}))
        .await
        .refused(403, "approval_required");
    team.act(&team.rob, &change, "approve", json!({})).await.expect(200);
    let applied = team.act(&team.dan, &change, "apply", json!({})).await.expect(200);
    let (greet, bye) = (team.get(GREET).await.expect(200), team.get(bye).await.expect(200));
    assert_eq!(greet["generation"], bye["generation"], "one generation for both");
    assert_eq!(greet["generation"], applied["applied_generation"]);
}

#[tokio::test]
async fn auto_apply_waits_for_the_last_approval_and_check() {
    let policy = json!({"protected": true, "auto_apply": true, "required_checks": ["eval"]});
    let team = Team::new(policy).await;
    let change = team.propose(&team.viewer, 2, 0).await;
    let checked = team.check(&team.ci, &change, "eval", "pass").await.expect(200);
    assert_eq!(checked["state"], "open", "a check alone applies nothing");
    let approved = team.act(&team.rob, &change, "approve", json!({})).await.expect(200);
    assert_eq!(
        (&approved["state"], &approved["applied_by"]),
        (&json!("applied"), &json!("rob"))
    );
    assert_eq!(team.live().await, 2);
    assert_eq!(team.admin.state.publisher.generation(), approved["generation"]);

    let change = team.propose(&team.viewer, 3, 0).await;
    let approved = team.act(&team.rob, &change, "approve", json!({})).await.expect(200);
    assert_eq!(approved["state"], "approved");
    let failed = team.check(&team.ci, &change, "eval", "fail").await.expect(200);
    assert_eq!((&failed["state"], team.live().await), (&json!("approved"), 2));
    let passed = team.check(&team.ci, &change, "eval", "pass").await.expect(200);
    assert_eq!((&passed["state"], team.live().await), (&json!("applied"), 3));
}

/// Where nothing is protected, a suggestion still takes somebody who may deploy.

#[tokio::test]
async fn suggestion_in_an_open_environment_waits_for_a_deployer() {
    let team = Team::new(json!({"protected": false, "auto_apply": true})).await;
    let change = team.propose(&team.viewer, 2, 0).await;
    assert_eq!((&change["state"], &change["ready"]), (&json!("open"), &json!(true)));
    team.act(&team.rob, &change, "approve", json!({})).await.expect(200);
    assert_eq!(team.live().await, 1);
    team.act(&team.viewer, &change, "apply", json!({}))
        .await
        .refused(403, "not_allowed");
    team.act(&team.dan, &change, "apply", json!({})).await.expect(200);
    assert_eq!(team.live().await, 2);
}

#[tokio::test]
async fn draft_rejection_and_withdrawal_take_their_ways() {
    let team = Team::new(protected()).await;
    let body = json!({"environment": "production", "message": "m", "draft": true,
        "deployments": [{"prompt": "support/greet", "split": all_on(2)}]});
    let draft = team.post_as(&team.ada, "/changes", body).await.expect(201);
    assert_eq!((&draft["state"], &draft["opened_at"]), (&json!("draft"), &Value::Null));
    team.act(&team.rob, &draft, "approve", json!({}))
        .await
        .refused(409, "conflict");
    team.act(&team.dan, &draft, "submit", json!({}))
        .await
        .refused(403, "not_allowed");
    team.act(&team.ada, &draft, "submit", json!({})).await.expect(200);
    team.act(&team.rob, &draft, "reject", json!({}))
        .await
        .refused(400, "invalid_field");
    let rejected = team
        .act(&team.rob, &draft, "reject", json!({"message": "too short"}))
        .await;
    assert_eq!(rejected.expect(200)["state"], "rejected");
    team.act(&team.rhea, &draft, "approve", json!({}))
        .await
        .refused(409, "conflict");
    team.act(&team.dan, &draft, "apply", json!({}))
        .await
        .refused(409, "conflict");
    let again = json!({"message": "longer", "deployments": [{"prompt": "support/greet", "split": all_on(3)}]});
    let path = format!("/changes/{}", draft["id"]);
    assert_eq!(
        team.put_as(&team.ada, &path, again.clone()).await.expect(200)["state"],
        "open"
    );
    team.act(&team.viewer, &draft, "withdraw", json!({}))
        .await
        .refused(403, "not_allowed");
    let gone = team
        .act(&team.dan, &draft, "withdraw", json!({"message": "no need"}))
        .await;
    assert_eq!(gone.expect(200)["state"], "withdrawn");
    team.put_as(&team.ada, &path, again).await.refused(409, "conflict");

    let open = team.propose(&team.ada, 2, 0).await;
    let listed = team
        .get_as(&team.viewer, "/changes?state=open&prompt=support/greet")
        .await
        .expect(200);
    assert_eq!(
        listed["items"],
        json!([team.get(&format!("/changes/{}", open["id"])).await.expect(200)])
    );
    for (query, count) in [
        ("", 2),
        ("?proposer=ada", 2),
        ("?environment=staging", 0),
        ("?state=withdrawn", 1),
    ] {
        let listed = team.get(&format!("/changes{query}")).await.expect(200);
        assert_eq!(listed["items"].as_array().unwrap().len(), count, "{query}");
    }
    let stats = team.get("/changes/stats?environment=production").await.expect(200);
    assert_eq!(stats["by_state"], json!({"open": 1, "withdrawn": 1}));
    assert_eq!(
        stats["time_to_apply"],
        json!({"count": 0, "median_seconds": null, "p90_seconds": null})
    );
    team.act(&team.rob, &open, "approve", json!({})).await.expect(200);
    let stats = team.get("/changes/stats").await.expect(200);
    assert!(
        stats["time_to_first_approval"]["median_seconds"].as_f64().unwrap() > 0.0,
        "{stats}"
    );
}

#[tokio::test]
async fn impossible_changes_are_refused() {
    let team = Team::new(protected()).await;
    let greet = |split: Value| json!([{"prompt": "support/greet", "split": split}]);
    let half = json!([{"variant": "a", "version": 1, "weight": 50}]);
    for (body, status, code) in [
        (
            json!({"environment": "moon", "deployments": greet(all_on(1)), "message": "m"}),
            404,
            "environment_not_found",
        ),
        (
            json!({"environment": "production", "deployments": [], "message": "m"}),
            400,
            "invalid_field",
        ),
        (
            json!({"environment": "production", "deployments": greet(all_on(9)), "message": "m"}),
            404,
            "version_not_found",
        ),
        (
            json!({"environment": "production", "deployments": greet(half), "message": "m"}),
            400,
            "invalid_field",
        ),
        (
            json!({"environment": "production", "deployments": greet(all_on(2)), "message": " "}),
            400,
            "invalid_field",
        ),
        (
            json!({"environment": "production", "message": "m", "deployments":
            [greet(all_on(1))[0].clone(), greet(all_on(2))[0].clone()]}),
            400,
            "invalid_field",
        ),
        (
            json!({"environment": "production", "message": "m",
            "deployments": [{"prompt": "nope", "split": all_on(1)}]}),
            404,
            "prompt_not_found",
        ),
    ] {
        team.post_as(&team.dan, "/changes", body).await.refused(status, code);
    }
    for path in [
        "/changes/7",
        "/changes/x",
        "/changes/-1",
        "/changes/99999999999999999999",
    ] {
        team.get(path).await.refused(404, "not_found");
    }
    let change = team.propose(&team.dan, 2, 0).await;
    let path = |name: &str| format!("/changes/{}/checks/{name}", change["id"]);
    for (name, body) in [
        ("eval", json!({"state": "maybe"})),
        ("eval", json!({"state": "pass", "url": "javascript:alert(1)"})),
        ("No", json!({"state": "pass"})),
    ] {
        team.put_as(&team.ci, &path(name), body)
            .await
            .refused(400, "invalid_field");
    }
    for (name, body) in [
        ("approvals", json!({"approvals": 0})),
        ("approvals", json!({"approvals": 11})),
        ("required_checks", json!({"required_checks": ["Not A Name"]})),
    ] {
        let error = team
            .put("/environments/production", body)
            .await
            .refused(400, "invalid_field");
        assert_eq!(error["param"], name);
    }
}

/// Whatever step of applying fails, nothing of it stays: not one deployment, not a state, not an audit entry.
#[tokio::test]
async fn applying_leaves_all_or_nothing() {
    let team = Team::new(protected()).await;
    let change = team.propose(&team.ada, 2, 1).await;
    team.act(&team.rob, &change, "approve", json!({})).await.expect(200);
    let path = format!("/changes/{}", change["id"]);
    let before = team.get(&path).await.expect(200);
    let registry = &team.admin.state.registry;
    let generation = registry.generation().await.unwrap();
    let log = team.log(50).await;
    for (event, condition) in [
        ("INSERT ON deployments", "NEW.prompt_id = 'support/greet'"),
        ("INSERT ON deployments", "NEW.prompt_id = 'support/bye'"),
        ("INSERT ON live", "NEW.prompt_id = 'support/bye'"),
        ("UPDATE ON live", "NEW.prompt_id = 'support/greet'"),
        ("INSERT ON deployed_versions", "NEW.prompt_id = 'support/bye'"),
        ("UPDATE ON change_deployments", "NEW.prompt_id = 'support/bye'"),
        ("UPDATE ON prompts", "NEW.id = 'support/bye'"),
        ("UPDATE ON changes", "NEW.state = 'applied'"),
        ("INSERT ON audit", "NEW.action = 'change.apply'"),
        ("UPDATE ON audit_head", "NEW.entries > OLD.entries"),
    ] {
        registry.fail_for_tests(event, condition).await;
        team.act(&team.dan, &change, "apply", json!({}))
            .await
            .refused(500, "internal");
        registry.heal_for_tests().await;
        assert_eq!(registry.generation().await.unwrap(), generation, "{event}");
        assert_eq!(team.get(&path).await.expect(200), before, "{event}");
        assert_eq!(team.live().await, 1, "{event}");
        assert_eq!(team.log(50).await, log, "{event}");
    }
    assert!(registry.verify_audit(None).await.unwrap().broken.is_none());
    team.act(&team.dan, &change, "apply", json!({})).await.expect(200);
}
