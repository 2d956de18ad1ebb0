//! A deployment rehearsed on real requests.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestGateway, until};

const PROMPT: &str = "support/greet";

async fn rehearse(gateway: &TestGateway, token: Option<&str>, body: Value) -> Value {
    let path = format!("/prompts/{PROMPT}/preflight");
    let answer = match token {
        Some(token) => gateway.admin_as(token, Method::POST, &path, &body).await,
        None => gateway.admin(Method::POST, &path, &body).await,
    };
    answer.expect(200).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn candidate_is_rehearsed_on_recorded_requests_and_changes_show_it() {
    let gateway = TestGateway::start().await;
    gateway
        .prompt(PROMPT, json!({"text": "Hello {{ name }}", "model": "mock-model"}))
        .await;
    gateway
        .version(PROMPT, json!({"text": "Hi {{ name }}", "model": "mock-model"}))
        .await;
    gateway.deploy(PROMPT, "production", json!([["control", 2, 100]])).await;
    for name in ["Ada", "Bob", "Cid"] {
        let body = json!({"prompt": {"id": PROMPT, "variables": {"name": name, "extra": 1}}});
        gateway.chat(body).await.expect(200);
    }
    // It names its version, so no deployment changes it.
    let pinned = json!({"prompt": {"id": PROMPT, "version": 1, "variables": {"name": "Pia"}}});
    gateway.chat(pinned).await.expect(200);
    let longer = json!({"text": "A very warm welcome, dear {{ name }}", "model": "mock-model"});
    assert_eq!(gateway.version(PROMPT, longer).await, 3);
    let needy = json!({"text": "Hi {{ name }} in {{ city }}", "model": "mock-model"});
    assert_eq!(gateway.version(PROMPT, needy).await, 4);

    let longer = until("all are recorded", async || {
        let found = rehearse(&gateway, None, json!({"environment": "production", "version": 3})).await;
        (found["requests"]["compared"] == 3).then_some(found)
    })
    .await;
    assert_eq!(longer["state"], "pass", "{longer}");
    let arm = &longer["arms"][0];
    let against = &arm["against"][0];
    assert_eq!((&against["version"], &against["changed"]), (&json!(2), &json!(3)));
    assert!(
        against["tokens_after"].as_u64() > against["tokens_before"].as_u64(),
        "{against}"
    );
    assert_eq!(arm["ignored_variables"], json!([{"name": "extra", "requests": 3}]));
    assert_eq!(
        against["examples"][0]["after"],
        "[user]\nA very warm welcome, dear Cid\n[caller]\n(the caller's own messages)\n"
    );
    assert_eq!(longer["rollback_target"]["deployment"], 1);
    assert_eq!(longer["rollback"][0]["against"][0]["changed"], 3, "Hello was Hi");

    let needy = rehearse(
        &gateway,
        None,
        json!({"environment": "production", "version": 4, "sample": 2}),
    )
    .await;
    assert_eq!(
        (&needy["state"], &needy["requests"]["compared"]),
        (&json!("fail"), &json!(2))
    );
    assert_eq!(
        needy["arms"][0]["refusals"],
        json!([{"variable": "city", "kind": "missing", "requests": 2}])
    );
    assert_eq!(needy["arms"][0]["unsent_variables"], json!(["city"]));
    assert_eq!(
        needy["figures"]["rollback_newly_refused"], 0,
        "going back would refuse none"
    );

    let read = gateway
        .admin(Method::GET, "/audit?action=content.read", &Value::Null)
        .await;
    let read = read.expect(200).json();
    assert_eq!(read["items"][0]["subject"], "support/greet@production");
    gateway
        .admin(
            Method::POST,
            "/users",
            &json!({"name": "vic", "grants": [{"role": "editor"}]}),
        )
        .await
        .expect(201);
    let made = gateway
        .admin(Method::POST, "/users/vic/tokens", &json!({"name": "t"}))
        .await;
    let vic = made.expect(201).json()["secret"].as_str().unwrap().to_owned();
    let hidden = rehearse(&gateway, Some(&vic), json!({"environment": "production", "version": 3})).await;
    assert_eq!(
        (&hidden["content_hidden"], &hidden["figures"]["changed"]),
        (&json!(true), &json!(3))
    );
    assert!(!hidden.to_string().contains("Cid"), "{hidden}");

    let policy = json!({"protected": true, "required_checks": ["preflight"]});
    gateway
        .admin(Method::PUT, "/environments/production", &policy)
        .await
        .expect(200);
    let propose = async |version: u32| {
        let split = json!([{"variant": "control", "version": version, "weight": 100}]);
        let body = json!({"environment": "production", "message": "try",
            "deployments": [{"prompt": PROMPT, "split": split}]});
        let change = gateway.admin_as(&vic, Method::POST, "/changes", &body).await;
        change.expect(201).json()
    };
    let bad = propose(4).await;
    assert_eq!(
        (&bad["checks"][0]["name"], &bad["checks"][0]["state"]),
        (&json!("preflight"), &json!("fail"))
    );
    assert_eq!(bad["preflight"]["prompts"][0]["figures"]["newly_refused"], 3);
    assert!(!bad.to_string().contains("Cid"), "{bad}");
    let forged = format!("/changes/{}/checks/preflight", bad["id"]);
    let forged = gateway.admin(Method::PUT, &forged, &json!({"state": "pass"})).await;
    forged.refused(400, "invalid_field");
    let good = propose(3).await;
    assert_eq!(good["checks"][0]["state"], "pass");
    let again = format!("/changes/{}/preflight", good["id"]);
    let again = gateway.admin_as(&vic, Method::POST, &again, &Value::Null).await;
    assert_eq!(again.expect(200).json()["preflight"]["state"], "pass");
    let shown = gateway
        .admin(Method::GET, &format!("/changes/{}", good["id"]), &Value::Null)
        .await;
    assert_eq!(shown.expect(200).json()["preflight"]["state"], "pass");
}
