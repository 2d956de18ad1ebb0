//! Each call, as it should be used.

use super::*;

#[tokio::test]
async fn prompt_is_created_shown_and_listed() {
    let admin = TestAdmin::new().await;
    let body = json!({"id": "support/greet", "description": "greets", "tags": ["x"]});
    let made = admin.post("/prompts", body).await.expect(201);
    insta::assert_json_snapshot!("prompt_created", steady(made.clone()));
    assert_eq!(
        admin.state.publisher.generation(),
        made["generation"],
        "served before answered"
    );
    assert_eq!(admin.get("/prompts/support/greet").await.expect(200), made);
    assert_eq!(admin.get("/prompts/support%2Fgreet").await.expect(200), made);
    let head = admin.call(Method::HEAD, "/prompts/support/greet", "").await;
    assert_eq!(head.status, 200);

    admin.post("/prompts", json!({"id": "b"})).await.expect(201);
    let first = admin.get("/prompts?limit=1").await.expect(200);
    assert_eq!(
        (&first["items"][0]["id"], &first["next_cursor"]),
        (&json!("b"), &json!("b"))
    );
    let rest = admin.get("/prompts?limit=1&cursor=b").await.expect(200);
    assert_eq!((&rest["items"][0], &rest["next_cursor"]), (&made, &Value::Null));
    let mut found = admin.get("/prompts?query=GREETS").await.expect(200);
    let place = found["items"][0].as_object_mut().unwrap().remove("match").unwrap();
    assert_eq!(place["in"], "description");
    assert_eq!(found["items"], json!([made]));
}

#[tokio::test]
async fn version_is_created_shown_and_listed() {
    let admin = TestAdmin::with_versions().await;
    admin.post("/prompts", json!({"id": "page"})).await.expect(201);
    let content = json!({"messages": [
        {"role": "system", "content": "{% include \"prompt:support/greet:1\" %}"},
        {"placeholder": "history"},
    ], "parameters": {"temperature": 0.2}});
    let body = json!({"content": content, "message": "use the greeting"});
    let made = admin.post("/prompts/page/versions", body).await.expect(201);
    insta::assert_json_snapshot!("version_created", steady(made.clone()));
    assert_eq!(admin.state.publisher.generation(), made["generation"]);
    let shown = admin.get("/prompts/page/versions/1").await.expect(200);
    insta::assert_json_snapshot!("version_shown", steady(shown));
    let partial = admin.get("/prompts/support%2Fgreet/versions/1").await.expect(200);
    assert_eq!(partial["used_by"], json!([{"prompt": "page", "version": 1}]));
    let listed = admin.get("/prompts/support/greet/versions?limit=1").await.expect(200);
    assert_eq!(
        (&listed["items"][0]["version"], &listed["next_cursor"]),
        (&json!(2), &json!("2"))
    );
}

#[tokio::test]
async fn split_is_deployed_shown_and_rolled_back() {
    let admin = TestAdmin::with_versions().await;
    let path = "/prompts/support%2Fgreet/deployments/production";
    admin.deploy(1).await.expect(200);
    let split = json!([
        {"variant": "control", "version": 1, "weight": 80},
        {"variant": "b", "version": 2, "weight": 20},
    ]);
    let made = admin.put(path, json!({"split": split, "message": "try b"})).await;
    assert_eq!(made.header("etag"), "\"2\"");
    let made = made.expect(200);
    insta::assert_json_snapshot!("deployed", steady(made.clone()));
    assert_eq!(admin.state.publisher.generation(), made["generation"]);

    let shown = admin.get(path).await;
    assert_eq!(shown.header("etag"), "\"2\"");
    assert_eq!(shown.expect(200), made);
    let prompt = admin.get("/prompts/support/greet").await.expect(200);
    assert_eq!(
        prompt["live"],
        json!({"production": {"deployment": 2, "split": made["split"]}})
    );

    let back = admin
        .post(&format!("{path}/rollback"), json!({"message": "b is bad"}))
        .await;
    assert_eq!(back.header("etag"), "\"3\"");
    let back = back.expect(200);
    insta::assert_json_snapshot!("rolled_back", steady(back.clone()));
    assert_eq!(admin.state.publisher.generation(), back["generation"]);
    let again = admin
        .post(&format!("{path}/rollback"), json!({"to": 2, "message": "b was fine"}))
        .await;
    assert_eq!(again.expect(200)["split"], made["split"]);

    let history = admin.get(&format!("{path}/history?limit=2")).await.expect(200);
    let numbers: Vec<&Value> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| &d["deployment"])
        .collect();
    assert_eq!(numbers, [4, 3]);
    let rest = admin.get(&format!("{path}/history?cursor=3")).await.expect(200);
    assert_eq!(rest["items"][0], made);
}

#[tokio::test]
async fn deploy_with_the_right_etag_passes() {
    let admin = TestAdmin::with_versions().await;
    for etag in ["\"0\"", "\"1\""] {
        let request = Request::put("/api/v1/prompts/support/greet/deployments/production")
            .header(header::AUTHORIZATION, format!("bearer {TOKEN}"))
            .header(header::IF_MATCH, etag)
            .body(Body::from(json!({"split": all_on(1)}).to_string()))
            .unwrap();
        admin.send(request).await.expect(200);
    }
}

#[tokio::test]
async fn alias_is_added_used_and_removed() {
    let admin = TestAdmin::with_versions().await;
    let path = "/prompts/support%2Fgreet/aliases/old%2Fname%20%C3%A4";
    let added = admin.put(path, Value::Null).await.expect(200);
    assert_eq!(added["aliases"], json!(["old/name ä"]));
    assert_eq!(admin.state.publisher.generation(), added["generation"]);
    let shown = admin.get("/prompts/old%2Fname%20%C3%A4").await.expect(200);
    assert_eq!(shown, added);
    let removed = admin.call(Method::DELETE, path, "").await.expect(200);
    assert_eq!(removed["aliases"], json!([]));
    admin.call(Method::DELETE, path, "").await.refused(404, "not_found");
}

#[tokio::test]
async fn key_is_created_listed_and_revoked() {
    let admin = TestAdmin::new().await;
    let made = admin.post("/keys", json!({"name": "shop"})).await.expect(201);
    insta::assert_json_snapshot!("key_created", steady(made.clone()));
    assert_eq!(admin.state.publisher.generation(), made["generation"]);
    let body = json!({"name": "qa", "environment": "staging", "environments": ["development"],
        "models": ["m"], "raw": false, "pin": false, "force_variant": true});
    let other = admin.post("/keys", body).await.expect(201);
    assert_eq!(other["environments"], json!(["staging", "development"]));
    assert_eq!((&other["raw"], &other["force_variant"]), (&json!(false), &json!(true)));

    let listed = admin.get("/keys").await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains("pg_"), "{listed}");
    let path = format!("/keys/{}", made["id"].as_str().unwrap());
    let revoked = admin.call(Method::DELETE, &path, "").await.expect(200);
    assert!(revoked["revoked_at"].is_string());
    assert_eq!(admin.state.publisher.generation(), revoked["generation"]);
    assert_eq!(admin.call(Method::DELETE, &path, "").await.expect(200), revoked);
}

#[tokio::test]
async fn environments_are_listed_protected_and_created() {
    let admin = TestAdmin::new().await;
    let listed = admin.get("/environments").await.expect(200);
    insta::assert_json_snapshot!("environments", listed);
    let changed = admin
        .put("/environments/production", json!({"protected": true}))
        .await
        .expect(200);
    assert_eq!((&changed["protected"], &changed["position"]), (&json!(true), &json!(3)));
    assert_eq!(admin.state.publisher.generation(), changed["generation"]);
    assert_eq!(admin.get("/environments/production").await.expect(200), changed);
    let made = admin
        .put("/environments/canary", json!({"protected": false}))
        .await
        .expect(200);
    assert_eq!(made["position"], 4);
}

#[tokio::test]
async fn audit_names_who_what_and_why() {
    let admin = TestAdmin::with_versions().await;
    admin.deploy(2).await.expect(200);
    let log = admin.get("/audit?limit=1").await.expect(200);
    let mut shown = steady(log.clone());
    assert_eq!(shown["items"][0]["hash"].as_str().unwrap().len(), 64);
    shown["items"][0]["hash"] = json!("[hash]");
    insta::assert_json_snapshot!("audit", shown);
    let cursor = log["next_cursor"].as_str().unwrap();
    let rest = admin.get(&format!("/audit?cursor={cursor}")).await.expect(200);
    assert_eq!(rest["items"][0]["action"], "version.create");
}

#[tokio::test]
async fn audit_is_filtered_and_verified() {
    let admin = TestAdmin::with_versions().await;
    admin.deploy(1).await.expect(200);
    admin.deploy(2).await.expect(200);
    let found = admin
        .get("/audit?action=deployment&environment=production&subject=support/greet&actor=admin&order=oldest")
        .await
        .expect(200);
    let numbers: Vec<&Value> = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["detail"]["to"]["deployment"])
        .collect();
    assert_eq!(numbers, [1, 2]);
    for query in ["from=yesterday", "order=up", "colour=red"] {
        admin
            .get(&format!("/audit?{query}"))
            .await
            .refused(400, "invalid_field");
    }
    let verified = admin.get("/audit/verify").await.expect(200);
    assert_eq!((&verified["ok"], &verified["entries"]), (&json!(true), &json!(6)));
    let head = verified["head"].as_str().unwrap();
    assert_eq!(head, found["items"][1]["hash"]);
    let again = admin.get(&format!("/audit/verify?head={head}")).await.expect(200);
    assert_eq!(again, verified);
    let strange = "0".repeat(63) + "1";
    let broken = admin.get(&format!("/audit/verify?head={strange}")).await.expect(200);
    assert_eq!((&broken["ok"], &broken["broken"]["entry"]), (&json!(false), &json!(7)));
    admin.get("/audit/verify?head=x").await.refused(400, "invalid_field");
}
