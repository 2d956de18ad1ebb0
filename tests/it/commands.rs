//! The commands over the control plane, as the real binary runs them.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Mock, Process, config_text, promptgate, until};

/// Runs a command against a gateway; returns what it printed, as JSON.
pub fn run(gateway: &Process, args: &[&str]) -> Value {
    let output = command(gateway, args).arg("--json").output().expect("the binary runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?} printed no JSON"))
}

/// Runs a command for a person; returns its exit code and all that it printed.
pub fn read(gateway: &Process, args: &[&str]) -> (i32, String) {
    let output = command(gateway, args).output().expect("the binary runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

pub fn command(gateway: &Process, args: &[&str]) -> std::process::Command {
    let mut command = promptgate(args);
    command
        .env("PROMPTGATE_URL", format!("http://{}", gateway.control))
        .env("PROMPTGATE_TOKEN", ADMIN_TOKEN);
    command
}

pub fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

const FIRST: &str = "
messages:
  - role: system
    content: |
      Be brief.
      Be kind.
  - {role: user, content: '{{ question }}'}
variables: {question: {type: string}}
model: mock-model
";

#[tokio::test(flavor = "multi_thread")]
async fn prompt_goes_from_a_file_to_live_and_back_by_commands() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    file(folder.path(), "gateway.toml", &config_text(folder.path(), &mock.url()));
    let gateway = Process::serve(folder.path());
    let first = file(folder.path(), "first.yaml", FIRST);
    let second = file(folder.path(), "second.yaml", &FIRST.replace("brief", "very brief"));
    let broken = file(
        folder.path(),
        "broken.yaml",
        "messages: [{role: user, content: '{{ a|shout }}'}]",
    );

    run(
        &gateway,
        &["prompt", "create", "support/greet", "--description", "d", "--tag", "t"],
    );
    assert_eq!(
        run(&gateway, &["prompt", "push", "support/greet", &first, "-m", "one"])["version"],
        1
    );
    assert_eq!(
        run(&gateway, &["prompt", "push", "support/greet", &second, "-m", "two"])["version"],
        2
    );
    let (code, text) = read(&gateway, &["prompt", "push", "support/greet", &broken, "-m", "three"]);
    assert!(
        code == 1 && text.contains("shout") && text.contains("messages[0].content"),
        "{code} {text}"
    );
    let (_, diff) = read(&gateway, &["prompt", "diff", "support/greet"]);
    assert!(diff.contains("    Be {+very +}brief.\n    Be kind."), "{diff}");

    run(
        &gateway,
        &[
            "deploy",
            "support/greet",
            "production",
            "--split",
            "control=1:80,b=2:20",
        ],
    );
    let live = run(&gateway, &["deploy", "support/greet", "production", "--version", "2"]);
    assert_eq!(
        live["split"],
        json!([{"variant": "control", "version": 2, "weight": 100.0}])
    );
    let back = run(&gateway, &["rollback", "support/greet", "production", "-m", "no"]);
    assert_eq!(
        (&back["kind"], &back["split"][1]["version"]),
        (&json!("rollback"), &json!(2))
    );
    let listed = run(&gateway, &["prompt", "list"]);
    assert_eq!(listed["items"][0]["live"]["production"]["split"][0]["weight"], 80.0);
    let (_, shown) = read(&gateway, &["prompt", "show", "support/greet:2"]);
    assert!(shown.contains("Be very brief.\nBe kind."), "{shown}");

    let key = run(&gateway, &["keys", "create", "app", "--no-raw"]);
    let body = json!({"prompt": {"id": "support/greet", "variables": {"question": "?"}}});
    let http = reqwest::Client::new();
    let answer = http.request(Method::POST, format!("http://{}/v1/chat/completions", gateway.data));
    let answer = answer
        .bearer_auth(key["key"].as_str().unwrap())
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let exchange = until("the exchange is listed", async || {
        let listed = run(&gateway, &["exchanges", "list", "--prompt", "support/greet"]);
        listed["items"].as_array().and_then(|items| items.first().cloned())
    })
    .await;
    assert_eq!(exchange["exchange_id"], id.as_str());
    assert_eq!(run(&gateway, &["exchanges", "show", &id])["prompt_id"], "support/greet");
    let stats = run(
        &gateway,
        &[
            "stats",
            "--group-by",
            "prompt,variant",
            "--where",
            "prompt=support/greet",
        ],
    );
    assert_eq!(
        (&stats["items"][0]["requests"], &stats["items"][0]["prompt"]),
        (&json!(1), &json!("support/greet"))
    );
    let (code, table) = read(&gateway, &["stats"]);
    assert!(code == 0 && table.contains("support/greet"), "{table}");

    run(&gateway, &["keys", "revoke", key["id"].as_str().unwrap()]);
    assert!(run(&gateway, &["keys", "list"])["items"][0]["revoked_at"].is_string());
    let (code, text) = read(&gateway, &["prompt", "show", "nope"]);
    assert!(code == 1 && text.contains("\"nope\""), "{code} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_tokens_are_managed_by_commands() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    file(folder.path(), "gateway.toml", &config_text(folder.path(), &mock.url()));
    let gateway = Process::serve(folder.path());
    assert_eq!(run(&gateway, &["whoami"])["user"]["name"], "admin");
    run(
        &gateway,
        &["users", "create", "ada@example.com", "--role", "viewer,editor"],
    );
    let grant = [
        "ada@example.com",
        "deployer",
        "--environment",
        "staging",
        "--folder",
        "support",
    ];
    let args = |verb: &'static str| -> Vec<&str> { ["users", verb].into_iter().chain(grant).collect() };
    let (code, text) = read(&gateway, &args("grant"));
    assert_eq!(
        (code, text.trim()),
        (0, "ada@example.com (person): viewer, editor, deployer@staging:support")
    );
    let made = run(
        &gateway,
        &[
            "tokens",
            "create",
            "ci",
            "--user",
            "ada@example.com",
            "--expires",
            "90d",
        ],
    );
    let token = made["secret"].as_str().unwrap();
    let as_ada = |args: &[&str]| {
        let output = command(&gateway, args).env("PROMPTGATE_TOKEN", token).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    };
    let (code, text) = as_ada(&["whoami"]);
    assert!(code == 0 && text.contains("read, propose, write, deploy"), "{text}");
    let (code, text) = as_ada(&["keys", "create", "x"]);
    assert!(code == 1 && text.contains("that needs the role admin there"), "{text}");
    let (code, text) = as_ada(&["tokens", "list"]);
    assert!(code == 0 && text.contains("ci"), "{text}");
    let (code, text) = read(&gateway, &args("ungrant"));
    assert_eq!((code, text.trim()), (0, "ada@example.com (person): viewer, editor"));
    let (_, text) = read(&gateway, &["users", "disable", "ada@example.com"]);
    assert!(text.contains("disabled since"), "{text}");
    assert_eq!(as_ada(&["whoami"]).0, 1);
    run(&gateway, &["users", "enable", "ada@example.com"]);
    let id = made["id"].as_str().unwrap();
    run(&gateway, &["tokens", "revoke", id, "--user", "ada@example.com"]);
    assert_eq!(as_ada(&["whoami"]).0, 1);
    let (_, text) = read(&gateway, &["users", "list"]);
    assert!(text.contains("admin") && text.contains("ada@example.com"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_log_is_listed_verified_and_exported_by_commands() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    file(folder.path(), "gateway.toml", &config_text(folder.path(), &mock.url()));
    let gateway = Process::serve(folder.path());
    run(&gateway, &["prompt", "create", "a", "--description", "d"]);
    run(&gateway, &["prompt", "create", "b"]);
    let database = folder.path().join("registry.db");
    let url = format!("sqlite:{}", database.display());
    let ways: [&[&str]; 2] = [&[], &["--registry", &url]];
    let mut heads = Vec::new();
    for way in ways {
        let with =
            |args: &[&'static str]| -> Vec<String> { args.iter().chain(way).map(|arg| (*arg).to_owned()).collect() };
        let read = |args: &[&'static str]| {
            let args = with(args);
            read(&gateway, &args.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let (code, text) = read(&["audit", "list", "--subject", "a", "--actor", "admin"]);
        assert!(
            code == 0 && text.contains("prompt.create") && !text.contains("token.set"),
            "{text}"
        );
        let (code, text) = read(&["audit", "verify"]);
        assert!(code == 0 && text.contains("whole: 3 entries"), "{text}");
        heads.push(text.rsplit_once("head:  ").unwrap().1.trim().to_owned());
        let (_, lines) = read(&["audit", "export"]);
        let ids: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
            .collect();
        assert_eq!(ids, [1, 2, 3]);
        let (_, csv) = read(&["audit", "export", "--format", "csv", "--action", "prompt"]);
        assert_eq!(csv.lines().count(), 3, "{csv}");
    }
    assert_eq!(heads[0], heads[1]);
    gateway.kill();

    let sql = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::raw_sql("DROP TRIGGER audit_is_not_updated; UPDATE audit SET subject = 'c' WHERE id = 2")
        .execute(&sql)
        .await
        .unwrap();
    sql.close().await;
    let output = promptgate(&["audit", "verify", "--registry", &url]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("breaks at entry 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn change_is_proposed_reviewed_and_applied_by_commands() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    file(folder.path(), "gateway.toml", &config_text(folder.path(), &mock.url()));
    let gateway = Process::serve(folder.path());
    let first = file(folder.path(), "first.yaml", FIRST);
    for id in ["a", "b"] {
        run(&gateway, &["prompt", "push", id, &first, "--create", "-m", "one"]);
    }
    let policy = json!({"protected": true, "required_checks": ["eval"]});
    gateway
        .admin(Method::PUT, "/environments/production", &policy)
        .await
        .expect(200);
    let as_user = |name: &str, role: &str| {
        run(&gateway, &["users", "create", name, "--role", role]);
        let made = run(&gateway, &["tokens", "create", "t", "--user", name]);
        made["secret"].as_str().unwrap().to_owned()
    };
    let (rob, dan, ci) = (
        as_user("rob", "reviewer"),
        as_user("dan", "deployer"),
        as_user("ci", "checker"),
    );
    let by = |token: &str, args: &[&str]| {
        let output = command(&gateway, args).env("PROMPTGATE_TOKEN", token).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    };
    let (code, text) = by(&dan, &["deploy", "a", "production", "--version", "1"]);
    assert!(code == 1 && text.contains("approve"), "{text}");
    let (code, text) = by(
        &dan,
        &["changes", "propose", "production", "a=1", "b=x=1:60,y=1:40", "-m", "go"],
    );
    assert!(code == 0 && text.contains("change 1 in production: open"), "{text}");
    assert!(
        text.contains("b: x=1:60, y=1:40") && text.contains("check eval: pending, required"),
        "{text}"
    );
    assert_eq!(by(&dan, &["changes", "approve", "1"]).0, 1);
    let (code, text) = by(&rob, &["changes", "comment", "1", "why now?"]);
    assert!(code == 0 && text.contains("rob: why now?"), "{text}");
    let (code, text) = by(&rob, &["changes", "approve", "1", "--revision", "1", "-m", "fine"]);
    assert!(code == 0 && text.contains("approvals: 1 of 1"), "{text}");
    let (code, text) = by(&dan, &["changes", "apply", "1"]);
    assert!(code == 1 && text.contains("eval (pending)"), "{text}");
    let (code, text) = by(&ci, &["changes", "check", "1", "eval", "pass", "--summary", "12 of 12"]);
    assert!(
        code == 0 && text.contains("ready: promptgate changes apply 1"),
        "{text}"
    );
    let (code, text) = by(&dan, &["changes", "apply", "1"]);
    assert!(code == 0 && text.contains("a: control=1:100, deployment 1"), "{text}");
    let (_, text) = by(&dan, &["changes", "list"]);
    assert!(text.contains("applied") && text.contains("a, b"), "{text}");
    let (_, text) = by(&dan, &["changes", "stats"]);
    assert!(text.contains("to going live: median"), "{text}");
    let (code, text) = by(
        &dan,
        &[
            "deploy",
            "a",
            "production",
            "--version",
            "1",
            "--break-glass",
            "-m",
            "x",
        ],
    );
    assert!(code == 1 && text.contains("break_glass"), "{text}");
    run(
        &gateway,
        &[
            "deploy",
            "a",
            "production",
            "--version",
            "1",
            "--break-glass",
            "-m",
            "fire",
        ],
    );
    let (_, text) = read(&gateway, &["audit", "list", "--action", "deployment.break_glass"]);
    assert!(text.contains("fire"), "{text}");
}

/// What a prompt team does in a week, by commands alone.
#[tokio::test(flavor = "multi_thread")]
async fn library_is_kept_and_prompts_are_moved_by_commands() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    file(folder.path(), "gateway.toml", &config_text(folder.path(), &mock.url()));
    let gateway = Process::serve(folder.path());
    let first = file(folder.path(), "first.yaml", FIRST);
    let second = file(folder.path(), "second.yaml", &FIRST.replace("brief", "very brief"));
    let id = "support/greet";
    run(&gateway, &["prompt", "create", id, "--owner", "ada", "--tag", "t"]);
    run(&gateway, &["prompt", "push", id, &first, "-m", "one"]);

    let saved = run(&gateway, &["prompt", "draft", "save", id, "spring", &second]);
    assert_eq!((&saved["revision"], &saved["problems"]), (&json!(1), &json!([])));
    let (code, text) = read(&gateway, &["prompt", "draft", "save", id, "spring", &first]);
    assert!(code == 1 && text.contains("saved meanwhile"), "{text}");
    run(
        &gateway,
        &["prompt", "draft", "save", id, "spring", &second, "--revision", "1"],
    );
    let (_, text) = read(&gateway, &["prompt", "diff", id, "--to", "draft:spring"]);
    assert!(text.contains("{+very +}"), "{text}");
    let made = run(&gateway, &["prompt", "draft", "commit", id, "spring", "-m", "two"]);
    assert_eq!(made["version"], 2);
    assert_eq!(run(&gateway, &["prompt", "draft", "list", id])["items"], json!([]));

    let (_, text) = read(&gateway, &["prompt", "search", "VERY BRIEF"]);
    assert!(text.contains("version 2, messages[0].content"), "{text}");
    assert_eq!(
        run(&gateway, &["prompt", "list", "--folder", "support", "--owner", "ada"])["items"][0]["id"],
        id
    );
    let (_, text) = read(&gateway, &["prompt", "folders"]);
    assert!(
        text.contains("support") && text.contains("1 prompts, 0 of them"),
        "{text}"
    );
    run(&gateway, &["prompt", "edit", id, "--description", "says hello"]);

    run(&gateway, &["deploy-together", "staging", "support/greet=1", "-m", "m"]);
    run(&gateway, &["promote", id, "-m", "tested"]);
    let shift = [
        "shift",
        "start",
        id,
        "production",
        "--version",
        "2",
        "--steps",
        "5,1h:100",
    ];
    let shift = run(&gateway, &shift);
    assert_eq!(
        (&shift["state"], &shift["steps"][0]["deployment"]),
        (&json!("running"), &json!(2))
    );
    let (_, text) = read(&gateway, &["shift", "list", "--running"]);
    assert!(text.contains("1 of 2"), "{text}");
    let (_, text) = read(
        &gateway,
        &["shift", "cancel", shift["id"].as_str().unwrap(), "-m", "enough"],
    );
    assert!(text.contains("cancelled by \"admin\": enough"), "{text}");

    let (code, text) = read(&gateway, &["prompt", "archive", id]);
    assert!(code == 1 && text.contains("is live in \"production\""), "{text}");
    run(&gateway, &["prompt", "rename", id, "support/hello", "-m", "clearer"]);
    for environment in ["staging", "production"] {
        run(&gateway, &["take-down", id, environment, "-m", "over"]);
    }
    assert!(run(&gateway, &["prompt", "archive", id])["archived_at"].is_string());
    assert_eq!(run(&gateway, &["prompt", "list"])["items"], json!([]));
    run(&gateway, &["prompt", "restore", "support/hello"]);

    run(&gateway, &["environments", "create", "canary"]);
    run(
        &gateway,
        &["environments", "set", "canary", "--label", "Canary", "--position", "1"],
    );
    assert_eq!(run(&gateway, &["environments", "list"])["items"][0]["label"], "Canary");
    run(&gateway, &["environments", "delete", "canary"]);
}

/// A plan goes on in the process that serves, also in one that was started later.
#[tokio::test(flavor = "multi_thread")]
async fn shift_is_carried_out_by_the_next_process() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    file(folder.path(), "gateway.toml", &config_text(folder.path(), &mock.url()));
    let gateway = Process::serve(folder.path());
    let first = file(folder.path(), "first.yaml", FIRST);
    let second = file(folder.path(), "second.yaml", &FIRST.replace("brief", "very brief"));
    run(&gateway, &["prompt", "create", "a"]);
    run(&gateway, &["prompt", "push", "a", &first, "-m", "one"]);
    run(&gateway, &["prompt", "push", "a", &second, "-m", "two"]);
    run(&gateway, &["deploy", "a", "production", "--version", "1"]);
    let shift = run(
        &gateway,
        &[
            "shift",
            "start",
            "a",
            "production",
            "--version",
            "2",
            "--steps",
            "5,1s:100",
        ],
    );
    gateway.kill();
    let gateway = Process::serve(folder.path());
    let path = format!("/shifts/{}", shift["id"].as_str().unwrap());
    until("the shift is done", async || {
        let shift = gateway.admin(Method::GET, &path, &Value::Null).await.expect(200).json();
        (shift["state"] == "done").then_some(())
    })
    .await;
    let live = gateway
        .admin(Method::GET, "/prompts/a/deployments/production", &Value::Null)
        .await;
    assert_eq!(
        live.expect(200).json()["split"],
        json!([{"variant": "control", "version": 2, "weight": 100.0}])
    );
}
