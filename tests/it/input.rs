//! Bad input: a clear error that names value and fix, a process that goes on, and nothing stored changed.

use std::path::Path;
use std::process::Output;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, TestGateway, Wire, config_text, promptgate};

#[tokio::test(flavor = "multi_thread")]
async fn bad_request_is_refused_with_value_and_fix() {
    let gateway = TestGateway::start().await;
    gateway
        .prompt("a/b", json!({"text": "hi {{ name }}", "model": "mock-model"}))
        .await;
    let generation = gateway.generation().await;
    let nested = format!(
        r#"{{"model":"mock-model","messages":[],"x":{}1{}}}"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    let table: Vec<(&str, Vec<u8>, u16, &str, &str)> = vec![
        ("not JSON", b"hello".to_vec(), 400, "invalid_json", "not a JSON object"),
        ("empty", b"".to_vec(), 400, "invalid_json", "not a JSON object"),
        ("cut off", br#"{"model": "mock"#.to_vec(), 400, "invalid_json", "column"),
        (
            "trailing comma",
            br#"{"model": "mock-model",}"#.to_vec(),
            400,
            "invalid_json",
            "trailing comma",
        ),
        ("a list", b"[1]".to_vec(), 400, "invalid_json", "not a JSON object"),
        (
            "a field twice",
            br#"{"model":"mock-model","model":"x"}"#.to_vec(),
            400,
            "invalid_json",
            "\"model\" appears twice",
        ),
        (
            "two documents",
            br#"{"model":"mock-model"} {}"#.to_vec(),
            400,
            "invalid_json",
            "trailing",
        ),
        (
            "100 levels",
            nested.into_bytes(),
            400,
            "invalid_json",
            "deeper than 64 levels",
        ),
        (
            "not UTF-8",
            b"{\"model\": \"\xff\xfe\"}".to_vec(),
            400,
            "invalid_json",
            "not UTF-8 at byte 11",
        ),
        (
            "lone surrogate",
            br#"{"model": "\ud800"}"#.to_vec(),
            400,
            "model_missing",
            "model",
        ),
        (
            "model is a number",
            br#"{"model": 7, "messages": []}"#.to_vec(),
            400,
            "model_missing",
            "model",
        ),
        (
            "prompt is a string",
            br#"{"prompt": "a/b"}"#.to_vec(),
            400,
            "invalid_field",
            "{\"id\": ",
        ),
        (
            "variables are a string",
            br#"{"prompt": {"id": "a/b", "variables": "x"}}"#.to_vec(),
            400,
            "invalid_field",
            "an object such as",
        ),
        (
            "messages are an object",
            br#"{"prompt": {"id": "a/b", "variables": {"name": "x"}}, "messages": {}}"#.to_vec(),
            400,
            "invalid_field",
            "must be a list",
        ),
        (
            "10 MiB",
            vec![b' '; 10 << 20],
            413,
            "body_too_large",
            "larger than 8388608 bytes (limits.max_request_body)",
        ),
    ];
    for (name, body, status, code, says) in table {
        let request = gateway.request(Method::POST, "/v1/chat/completions").body(body);
        let answer = Answer::read(request.send().await.expect(name)).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        let error = answer.refused(status, code);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(says), "{name}: {message:?} does not say {says:?}");
    }
    assert_eq!(gateway.mock.requests().await, 0);
    alive(&gateway, generation).await;
}

/// Serves as before, and nothing was published meanwhile.
async fn alive(gateway: &TestGateway, generation: u64) {
    assert_eq!(gateway.generation().await, generation);
    let body = json!({"prompt": {"id": "a/b", "variables": {"name": "x"}}});
    gateway.chat(body).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn body_without_length_that_is_too_large_is_refused_readably() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway.address()).await;
    let key = &gateway.key;
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n");
    wire.send(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes())
        .await;
    for _ in 0..10 {
        wire.send(b"100000\r\n").await;
        wire.send(&vec![b' '; 1 << 20]).await;
        wire.send(b"\r\n").await;
    }
    wire.send(b"0\r\n\r\n").await;
    wire.read_until("body_too_large").await;
    assert!(wire.text().starts_with("HTTP/1.1 413 "), "{}", wire.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_before_the_body_is_readable_while_it_is_sent() {
    let gateway = TestGateway::start().await;
    for _ in 0..10 {
        let body = vec![b' '; 6 << 20];
        let request = gateway
            .anonymous(Method::POST, "/v1/chat/completions")
            .body(body.clone());
        Answer::read(request.send().await.unwrap())
            .await
            .refused(401, "invalid_api_key");
        let request = gateway.request(Method::POST, "/v1/nowhere").body(body);
        Answer::read(request.send().await.unwrap())
            .await
            .refused(404, "unknown_route");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_header_is_answered_431() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway.address()).await;
    wire.send(b"GET /v1/models HTTP/1.1\r\nhost: gateway\r\nx-large: ")
        .await;
    wire.send(&vec![b'x'; 64 * 1024]).await;
    wire.read_until("HTTP/1.1 431 ").await;
    let models = gateway.request(Method::GET, "/v1/models").send().await.unwrap();
    assert_eq!(models.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_change_is_refused_and_changes_nothing() {
    let gateway = TestGateway::start().await;
    gateway
        .prompt("a/b", json!({"text": "hi {{ name }}", "model": "mock-model"}))
        .await;
    let generation = gateway.generation().await;
    let version = |content: Value| json!({"content": content, "message": "bad"});
    let text = |text: &str| version(json!({"text": text}));
    let split = |arms: &[(&str, u32, f64)]| {
        let arm = |(variant, version, weight): &(&str, u32, f64)| json!({"variant": variant, "version": version, "weight": weight});
        json!({"split": arms.iter().map(arm).collect::<Vec<_>>(), "message": "bad"})
    };
    let (versions, live) = ("/prompts/a/b/versions", "/prompts/a/b/deployments/production");
    let table = [
        (
            Method::POST,
            versions,
            text("{{ name"),
            422,
            "invalid_content",
            "messages[0].content",
        ),
        (
            Method::POST,
            versions,
            text("{% if x %}"),
            422,
            "invalid_content",
            "messages[0].content",
        ),
        (
            Method::POST,
            versions,
            text("{{ name | nosuchfilter }}"),
            422,
            "invalid_content",
            "nosuchfilter",
        ),
        (
            Method::POST,
            versions,
            text("{% include \"prompt:nobody\" %}"),
            422,
            "invalid_content",
            "nobody",
        ),
        (
            Method::POST,
            versions,
            version(json!({})),
            422,
            "invalid_content",
            "messages",
        ),
        (
            Method::POST,
            versions,
            version(json!({"text": "x", "variables": {"n": {"type": "strin"}}})),
            422,
            "invalid_content",
            "strin",
        ),
        (
            Method::POST,
            versions,
            version(json!({"text": "x", "extra": 1})),
            400,
            "invalid_field",
            "extra",
        ),
        (
            Method::POST,
            versions,
            json!({"content": {"text": "x"}}),
            400,
            "invalid_field",
            "message",
        ),
        (
            Method::PUT,
            live,
            split(&[("control", 1, 50.0), ("b", 1, 49.0)]),
            400,
            "invalid_field",
            "add up to 99",
        ),
        (
            Method::PUT,
            live,
            split(&[("control", 1, 99.999), ("b", 1, 0.001)]),
            400,
            "invalid_field",
            "decimals",
        ),
        (
            Method::PUT,
            live,
            split(&[("control", 1, -1.0), ("b", 1, 101.0)]),
            400,
            "invalid_field",
            "between 0 and 100",
        ),
        (
            Method::PUT,
            live,
            split(&[("control", 1, 50.0), ("control", 1, 50.0)]),
            400,
            "invalid_field",
            "twice",
        ),
        (Method::PUT, live, split(&[]), 400, "invalid_field", "at least one arm"),
        (
            Method::PUT,
            live,
            split(&[("control", 9, 100.0)]),
            404,
            "version_not_found",
            "9",
        ),
        (
            Method::PUT,
            "/prompts/a/b/deployments/moon",
            split(&[("control", 1, 100.0)]),
            404,
            "environment_not_found",
            "moon",
        ),
        (
            Method::PUT,
            "/prompts/a/c/deployments/production",
            split(&[("control", 1, 100.0)]),
            404,
            "prompt_not_found",
            "a/c",
        ),
        (
            Method::POST,
            "/prompts/a/b/deployments/production/rollback",
            json!({"message": "x"}),
            409,
            "conflict",
            "",
        ),
        (
            Method::POST,
            "/prompts",
            json!({"id": "A/B"}),
            400,
            "invalid_field",
            "lowercase",
        ),
        (
            Method::POST,
            "/prompts",
            json!({"id": "a/versions"}),
            400,
            "invalid_field",
            "reserved",
        ),
        (Method::POST, "/prompts", json!({"id": "a/b"}), 409, "conflict", "a/b"),
        (Method::POST, "/prompts", json!({"id": 7}), 400, "invalid_field", "id"),
        (
            Method::POST,
            "/keys",
            json!({"name": "k", "environment": "moon"}),
            404,
            "environment_not_found",
            "moon",
        ),
    ];
    for (method, path, body, status, code, says) in table {
        let answer = gateway.admin(method, path, &body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        answer.refused(status, code);
        assert!(
            answer.text().contains(says),
            "{path} {body}: {} does not say {says:?}",
            answer.text()
        );
    }
    let prompt = gateway
        .admin(Method::GET, "/prompts/a/b", &Value::Null)
        .await
        .expect(200)
        .json();
    assert_eq!(prompt["latest_version"], 1);
    alive(&gateway, generation).await;
}

/// Runs the binary to its end.
fn run(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = promptgate(args).output().expect("the binary runs");
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("gateway.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn bad_configuration_is_refused_with_every_problem_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[server]\nlisten = \"nowhere\"\nworkers = 0\nlissten = \"127.0.0.1:0\"\n\
        [telemetry]\nseal_after = \"soon\"\n\
        [[providers]]\nname = \"p\"\nkind = \"openay\"\nbase_url = \"ftp://x\"\napi_key_env = \"IT_NO_SUCH_VARIABLE\"\n\
        [[models]]\nname = \"m\"\ntargets = [{ provider = \"q\" }]\n";
    let config = write(folder.path(), text);
    let lines = [
        ":2: server.listen: ",
        ":3: server.workers: ",
        ":4: server.lissten: unknown key, did you mean listen?",
        ":6: telemetry.seal_after: \"soon\" is not a duration",
        ":9: providers[0].kind: ",
        ":10: providers[0].base_url: ",
        ":11: providers[0].api_key_env: ",
        "models[0].targets[0].provider: \"q\" is not a provider",
    ];
    for command in ["check", "serve"] {
        let (code, output) = run(&[command, "--config", &config]);
        assert_eq!(code, Some(1), "{command}: {output}");
        for line in lines {
            assert!(output.contains(line), "{command} does not say {line:?}: {output}");
        }
    }
    let (code, output) = run(&["check", "--config", &config, "--json"]);
    let first = output.lines().next().unwrap();
    let report: Value = serde_json::from_str(first).unwrap_or_else(|error| panic!("{error}: {output}"));
    assert_eq!(
        (code, report["problems"].as_array().map(Vec::len)),
        (Some(1), Some(lines.len())),
        "{report}"
    );
}

#[test]
fn good_configuration_is_checked_with_exit_code_0() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), &config_text(folder.path(), "http://127.0.0.1:9/v1"));
    let (code, output) = run(&["check", "--config", &config]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.starts_with("ok: 1 providers, 2 models"), "{output}");
}

#[test]
fn missing_configuration_or_taken_port_is_said_with_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere.toml").display().to_string();
    let (code, output) = run(&["serve", "--config", &nowhere]);
    assert_eq!(code, Some(1));
    assert!(
        output.contains("nowhere.toml") && output.contains("cannot be read"),
        "{output}"
    );

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = config_text(folder.path(), "http://127.0.0.1:9/v1").replacen("127.0.0.1:0", &address, 1);
    let (code, output) = run(&["serve", "--config", &write(folder.path(), &text)]);
    assert_eq!(code, Some(1), "{output}");
    assert!(
        output.contains(&address) && output.contains("server.listen"),
        "{output}"
    );
}

#[test]
fn wrong_usage_ends_with_exit_code_2() {
    for args in [
        &["serve", "--no-such-flag"][..],
        &["nonsense"],
        &["demo", "--requests", "many"],
        &[],
    ] {
        let (code, output) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {output}");
        assert!(output.contains("--help"), "{args:?}: {output}");
    }
}
