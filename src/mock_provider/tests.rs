//! Tests against the running mock, over real sockets.

mod answers;
mod endpoints;
mod faults;
mod lifecycle;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{Controls, MockProvider, MockProviderOptions};

const DEADLINE: Duration = Duration::from_secs(10);
const CHAT: &str = "/v1/chat/completions";

fn start(defaults: Controls) -> MockProvider {
    start_with(defaults, 1)
}

fn start_with(defaults: Controls, workers: usize) -> MockProvider {
    let listen = "127.0.0.1:0".parse().unwrap();
    MockProvider::start(MockProviderOptions {
        listen,
        workers,
        defaults,
    })
    .unwrap()
}

fn hello() -> Value {
    json!({"model": "mock-model", "messages": [{"role": "user", "content": "Hello, world"}]})
}

/// `hello()` with more fields.
fn hello_with(fields: Value) -> Value {
    let mut body = hello();
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    body
}

async fn post(mock: &MockProvider, path: &str, body: &Value, headers: &[(&str, &str)]) -> reqwest::Response {
    let mut request = reqwest::Client::new()
        .post(format!("http://{}{path}", mock.local_addr()))
        .json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    timeout(DEADLINE, request.send())
        .await
        .expect("an answer in time")
        .unwrap()
}

async fn post_json(mock: &MockProvider, path: &str, body: &Value, headers: &[(&str, &str)]) -> (u16, Value) {
    let response = post(mock, path, body, headers).await;
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")),
    )
}

async fn post_stream(mock: &MockProvider, path: &str, body: &Value, headers: &[(&str, &str)]) -> String {
    let response = post(mock, path, body, headers).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    timeout(DEADLINE, response.text())
        .await
        .expect("the end of the stream in time")
        .unwrap()
}

/// The JSON of each event; panics where one is not JSON. `[DONE]` is left out.
fn events(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).expect(data))
        .collect()
}

fn text_of(chunks: &[Value]) -> String {
    chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect()
}

/// Without what differs from answer to answer: ids and times.
fn without_identity(mut body: Value) -> Value {
    for field in ["id", "created"] {
        body.as_object_mut().unwrap().insert(field.to_owned(), json!("-"));
    }
    body
}

/// Sends a request by hand and leaves the connection open.
async fn send_raw(mock: &MockProvider, path: &str, body: &Value, headers: &[(&str, &str)]) -> TcpStream {
    let body = body.to_string();
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nhost: mock\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut connection = TcpStream::connect(mock.local_addr()).await.unwrap();
    connection
        .write_all(format!("{head}\r\n{body}").as_bytes())
        .await
        .unwrap();
    connection
}

/// All bytes until the mock closes.
async fn read_to_end(mut connection: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(DEADLINE, connection.read_to_end(&mut bytes))
        .await
        .expect("a closed connection in time")
        .unwrap();
    bytes
}

/// Reads until what came ends so.
async fn read_until(connection: &mut TcpStream, end: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let read = timeout(DEADLINE, connection.read_buf(&mut bytes))
            .await
            .expect("more bytes in time")
            .unwrap();
        assert_ne!(read, 0, "closed after {}", String::from_utf8_lossy(&bytes));
    }
    bytes
}

/// The HTTP chunks of a response, and whether the last one (of no bytes) came.
fn http_chunks(response: &[u8]) -> (Vec<&[u8]>, bool) {
    let head_end = response
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a whole head");
    assert!(String::from_utf8_lossy(&response[..head_end]).contains("transfer-encoding: chunked"));
    let (mut rest, mut chunks) = (&response[head_end + 4..], Vec::new());
    loop {
        let Some(line_end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return (chunks, false);
        };
        let size = usize::from_str_radix(str::from_utf8(&rest[..line_end]).unwrap(), 16).unwrap();
        if size == 0 {
            return (chunks, true);
        }
        let chunk = &rest[line_end + 2..];
        chunks.push(&chunk[..size]);
        rest = &chunk[size + 2..];
    }
}

async fn stats(mock: &MockProvider) -> Value {
    reqwest::get(format!("http://{}/__mock/stats", mock.local_addr()))
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

async fn wait_for_stats(mock: &MockProvider, what: &str, holds: impl Fn(&Value) -> bool) {
    let give_up = Instant::now() + DEADLINE;
    loop {
        let stats = stats(mock).await;
        if holds(&stats) {
            return;
        }
        assert!(Instant::now() < give_up, "never {what}: {stats}");
        sleep(Duration::from_millis(2)).await;
    }
}
