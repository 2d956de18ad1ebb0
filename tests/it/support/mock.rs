//! The provider behind a gateway.

use promptgate::mock_provider::{Controls, MockProvider, MockProviderOptions};
use serde_json::Value;

use super::{PROVIDER_KEY, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A mock provider that demands the provider's key and remembers its last request.
pub struct Mock {
    provider: MockProvider,
    http: reqwest::Client,
}

impl Mock {
    pub fn start() -> Self {
        let defaults = Controls {
            remember: true,
            require_key: Some(PROVIDER_KEY.to_owned()),
            ..Controls::default()
        };
        let options = MockProviderOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            workers: 1,
            defaults,
        };
        Self {
            provider: MockProvider::start(options).expect("a mock provider"),
            http: reqwest::Client::new(),
        }
    }

    /// Where its API begins.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.provider.local_addr())
    }

    /// Sends a chat completion past the gateway.
    pub async fn chat(&self, body: &Value) -> reqwest::Response {
        let url = format!("{}/chat/completions", self.url());
        let sent = self.http.post(url).bearer_auth(PROVIDER_KEY).json(body).send();
        sent.await.expect("the mock answers")
    }

    /// `requests`, `open_streams`, `cancelled`, `last_request`.
    pub async fn stats(&self) -> Value {
        let url = format!("http://{}/__mock/stats", self.provider.local_addr());
        let sent = self.http.get(url).send().await.expect("the mock answers");
        sent.json().await.expect("JSON")
    }

    /// How many requests it got.
    pub async fn requests(&self) -> u64 {
        self.stats().await["requests"].as_u64().unwrap()
    }

    /// The body of its last request.
    pub async fn last_body(&self) -> Value {
        let stats = self.stats().await;
        let body = stats["last_request"]["body"].as_str().expect("a request");
        serde_json::from_str(body).expect("JSON")
    }

    /// Waits until a counter has a value.
    pub async fn reaches(&self, counter: &str, value: u64) {
        until(&format!("the mock's {counter} is {value}"), async || {
            (self.stats().await[counter] == value).then_some(())
        })
        .await;
    }
}

/// Starts a provider that answers each connection with the same bytes and ends it; returns its base URL.
pub async fn scripted(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // A client takes bytes that come before it has asked for a breach of the protocol.
            stream.read_buf(&mut Vec::new()).await.expect("a request");
            stream.write_all(answer.as_bytes()).await.expect("the gateway reads");
            stream.shutdown().await.expect("a connection");
            // To close with a request unread would reset the connection, and the answer with it.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    url
}
