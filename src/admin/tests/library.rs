//! Prompts, versions and drafts, as people work with them.

use super::*;

const GREET: &str = "/prompts/support/greet";

#[tokio::test]
async fn folders_search_and_archive_answer_what_the_caller_may_see() {
    let admin = TestAdmin::with_versions().await;
    admin
        .post(
            "/prompts",
            json!({"id": "support/eu/de", "owner": "ada", "tags": ["x"]}),
        )
        .await
        .expect(201);
    admin.post("/prompts", json!({"id": "sales/pitch"})).await.expect(201);
    let inside = admin.get("/folders?folder=support/").await.expect(200);
    assert_eq!(
        inside,
        json!({"folder": "support", "prompts": 2, "direct": 1, "folders": [{"folder": "support/eu", "prompts": 1}]})
    );
    let sales = admin.user("sam", &["viewer@*:sales"]).await;
    let top = admin.get_as(&sales, "/folders").await.expect(200);
    assert_eq!(top["folders"], json!([{"folder": "sales", "prompts": 1}]));

    let ids = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    for (query, expected) in [
        ("?folder=support", &["support/greet"][..]),
        ("?folder=support&recursive", &["support/eu/de", "support/greet"]),
        ("?owner=ada&tag=x", &["support/eu/de"]),
        ("?query=pitch", &["sales/pitch"]),
        ("?archived=only", &[]),
    ] {
        let list = admin.get(&format!("/prompts{query}")).await.expect(200);
        assert_eq!(ids(&list), expected, "{query}");
    }
    let found = admin.get("/prompts?q=HI%20%7B%7B").await.expect(200);
    assert_eq!(
        found["items"][0]["match"],
        json!({"in": "version", "version": 2, "path": "messages[0].content", "snippet": "Hi {{ name }}"})
    );
    for bad in ["?recursive=maybe", "?archived=soon", "?colour=red"] {
        admin.get(&format!("/prompts{bad}")).await.refused(400, "invalid_field");
    }

    admin.deploy(1).await.expect(200);
    let error = admin
        .post(&format!("{GREET}/archive"), json!({}))
        .await
        .refused(409, "conflict");
    assert_eq!(error["details"]["uses"][0]["environment"], "production");
    let path = format!("{GREET}/deployments/production");
    let off = admin
        .call(Method::DELETE, &path, r#"{"message": "over"}"#)
        .await
        .expect(200);
    assert_eq!((&off["kind"], &off["split"]), (&json!("take_down"), &json!([])));
    admin.get(&path).await.refused(404, "nothing_live");
    let put_away = admin
        .post(&format!("{GREET}/archive"), json!({"message": "over"}))
        .await
        .expect(200);
    assert!(put_away["archived_at"].is_string());
    admin.deploy(1).await.refused(409, "conflict");
    admin.post(&format!("{GREET}/restore"), json!({})).await.expect(200);
}

#[tokio::test]
async fn renamed_prompt_answers_to_both_names_and_needs_both_folders() {
    let admin = TestAdmin::with_versions().await;
    admin.deploy(2).await.expect(200);
    let token = admin.user("ada", &["editor@*:support"]).await;
    let rename = |to: &str| json!({"to": to, "message": "clearer"});
    let path = format!("{GREET}/rename");
    admin
        .post_as(&token, &path, rename("sales/greet"))
        .await
        .refused(403, "not_allowed");
    let renamed = admin.post_as(&token, &path, rename("support/hello")).await.expect(200);
    assert_eq!(
        (&renamed["id"], &renamed["aliases"]),
        (&json!("support/hello"), &json!(["support/greet"]))
    );
    assert_eq!(renamed["live"]["production"]["deployment"], 1);
    let shown = admin.get(GREET).await.expect(200);
    assert_eq!(shown["id"], "support/hello");
    let snapshot = admin.state.publisher.generation();
    assert_eq!(json!(snapshot), renamed["generation"], "served when answered");
    let log = admin.get("/audit?limit=1").await.expect(200);
    assert_eq!(
        log["items"][0]["detail"],
        json!({"from": "support/greet", "to": "support/hello", "message": "clearer"})
    );
    admin
        .post(&path, json!({"to": "a", "message": ""}))
        .await
        .refused(400, "invalid_field");
    admin
        .post("/prompts", json!({"id": "support/greet"}))
        .await
        .refused(409, "conflict");
}

/// Two editors saving at once: one gets 412 with the other's version; nothing is lost.
#[tokio::test]
async fn two_editors_saving_at_once_lose_nothing() {
    let admin = TestAdmin::with_versions().await;
    let path = format!("{GREET}/drafts/spring?user=admin");
    let draft = |text: &str| json!({"content": {"text": text}});
    let begun = admin
        .with(Method::PUT, &path, ("if-match", "\"0\""), draft("begun"))
        .await;
    assert_eq!((begun.status.as_u16(), begun.header("etag")), (201, "\"1\""));
    let bea = admin.user("bea", &["editor"]).await;
    let saved = admin
        .with(Method::PUT, &path, ("if-match", "\"1\""), draft("by ada"))
        .await;
    assert_eq!((saved.status.as_u16(), saved.header("etag")), (200, "\"2\""));
    let late = admin
        .with(Method::PUT, &path, ("if-match", "\"1\""), draft("by bea"))
        .await;
    let error = late.refused(412, "stale");
    assert_eq!(error["details"]["current"]["content"], json!({"text": "by ada"}));
    assert_eq!(error["details"]["current"]["revision"], 2);
    admin.put_as(&bea, &path, draft("blind")).await.refused(412, "stale");
    let kept = admin.get_as(&bea, &path).await.expect(200);
    assert_eq!(kept["content"]["text"], "by ada");

    let etag = admin.get(GREET).await;
    assert_eq!(etag.header("etag"), "\"1\"");
    let body = || json!({"description": "new"});
    admin
        .with(Method::PATCH, GREET, ("if-match", "\"1\""), body())
        .await
        .expect(200);
    let late = admin.with(Method::PATCH, GREET, ("if-match", "\"1\""), body()).await;
    assert_eq!(late.refused(412, "stale")["details"]["current"]["description"], "new");
    let production = "/environments/production";
    let body = || json!({"label": "Live"});
    admin
        .with(Method::PATCH, production, ("if-match", "\"1\""), body())
        .await
        .expect(200);
    let late = admin
        .with(Method::PATCH, production, ("if-match", "\"1\""), body())
        .await;
    assert_eq!(late.refused(412, "stale")["details"]["current"]["label"], "Live");
    admin
        .with(Method::PATCH, GREET, ("if-match", "*"), json!({}))
        .await
        .refused(400, "invalid_field");
}

#[tokio::test]
async fn draft_is_saved_broken_and_committed_when_it_is_whole() {
    let admin = TestAdmin::with_versions().await;
    let path = format!("{GREET}/drafts/spring");
    let broken = json!({"content": {"text": "{{ name"}});
    let saved = admin.put(&path, broken).await.expect(201);
    assert_eq!(saved["problems"].as_array().unwrap().len(), 1);
    assert_eq!((&saved["user"], &saved["stale"]), (&json!("admin"), &json!(false)));
    let commit = |body: Value| admin.post("/prompts/support/greet/drafts/spring/commit", body);
    commit(json!({"message": "m"})).await.refused(422, "invalid_content");
    let whole = json!({"content": {"text": "Spring, {{ name }}"}});
    admin
        .with(Method::PUT, &path, ("if-match", "\"1\""), whole)
        .await
        .expect(200);
    let theirs = json!({"content": {"text": "theirs"}, "message": "m"});
    admin
        .post(&format!("{GREET}/versions"), theirs.clone())
        .await
        .expect(201);
    let twin = admin
        .post(&format!("{GREET}/versions"), theirs)
        .await
        .refused(409, "conflict");
    assert_eq!(twin["details"]["version"], 3);
    let told = commit(json!({"message": "m"})).await.refused(412, "stale");
    assert_eq!(told["details"]["current"]["version"], 3);
    commit(json!({"message": " ", "onto": 3}))
        .await
        .refused(400, "invalid_field");
    let made = commit(json!({"message": "spring", "onto": 3})).await.expect(201);
    assert_eq!((&made["version"], &made["parent"]), (&json!(4), &json!(2)));
    assert_eq!(
        admin.get(&format!("{GREET}/drafts")).await.expect(200)["items"],
        json!([])
    );
    admin.get(&path).await.refused(404, "not_found");
}

/// A draft shows what its partials say, so it is no way around a folder either.
#[tokio::test]
async fn draft_cannot_read_a_partial_of_another_folder() {
    let admin = TestAdmin::with_versions().await;
    admin.post("/prompts", json!({"id": "sales/pitch"})).await.expect(201);
    let body = json!({"content": {"text": "secret of sales"}, "message": "m"});
    admin.post("/prompts/sales/pitch/versions", body).await.expect(201);
    let token = admin.user("ada", &["editor@*:support"]).await;
    let content = json!({"content": {"text": "{% include 'prompt:sales/pitch' %}"}});
    let path = format!("{GREET}/drafts/x");
    admin
        .put_as(&token, &path, content.clone())
        .await
        .refused(403, "not_allowed");
    admin.put(&path, content).await.expect(201);
    let diff = format!("{GREET}/diff?to=draft:admin/x");
    admin.get_as(&token, &diff).await.refused(403, "not_allowed");
    let commit = format!("{path}/commit?user=admin");
    admin
        .post_as(&token, &commit, json!({"message": "m"}))
        .await
        .refused(403, "not_allowed");
    admin.get(&diff).await.expect(200);
}

#[tokio::test]
async fn differences_are_told_as_json_and_as_text() {
    let admin = TestAdmin::with_versions().await;
    let diff = admin.get(&format!("{GREET}/diff")).await.expect(200);
    let only = &diff["comparisons"][0];
    assert_eq!(
        (&only["from"], &only["to"]),
        (&json!({"version": 1}), &json!({"version": 2}))
    );
    assert_eq!(
        only["diff"]["messages"][0]["text"],
        json!([
            {"op": "removed", "text": "Hello"},
            {"op": "added", "text": "Hi"},
            {"op": "same", "text": " {{ name }}"},
        ])
    );
    let accept = ("accept", "text/plain");
    let path = format!("/api/v1{GREET}/diff?from=2&to=1");
    let request = Request::get(path)
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
        .header(accept.0, accept.1);
    let response = admin
        .router
        .clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    let text = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert_eq!(
        String::from_utf8(text.to_vec()).unwrap(),
        "support/greet:2 → support/greet:1\n~ messages[0] user\n    [-Hi-]{+Hello+} {{ name }}\n"
    );

    let split =
        json!([{"variant": "control", "version": 1, "weight": 90.0}, {"variant": "b", "version": 2, "weight": 10.0}]);
    let path = format!("{GREET}/deployments/production");
    admin.put(&path, json!({"split": split})).await.expect(200);
    let live = admin
        .get(&format!("{GREET}/diff?from=live:production&to=2"))
        .await
        .expect(200);
    let same: Vec<&Value> = live["comparisons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["diff"]["same"])
        .collect();
    assert_eq!(same, [false, true]);
    assert_eq!(live["comparisons"][0]["from"]["variant"], "control");
    let arm = admin
        .get(&format!("{GREET}/diff?from=live:production/b&to=1"))
        .await
        .expect(200);
    assert_eq!(arm["comparisons"].as_array().unwrap().len(), 1);
    admin
        .put(&format!("{GREET}/drafts/x"), json!({"content": {"text": "{{ name"}}))
        .await
        .expect(201);
    let broken = admin.get(&format!("{GREET}/diff?to=draft:x")).await.expect(200);
    assert_eq!(broken["comparisons"][0]["compared"], "source");
    for (query, status, code) in [
        ("from=x", 400, "invalid_field"),
        ("from=live:production&to=live:production", 400, "invalid_field"),
        ("from=live:production/c", 400, "invalid_field"),
        ("from=live:staging", 404, "nothing_live"),
        ("from=9", 404, "version_not_found"),
        ("to=draft:none", 404, "not_found"),
        ("to=1", 400, "invalid_field"),
    ] {
        admin.get(&format!("{GREET}/diff?{query}")).await.refused(status, code);
    }
}

#[tokio::test]
async fn newer_partials_are_offered_with_their_difference() {
    let admin = TestAdmin::with_versions().await;
    admin.post("/prompts", json!({"id": "page"})).await.expect(201);
    let body = json!({"content": {"text": "{% include 'prompt:support/greet' %}!"}, "message": "m"});
    admin.post("/prompts/page/versions", body).await.expect(201);
    let body = json!({"content": {"text": "Good day {{ name }}"}, "message": "m"});
    admin.post(&format!("{GREET}/versions"), body).await.expect(201);
    let updates = admin.get("/prompts/page/updates").await.expect(200);
    assert_eq!(updates["items"][0]["version"], 1);
    assert_eq!(
        updates["items"][0]["diff"]["partials"][0]["name"],
        "prompt:support/greet:3"
    );
    let used = admin.get(&format!("{GREET}/used-by")).await.expect(200);
    assert_eq!(
        used["items"],
        json!([{"prompt": "page", "version": 1, "uses_version": 2, "live": []}])
    );
    let uses = admin.get("/prompts/page/uses").await.expect(200);
    assert_eq!(
        uses["items"][0]["uses"],
        json!([{"prompt": "support/greet", "version": 2, "latest": 3}])
    );
    for bad in [
        json!({"message": "m"}),
        json!({"from": 1, "message": "m"}),
        json!({"content": {"text": "x"}, "refresh_partials": true, "message": "m"}),
    ] {
        admin
            .post("/prompts/page/versions", bad)
            .await
            .refused(400, "invalid_field");
    }
    let refresh = json!({"from": 1, "refresh_partials": true, "message": "newer greeting"});
    let made = admin.post("/prompts/page/versions", refresh).await.expect(201);
    assert_eq!((&made["version"], &made["parent"]), (&json!(2), &json!(1)));
    assert_eq!(admin.get("/prompts/page/updates").await.expect(200)["items"], json!([]));
}
