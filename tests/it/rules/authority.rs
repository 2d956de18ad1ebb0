//! Rules 7 to 9: what a key may do, which credential goes out, what is sticky.

use reqwest::Method;
use serde_json::{Value, json};

use super::{CHAT, GREET, ada, case, greet, refused};
use crate::support::{Answer, TestGateway};

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_key_does_what_it_may_and_nothing_else() {
    let gateway = greet().await;
    let prompt = |more: Value| {
        let mut reference = json!({"id": GREET, "variables": ada()});
        reference
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"prompt": reference})
    };
    let raw = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    let (live, staging, pinned) = (
        prompt(json!({})),
        prompt(json!({"environment": "staging"})),
        prompt(json!({"version": 2})),
    );
    let production = prompt(json!({"environment": "production"}));
    let (free, renamed) = (raw("mock-model"), raw("renamed-model"));
    let table = [
        (
            "plain key",
            json!({}),
            vec![(&live, 200), (&pinned, 200), (&staging, 403), (&free, 200)],
        ),
        (
            "key of staging",
            json!({"environment": "staging"}),
            vec![(&staging, 200), (&live, 200), (&production, 403)],
        ),
        (
            "two environments",
            json!({"environments": ["staging"]}),
            vec![(&staging, 200), (&live, 200)],
        ),
        ("no pin", json!({"pin": false}), vec![(&live, 200), (&pinned, 403)]),
        ("no raw", json!({"raw": false}), vec![(&live, 200), (&free, 403)]),
        (
            "one model",
            json!({"models": ["mock-model"]}),
            vec![(&free, 200), (&renamed, 403), (&live, 403)],
        ),
        ("no models", json!({"models": []}), vec![(&free, 403)]),
    ];
    for (name, limits, calls) in table {
        let key = gateway.new_key(limits).await;
        for (body, status) in calls {
            let before = gateway.mock.requests().await;
            let answer = gateway.chat_as(&key, body).await;
            assert_eq!(answer.status, status, "{name}, {body}: {}", answer.text());
            if status == 403 {
                answer.refused(403, "not_allowed");
                assert_eq!(gateway.mock.requests().await, before, "{name}: {body} was forwarded");
            }
        }
    }
    let revoked = gateway
        .admin(Method::POST, "/keys", &json!({"name": "revoked"}))
        .await
        .expect(201)
        .json();
    let path = format!("/keys/{}", revoked["id"].as_str().unwrap());
    gateway.admin(Method::DELETE, &path, &Value::Null).await.expect(200);
    gateway
        .chat_as(revoked["key"].as_str().unwrap(), &live)
        .await
        .refused(401, "invalid_api_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_protected_environment_takes_only_versions_that_were_live_there() {
    let gateway = greet().await;
    gateway.deploy(GREET, "production", json!([["control", 2, 100]])).await;
    gateway
        .version(GREET, json!({"text": "never live", "model": "mock-model?echo"}))
        .await;
    let pinned = |version: u32| json!({"prompt": {"id": GREET, "version": version, "variables": ada()}});
    gateway.chat(pinned(3)).await.expect(200);
    gateway
        .admin(Method::PUT, "/environments/production", &json!({"protected": true}))
        .await
        .expect(200);
    for version in [1, 2] {
        gateway.chat(pinned(version)).await.expect(200);
    }
    refused(&gateway, vec![(case("never live", pinned(3)), 403, "not_allowed")]).await;
    let path = format!("/prompts/{GREET}/deployments/production");
    let split = json!({"split": [{"variant": "control", "version": 3, "weight": 100}], "message": "now"});
    gateway
        .admin(Method::PUT, &path, &split)
        .await
        .refused(403, "approval_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_forced_variant_is_recorded_as_forced() {
    let gateway = greet().await;
    gateway
        .deploy(GREET, "production", json!([["control", 1, 99.99], ["b", 2, 0.01]]))
        .await;
    let body = json!({"prompt": {"id": GREET, "variables": ada()}, "user": "always control"});
    for (variant, version) in [("b", "2"), ("control", "1")] {
        let request = gateway
            .request(Method::POST, CHAT)
            .header("x-promptgate-variant", variant)
            .json(&body);
        let answer = Answer::read(request.send().await.unwrap()).await.expect(200);
        assert_eq!(
            (
                answer.header("x-promptgate-variant"),
                answer.header("x-promptgate-version")
            ),
            (variant, version)
        );
        let record = gateway.record(answer.id()).await;
        assert_eq!(
            (&record["assignment"], &record["variant"]),
            (&"forced".into(), &variant.into())
        );
    }
    const FORCE: &[(&str, &str)] = &[("x-promptgate-variant", "b")];
    let pinned = json!({"prompt": {"id": GREET, "version": 1, "variables": ada()}});
    refused(
        &gateway,
        vec![
            (
                case("unknown variant", body.clone()).headers(&[("x-promptgate-variant", "c")]),
                400,
                "invalid_field",
            ),
            (case("variant and version", pinned).headers(FORCE), 400, "contradiction"),
        ],
    )
    .await;
    let plain = gateway.new_key(json!({})).await;
    let request = gateway
        .anonymous(Method::POST, CHAT)
        .bearer_auth(plain)
        .header("x-promptgate-variant", "b");
    Answer::read(request.json(&body).send().await.unwrap())
        .await
        .refused(403, "not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_8_credential_is_the_targets_and_never_another() {
    let gateway = TestGateway::with(|config| {
        let mut keyless = config.providers[0].clone();
        keyless.name = "keyless".to_owned();
        keyless.api_key = None;
        config.providers.push(keyless);
        let mut model = config.models[1].clone();
        model.name = "keyless-model".to_owned();
        model.targets[0].provider = "keyless".to_owned();
        config.models.push(model);
    })
    .await;
    let body = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    let credential = async || gateway.mock.stats().await["last_request"]["headers"]["authorization"].clone();
    let answer = gateway.chat(body("mock-model")).await.expect(200);
    assert_eq!(answer.header("x-promptgate-provider"), "mock");
    assert_eq!(credential().await, "Bearer sk-upstream-secret");
    let answer = gateway.chat(body("keyless-model")).await;
    assert_eq!(
        (answer.status, answer.header("x-promptgate-provider")),
        (401, "keyless")
    );
    assert_eq!(credential().await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_9_unit_is_header_then_safety_identifier_then_user_then_the_request() {
    let gateway = greet().await;
    gateway
        .deploy(GREET, "production", json!([["control", 1, 50], ["b", 2, 50]]))
        .await;
    let salt = format!("{GREET}@production");
    let arm = |unit: &str| {
        if promptgate::domain::split::bucket(salt.as_bytes(), unit.as_bytes()) < 5000 {
            "control"
        } else {
            "b"
        }
    };
    let of = |wanted: &str| {
        (0..)
            .map(|n| format!("unit-{n}"))
            .find(|unit| arm(unit) == wanted)
            .unwrap()
    };
    let (control, b) = (of("control"), of("b"));
    let (control, b) = (control.as_str(), b.as_str());
    let table = [
        ("header first", Some(control), Some(b), Some(b), "control"),
        ("header first", Some(b), Some(control), Some(control), "b"),
        ("then safety_identifier", None, Some(control), Some(b), "control"),
        ("then safety_identifier", None, Some(b), Some(control), "b"),
        ("then user", None, None, Some(control), "control"),
        ("then user", None, None, Some(b), "b"),
        ("empty header", Some(""), None, Some(b), "b"),
        ("empty safety_identifier", None, Some(""), Some(b), "b"),
    ];
    for (name, header, safety, user, expected) in table {
        let body = json!({"prompt": {"id": GREET, "variables": ada()}, "safety_identifier": safety, "user": user});
        let mut request = gateway.request(Method::POST, CHAT).json(&body);
        if let Some(unit) = header {
            request = request.header("x-promptgate-unit", unit);
        }
        let answer = Answer::read(request.send().await.unwrap()).await.expect(200);
        assert_eq!(answer.header("x-promptgate-variant"), expected, "{name}");
        assert_eq!(gateway.record(answer.id()).await["assignment"], "split");
    }
    // Each request its own unit: 40 times the same arm has a chance of 2^-39.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let answer = gateway
            .chat(json!({"prompt": {"id": GREET, "variables": ada()}}))
            .await
            .expect(200);
        seen.insert(answer.header("x-promptgate-variant").to_owned());
    }
    assert_eq!(seen.len(), 2);
}
