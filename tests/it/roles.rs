//! Users with roles, as they and their programs meet them: content, tokens, commands.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, TestGateway, until};

/// Makes a user with roles everywhere, and returns a token of theirs.
async fn user(gateway: &TestGateway, name: &str, roles: &[&str]) -> String {
    let grants: Vec<Value> = roles.iter().map(|role| json!({"role": role})).collect();
    gateway
        .admin(Method::POST, "/users", &json!({"name": name, "grants": grants}))
        .await
        .expect(201);
    let made = gateway
        .admin(Method::POST, &format!("/users/{name}/tokens"), &json!({"name": "test"}))
        .await;
    made.expect(201).json()["secret"].as_str().unwrap().to_owned()
}

async fn get(gateway: &TestGateway, token: &str, path: &str) -> Answer {
    gateway.admin_as(token, Method::GET, path, &Value::Null).await
}

/// The audit log's entries of one action, newest first.
async fn audit(gateway: &TestGateway, action: &str) -> Vec<Value> {
    let log = gateway.admin(Method::GET, "/audit?limit=200", &Value::Null).await;
    let log = log.expect(200).json();
    let entries = log["items"].as_array().unwrap().iter();
    entries.filter(|entry| entry["action"] == action).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn content_is_for_content_readers_and_each_reading_is_audited() {
    let gateway = TestGateway::start().await;
    let (viewer, reader) = (
        user(&gateway, "vic", &["viewer"]).await,
        user(&gateway, "rea", &["content_reader"]).await,
    );
    let body = json!({"model": "mock-model", "messages": [{"role": "user", "content": "my secret is 4711"}]});
    let answer = gateway.chat(body).await.expect(200);
    let id = answer.header("x-request-id").to_owned();
    until("the record is there", async || {
        let found = get(&gateway, &viewer, &format!("/exchanges/{id}")).await;
        (found.status == 200).then_some(())
    })
    .await;

    let one = format!("/exchanges/{id}");
    for path in ["/exchanges", "/exchanges?content=true", one.as_str()] {
        let hidden = get(&gateway, &viewer, path).await.expect(200);
        assert!(!hidden.text().contains("4711"), "{path}: {}", hidden.text());
        assert!(hidden.text().contains("\"content_hidden\":true"), "{path}");
        assert!(hidden.text().contains(&id), "the rest of the record is there");
    }
    for path in ["/exchanges?text=4711", "/stats?text=4711"] {
        let refused = get(&gateway, &viewer, path).await.refused(403, "not_allowed");
        assert_eq!(refused["details"]["permission"], "read_content", "searching is reading");
    }
    let unasked = get(&gateway, &reader, "/exchanges?content=false").await.expect(200);
    assert!(!unasked.text().contains("4711"));
    assert_eq!(
        audit(&gateway, "content.read").await,
        [] as [Value; 0],
        "nobody has read any"
    );

    for path in ["/exchanges?environment=production&limit=5", one.as_str()] {
        let shown = get(&gateway, &reader, path).await.expect(200);
        assert!(
            shown.text().contains("4711") && !shown.text().contains("content_hidden"),
            "{path}"
        );
    }
    get(&gateway, &reader, "/exchanges?environment=staging")
        .await
        .expect(200);
    get(&gateway, &reader, "/stats?text=nothing").await.expect(200);
    let seen: Vec<(Value, Value, Value)> = audit(&gateway, "content.read")
        .await
        .into_iter()
        .map(|e| (e["actor"].clone(), e["subject"].clone(), e["detail"]["filter"].clone()))
        .collect();
    let rea = json!("rea");
    assert_eq!(
        seen,
        [
            (rea.clone(), json!("exchanges"), json!("text=nothing")),
            (rea.clone(), json!(id), Value::Null),
            (rea, json!("exchanges"), json!("environment=production&limit=5")),
        ],
        "a page without content is no reading"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn content_reader_of_one_folder_sees_the_content_of_no_other() {
    let gateway = TestGateway::start().await;
    for id in ["support/greet", "sales/pitch"] {
        let content = json!({"text": format!("words of {id}"), "model": "mock-model"});
        gateway.prompt(id, content).await;
        gateway.chat(json!({"prompt": {"id": id}})).await.expect(200);
    }
    let token = user(&gateway, "rea", &[]).await;
    for grant in [
        json!({"role": "content_reader", "folder": "support"}),
        json!({"role": "viewer", "folder": "sales"}),
    ] {
        gateway
            .admin(Method::POST, "/users/rea/grants", &grant)
            .await
            .expect(200);
    }
    let text = until("both are recorded", async || {
        let listed = get(&gateway, &token, "/exchanges?content=false").await.expect(200);
        (listed.json()["items"].as_array().unwrap().len() == 2).then_some(())?;
        Some(get(&gateway, &token, "/exchanges").await.expect(200).text().to_owned())
    })
    .await;
    assert!(text.contains("words of support/greet") && !text.contains("words of sales/pitch"));
    // What is no prompt's is nobody's who has but folders.
    let raw = json!({"model": "mock-model", "messages": [{"role": "user", "content": "raw"}]});
    let raw = gateway.chat(raw).await.expect(200).header("x-request-id").to_owned();
    gateway.record(&raw).await;
    get(&gateway, &token, &format!("/exchanges/{raw}"))
        .await
        .refused(403, "not_allowed");
    let listed = get(&gateway, &token, "/exchanges").await.expect(200);
    assert!(!listed.text().contains(&raw));
    get(&gateway, &token, "/stats").await.refused(403, "not_allowed");
    get(&gateway, &token, "/stats?prompt=support/greet").await.expect(200);
}
