//! What of callers' and providers' texts is kept: secrets planted everywhere and looked for everywhere, ids of people, what
//! versions and budgets leave out, erasing, exporting.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use promptgate::config::{Capture, CaptureByPrompt};
use promptgate::telemetry::Store;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    ADMIN_TOKEN, Answer, Mock, PROVIDER_KEY, Process, TestGateway, config_text, promptgate, read_all, scripted, until,
};

const CHAT: &str = "/v1/chat/completions";

/// All files below a folder, but for the configuration, with their bytes.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_none_or(|extension| extension != "toml") {
                let bytes = std::fs::read(&entry).unwrap();
                files.push((entry, bytes));
            }
        }
    }
    files
}

fn holds(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

async fn call(process: &Process, key: &str, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let url = format!("http://{}{path}", process.data);
    let mut request = reqwest::Client::new().post(url).bearer_auth(key).json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::read(request.send().await.expect("an answer")).await
}

async fn stored(folder: &Path) -> Vec<Value> {
    let store = Store::sqlite(&folder.join("telemetry.db"));
    let records = read_all(&store).await;
    store.close().await;
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_secrets_are_nowhere() {
    const OURS: &str = "sk-proj-Planted4f9A8b7C6d5E4f3A2b1C";
    let error = json!({"error": {"message": format!("bad key {OURS} for PLANTED-error, Bearer Planted0123456789abc"),
        "type": "x", "code": "y", "details": {"password": "planted-secret-word"}}})
    .to_string();
    let error = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nx-request-id: PLANTED-id\r\ncontent-length: {}\r\n\r\n{error}",
        error.len()
    );
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    let text = format!(
        "{}\n[[providers]]\nname = \"scripted\"\nkind = \"openai\"\nbase_url = \"{}\"\n[[models]]\nname = \"failing\"\n\
         targets = [{{ provider = \"scripted\" }}]\n[telemetry.redaction]\nfields = [\"Password\"]\npatterns = ['PLANTED-\\w+']\n",
        config_text(folder.path(), &mock.url()),
        scripted(error).await,
    );
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let log = folder.path().join("log");
    let process = Process::serve_with(folder.path(), |command| {
        command.env("RUST_LOG", "promptgate=trace,info");
        command.stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
    });
    let key = process.new_key().await;
    let content = json!({"text": "say {{ secret }} and PLANTED-prompt", "model": "mock-model?echo"});
    process
        .admin(Method::POST, "/prompts", &json!({"id": "a/b"}))
        .await
        .expect(201);
    let version = json!({"content": content, "message": "m"});
    process
        .admin(Method::POST, "/prompts/a/b/versions", &version)
        .await
        .expect(201);
    let split = json!({"split": [{"variant": "control", "version": 1, "weight": 100}], "message": "m"});
    process
        .admin(Method::PUT, "/prompts/a/b/deployments/production", &split)
        .await
        .expect(200);

    let headers = [
        ("x-api-key", "PLANTED-header"),
        ("cookie", "session=PLANTED-cookie"),
        ("x-promptgate-session", "PLANTED-session"),
        ("x-promptgate-unit", "planted-unit@example.com"),
        ("user-agent", "PLANTED-agent"),
    ];
    let said = format!("my key is {OURS}, PLANTED-body");
    let arguments = json!({"password": "planted-secret-word", "note": "PLANTED-arguments"}).to_string();
    let messages = json!([{"role": "user", "content": said}, {"role": "assistant", "content": null, "tool_calls": [
        {"id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}}]}]);
    let variables = json!({"secret": format!("{OURS} PLANTED-variable"), "password": "planted-secret-word"});
    let people = json!({"user_id": "planted-metadata@example.com", "team": "PLANTED-tag"});
    for stream in [false, true] {
        for model in [
            "mock-model?echo",
            "mock-model?echo&cut=3",
            "mock-model?echo&status=500",
            "failing",
            "PLANTED-model",
        ] {
            let body = json!({"model": model, "messages": messages, "stream": stream, "user": "planted-user@example.com",
                "metadata": people, "password": {"deep": "planted-secret-word"}});
            call(
                &process,
                &key,
                &format!("{CHAT}?api_key=PLANTED-query"),
                &body,
                &headers,
            )
            .await;
        }
        let body = json!({"prompt": {"id": "a/b", "variables": variables}, "stream": stream, "user": "planted-user@example.com"});
        call(&process, &key, CHAT, &body, &headers).await.expect(200);
    }
    let feedback = json!({"response_id": "r", "name": "n", "value": "PLANTED-value", "comment": said});
    call(&process, &key, "/v1/feedback", &feedback, &[]).await.expect(200);
    let refused = call(&process, "pg_planted-wrong-key", "/PLANTED-path", &json!({}), &headers).await;
    assert_eq!(refused.status, 401);

    let planted = [
        OURS,
        "Planted0123456789abc",
        "PLANTED-",
        "planted-secret-word",
        "planted-user@example.com",
        "planted-unit@example.com",
        "planted-metadata@example.com",
        "pg_planted-wrong-key",
        PROVIDER_KEY,
        ADMIN_TOKEN,
        key.as_str(),
    ];
    let list = async || process.admin(Method::GET, "/exchanges?limit=100", &json!({})).await;
    until("all exchanges are stored", async || {
        (list().await.json()["items"].as_array().unwrap().len() == 14).then_some(())
    })
    .await;
    let url = format!("http://{}/metrics", process.control);
    let metrics = reqwest::get(url).await.unwrap().text().await.unwrap();
    let answers = [refused.text().to_owned(), list().await.text().to_owned(), metrics];
    for answer in &answers {
        for secret in planted {
            assert!(!answer.contains(secret), "{secret} in {answer}");
        }
    }
    assert!(answers[1].contains("[redacted]"));
    process.terminate();
    assert!(process.wait().success());
    let files = files(folder.path());
    assert!(
        files
            .iter()
            .any(|(path, bytes)| path.to_string_lossy().contains("telemetry.db") && holds(bytes, "[redacted]"))
    );
    assert!(
        files
            .iter()
            .any(|(path, bytes)| path.ends_with("log") && !bytes.is_empty())
    );
    for (path, bytes) in files {
        for secret in planted {
            // The prompt's own text is the registry's.
            let own = secret == "PLANTED-" && path.to_string_lossy().contains("registry");
            assert!(own || !holds(&bytes, secret), "{secret} in {}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_decide_what_is_kept_within_the_configuration() {
    for (configured, by_prompt, version, kept) in [
        (Capture::Full, CaptureByPrompt::Narrow, "metadata", false),
        (Capture::Full, CaptureByPrompt::Narrow, "full", true),
        (Capture::Metadata, CaptureByPrompt::Narrow, "full", false),
        (Capture::Metadata, CaptureByPrompt::Any, "full", true),
        (Capture::Full, CaptureByPrompt::Any, "metadata", false),
    ] {
        let gateway = TestGateway::with(|config| {
            config.telemetry.capture = configured;
            config.telemetry.capture_by_prompt = by_prompt;
        })
        .await;
        let content = json!({"text": "{{ name }}", "model": "mock-model?echo", "capture": version});
        gateway.prompt("a/b", content).await;
        for stream in [false, true] {
            let body = json!({"prompt": {"id": "a/b", "variables": {"name": "confidential-name"}}, "stream": stream});
            gateway.chat(body).await.expect(200);
        }
        let records = gateway.stop().await;
        let what = format!("{configured:?} {by_prompt:?} {version}");
        assert_eq!(records.exchanges.len(), 2);
        for record in &records.exchanges {
            assert_eq!(record["capture"], if kept { "full" } else { "metadata" }, "{what}");
            assert_eq!(record["request"] != "", kept, "{what}");
        }
        let found = records
            .files()
            .iter()
            .any(|(_, bytes)| holds(bytes, "confidential-name"));
        assert_eq!(found, kept, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_people_are_the_records_pseudonyms_in_content_too() {
    for hash_users in [true, false] {
        let gateway = TestGateway::with(|config| config.telemetry.redaction.hash_users = hash_users).await;
        let body = json!({"model": "mock-model", "messages": [{"role": "user", "content": "hi"}], "user": "ada@example.com",
            "metadata": {"user_id": "ada@example.com", "team": "blue"}});
        let answer = gateway.chat(body).await.expect(200);
        let record = gateway.record(answer.id()).await;
        let id = if hash_users {
            record["user"].clone()
        } else {
            json!("ada@example.com")
        };
        assert_eq!(
            (
                &record["request"]["user"],
                &record["request"]["metadata"]["user_id"],
                &record["tags"]["user_id"]
            ),
            (&id, &id, &id)
        );
        assert_eq!(record["tags"]["team"], "blue");
        assert_eq!(gateway.mock.last_body().await["user"], "ada@example.com");
    }
}

/// Each record holds what its own caller said, and nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_bodies_never_mix() {
    const CALLS: usize = 240;
    let gateway = TestGateway::start().await;
    let calls = (0..CALLS).map(|n| {
        // Of lengths that change places in every reused buffer.
        let word = format!("<w{n:03}>").repeat(1 + (n * 37) % 400);
        let body =
            json!({"model": "mock-model?echo", "stream": n % 2 == 0, "messages": [{"role": "user", "content": word}]});
        gateway.chat(body)
    });
    let mut ids = BTreeMap::new();
    for (n, answer) in futures_join(calls).await.into_iter().enumerate() {
        ids.insert(answer.expect(200).id().to_owned(), n);
    }
    let records = gateway.stop().await.exchanges;
    assert_eq!(records.len(), CALLS);
    for record in records {
        let n = ids[record["exchange_id"].as_str().unwrap()];
        let text = format!("{}{}", record["request"], record["response"]);
        let own = format!("<w{n:03}>");
        let words = text.matches("<w").count();
        assert!(words > 1 && text.matches(&own).count() == words, "{own}: {text}");
    }
}

async fn futures_join<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_budget_and_fields_beyond_the_cap_are_flagged() {
    let long = |stream: bool| {
        let text = "word ".repeat(400);
        json!({"model": "mock-model?echo", "messages": [{"role": "user", "content": text}], "stream": stream})
    };
    let gateway = TestGateway::with(|config| config.telemetry.capture_budget = 0).await;
    let streamed = gateway.chat(long(true)).await.expect(200);
    let plain = gateway.chat(long(false)).await.expect(200);
    let (streamed, plain) = (gateway.record(streamed.id()).await, gateway.record(plain.id()).await);
    assert_eq!(
        (&streamed["response"], &streamed["response_truncated"]),
        (&json!(""), &json!(true))
    );
    assert_eq!(
        (&plain["response_truncated"], &streamed["request_truncated"]),
        (&json!(false), &json!(false))
    );
    assert!(
        gateway
            .metrics()
            .await
            .contains("promptgate_capture_truncated_total{reason=\"budget\"} 1")
    );

    let gateway = TestGateway::with(|config| config.telemetry.capture_max_field = 300).await;
    for stream in [false, true] {
        let answer = gateway.chat(long(stream)).await.expect(200);
        let record = gateway.record(answer.id()).await;
        assert!(
            record["request_truncated"] == true && record["response_truncated"] == true,
            "{record}"
        );
        assert_eq!(
            (
                &record["variables_truncated"],
                record["request"].as_str().unwrap().len()
            ),
            (&json!(false), 300)
        );
    }
    assert!(
        gateway
            .metrics()
            .await
            .contains("promptgate_capture_truncated_total{reason=\"field\"} 2")
    );
}

/// A gateway of its own process, whose folder outlives it.
async fn talked(folder: &TempDir, mock: &Mock) -> (Process, Vec<String>) {
    std::fs::write(
        folder.path().join("gateway.toml"),
        config_text(folder.path(), &mock.url()),
    )
    .unwrap();
    let process = Process::serve(folder.path());
    let key = process.new_key().await;
    let mut ids = Vec::new();
    for user in ["ada@example.com", "bob@example.com"] {
        for stream in [false, true] {
            let said = format!("private-words of {}", &user[..3]);
            let body = json!({"model": "mock-model?echo", "messages": [{"role": "user", "content": said}], "user": user,
                "stream": stream, "metadata": {"topic": said}});
            let answer = call(&process, &key, CHAT, &body, &[]).await.expect(200);
            let feedback = json!({"exchange_id": answer.id(), "name": "n", "value": true, "comment": said});
            call(&process, &key, "/v1/feedback", &feedback, &[]).await.expect(200);
            ids.push(answer.id().to_owned());
        }
    }
    (process, ids)
}

fn run(process: &Process, args: &[&str]) -> (bool, String, String) {
    let mut command = promptgate(args);
    command.env("PROMPTGATE_URL", format!("http://{}", process.control));
    command.env("PROMPTGATE_TOKEN", ADMIN_TOKEN).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn erased_words_are_gone_also_those_that_come_late() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    let (process, ids) = talked(&folder, &mock).await;
    let (done, _, error) = run(&process, &["erase", "--user", "ada@example.com"]);
    assert!(!done && error.contains("--yes"), "{error}");
    // At once, while records are still on their way.
    let args = [
        "erase",
        "--user",
        "ada@example.com",
        "--reason",
        "asked",
        "--yes",
        "--json",
    ];
    let (done, told, error) = run(&process, &args);
    assert!(done, "{error}");
    let erasure: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&erasure["state"], &erasure["exchanges"]),
        (&json!("done"), &json!(2)),
        "{erasure}"
    );
    let records = process
        .admin(Method::GET, "/exchanges?limit=100", &json!({}))
        .await
        .json();
    for (n, id) in ids.iter().enumerate() {
        let shown = process
            .admin(Method::GET, &format!("/exchanges/{id}"), &json!({}))
            .await
            .json();
        let erased = n < 2;
        assert_eq!(shown["capture"], if erased { "erased" } else { "full" });
        assert_eq!(shown.to_string().contains("private-words"), !erased, "{shown}");
        assert!(shown["total_tokens"].as_u64() > Some(0) && shown["user"].as_str().unwrap().len() == 32);
    }
    assert!(records["items"].as_array().unwrap().len() >= 4);
    let audit = process.admin(Method::GET, "/audit?action=erasure", &json!({})).await;
    assert!(
        audit.text().contains("erasure.request") && audit.text().contains("erasure.done"),
        "{}",
        audit.text()
    );
    process.terminate();
    assert!(process.wait().success());
    for (path, bytes) in files(folder.path()) {
        assert!(!holds(&bytes, "private-words of ada"), "{}", path.display());
        assert!(!holds(&bytes, "ada@example.com"), "{}", path.display());
    }

    // As if an earlier process had stored it and died: a row of hers that nobody has looked at.
    let url = format!("sqlite:{}", folder.path().join("telemetry.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let late = "UPDATE exchanges SET request = 'private-words of ada', capture = 'full' WHERE capture = 'erased'";
    assert_eq!(sqlx::query(late).execute(&pool).await.unwrap().rows_affected(), 2);
    pool.close().await;
    let process = Process::serve(folder.path());
    let id = erasure["id"].as_str().unwrap();
    until("the late ones are erased", async || {
        let shown = process
            .admin(Method::GET, &format!("/erasures/{id}"), &json!({}))
            .await
            .json();
        (shown["exchanges"] == 4).then_some(())
    })
    .await;
    process.terminate();
    assert!(process.wait().success());
    let left: Vec<Value> = stored(folder.path()).await;
    let ada: Vec<&Value> = left.iter().filter(|record| record["capture"] == "erased").collect();
    assert!(ada.len() == 2 && ada.iter().all(|record| record["request"] == ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_are_exported_as_lines_and_as_a_table() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    let (process, ids) = talked(&folder, &mock).await;
    until("all are stored", async || {
        let page = process
            .admin(Method::GET, "/exchanges?limit=100", &json!({}))
            .await
            .json();
        (page["items"].as_array().unwrap().len() == 8).then_some(())
    })
    .await;
    let file = folder.path().join("out.jsonl");
    let (done, _, error) = run(
        &process,
        &[
            "exchanges",
            "export",
            "--content",
            "--where",
            "model=mock-model*",
            "--outcome",
            "ok",
            "-o",
            file.to_str().unwrap(),
        ],
    );
    assert!(done && error.contains("4 exchanges"), "{error}");
    let lines = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let exported: Vec<&str> = lines.iter().map(|line| line["exchange_id"].as_str().unwrap()).collect();
    assert_eq!(exported, ids.iter().rev().map(String::as_str).collect::<Vec<_>>());
    assert!(
        lines
            .iter()
            .all(|line| line["request"].to_string().contains("private-words"))
    );

    let (done, table, error) = run(
        &process,
        &[
            "exchanges",
            "export",
            "--format",
            "csv",
            "--from",
            "2020-01-01T00:00:00Z",
        ],
    );
    assert!(done, "{error}");
    let rows: Vec<&str> = table.split("\r\n").collect();
    assert!(
        rows[0].starts_with("exchange_id,started_at,node,") && rows.len() == 10,
        "{table}"
    );
    assert!(!table.contains("of ada\",") || !table.contains("messages"), "{table}");
    let (done, _, error) = run(
        &process,
        &["exchanges", "export", "--outcome", "nonsense", "-o", "/nonexistent/x"],
    );
    assert!(!done && error.contains("/nonexistent"), "{error}");
}
