//! Users, what they are granted, and their tokens.

use super::*;

#[tokio::test]
async fn user_is_created_granted_and_listed() {
    let admin = TestAdmin::new().await;
    let body = json!({"name": "ada@example.com", "display_name": "Ada", "grants": [{"role": "editor"}]});
    let made = admin.post("/users", body).await.expect(201);
    assert_eq!(made["kind"], "person");
    assert_eq!(
        made["grants"],
        json!([{"role": "editor", "environment": "*", "folder": "*"}])
    );
    assert_eq!(made["created_by"], "admin");
    let path = format!("/users/{}", made["id"].as_str().unwrap());
    let grant = json!({"role": "deployer", "environment": "staging", "folder": "support/"});
    let granted = admin.post(&format!("{path}/grants"), grant.clone()).await.expect(200);
    assert_eq!(granted["grants"][1]["folder"], "support");
    let again = admin.post("/users/ada@example.com/grants", grant).await.expect(200);
    assert_eq!(again, granted, "granting twice changes nothing");
    assert_eq!(
        admin.get(&format!("{path}/grants")).await.expect(200)["items"],
        granted["grants"]
    );
    let query = "role=deployer&environment=staging&folder=support";
    let fewer = admin
        .call(Method::DELETE, &format!("{path}/grants?{query}"), "")
        .await
        .expect(200);
    assert_eq!(fewer["grants"], made["grants"]);
    admin
        .call(Method::DELETE, &format!("{path}/grants?{query}"), "")
        .await
        .refused(404, "not_found");
    let listed = admin.get("/users").await.expect(200);
    let names: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|u| &u["name"]).collect();
    assert_eq!(names, ["ada@example.com", "admin"]);
    assert_eq!(
        admin.log(3).await,
        [
            "admin grant.remove ada@example.com",
            "admin grant.add ada@example.com",
            "admin user.create ada@example.com"
        ]
    );
}

#[tokio::test]
async fn user_with_impossible_fields_is_refused() {
    let admin = TestAdmin::new().await;
    for name in [
        "",
        "Ada",
        "a b",
        "bootstrap",
        "promptgate",
        "me",
        "usr_x",
        &"a".repeat(101),
    ] {
        let error = admin
            .post("/users", json!({"name": name}))
            .await
            .refused(400, "invalid_field");
        assert_eq!(error["param"], "name", "{name}");
    }
    admin
        .post("/users", json!({"name": "admin"}))
        .await
        .refused(409, "conflict");
    let with = |grant: Value| json!({"name": "ada", "grants": [grant]});
    for (grant, status, code) in [
        (json!({"role": "root"}), 400, "invalid_field"),
        (
            json!({"role": "viewer", "environment": "moon"}),
            404,
            "environment_not_found",
        ),
        (json!({"role": "viewer", "folder": "No Spaces"}), 400, "invalid_field"),
        (json!({"role": "viewer", "folder": ""}), 400, "invalid_field"),
    ] {
        admin.post("/users", with(grant)).await.refused(status, code);
    }
    admin.get("/users/ada").await.refused(404, "not_found");
}

#[tokio::test]
async fn token_is_shown_once_works_until_revoked_and_is_stored_as_digest() {
    let admin = TestAdmin::new().await;
    admin.user("ada", &["viewer"]).await;
    let made = admin
        .post(
            "/users/ada/tokens",
            json!({"name": "laptop", "expires_in_seconds": 3600}),
        )
        .await
        .expect(201);
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("pga_") && made["expires_at"].is_string());
    admin
        .post("/users/ada/tokens", json!({"name": "laptop"}))
        .await
        .refused(409, "conflict");
    let who = admin.get_as(secret, "/whoami").await.expect(200);
    assert_eq!(
        (&who["user"]["name"], &who["token"]["name"]),
        (&json!("ada"), &json!("laptop"))
    );
    assert_eq!(who["permissions"], json!(["read", "propose"]));

    let listed = loop {
        let listed = admin.get("/users/ada/tokens").await.expect(200);
        if listed["items"][1]["last_used_at"].is_string() {
            break listed;
        }
        tokio::task::yield_now().await;
    };
    assert!(!listed.to_string().contains("pga_"), "{listed}");
    assert!(listed["items"][0]["last_used_at"].is_null(), "the other was never used");

    let path = format!("/users/ada/tokens/{}", made["id"].as_str().unwrap());
    let revoked = admin.call(Method::DELETE, &path, "").await.expect(200);
    assert!(revoked["revoked_at"].is_string());
    assert_eq!(
        admin.call(Method::DELETE, &path, "").await.expect(200)["revoked_at"],
        revoked["revoked_at"]
    );
    admin.get_as(secret, "/whoami").await.refused(401, "invalid_api_key");
    // The name is free again.
    admin
        .post("/users/ada/tokens", json!({"name": "laptop"}))
        .await
        .expect(201);
}

#[tokio::test]
async fn expired_tokens_and_disabled_users_are_strangers() {
    let admin = TestAdmin::new().await;
    let token = admin.user("ada", &["viewer"]).await;
    for body in [
        json!({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}),
        json!({"name": "x", "expires_at": "soon"}),
        json!({"name": "x", "expires_in_seconds": 0}),
    ] {
        let error = admin
            .post("/users/ada/tokens", body)
            .await
            .refused(400, "invalid_field");
        assert_eq!(error["param"], "expires_at");
    }
    admin.put("/users/ada", json!({"disabled": true})).await.expect(200);
    let refused = admin.get_as(&token, "/prompts").await.refused(401, "invalid_api_key");
    assert_eq!(
        refused,
        admin.get_as("wrong", "/prompts").await.refused(401, "invalid_api_key")
    );
    let back = admin.put("/users/ada", json!({"disabled": false})).await.expect(200);
    assert_eq!(back["disabled_at"], Value::Null);
    admin.get_as(&token, "/prompts").await.expect(200);

    admin.state.registry.expire_tokens_for_tests().await;
    admin.get_as(&token, "/prompts").await.refused(401, "invalid_api_key");
}

#[tokio::test]
async fn one_manages_ones_own_tokens_and_nobody_elses() {
    let admin = TestAdmin::new().await;
    let ada = admin.user("ada", &["viewer"]).await;
    admin.user("bob", &["viewer"]).await;
    let short = admin
        .post_as(
            &ada,
            "/users/me/tokens",
            json!({"name": "short", "expires_in_seconds": 600}),
        )
        .await
        .expect(201);
    assert_eq!(short["user"], "ada");
    let secret = short["secret"].as_str().unwrap();
    for body in [
        json!({"name": "long"}),
        json!({"name": "long", "expires_in_seconds": 6000}),
    ] {
        let refused = admin.post_as(secret, "/users/me/tokens", body).await;
        refused.refused(400, "invalid_field");
    }
    let body = json!({"name": "shorter", "expires_in_seconds": 60});
    admin.post_as(secret, "/users/ada/tokens", body).await.expect(201);
    let path = format!("/users/me/tokens/{}", short["id"].as_str().unwrap());
    admin.call_as(&ada, Method::DELETE, &path, "").await.expect(200);

    let body = json!({"name": "x"});
    admin
        .post_as(&ada, "/users/bob/tokens", body)
        .await
        .refused(403, "not_allowed");
    admin.get_as(&ada, "/users/bob").await.refused(403, "not_allowed");
    assert_eq!(admin.get_as(&ada, "/users/me").await.expect(200)["name"], "ada");
    let grant = json!({"role": "admin"});
    admin
        .post_as(&ada, "/users/me/grants", grant)
        .await
        .refused(403, "not_allowed");
    admin
        .put_as(&ada, "/users/me", json!({"display_name": "x"}))
        .await
        .refused(403, "not_allowed");
}

#[tokio::test]
async fn last_admin_cannot_be_lost() {
    let admin = TestAdmin::new().await;
    admin
        .put("/users/admin", json!({"disabled": true}))
        .await
        .refused(409, "conflict");
    admin
        .call(Method::DELETE, "/users/admin/grants?role=admin", "")
        .await
        .refused(409, "conflict");
    let other = admin.user("eve", &["admin"]).await;
    admin
        .put_as(&other, "/users/admin", json!({"disabled": true}))
        .await
        .expect(200);
    admin.get("/whoami").await.refused(401, "invalid_api_key");
    // Whoever has the process's environment is admin.
    admin.state.registry.ensure_admin_token(Some(TOKEN)).await.unwrap();
    admin.get("/whoami").await.expect(200);
}
