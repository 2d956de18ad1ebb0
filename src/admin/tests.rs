//! The control plane through its router, on a temporary registry.

mod calls;
mod changes;
mod library;
mod moving;
mod refusals;
mod roles;
mod users;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::registry::testing::TestDatabase;
use crate::snapshot::{Cell, Following, Routing, Snapshot};

const TOKEN: &str = "test-admin-token";

/// An answer, read.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    async fn read(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body, once the status is as expected.
    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    /// The error, once status and code are as expected.
    #[track_caller]
    fn refused(self, status: u16, code: &str) -> Value {
        let mut body = self.expect(status);
        assert_eq!(body["error"]["code"], code, "{body}");
        body["error"].take()
    }
}

struct TestAdmin {
    state: AdminState,
    router: Router,
    _database: TestDatabase,
}

impl TestAdmin {
    async fn new() -> Self {
        let database = TestDatabase::new().await;
        let registry = Registry::open(&database.url).await.unwrap();
        registry.ensure_admin_token(Some(TOKEN)).await.unwrap();
        let registry = Arc::new(registry);
        let cell = Cell::new(Snapshot::empty(Arc::new(Routing::default()), "test"));
        let state = AdminState {
            publisher: Publisher::start(Arc::clone(&registry), Arc::new(cell), Following::default())
                .await
                .unwrap(),
            node: Arc::default(),
            registry,
            metrics: crate::metrics::Metrics::new("test"),
            store: None,
            rehearsal: Arc::default(),
        };
        Self {
            router: router(state.clone()),
            state,
            _database: database,
        }
    }

    /// With prompt `support/greet` and two versions.
    async fn with_versions() -> Self {
        let admin = Self::new().await;
        admin.post("/prompts", json!({"id": "support/greet"})).await.expect(201);
        for text in ["Hello {{ name }}", "Hi {{ name }}"] {
            let body = json!({"content": {"text": text}, "message": "try"});
            admin.post("/prompts/support/greet/versions", body).await.expect(201);
        }
        admin
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        Answer::read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        self.call_as(TOKEN, method, path, body).await
    }

    async fn call_as(&self, token: &str, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        self.send(request.body(body.into()).unwrap()).await
    }

    /// Sends JSON with one more header.
    async fn with(&self, method: Method, path: &str, (name, value): (&str, &str), body: Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .header(name, value);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn get_as(&self, token: &str, path: &str) -> Answer {
        self.call_as(token, Method::GET, path, "").await
    }

    async fn post_as(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call_as(token, Method::POST, path, body.to_string()).await
    }

    async fn put_as(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call_as(token, Method::PUT, path, body.to_string()).await
    }

    /// Makes a user with grants `role`, `role@environment` or `role@environment:folder`; returns a token of theirs.
    async fn user(&self, name: &str, grants: &[&str]) -> String {
        let grant = |text: &&str| {
            let (role, rest) = text.split_once('@').unwrap_or((text, "*"));
            let (environment, folder) = rest.split_once(':').unwrap_or((rest, "*"));
            json!({"role": role, "environment": environment, "folder": folder})
        };
        let grants: Vec<Value> = grants.iter().map(grant).collect();
        self.post("/users", json!({"name": name, "grants": grants}))
            .await
            .expect(201);
        let made = self
            .post(&format!("/users/{name}/tokens"), json!({"name": "test"}))
            .await
            .expect(201);
        made["secret"].as_str().unwrap().to_owned()
    }

    /// The newest entries of the audit log, as `actor action subject`.
    async fn log(&self, entries: usize) -> Vec<String> {
        let log = self.get(&format!("/audit?limit={entries}")).await.expect(200);
        let line = |entry: &Value| {
            let text = |name: &str| entry[name].as_str().unwrap().to_owned();
            format!("{} {} {}", text("actor"), text("action"), text("subject"))
        };
        log["items"].as_array().unwrap().iter().map(line).collect()
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, "").await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body.to_string()).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, body.to_string()).await
    }

    /// Makes one version live in production.
    async fn deploy(&self, version: u32) -> Answer {
        let path = "/prompts/support/greet/deployments/production";
        self.put(path, json!({"split": all_on(version), "message": "go"})).await
    }
}

fn all_on(version: u32) -> Value {
    json!([{"variant": "control", "version": version, "weight": 100.0}])
}

/// Replaces what differs from run to run, after a look at its form.
fn steady(mut body: Value) -> Value {
    fn walk(name: &str, value: &mut Value) {
        match value {
            Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| walk(name, field)),
            Value::Array(items) => items.iter_mut().for_each(|item| walk(name, item)),
            Value::String(text) => match name {
                "created_at" | "revoked_at" | "at" => {
                    assert!(text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok(), "{text}");
                    *text = "[time]".to_owned();
                }
                "key" => *text = format!("{}…{}", &text[..3], text.len()),
                "token_id" if !text.is_empty() => *text = format!("{}…", &text[..4]),
                "request_id" if !text.is_empty() => *text = "[request]".to_owned(),
                "id" | "subject" if text.starts_with("key_") => *text = "key_…".to_owned(),
                _ => {}
            },
            _ => {}
        }
    }
    walk("", &mut body);
    body
}

/// Every call that the OpenAPI text has is one that the router has; the text itself is served.
#[tokio::test]
async fn openapi_calls_are_all_routed() {
    let admin = TestAdmin::with_versions().await;
    for call in openapi::CALLS.iter().filter(|call| !call.path.ends_with('z')) {
        let path = call.path.replace("{id}", "support/greet").replace("{version}", "1");
        let path = path.replace("{environment}", "production").replace(['{', '}'], "");
        let request = Request::builder()
            .method(call.method.to_uppercase().as_str())
            .uri(format!("/api/v1{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .body(Body::from("{}"))
            .unwrap();
        let answer = admin.send(request).await;
        let code = answer.body["error"]["code"].as_str().unwrap_or_default();
        assert!(
            !matches!(code, "unknown_route" | "method_not_allowed"),
            "{} {path}: {code}",
            call.method
        );
    }
}
