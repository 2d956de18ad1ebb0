//! A connection written by hand, for callers that leave or send what no client library would.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{DEADLINE, TestGateway};

pub struct Wire {
    stream: TcpStream,
    /// What came so far.
    pub received: Vec<u8>,
}

impl Wire {
    pub async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Opens a connection and sends a whole chat completion.
    pub async fn chat(gateway: &TestGateway, body: &str) -> Self {
        let mut wire = Self::open(&gateway.address()).await;
        let head = head(&gateway.key, body.len());
        wire.send(format!("{head}{body}").as_bytes()).await;
        wire
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the gateway reads");
    }

    /// Reads until `text` has come.
    pub async fn read_until(&mut self, text: &str) {
        let found = async {
            while memchr::memmem::find(&self.received, text.as_bytes()).is_none() {
                let read = self.stream.read_buf(&mut self.received).await.expect("bytes");
                assert!(read > 0, "the connection ended before {text:?}: {}", self.text());
            }
        };
        let waited = tokio::time::timeout(DEADLINE, found).await;
        assert!(waited.is_ok(), "{text:?} did not come");
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

/// The head of a chat completion with a body of so many bytes.
pub fn head(key: &str, length: usize) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// The data of a stream's events, comments left out.
pub fn events(stream: &str) -> Vec<String> {
    let lines = stream.lines();
    lines
        .filter_map(|line| line.strip_prefix("data: ").map(str::to_owned))
        .collect()
}

/// The text that a stream's events put together.
pub fn content_of(stream: &str) -> String {
    let events = events(stream);
    let chunks = events
        .iter()
        .filter_map(|data| serde_json::from_str::<serde_json::Value>(data).ok());
    chunks
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect()
}
