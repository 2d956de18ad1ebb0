//! The process ends: killed under load, asked to under load, with streams open.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use promptgate::spool::recover::recover;
use promptgate::telemetry::Store;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::support::{Mock, Process, config_text, read_all, until};

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 3;
/// Answers that a round's clients have before the kill.
const ANSWERS_A_ROUND: usize = 400;

/// A mock and a folder with a configuration, whose text `change` has changed.
fn prepare(change: impl FnOnce(String) -> String) -> (Mock, TempDir) {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    let text = change(config_text(folder.path(), &mock.url()));
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    (mock, folder)
}

fn body(model: &str, streamed: bool) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": streamed})
}

async fn send(process: &Process, key: &str, body: &Value) -> reqwest::Result<Response> {
    let url = format!("http://{}/v1/chat/completions", process.data);
    reqwest::Client::new()
        .post(url)
        .bearer_auth(key)
        .json(body)
        .send()
        .await
}

fn id_of(response: &Response) -> String {
    response.headers()["x-request-id"].to_str().unwrap().to_owned()
}

/// Sends until the gateway is gone; notes the id of each answer that came whole.
async fn hammer(url: String, key: String, connection: usize, complete: Arc<Mutex<Vec<String>>>) {
    let http = reqwest::Client::new();
    let model = "mock-model?tokens=3";
    for n in 0.. {
        let streamed = (n + connection).is_multiple_of(3);
        let Ok(response) = http
            .post(&url)
            .bearer_auth(&key)
            .json(&body(model, streamed))
            .send()
            .await
        else {
            return;
        };
        assert_eq!(response.status(), 200);
        let id = id_of(&response);
        let Ok(text) = response.text().await else { return };
        // The end of a stream may be cut off without an error of the connection.
        if !streamed || text.ends_with("data: [DONE]\n\n") {
            complete.lock().unwrap().push(id);
        }
    }
}

async fn stored(folder: &Path) -> Vec<Value> {
    let store = Store::sqlite(&folder.join("telemetry.db"));
    let records = read_all(&store).await;
    store.close().await;
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_loses_no_answered_request_and_stores_none_twice() {
    let (_mock, folder) = prepare(|text| text);
    let complete = Arc::new(Mutex::new(Vec::new()));
    let mut key = None;
    for round in 1..=ROUNDS {
        let process = Process::serve(folder.path());
        let key = match &key {
            Some(key) => String::clone(key),
            None => key.insert(process.new_key().await).clone(),
        };
        let url = format!("http://{}/v1/chat/completions", process.data);
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|n| tokio::spawn(hammer(url.clone(), key.clone(), n, Arc::clone(&complete))))
            .collect();
        until("enough answers came", async || {
            (complete.lock().unwrap().len() >= round * ANSWERS_A_ROUND).then_some(())
        })
        .await;
        process.kill();
        for client in clients {
            client.await.unwrap();
        }
    }
    let process = Process::serve(folder.path());
    process.terminate();
    assert_eq!(process.wait().code(), Some(0));
    let records = stored(folder.path()).await;
    let ids: BTreeSet<&str> = records
        .iter()
        .map(|record| record["exchange_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), records.len(), "some are stored twice");
    let complete = complete.lock().unwrap();
    let lost: Vec<_> = complete.iter().filter(|id| !ids.contains(id.as_str())).collect();
    assert!(
        lost.is_empty(),
        "{} of {} are lost: {lost:?}",
        lost.len(),
        complete.len()
    );
    // What was answered but not read, or about to be; no more than that.
    assert!(
        records.len() <= complete.len() + ROUNDS * CONNECTIONS,
        "{} records",
        records.len()
    );
}

/// Frames in the logs of open calls under a spool folder.
fn noted_as_open(spool: &Path) -> usize {
    let folders = std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.filter(|path| path.is_dir()).flat_map(|folder| {
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|entry| entry.unwrap().path())
    });
    let logs = files.filter(|path| path.extension().is_some_and(|ending| ending == "open"));
    let frames = logs.map(|path| {
        let bytes = std::fs::read(path).unwrap();
        recover(&bytes).map_or(0, |log| log.frames.len())
    });
    frames.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_leaves_calls_over_a_second_as_aborted_and_finished_ones_as_they_ended() {
    let (mock, folder) = prepare(|text| text);
    let process = Process::serve(folder.path());
    let key = process.new_key().await;
    // A stream that has begun, a request that waits for its head, an upload, and a caller that does not read.
    let begun = send(&process, &key, &body("mock-model?stall=3", true)).await.unwrap();
    let waiting = tokio::spawn({
        let url = format!("http://{}/v1/chat/completions", process.data);
        let request = reqwest::Client::new().post(url).bearer_auth(&key);
        request.json(&body("mock-model?stall=head", false)).send()
    });
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 100\r\n\r\n{{"
    );
    let mut uploading = tokio::net::TcpStream::connect(&process.data).await.unwrap();
    uploading.write_all(head.as_bytes()).await.unwrap();
    let endless = body("mock-model?tokens=100000&chunk-interval=0ms", true);
    let unread = send(&process, &key, &endless);
    let unread = unread.await.unwrap();
    // Old enough to be noted, and finished before the kill.
    let slow = send(&process, &key, &body("mock-model?latency=1500ms", false))
        .await
        .unwrap();
    let (begun_id, unread_id, slow_id) = (id_of(&begun), id_of(&unread), id_of(&slow));
    slow.bytes().await.unwrap();

    // Five are opened, one is closed.
    until("all are noted", async || {
        (noted_as_open(&folder.path().join("spool")) >= 6).then_some(())
    })
    .await;
    process.kill();
    assert!(waiting.await.unwrap().is_err());
    let process = Process::serve(folder.path());
    process.terminate();
    assert_eq!(process.wait().code(), Some(0));

    let records = stored(folder.path()).await;
    let outcome = |id: &str| {
        let found: Vec<&Value> = records.iter().filter(|r| r["exchange_id"] == id).collect();
        assert_eq!(found.len(), 1, "{records:?}");
        found[0]["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (outcome(&slow_id), outcome(&begun_id), outcome(&unread_id)),
        ("ok".into(), "aborted".into(), "aborted".into())
    );
    assert_eq!(records.len(), 5, "{records:?}");
    assert_eq!(records.iter().filter(|r| r["outcome"] == "aborted").count(), 4);
    let begun = records.iter().find(|r| r["exchange_id"] == begun_id).unwrap();
    assert_eq!(
        (&begun["status_code"], &begun["model"]),
        (&json!(200), &json!("mock-model*"))
    );
    assert!(begun["total_us"].as_u64().unwrap() < 1_000_000);
    drop((mock, uploading));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_open_streams_finish_and_loses_nothing() {
    let (mock, folder) = prepare(|text| text);
    let process = Process::serve(folder.path());
    let key = process.new_key().await;
    let mut open = Vec::new();
    for n in 0..8 {
        let model = format!("mock-model?tokens=20&chunk-interval=25ms&seed={n}");
        let mut response = send(&process, &key, &body(&model, true)).await.unwrap();
        let first = response.chunk().await.unwrap().expect("a first chunk");
        open.push((id_of(&response), first, response));
    }
    let late = body("mock-model?latency=400ms", false);
    let slow = send(&process, &key, &late);
    let stopping = async {
        mock.reaches("requests", 9).await;
        process.terminate();
    };
    let (slow, ()) = tokio::join!(slow, stopping);
    let slow = slow.unwrap();
    let mut sent = BTreeSet::from([id_of(&slow)]);
    assert_eq!(slow.status(), 200);
    slow.bytes().await.expect("a whole answer");
    for (id, first, response) in open {
        let rest = response.bytes().await.expect("a whole stream");
        let text = String::from_utf8([first, rest].concat()).unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        sent.insert(id);
    }
    assert_eq!(process.wait().code(), Some(0));
    let records = stored(folder.path()).await;
    assert!(records.iter().all(|record| record["outcome"] == "ok"), "{records:?}");
    let ids: BTreeSet<String> = records
        .iter()
        .map(|r| r["exchange_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((ids, records.len()), (sent, 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_aborts_what_is_open_at_the_deadline_and_records_it() {
    let (mock, folder) = prepare(|text| text.replace("drain = \"10s\"", "drain = \"300ms\""));
    let process = Process::serve(folder.path());
    let key = process.new_key().await;
    // Over HTTP/1.1 and over HTTP/2: a stream that has begun, and a request that waits for its head.
    let begun = send(&process, &key, &body("mock-model?stall=3", true)).await.unwrap();
    let mut sent = BTreeSet::from([id_of(&begun)]);
    let waiting = tokio::spawn({
        let (url, key) = (format!("http://{}/v1/chat/completions", process.data), key.clone());
        let request = reqwest::Client::new().post(url).bearer_auth(key);
        request.json(&body("mock-model?stall=head", false)).send()
    });
    let stream = tokio::net::TcpStream::connect(&process.data).await.unwrap();
    let (mut http2, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = |body: Value| {
        hyper::Request::post(format!("http://{}/v1/chat/completions", process.data))
            .header("authorization", format!("Bearer {key}"))
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap()
    };
    let begun2 = http2
        .send_request(request(body("mock-model?stall=3", true)))
        .await
        .unwrap();
    sent.insert(begun2.headers()["x-request-id"].to_str().unwrap().to_owned());
    let waiting2 = tokio::spawn(http2.send_request(request(body("mock-model?stall=head", false))));
    mock.reaches("requests", 4).await;

    process.terminate();
    assert_eq!(process.wait().code(), Some(0));
    assert!(begun.bytes().await.is_err(), "a cut stream looks complete");
    assert!(
        begun2.into_body().collect().await.is_err(),
        "a cut stream looks complete"
    );
    assert!(waiting.await.unwrap().is_err() && waiting2.await.unwrap().is_err());
    // How the connection ended is not what this is about.
    let _ = connection.await;
    let records = stored(folder.path()).await;
    let outcomes: Vec<&Value> = records.iter().map(|record| &record["outcome"]).collect();
    assert_eq!(outcomes, ["aborted"; 4]);
    let ids: BTreeSet<String> = records
        .iter()
        .map(|r| r["exchange_id"].as_str().unwrap().to_owned())
        .collect();
    assert!(sent.is_subset(&ids));
    mock.reaches("cancelled", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_serves_what_was_published_before() {
    let (_mock, folder) = prepare(|text| text);
    let process = Process::serve(folder.path());
    let key = process.new_key().await;
    process
        .admin(Method::POST, "/prompts", &json!({"id": "a/b"}))
        .await
        .expect(201);
    let content = json!({"content": {"text": "hi", "model": "mock-model?echo"}, "message": "first"});
    process
        .admin(Method::POST, "/prompts/a/b/versions", &content)
        .await
        .expect(201);
    let split = json!({"split": [{"variant": "control", "version": 1, "weight": 100}], "message": "live"});
    let deployed = process
        .admin(Method::PUT, "/prompts/a/b/deployments/production", &split)
        .await;
    let generation = deployed.expect(200).json()["generation"].to_string();
    process.kill();
    let process = Process::serve(folder.path());
    let answer = send(&process, &key, &json!({"prompt": {"id": "a/b"}})).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-promptgate-generation"], *generation);
    tokio::time::timeout(Duration::from_secs(30), answer.bytes())
        .await
        .unwrap()
        .unwrap();
}

const PROMPTS: usize = 3;
const KILLS: usize = 6;

/// One person proposes, another approves, and the process is killed somewhere in between: whatever the moment, a change is
/// live for all of its prompts or for none.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_while_changes_are_applied_leaves_all_or_nothing() {
    let (_mock, folder) = prepare(|text| text);
    let mut process = Process::serve(folder.path());
    for n in 0..PROMPTS {
        let id = format!("p{n}");
        process
            .admin(Method::POST, "/prompts", &json!({"id": id}))
            .await
            .expect(201);
        for version in 1..=2 {
            let content = json!({"content": {"text": format!("{version}"), "model": "mock-model"}, "message": "m"});
            process
                .admin(Method::POST, &format!("/prompts/{id}/versions"), &content)
                .await
                .expect(201);
        }
    }
    let user = json!({"name": "ada", "grants": [{"role": "deployer"}]});
    process.admin(Method::POST, "/users", &user).await.expect(201);
    let token = process
        .admin(Method::POST, "/users/ada/tokens", &json!({"name": "t"}))
        .await;
    let token = token.expect(201).json()["secret"].as_str().unwrap().to_owned();
    for round in 0..KILLS {
        let base = format!("http://{}/api/v1", process.control);
        let applied = Arc::new(Mutex::new(0));
        let publisher = tokio::spawn(publish(base, token.clone(), Arc::clone(&applied)));
        until("some changes are live", async || {
            (*applied.lock().unwrap() > round % 3).then_some(())
        })
        .await;
        process.kill();
        publisher.await.unwrap();
        process = Process::serve(folder.path());
        assert_whole(&process).await;
    }
}

/// Proposes and applies changes of every prompt, one after the other, until the gateway is gone.
async fn publish(base: String, token: String, applied: Arc<Mutex<usize>>) {
    let http = reqwest::Client::new();
    for n in 0.. {
        let split = json!([{"variant": "control", "version": n % 2 + 1, "weight": 100}]);
        let items: Vec<Value> = (0..PROMPTS)
            .map(|n| json!({"prompt": format!("p{n}"), "split": split}))
            .collect();
        let body = json!({"environment": "production", "deployments": items, "message": "m"});
        let proposed = http
            .post(format!("{base}/changes"))
            .bearer_auth(&token)
            .json(&body)
            .send()
            .await;
        let Ok(proposed) = proposed else { return };
        let Ok(change) = proposed.json::<Value>().await else {
            return;
        };
        let apply = format!("{base}/changes/{}/apply", change["id"]);
        let Ok(answer) = http.post(apply).bearer_auth(&token).send().await else {
            return;
        };
        assert_eq!(answer.status(), 200);
        *applied.lock().unwrap() += 1;
    }
}

async fn assert_whole(process: &Process) {
    let get = async |path: &str| process.admin(Method::GET, path, &Value::Null).await.expect(200).json();
    let mut live = Vec::new();
    for n in 0..PROMPTS {
        let live_now = get(&format!("/prompts/p{n}/deployments/production")).await;
        live.push((
            live_now["change"].clone(),
            live_now["generation"].clone(),
            live_now["deployment"].clone(),
        ));
    }
    assert!(live.iter().all(|one| *one == live[0]), "a mix is live: {live:?}");
    let newest = get("/changes?limit=1").await["items"][0].clone();
    let of_newest = newest["id"] == live[0].0;
    assert_eq!(newest["state"] == "applied", of_newest, "{newest} beside {live:?}");
    for item in newest["deployments"].as_array().unwrap() {
        assert_eq!(item["deployment"].is_u64(), of_newest);
    }
    let verified = get("/audit/verify").await;
    assert_eq!(verified["ok"], true, "{verified}");
}
