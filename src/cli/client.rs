//! The commands' HTTP client: JSON to a promptgate on this machine or elsewhere, and event streams back.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A connection to one server, kept open between requests.
pub struct Client {
    /// `host:port`.
    authority: String,
    token: String,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Client {
    pub fn new(authority: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            authority: authority.into(),
            token: token.into(),
            connection: None,
        }
    }

    /// Sends a request and reads the answer to its end.
    ///
    /// # Errors
    /// When the server cannot be reached or breaks off.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(http::header::HOST, &self.authority)
            .header(AUTHORIZATION, format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if method == Method::GET {
            Bytes::new()
        } else {
            request = request.header(CONTENT_TYPE, "application/json");
            Bytes::from(body.to_string())
        };
        let response = self
            .connection()
            .await?
            .send_request(request.body(Full::new(body))?)
            .await?;
        let (head, body): (_, Incoming) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer {
            status: head.status,
            body,
        })
    }

    /// Sends JSON and returns the JSON of a successful answer.
    ///
    /// # Errors
    /// The server's message when it refuses.
    pub async fn json(&mut self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.checked(method, path, &[], body).await?;
        Ok(serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    /// Sends JSON and returns a successful answer.
    ///
    /// # Errors
    /// The server's message when it refuses.
    pub async fn checked(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let answer = self.send(method.clone(), path, headers, body).await?;
        if !answer.status.is_success() {
            let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let message = value["error"]["message"].as_str().unwrap_or("no message");
            let problems = value["error"]["details"]["problems"].as_array().into_iter().flatten();
            let problems: String = problems
                .map(|problem| {
                    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
                    format!("\n  {}: {}", text("path"), text("message"))
                })
                .collect();
            bail!(
                "{method} {path} was answered with {}: {message}{problems}",
                answer.status
            );
        }
        Ok(answer)
    }

    async fn connection(&mut self) -> anyhow::Result<&mut SendRequest<Full<Bytes>>> {
        let usable = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let stream = TcpStream::connect(&self.authority)
                .await
                .with_context(|| format!("cannot reach {}", self.authority))?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            self.connection = Some(sender);
        }
        self.connection.as_mut().context("no connection")
    }
}
