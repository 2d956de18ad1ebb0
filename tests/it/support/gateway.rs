//! A gateway in this process.

use std::path::PathBuf;

use promptgate::app::App;
use promptgate::config::Config;
use promptgate::telemetry::{ExchangeFilter, Store};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ADMIN_TOKEN, Answer, Mock, PROVIDER_KEY, PROVIDER_KEY_ENV, config_text, until};

/// A gateway with data of its own, a mock provider and a key that may do everything in two environments.
pub struct TestGateway {
    app: App,
    pub mock: Mock,
    /// The key's secret.
    pub key: String,
    http: reqwest::Client,
    folder: TempDir,
}

impl TestGateway {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts with a configuration changed by `change`.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (folder, mock) = (tempfile::tempdir().unwrap(), Mock::start());
        let env = |name: &str| (name == PROVIDER_KEY_ENV).then(|| PROVIDER_KEY.to_owned());
        let text = config_text(folder.path(), &mock.url());
        let mut config = Config::parse(&text, "the test's configuration", &env).expect("a configuration");
        change(&mut config);
        let app = App::start(config, Some(ADMIN_TOKEN)).await.expect("a gateway");
        let mut gateway = Self {
            app,
            mock,
            key: String::new(),
            http: reqwest::Client::new(),
            folder,
        };
        let all = json!({"environments": ["staging"], "force_variant": true});
        gateway.key = gateway.new_key(all).await;
        gateway
    }

    /// The data plane's address, `127.0.0.1:…`.
    pub fn address(&self) -> String {
        self.app.data_address.to_string()
    }

    /// Starts a request to the data plane with the gateway's key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(&self.key)
    }

    /// Starts a request to the data plane without a key.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.app.data_address);
        self.http.request(method, url)
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn chat(&self, body: Value) -> Answer {
        self.post("/v1/chat/completions", &body).await
    }

    /// Starts a chat completion with another key.
    pub async fn chat_as(&self, key: &str, body: &Value) -> Answer {
        let request = self.anonymous(Method::POST, "/v1/chat/completions");
        send(request.bearer_auth(key).json(body)).await
    }

    /// Calls the control plane.
    pub async fn admin(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.admin_as(ADMIN_TOKEN, method, path, body).await
    }

    /// Calls the control plane with another token.
    pub async fn admin_as(&self, token: &str, method: Method, path: &str, body: &Value) -> Answer {
        let url = format!("http://{}/api/v1{path}", self.app.control_address);
        let request = self.http.request(method, url).bearer_auth(token);
        send(if body.is_null() { request } else { request.json(body) }).await
    }

    /// Creates a prompt with one version, live in production for everybody.
    pub async fn prompt(&self, id: &str, content: Value) {
        self.admin(Method::POST, "/prompts", &json!({"id": id}))
            .await
            .expect(201);
        let version = self.version(id, content).await;
        self.deploy(id, "production", json!([["control", version, 100]])).await;
    }

    /// Adds a version, and returns its number.
    pub async fn version(&self, id: &str, content: Value) -> u64 {
        let body = json!({"content": content, "message": "test"});
        let created = self
            .admin(Method::POST, &format!("/prompts/{id}/versions"), &body)
            .await;
        created.expect(201).json()["version"].as_u64().unwrap()
    }

    /// Puts arms `[variant, version, weight]` live, and returns the generation from which they are.
    pub async fn deploy(&self, id: &str, environment: &str, arms: Value) -> u64 {
        let arm = |arm: &Value| json!({"variant": arm[0], "version": arm[1], "weight": arm[2]});
        let split: Vec<Value> = arms.as_array().unwrap().iter().map(arm).collect();
        let path = format!("/prompts/{id}/deployments/{environment}");
        let body = json!({"split": split, "message": "test"});
        let deployed = self.admin(Method::PUT, &path, &body).await;
        deployed.expect(200).json()["generation"].as_u64().unwrap()
    }

    /// Makes a key, and returns its secret; `limits` are fields of the call.
    pub async fn new_key(&self, mut limits: Value) -> String {
        limits["name"] = "test".into();
        let created = self.admin(Method::POST, "/keys", &limits).await.expect(201);
        created.json()["key"].as_str().unwrap().to_owned()
    }

    /// A file of its data.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// All metrics, in Prometheus' text format.
    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.app.control_address);
        send(self.http.request(Method::GET, url))
            .await
            .expect(200)
            .text()
            .to_owned()
    }

    /// The registry's generation, as the data plane serves it.
    pub async fn generation(&self) -> u64 {
        let answer = send(self.request(Method::GET, "/v1/models")).await;
        answer.header("x-promptgate-generation").parse().unwrap()
    }

    /// Waits until an exchange is in the store.
    pub async fn record(&self, id: &str) -> Value {
        let store = self.app.store.as_ref().expect("a store");
        until("the exchange is recorded", async || store.exchange(id).await.unwrap()).await
    }

    /// Waits for the only record of an endpoint: for requests that got no answer to learn an id from.
    pub async fn only_record(&self, endpoint: &str) -> Value {
        let store = self.app.store.as_ref().expect("a store");
        let mut records = until("an exchange is recorded", async || {
            let found = read_all(store).await;
            let found: Vec<Value> = found.into_iter().filter(|r| r["endpoint"] == endpoint).collect();
            (!found.is_empty()).then_some(found)
        })
        .await;
        assert_eq!(records.len(), 1, "{records:?}");
        records.remove(0)
    }

    /// Stops, and returns every record there is: no other can come.
    pub async fn stop(self) -> Records {
        let path = self.folder.path().join("telemetry.db");
        let stopped = self.app.stop().await;
        assert_eq!(stopped.unshipped_segments, 0);
        let store = Store::sqlite(&path);
        let exchanges = read_all(&store).await;
        store.close().await;
        Records {
            exchanges,
            path,
            folder: self.folder,
        }
    }
}

const ZEROS: [u8; 4096] = [0; 4096];

/// What a gateway left behind.
pub struct Records {
    /// Newest first.
    pub exchanges: Vec<Value>,
    /// The telemetry database.
    pub path: PathBuf,
    folder: TempDir,
}

impl Records {
    /// Every file left, with its bytes; blocks of zeros, of which segments mostly consist, are left out.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let (mut files, mut folders) = (Vec::new(), vec![self.folder.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else {
                    let bytes = std::fs::read(&entry).unwrap();
                    let blocks = bytes
                        .chunks(ZEROS.len())
                        .filter(|block| *block != &ZEROS[..block.len()]);
                    files.push((entry, blocks.collect::<Vec<_>>().concat()));
                }
            }
        }
        files
    }
}

/// Sends a request and reads its answer.
pub async fn send(request: RequestBuilder) -> Answer {
    Answer::read(request.send().await.expect("an answer")).await
}

/// Reads every exchange of a store, newest first.
pub async fn read_all(store: &Store) -> Vec<Value> {
    let filter = ExchangeFilter::default();
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.exchanges(&filter, 500, cursor.as_deref()).await.expect("a page");
        all.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return all,
        }
    }
}
