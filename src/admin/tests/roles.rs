//! Who may call what, route by route, and where a grant ends.

use super::openapi::{CALLS, Need};
use super::*;
use crate::domain::role::{Permission, Role};

/// Calls a route of the table about `support/greet` and the user `admin`.
async fn call(admin: &TestAdmin, token: &str, call: &openapi::Call) -> Answer {
    let path = call.path.replace("{id}", "support/greet").replace("{version}", "1");
    let path = path.replace("{environment}", "production").replace("{user}", "admin");
    let path = path.replace("/{name}", "/production").replace(['{', '}'], "");
    let method = Method::from_bytes(call.method.to_uppercase().as_bytes()).unwrap();
    admin.call_as(token, method, &path, "{}").await
}

/// A handler that asks for no permission, or for another than the table says, fails here.
#[tokio::test]
async fn every_route_asks_for_the_permission_it_declares() {
    let admin = TestAdmin::with_versions().await;
    let nobody = admin.user("nobody", &[]).await;
    let mut asked = 0;
    for route in CALLS {
        let name = format!("{} {}", route.method, route.path);
        match route.need {
            Need::Nothing => {}
            Need::Token => {
                call(&admin, &nobody, route).await.expect(200);
            }
            Need::May(permission) | Need::Unless(permission) => {
                let error = call(&admin, &nobody, route).await.refused(403, "not_allowed");
                assert_eq!(error["details"]["permission"], permission.as_str(), "{name}");
                let roles = Role::with(permission);
                assert_eq!(error["details"]["roles"], json!(roles), "{name}");
                let message = error["message"].as_str().unwrap();
                assert!(message.contains(&roles.join(" or ")), "{name}: {message}");
                asked += 1;
            }
        }
    }
    assert!(asked > 30, "{asked}");
}

#[tokio::test]
async fn viewer_reads_everything_but_content_and_changes_nothing() {
    let admin = TestAdmin::with_versions().await;
    let viewer = admin.user("vic", &["viewer"]).await;
    let before = admin.state.registry.generation().await.unwrap();
    for route in CALLS.iter().filter(|route| route.need != Need::Nothing) {
        let answer = call(&admin, &viewer, route).await;
        let may = match route.need {
            Need::Nothing | Need::Token => true,
            Need::May(permission) | Need::Unless(permission) => Role::Viewer.may(permission),
        };
        assert_eq!(answer.status != 403, may, "{} {}", route.method, route.path);
    }
    assert_eq!(admin.state.registry.generation().await.unwrap(), before);
}

#[tokio::test]
async fn grants_end_at_their_environment_and_folder() {
    let admin = TestAdmin::with_versions().await;
    admin.post("/prompts", json!({"id": "sales/pitch"})).await.expect(201);
    let body = json!({"content": {"text": "secret of sales"}, "message": "m"});
    admin
        .post("/prompts/sales/pitch/versions", body.clone())
        .await
        .expect(201);
    let token = admin
        .user("ada", &["editor@*:support", "deployer@staging:support"])
        .await;
    let greet = |environment: &str| format!("/prompts/support/greet/deployments/{environment}");
    let split = json!({"split": all_on(1), "message": "m"});

    admin.put_as(&token, &greet("staging"), split.clone()).await.expect(200);
    let error = admin
        .put_as(&token, &greet("production"), split.clone())
        .await
        .refused(403, "not_allowed");
    assert_eq!(
        error["message"],
        "user \"ada\" may not deploy for prompt \"support/greet\" in environment \"production\": that needs the role \
         deployer or admin there, ask an admin for it"
    );
    assert_eq!(
        error["details"],
        json!({"permission": "deploy", "environment": "production", "prompt": "support/greet",
            "roles": ["deployer", "admin"]})
    );
    for path in ["/prompts/sales/pitch", "/prompts/sales/pitch/versions/1"] {
        admin.get_as(&token, path).await.refused(403, "not_allowed");
    }
    admin
        .post_as(&token, "/prompts/sales/pitch/versions", body)
        .await
        .refused(403, "not_allowed");
    for (id, status) in [("support/new", 201), ("supporters/new", 403), ("sales/new", 403)] {
        admin
            .post_as(&token, "/prompts", json!({"id": id}))
            .await
            .expect(status);
    }
    let listed = admin.get_as(&token, "/prompts").await.expect(200);
    let ids: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|p| &p["id"]).collect();
    assert_eq!(ids, ["support/greet", "support/new"]);
}

/// Ways around a folder: a name inside for a prompt outside, and a copy of a text from outside.
#[tokio::test]
async fn folders_cannot_be_left_by_alias_or_partial() {
    let admin = TestAdmin::with_versions().await;
    admin.post("/prompts", json!({"id": "sales/pitch"})).await.expect(201);
    let body = json!({"content": {"text": "secret of sales"}, "message": "m"});
    admin
        .post("/prompts/sales/pitch/versions", body.clone())
        .await
        .expect(201);
    admin
        .put("/prompts/sales/pitch/aliases/support%2Fpitch", Value::Null)
        .await
        .expect(200);
    let token = admin.user("ada", &["editor@*:support"]).await;

    admin
        .get_as(&token, "/prompts/support/pitch/versions/1")
        .await
        .refused(403, "not_allowed");
    admin
        .post_as(&token, "/prompts/support/pitch/versions", body)
        .await
        .refused(403, "not_allowed");
    for text in [
        "{% include 'prompt:sales/pitch' %}",
        "{% include 'prompt:support/pitch' %}",
    ] {
        for content in [
            json!({"text": text}),
            json!({"messages": [{"role": "user", "content": text}]}),
        ] {
            let body = json!({"content": content, "message": "m"});
            let refused = admin.post_as(&token, "/prompts/support/greet/versions", body).await;
            let error = refused.refused(403, "not_allowed");
            assert_eq!(error["details"]["prompt"], "sales/pitch");
        }
    }
    for (path, status) in [
        ("/prompts/support/greet/aliases/support%2Fhello", 200),
        ("/prompts/support/greet/aliases/sales%2Fhello", 403),
        ("/prompts/support/greet/aliases/pmpt_1", 403),
        ("/prompts/sales/pitch/aliases/support%2Fx", 403),
    ] {
        admin.put_as(&token, path, Value::Null).await.expect(status);
    }
}

#[tokio::test]
async fn environment_admin_manages_its_keys_and_protection_only() {
    let admin = TestAdmin::with_versions().await;
    let token = admin.user("ada", &["admin@staging"]).await;
    let key = |environment: &str, more: Value| json!({"name": "x", "environment": environment, "environments": more});
    let made = admin
        .post_as(&token, "/keys", key("staging", json!([])))
        .await
        .expect(201);
    for body in [
        key("production", json!([])),
        key("staging", json!(["production"])),
        json!({"name": "x"}),
    ] {
        admin.post_as(&token, "/keys", body).await.refused(403, "not_allowed");
    }
    let other = admin.post("/keys", key("production", json!([]))).await.expect(201);
    for (key, status) in [(&made, 200), (&other, 403)] {
        let path = format!("/keys/{}", key["id"].as_str().unwrap());
        admin.call_as(&token, Method::DELETE, &path, "").await.expect(status);
    }
    for (environment, status) in [("staging", 200), ("production", 403), ("canary", 403)] {
        let path = format!("/environments/{environment}");
        admin
            .put_as(&token, &path, json!({"protected": true}))
            .await
            .expect(status);
    }
    for path in ["/users", "/audit", "/stats?environment=production"] {
        admin.get_as(&token, path).await.refused(403, "not_allowed");
    }
}

#[tokio::test]
async fn refusals_are_in_the_audit_log_with_who_and_why() {
    let admin = TestAdmin::with_versions().await;
    let token = admin.user("vic", &["viewer"]).await;
    let path = "/prompts/support/greet/deployments/production";
    let refused = admin.put_as(&token, path, json!({"split": all_on(1)})).await;
    let request = refused.header("x-request-id").to_owned();
    refused.refused(403, "not_allowed");
    admin.get_as("wrong", "/prompts").await.refused(401, "invalid_api_key");
    assert_eq!(
        admin.log(2).await,
        ["anonymous refused /prompts", &format!("vic refused {path}")]
    );
    let log = admin.get("/audit?limit=2").await.expect(200);
    let entry = &log["items"][1];
    assert_eq!(entry["request_id"], request.as_str());
    assert!(entry["actor_id"].as_str().unwrap().starts_with("usr_"));
    assert!(entry["token_id"].as_str().unwrap().starts_with("tok_"));
    assert_eq!(
        (&entry["detail"]["method"], &entry["detail"]["code"]),
        (&json!("PUT"), &json!("not_allowed"))
    );
    assert!(
        entry["detail"]["message"]
            .as_str()
            .unwrap()
            .contains("deployer or admin")
    );
    assert!(!log.to_string().contains("wrong"), "a secret is in the log");
}

#[tokio::test]
async fn flood_of_refusals_leaves_a_bounded_log() {
    let admin = TestAdmin::new().await;
    for _ in 0..300 {
        admin.get_as("wrong", "/prompts").await.refused(401, "invalid_api_key");
    }
    let log = admin.get("/audit?limit=200").await.expect(200);
    let refused = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["action"] == "refused")
        .count();
    assert!((100..150).contains(&refused), "{refused}");
}

#[tokio::test]
async fn openapi_text_says_who_may_call() {
    let admin = TestAdmin::new().await;
    let text = admin.get("/openapi.json").await.expect(200);
    let put = &text["paths"]["/prompts/{id}/deployments/{environment}"]["put"];
    assert_eq!(put["x-promptgate-permission"], Permission::Deploy.as_str());
    assert_eq!(
        put["description"],
        "Needs the permission `deploy`, which these roles have: deployer, admin."
    );
    assert_eq!(text["paths"]["/healthz"]["get"]["security"], json!([]));
}
