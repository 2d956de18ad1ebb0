//! Promotion, several prompts at once, shifts, and environments arranged.

use super::*;

const GREET: &str = "/prompts/support/greet";

#[tokio::test]
async fn promotion_and_several_prompts_are_live_when_answered() {
    let admin = TestAdmin::with_versions().await;
    admin
        .put(&format!("{GREET}/deployments/staging"), json!({"split": all_on(2)}))
        .await
        .expect(200);
    let path = format!("{GREET}/promote");
    let body = || json!({"from": "staging", "to": "production", "message": "tested"});
    let token = admin.user("ada", &["viewer", "deployer@staging"]).await;
    admin.post_as(&token, &path, body()).await.refused(403, "not_allowed");
    let made = admin.post(&path, body()).await;
    assert_eq!(made.header("etag"), "\"1\"");
    assert_eq!(made.expect(200)["split"], all_on(2));
    admin.post(&path, body()).await.refused(409, "conflict");

    admin.post("/prompts", json!({"id": "page"})).await.expect(201);
    let body = json!({"content": {"text": "x"}, "message": "m"});
    admin.post("/prompts/page/versions", body).await.expect(201);
    let together = |expected: u32| {
        json!({"environment": "production", "message": "both", "deployments": [
            {"prompt": "support/greet", "split": all_on(1), "expected": expected},
            {"prompt": "page", "split": all_on(1)},
        ]})
    };
    let error = admin.post("/deployments", together(7)).await.refused(412, "stale");
    assert_eq!(error["details"]["current"]["deployment"], 1);
    let made = admin.post("/deployments", together(1)).await.expect(200);
    assert_eq!(made["deployments"][0]["deployment"], 2);
    assert_eq!(
        made["deployments"][0]["generation"],
        made["deployments"][1]["generation"]
    );
    assert_eq!(json!(admin.state.publisher.generation()), made["generation"]);
    let support = admin.user("sue", &["deployer@*:support"]).await;
    admin
        .post_as(&support, "/deployments", together(2))
        .await
        .refused(403, "not_allowed");
    let log = admin.log(6).await;
    assert!(
        log.contains(&"admin deployment.deploy page@production".to_owned()),
        "{log:?}"
    );
}

#[tokio::test]
async fn shift_begins_at_once_and_can_be_cancelled() {
    let admin = TestAdmin::with_versions().await;
    admin.deploy(1).await.expect(200);
    let path = format!("{GREET}/shifts");
    let plan = || json!({"environment": "production", "to_version": 2, "message": "slowly"});
    let made = admin.post(&path, plan()).await.expect(201);
    assert_eq!(made["steps"][0]["deployment"], 2);
    assert_eq!(made["steps"][1]["after_seconds"], 600);
    assert_eq!(made["state"], "running");
    let live = admin.get(&format!("{GREET}/deployments/production")).await.expect(200);
    assert_eq!(
        live["split"],
        json!([{"variant": "control", "version": 1, "weight": 95.0}, {"variant": "next", "version": 2, "weight": 5.0}])
    );
    assert_eq!(json!(admin.state.publisher.generation()), made["generation"]);
    let one = format!("/shifts/{}", made["id"].as_str().unwrap());
    admin.get(&one).await.expect(200);
    assert_eq!(
        admin.get("/shifts?state=running").await.expect(200)["items"][0]["id"],
        made["id"]
    );
    admin.post(&path, plan()).await.refused(409, "conflict");
    let viewer = admin.user("vic", &["viewer"]).await;
    let cancel = format!("{one}/cancel");
    admin
        .post_as(&viewer, &cancel, json!({}))
        .await
        .refused(403, "not_allowed");
    let stopped = admin.post(&cancel, json!({"message": "errors"})).await.expect(200);
    assert_eq!(
        (&stopped["state"], &stopped["reason"]),
        (&json!("cancelled"), &json!("cancelled by \"admin\": errors"))
    );
    assert_eq!(admin.get("/shifts?state=running").await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn plans_that_make_no_sense_are_refused_with_the_step() {
    let admin = TestAdmin::with_versions().await;
    admin.deploy(1).await.expect(200);
    let path = format!("{GREET}/shifts");
    for (steps, word) in [
        (json!([{"percent": 5, "at": "tomorrow"}]), "is not a time"),
        (json!([{"percent": 5, "after": "10"}]), "is not a duration"),
        (
            json!([{"percent": 5, "after": "1m", "at": "2030-01-01T00:00:00Z"}]),
            "both at and after",
        ),
        (json!([{"split": all_on(2)}]), "needs percent"),
        (json!([{"percent": 50}, {"percent": 20}]), "must grow"),
        (json!([{"percent": 5, "at": "2001-01-01T00:00:00Z"}]), "is past"),
        (json!([]), "1 to 20 steps"),
    ] {
        let body = json!({"environment": "production", "to_version": 2, "steps": steps});
        let error = admin.post(&path, body).await.refused(400, "invalid_field");
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
    let nothing = json!({"environment": "production"});
    admin.post(&path, nothing).await.refused(400, "invalid_field");
    admin
        .put("/environments/production", json!({"protected": true}))
        .await
        .expect(200);
    let body = json!({"environment": "production", "to_version": 2});
    let error = admin.post(&path, body).await.refused(403, "approval_required");
    assert_eq!(
        error["details"]["change"]["deployments"][0]["steps"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test]
async fn environments_are_arranged_and_deleted_by_their_admin() {
    let admin = TestAdmin::new().await;
    let token = admin.user("ada", &["admin@staging"]).await;
    admin
        .call_as(
            &token,
            Method::PATCH,
            "/environments/staging",
            json!({"label": "Stage"}).to_string(),
        )
        .await
        .expect(200);
    admin
        .call_as(
            &token,
            Method::PATCH,
            "/environments/production",
            json!({"label": "x"}).to_string(),
        )
        .await
        .refused(403, "not_allowed");
    admin
        .call_as(
            &token,
            Method::PATCH,
            "/environments/staging",
            json!({"position": 1}).to_string(),
        )
        .await
        .refused(403, "not_allowed");
    let moved = admin
        .call_as(
            TOKEN,
            Method::PATCH,
            "/environments/staging",
            json!({"position": 1}).to_string(),
        )
        .await
        .expect(200);
    assert_eq!((&moved["position"], &moved["label"]), (&json!(1), &json!("Stage")));
    let path = "/environments/staging";
    admin.call(Method::DELETE, path, "").await.refused(409, "conflict");
    admin
        .call(Method::DELETE, "/environments/development", "")
        .await
        .expect(200);
    admin
        .get("/environments/development")
        .await
        .refused(404, "environment_not_found");
}
