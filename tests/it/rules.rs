//! The nine rules of the prompt reference, each a table of requests and what becomes of them.
//!
//! `mock-model?echo` answers with the messages it got, so that the answer shows what was sent.

mod authority;
mod content;
mod reference;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, TestGateway};

const CHAT: &str = "/v1/chat/completions";
const GREET: &str = "support/greet";

/// A request: what it is called in a failure, path, headers, body.
struct Case {
    name: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Value,
}

fn case(name: &'static str, body: Value) -> Case {
    Case {
        name,
        path: CHAT,
        headers: &[],
        body,
    }
}

impl Case {
    fn path(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    fn headers(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }

    async fn send(&self, gateway: &TestGateway) -> Answer {
        let mut request = gateway.request(Method::POST, self.path).json(&self.body);
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        Answer::read(request.send().await.expect(self.name)).await
    }
}

/// Sends requests that must all be refused, and checks that the provider has seen none of them.
async fn refused(gateway: &TestGateway, table: Vec<(Case, u16, &str)>) {
    let before = gateway.mock.requests().await;
    for (case, status, code) in table {
        let answer = case.send(gateway).await;
        let found = (answer.status, answer.json()["error"]["code"].clone());
        assert_eq!(found, (status, code.into()), "{}: {}", case.name, answer.text());
        assert_eq!(gateway.mock.requests().await, before, "{} was forwarded", case.name);
        let record = gateway.record(answer.id()).await;
        assert_eq!(
            (&record["outcome"], &record["error_code"]),
            (&"rejected".into(), &code.into())
        );
    }
}

/// `support/greet`: version 1 is live in production, version 2 in staging.
async fn greet() -> TestGateway {
    let gateway = TestGateway::start().await;
    let content = |version: u32| {
        json!({
            "messages": [{"role": "system", "content": format!("v{version} for {{{{ name }}}}")}],
            "variables": {"name": {"type": "string"}},
            "model": "mock-model?echo",
        })
    };
    gateway.prompt(GREET, content(1)).await;
    let second = gateway.version(GREET, content(2)).await;
    gateway
        .deploy(GREET, "staging", json!([["control", second, 100]]))
        .await;
    gateway
}

fn ada() -> Value {
    json!({"name": "Ada"})
}
