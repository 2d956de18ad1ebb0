//! Each way to be refused; nothing is stored by any of them.

use axum::routing::get;

use super::*;

const DEPLOYMENT: &str = "/prompts/support/greet/deployments/production";

#[tokio::test]
async fn every_route_asks_for_a_token() {
    let admin = TestAdmin::new().await;
    for path in ["/prompts", "/prompts/a", "/keys", "/audit", "/nowhere"] {
        for credentials in ["", "Bearer wrong", "Bearer ", "Basic dGVzdA==", TOKEN] {
            let mut request = Request::get(format!("/api/v1{path}"));
            if !credentials.is_empty() {
                request = request.header(header::AUTHORIZATION, credentials);
            }
            let answer = admin.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"promptgate\"");
            let error = answer.refused(401, "invalid_api_key");
            assert_eq!(error["type"], "authentication_error", "{path} {credentials}");
        }
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_named() {
    let admin = TestAdmin::new().await;
    for path in [
        "/nowhere",
        "/prompts/a/versions/x",
        "/prompts/a/deployments",
        "/prompts/",
        "/keys/a/b",
        "",
    ] {
        admin.get(path).await.refused(404, "unknown_route");
    }
    for (method, path, allow) in [
        (Method::DELETE, "/prompts", "GET,HEAD,POST"),
        (Method::DELETE, "/prompts/a", "GET,HEAD,PATCH"),
        (Method::PUT, "/prompts/a/versions", "GET,HEAD,POST"),
        (Method::POST, "/prompts/a/versions/1", "GET,HEAD"),
        (Method::POST, "/prompts/a/deployments/production", "GET,HEAD,PUT,DELETE"),
        (Method::POST, "/prompts/a/diff", "GET,HEAD"),
        (Method::PATCH, "/prompts/a/drafts/x", "GET,HEAD,PUT,DELETE"),
        (Method::GET, "/prompts/a/deployments/production/rollback", "POST"),
        (Method::GET, "/keys/key_1", "DELETE"),
    ] {
        let answer = admin.call(method.clone(), path, "").await;
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        answer.refused(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn malformed_bodies_say_where() {
    let admin = TestAdmin::with_versions().await;
    let before = admin.state.registry.generation().await.unwrap();
    for (body, code, param, message) in [
        ("", "invalid_json", "", "the body is empty"),
        ("{\"id\": ", "invalid_json", "", "line 1 column 7"),
        ("{\"id\": \"a\"} x", "invalid_json", "", "line 1 column 13"),
        ("[\"a\"]", "invalid_field", "", "send a JSON object"),
        ("3", "invalid_field", "", "invalid type"),
        ("{}", "invalid_field", "id", "missing field `id`"),
        ("{\"id\": 3}", "invalid_field", "id", "expected a string"),
        (
            "{\"id\": \"a\", \"tags\": [\"x\", 1]}",
            "invalid_field",
            "tags[1]",
            "expected a string",
        ),
        (
            "{\"id\": \"a\", \"colour\": 1}",
            "invalid_field",
            "colour",
            "expected one of `id`, `description`, `tags`",
        ),
        (
            "{\"id\": \"A\"}",
            "invalid_field",
            "id",
            "must start with a lowercase letter",
        ),
    ] {
        let error = admin.call(Method::POST, "/prompts", body).await.refused(400, code);
        assert_eq!(error["param"].as_str().unwrap_or_default(), param, "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(message), "{body}: {error}");
    }
    for (body, param) in [
        (json!({"content": {"text": "x"}}), "message"),
        (json!({"content": {"text": "x"}, "message": " "}), "message"),
        (
            json!({"content": {"text": "x", "modle": "m"}, "message": "m"}),
            "content.modle",
        ),
        (
            json!({"content": {"text": "x", "strict": 1}, "message": "m"}),
            "content.strict",
        ),
    ] {
        let error = admin
            .post("/prompts/support/greet/versions", body)
            .await
            .refused(400, "invalid_field");
        assert_eq!(error["param"], param, "{error}");
    }
    let error = admin
        .put(
            DEPLOYMENT,
            json!({"split": [{"variant": "a", "version": -1, "weight": 100}]}),
        )
        .await
        .refused(400, "invalid_field");
    assert_eq!(error["param"], "split[0].version");
    let error = admin
        .put(DEPLOYMENT, json!({"split": [{"variant": "a", "version": 1}]}))
        .await
        .refused(400, "invalid_field");
    assert_eq!(error["param"], "split[0].weight");
    assert_eq!(admin.state.registry.generation().await.unwrap(), before);
}

#[tokio::test]
async fn bodies_over_two_mebibytes_are_refused() {
    let admin = TestAdmin::new().await;
    let body = |bytes: usize| format!("{{\"id\": \"a\"}}{}", " ".repeat(bytes - 11));
    let over = admin.call(Method::POST, "/prompts", body((2 << 20) + 1)).await;
    over.refused(413, "body_too_large");
    admin.call(Method::POST, "/prompts", body(2 << 20)).await.expect(201);
}

#[tokio::test]
async fn bad_query_parameters_are_refused() {
    let admin = TestAdmin::with_versions().await;
    for path in [
        "/prompts?limt=1",
        "/prompts?limit=x",
        "/audit?cursor=x",
        "/keys?query=x",
        "/prompts/support/greet/versions?cursor=x",
    ] {
        admin.get(path).await.refused(400, "invalid_field");
    }
}

#[tokio::test]
async fn invalid_content_lists_every_problem() {
    let admin = TestAdmin::with_versions().await;
    let content = json!({"messages": [
        {"role": "system", "content": "{% include name %}"},
        {"role": "user", "content": "{% include 'prompt:nope' %}"},
    ]});
    let path = "/prompts/support/greet/versions";
    let error = admin
        .post(path, json!({"content": content, "message": "m"}))
        .await
        .refused(422, "invalid_content");
    insta::assert_json_snapshot!("invalid_content", error);
    let error = admin
        .post(path, json!({"content": {}, "message": "m"}))
        .await
        .refused(422, "invalid_content");
    assert_eq!(error["details"]["problems"][0]["path"], "content");
    let prompt = admin.get("/prompts/support/greet").await.expect(200);
    assert_eq!(prompt["latest_version"], 2);
}

#[tokio::test]
async fn missing_and_taken_things_have_their_codes() {
    let admin = TestAdmin::with_versions().await;
    admin
        .post("/prompts", json!({"id": "support/greet"}))
        .await
        .refused(409, "conflict");
    admin.get("/prompts/nope").await.refused(404, "prompt_not_found");
    admin
        .get("/prompts/nope/versions")
        .await
        .refused(404, "prompt_not_found");
    admin
        .get("/prompts/support/greet/versions/9")
        .await
        .refused(404, "version_not_found");
    admin.get(DEPLOYMENT).await.refused(404, "nothing_live");
    admin.deploy(9).await.refused(404, "version_not_found");
    let body = json!({"split": all_on(1)});
    admin
        .put("/prompts/support/greet/deployments/moon", body)
        .await
        .refused(404, "environment_not_found");
    let error = admin
        .put(DEPLOYMENT, json!({"split": []}))
        .await
        .refused(400, "invalid_field");
    assert_eq!(error["param"], "split");
    admin
        .get("/environments/moon")
        .await
        .refused(404, "environment_not_found");
    admin
        .call(Method::DELETE, "/keys/key_1", "")
        .await
        .refused(404, "not_found");
    let body = json!({"name": "shop", "environment": "moon"});
    admin.post("/keys", body).await.refused(404, "environment_not_found");
    let rollback = format!("{DEPLOYMENT}/rollback");
    admin
        .post(&rollback, json!({"message": "m"}))
        .await
        .refused(409, "conflict");
    admin
        .post(&rollback, json!({"to": 1, "message": "m"}))
        .await
        .refused(404, "not_found");
    admin
        .put("/prompts/nope/aliases/x", Value::Null)
        .await
        .refused(404, "prompt_not_found");
}

#[tokio::test]
async fn stale_etag_is_refused_with_the_live_deployment() {
    let admin = TestAdmin::with_versions().await;
    admin.deploy(1).await.expect(200);
    let live = admin.deploy(2).await.expect(200);
    let put = async |etag: &str| {
        let request = Request::put(format!("/api/v1{DEPLOYMENT}"))
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .header(header::IF_MATCH, etag)
            .body(Body::from(json!({"split": all_on(1)}).to_string()))
            .unwrap();
        admin.send(request).await
    };
    let error = put("\"1\"").await.refused(412, "stale");
    assert_eq!(error["details"]["current"], live);
    for malformed in ["1", "*", "W/\"1\"", "\"x\""] {
        let error = put(malformed).await.refused(400, "invalid_field");
        assert_eq!(error["param"], "if-match");
    }
    assert_eq!(admin.get(DEPLOYMENT).await.expect(200), live);
}

#[tokio::test]
async fn protected_environment_asks_for_approval_and_allows_rollback() {
    let admin = TestAdmin::with_versions().await;
    admin.deploy(1).await.expect(200);
    admin.deploy(2).await.expect(200);
    admin
        .put("/environments/production", json!({"protected": true}))
        .await
        .expect(200);
    let error = admin.deploy(1).await.refused(403, "approval_required");
    assert_eq!(
        error["details"],
        json!({"change": {"environment": "production", "message": "go",
            "deployments": [{"prompt": "support/greet", "split": all_on(1)}]}})
    );
    let back = admin
        .post(&format!("{DEPLOYMENT}/rollback"), json!({"message": "m"}))
        .await
        .expect(200);
    assert_eq!(back["split"], all_on(1));
}

#[tokio::test]
async fn panic_and_registry_failure_answer_a_fixed_phrase() {
    let admin = TestAdmin::with_versions().await;
    let registry = &admin.state.registry;
    registry
        .execute_for_tests("ALTER TABLE live RENAME TO dead".to_owned())
        .await;
    let failed = admin.get("/prompts").await.refused(500, "internal");
    registry.close().await;
    let away = admin.get("/prompts").await;
    assert_eq!(away.header("retry-after"), "1");
    away.refused(503, "unavailable");

    async fn explode() -> &'static str {
        panic!("secret detail")
    }
    let router: Router = Router::new()
        .route("/", get(explode))
        .layer(from_fn(guard::run_to_the_end));
    let response = router
        .oneshot(Request::get("/").body(Body::empty()).unwrap())
        .await
        .unwrap();
    let panicked = Answer::read(response).await.refused(500, "internal");
    assert_eq!(failed, panicked);
    assert_eq!(
        failed["message"],
        "something went wrong on our side, the detail is in the log"
    );
}

#[tokio::test]
async fn caller_that_leaves_does_not_stop_a_change_halfway() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let done = Arc::new(AtomicBool::new(false));
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (go, may_go) = tokio::sync::oneshot::channel::<()>();
    let (ended, has_ended) = tokio::sync::oneshot::channel();
    let parts = Arc::new(std::sync::Mutex::new(Some((started, may_go, ended))));
    let mark = done.clone();
    let handler = async move || {
        let (started, may_go, ended) = parts.lock().unwrap().take().unwrap();
        started.send(()).unwrap();
        may_go.await.unwrap();
        mark.store(true, Ordering::SeqCst);
        ended.send(()).unwrap();
    };
    let router: Router = Router::new()
        .route("/", get(handler))
        .layer(from_fn(guard::run_to_the_end));
    let call = tokio::spawn(router.oneshot(Request::get("/").body(Body::empty()).unwrap()));
    has_started.await.unwrap();
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    go.send(()).unwrap();
    has_ended.await.unwrap();
    assert!(done.load(Ordering::SeqCst));
}
