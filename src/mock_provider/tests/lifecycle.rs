//! Counting, remembering, spreading over workers, HTTP/2, and stopping.

use super::*;

#[tokio::test]
async fn last_request_is_kept_only_when_asked_for() {
    let mock = start(Controls::default());
    post(&mock, CHAT, &hello(), &[]).await;
    assert_eq!(stats(&mock).await["last_request"], Value::Null);

    let mock = start(Controls {
        remember: true,
        ..Controls::default()
    });
    post(
        &mock,
        "/v1/chat/completions?trace=1",
        &hello(),
        &[("x-custom", "yes"), ("x-mock-status", "500")],
    )
    .await;
    let seen = stats(&mock).await["last_request"].take();
    assert_eq!(
        (&seen["method"], &seen["path"]),
        (&json!("POST"), &json!("/v1/chat/completions?trace=1"))
    );
    assert_eq!(seen["headers"]["x-custom"], "yes");
    assert_eq!(
        serde_json::from_str::<Value>(seen["body"].as_str().unwrap()).unwrap(),
        hello()
    );
}

#[tokio::test]
async fn reset_forgets_counts_and_request() {
    let mock = start(Controls {
        remember: true,
        ..Controls::default()
    });
    post_json(&mock, CHAT, &hello(), &[]).await;
    post_stream(&mock, CHAT, &hello_with(json!({"stream": true})), &[]).await;
    let before = stats(&mock).await;
    assert_eq!((&before["requests"], &before["cancelled"]), (&json!(2), &json!(0)));
    post(&mock, "/__mock/reset", &json!({}), &[]).await;
    let expected = json!({"requests": 0, "open_streams": 0, "cancelled": 0, "last_request": null});
    assert_eq!(stats(&mock).await, expected);
}

#[tokio::test]
async fn connections_spread_evenly_over_workers() {
    let mock = start_with(Controls::default(), 3);
    let mut ids = std::collections::BTreeMap::<String, usize>::new();
    let mut open = Vec::new();
    for _ in 0..6 {
        let mut connection = send_raw(&mock, CHAT, &hello(), &[]).await;
        let response = String::from_utf8(read_until(&mut connection, "}}}").await).unwrap();
        // req_, six digits of the boot, two of the worker.
        let id = response.split_once("req_").unwrap().1;
        *ids.entry(id[6..8].to_owned()).or_default() += 1;
        open.push(connection);
    }
    assert_eq!(
        ids.into_iter().collect::<Vec<_>>(),
        [("00".into(), 2), ("01".into(), 2), ("02".into(), 2)]
    );
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_spoken() {
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let mock = start(Controls::default());
    let connection = TcpStream::connect(mock.local_addr()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(connection))
            .await
            .unwrap();
    let driver = tokio::spawn(connection);
    let request = |control: &str| {
        http::Request::post(format!("http://mock{CHAT}"))
            .header("x-mock-cut", control)
            .body(Full::new(bytes::Bytes::from(
                hello_with(json!({"stream": true})).to_string(),
            )))
            .unwrap()
    };
    let response = sender.send_request(request("100")).await.unwrap();
    let stream = response.into_body().collect().await.unwrap().to_bytes();
    assert!(stream.ends_with(b"data: [DONE]\n\n"));
    let cut = sender
        .send_request(request("2"))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await;
    assert!(cut.is_err(), "the stream is reset");
    assert!(
        sender.send_request(request("head")).await.is_err(),
        "the stream is reset without a head"
    );
    drop(sender);
    driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn stop_closes_stalled_streams_and_frees_the_port() {
    let mock = start_with(Controls::default(), 2);
    let address = mock.local_addr();
    let body = hello_with(json!({"stream": true}));
    let mut stalled = send_raw(&mock, CHAT, &body, &[("x-mock-stall", "1")]).await;
    read_until(&mut stalled, "\n\n\r\n").await;
    let silent = send_raw(&mock, CHAT, &body, &[("x-mock-stall", "head")]).await;
    let idle = TcpStream::connect(address).await.unwrap();
    wait_for_stats(&mock, "received", |stats| stats["requests"] == 2).await;
    let before = Instant::now();
    tokio::task::spawn_blocking(|| mock.stop()).await.unwrap();
    assert!(
        before.elapsed() < Duration::from_millis(900),
        "nothing was left to wait for: {:?}",
        before.elapsed()
    );
    for connection in [stalled, silent, idle] {
        read_to_end(connection).await;
    }
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn stop_lets_an_answer_under_way_end() {
    let mock = start(Controls::default());
    let connection = send_raw(&mock, CHAT, &hello(), &[("x-mock-latency", "100ms")]).await;
    wait_for_stats(&mock, "received", |stats| stats["requests"] == 1).await;
    tokio::task::spawn_blocking(|| drop(mock)).await.unwrap();
    assert!(read_to_end(connection).await.ends_with(b"}}}"));
}

#[test]
fn start_on_a_taken_port_is_an_error() {
    let mock = start(Controls::default());
    let options = MockProviderOptions {
        listen: mock.local_addr(),
        workers: 1,
        defaults: Controls::default(),
    };
    assert!(MockProvider::start(options).is_err());
}
