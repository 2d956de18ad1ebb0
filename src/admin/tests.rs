//! The control plane through its router, on a registry in a temporary folder.

mod calls;
mod refusals;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::snapshot::{Cell, Routing, Snapshot};

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
    _folder: TempDir,
}

impl TestAdmin {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("registry.db").display());
        let registry = Registry::open(&url).await.unwrap();
        registry.ensure_admin_token(Some(TOKEN)).await.unwrap();
        let registry = Arc::new(registry);
        let cell = Cell::new(Snapshot::empty(Arc::new(Routing::default()), "test"));
        let state = AdminState {
            publisher: Publisher::start(Arc::clone(&registry), Arc::new(cell)).await.unwrap(),
            registry,
            store: None,
        };
        Self {
            router: router(state.clone()),
            state,
            _folder: folder,
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
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
        self.send(request.body(body.into()).unwrap()).await
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
