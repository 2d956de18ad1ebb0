//! Webhooks of the real binary: to a receiver that fails, with a gateway that is killed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use promptgate::domain::webhook::signature;
use reqwest::Method;
use serde_json::{Value, json};

use crate::commands::{read, run};
use crate::support::{Mock, Process, config_text, until};

const PROMPTS: [&str; 3] = ["support/greet", "support/bye", "sales/pitch"];
const VERSIONS: usize = 4;

/// How long the receiver fails: 2 s, or what WEBHOOK_OUTAGE_SECONDS says.
fn outage() -> Duration {
    let seconds = std::env::var("WEBHOOK_OUTAGE_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(2))
}

/// What came in, and how to answer it.
struct Receiver {
    address: String,
    got: Arc<Mutex<Vec<(HeaderMap, Value, String)>>>,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Works,
    /// 500 to every other request; the rest is taken, but the answer says otherwise.
    Fails,
    Redirects,
}

impl Receiver {
    async fn start() -> Self {
        let (got, state): (Arc<Mutex<Vec<_>>>, _) = (Arc::default(), Arc::new(Mutex::new(State::Works)));
        let (seen, answer) = (Arc::clone(&got), Arc::clone(&state));
        let receive = move |headers: HeaderMap, body: Bytes| {
            let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
            async move {
                let state = *answer.lock().unwrap();
                let text = String::from_utf8(body.to_vec()).unwrap();
                let mut seen = seen.lock().unwrap();
                match state {
                    State::Redirects => return (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
                    State::Fails if seen.len().is_multiple_of(2) => {
                        seen.push((headers, Value::Null, String::new()));
                        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
                    }
                    _ => {}
                }
                seen.push((headers, serde_json::from_str(&text).unwrap(), text));
                match state {
                    State::Fails => broken(),
                    _ => StatusCode::NO_CONTENT.into_response(),
                }
            }
        };
        let app = axum::Router::new().route("/hook", post(receive));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, got, state }
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap() = state;
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
}

/// What a proxy answers that lost the receiver half-way.
fn broken() -> Response {
    let mut response = StatusCode::BAD_GATEWAY.into_response();
    response
        .headers_mut()
        .insert(header::CONNECTION, "close".parse().unwrap());
    response
}

fn configure(folder: &Path, mock: &Mock, webhooks: &str) {
    let text = config_text(folder, &mock.url());
    let text = text.replacen("[[providers]]", &format!("[webhooks]\n{webhooks}\n[[providers]]"), 1);
    std::fs::write(folder.join("gateway.toml"), text).unwrap();
}

async fn create(process: &Process, body: Value) -> Value {
    process.admin(Method::POST, "/webhooks", &body).await.expect(201).json()
}

async fn push(process: &Process, prompt: &str, version: usize) {
    let body = json!({"content": {"text": format!("Hello {version}")}, "message": "m"});
    let path = format!("/prompts/{prompt}/versions");
    process.admin(Method::POST, &path, &body).await.expect(201);
    let split = json!([{"variant": "control", "version": version, "weight": 100}]);
    let path = format!("/prompts/{prompt}/deployments/production");
    let body = json!({"split": split, "message": "m"});
    process.admin(Method::PUT, &path, &body).await.expect(200);
}

/// Every event of the delivery log, oldest first: its id and type.
async fn delivered(process: &Process, webhook: &str) -> Option<Vec<String>> {
    let path = format!("/webhooks/{webhook}/deliveries?limit=200");
    let log = process.admin(Method::GET, &path, &Value::Null).await.expect(200).json();
    let items = log["items"].as_array().unwrap();
    let all = items.iter().all(|item| item["state"] == "delivered");
    all.then(|| {
        items
            .iter()
            .rev()
            .map(|item| item["event"].as_str().unwrap().to_owned())
            .collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_arrives_in_order_whatever_fails() {
    let (mock, folder, receiver) = (Mock::start(), tempfile::tempdir().unwrap(), Receiver::start().await);
    configure(
        folder.path(),
        &mock,
        "allow_networks = [\"127.0.0.0/8\"]\ntimeout = \"2s\"",
    );
    let mut process = Process::serve(folder.path());
    let hook = create(&process, json!({"url": receiver.url()})).await;
    let (id, secret) = (hook["id"].as_str().unwrap(), hook["secret"].as_str().unwrap());
    for prompt in PROMPTS {
        let body = json!({"id": prompt});
        process.admin(Method::POST, "/prompts", &body).await.expect(201);
    }
    receiver.set(State::Fails);
    let failing = Instant::now();
    for version in 1..=VERSIONS {
        for prompt in PROMPTS {
            push(&process, prompt, version).await;
        }
        if version == VERSIONS / 2 {
            process.kill();
            process = Process::serve(folder.path());
        }
    }
    tokio::time::sleep(outage().saturating_sub(failing.elapsed())).await;
    receiver.set(State::Works);
    let events = {
        // A pause may have grown to as long as the outage, and a lease of the killed one must end first.
        let patience = Instant::now() + 3 * outage() + Duration::from_secs(60);
        loop {
            if let Some(events) = delivered(&process, id).await {
                break events;
            }
            assert!(Instant::now() < patience, "some events do not arrive");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(events.len(), 2 * PROMPTS.len() * VERSIONS, "each is in the log once");

    let got = receiver.got.lock().unwrap();
    let came: Vec<_> = got.iter().filter(|(_, body, _)| !body.is_null()).collect();
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (place, (headers, body, text)) in came.iter().enumerate() {
        let header = |name: &str| headers[name].to_str().unwrap();
        let event = body["id"].as_str().unwrap();
        assert_eq!(header("webhook-id"), event);
        let at = header("webhook-timestamp").parse().unwrap();
        assert_eq!(
            signature(secret, event, at, text).as_deref(),
            Some(header("webhook-signature"))
        );
        first.entry(event).or_insert(place);
    }
    assert_eq!(first.len(), events.len(), "each came, under its one id");
    for prompt in PROMPTS {
        let of_prompt = |event: &&String| came[first[event.as_str()]].1["prompts"] == json!([prompt]);
        let places: Vec<usize> = events
            .iter()
            .filter(of_prompt)
            .map(|event| first[event.as_str()])
            .collect();
        assert_eq!(places.len(), 2 * VERSIONS);
        assert!(places.is_sorted(), "{prompt} came out of order: {places:?}");
    }
    let kinds: Vec<&Value> = events
        .iter()
        .map(|event| &came[first[event.as_str()]].1["type"])
        .collect();
    assert_eq!(&kinds[..2], [&json!("version.created"), &json!("deployment.changed")]);
    println!(
        "webhooks: {} events, {} requests, {} of them taken, outage {:?}, one kill -9",
        events.len(),
        got.len(),
        came.len(),
        outage()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_not_public_and_redirects_are_refused() {
    let (mock, folder, receiver) = (Mock::start(), tempfile::tempdir().unwrap(), Receiver::start().await);
    configure(
        folder.path(),
        &mock,
        "allow_networks = [\"127.0.0.1\"]\ntimeout = \"2s\"",
    );
    let process = Process::serve(folder.path());
    let mut errors = Vec::new();
    for url in [
        "https://127.0.0.2/hook",
        "https://[::1]/hook",
        "http://169.254.169.254/latest",
        "http://1.1.1.1/",
    ] {
        let hook = create(&process, json!({"url": url})).await;
        let path = format!("/webhooks/{}/test", hook["id"].as_str().unwrap());
        let ping = process.admin(Method::POST, &path, &json!({})).await.expect(200).json();
        assert_eq!((&ping["state"], &ping["attempts"]), (&json!("waiting"), &json!(1)));
        errors.push(ping["error"].as_str().unwrap().to_owned());
    }
    assert!(
        errors[..3].iter().all(|error| error.contains("not a public address")),
        "{errors:?}"
    );
    assert!(errors[3].contains("use https"), "{errors:?}");

    receiver.set(State::Redirects);
    let hook = create(&process, json!({"url": receiver.url()})).await;
    let path = format!("/webhooks/{}/test", hook["id"].as_str().unwrap());
    let ping = process.admin(Method::POST, &path, &json!({})).await.expect(200).json();
    assert_eq!(
        (&ping["status"], &ping["error"]),
        (&json!(302), &json!("redirects are not followed"))
    );
    for (url, why) in [
        ("ftp://example.com/", "not an http address"),
        ("https://ada:secret@example.com/", "user or password"),
        ("nonsense", "not an"),
    ] {
        let refused = process
            .admin(Method::POST, "/webhooks", &json!({"url": url}))
            .await
            .expect(400);
        assert!(refused.text().contains(why), "{}", refused.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_managed_by_command() {
    let (mock, folder, receiver) = (Mock::start(), tempfile::tempdir().unwrap(), Receiver::start().await);
    configure(folder.path(), &mock, "allow_networks = [\"127.0.0.1\"]");
    let process = Process::serve(folder.path());
    let made = run(
        &process,
        &[
            "webhooks",
            "create",
            &receiver.url(),
            "--event",
            "version",
            "--folder",
            "support",
        ],
    );
    let id = made["id"].as_str().unwrap();
    assert!(
        read(&process, &["webhooks", "test", id])
            .1
            .starts_with("delivered: 204 in")
    );
    for prompt in ["support/greet", "sales/pitch"] {
        process
            .admin(Method::POST, "/prompts", &json!({"id": prompt}))
            .await
            .expect(201);
        push(&process, prompt, 1).await;
    }
    until("the version is known", async || {
        (receiver.got.lock().unwrap().len() == 2).then_some(())
    })
    .await;
    until("it is noted", async || delivered(&process, id).await).await;
    let (_, log) = read(&process, &["webhooks", "deliveries", id, "--state", "delivered"]);
    assert!(log.contains("ping") && log.contains("version.created"), "{log}");
    let (_, list) = read(&process, &["webhooks", "list"]);
    assert!(list.contains(id) && !list.contains("whsec_"), "{list}");
    run(&process, &["webhooks", "set", id, "--disable"]);
    push(&process, "support/greet", 2).await;
    let (_, rotated) = read(&process, &["webhooks", "rotate", id]);
    assert!(rotated.contains("whsec_") && !rotated.contains(made["secret"].as_str().unwrap()));
    assert_eq!(
        receiver.got.lock().unwrap().len(),
        2,
        "a disabled one is told of nothing"
    );
    assert!(
        read(&process, &["webhooks", "delete", id])
            .1
            .contains("0 events with it")
    );
    let gone = process
        .admin(Method::GET, &format!("/webhooks/{id}"), &Value::Null)
        .await;
    gone.expect(404);
    let log = process
        .admin(Method::GET, "/audit?action=webhook", &Value::Null)
        .await
        .expect(200);
    assert!(!log.text().contains("whsec_") && log.text().contains("webhook.rotate_secret"));
}
