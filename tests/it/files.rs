//! Prompts as files: `prompt pull`, `plan` and `apply` by the real binary.

use std::collections::BTreeMap;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::commands::{file, read, run};
use crate::support::{Mock, Process, config_text, promptgate};

const TONE: &str = "messages: [{role: user, content: \"Be kind.\\nBe brief.\\n\"}]\n";
const GREET: &str = "
messages:
  - {role: system, content: \"{% include 'prompt:shared/tone' %} Speak {{ language }}.\"}
  - {placeholder: history}
  - {role: user, content: '{{ question }}'}
variables:
  language: {type: string, default: English, description: \"a: b\"}
  question: {type: string}
model: mock-model
parameters: {temperature: 0.25}
notes: asked for by support
";

async fn gateway(folder: &Path, mock: &Mock) -> Process {
    std::fs::create_dir_all(folder).unwrap();
    file(folder, "gateway.toml", &config_text(folder, &mock.url()));
    Process::serve(folder)
}

/// Every file below a folder, by its path.
fn tree(dir: &Path) -> BTreeMap<String, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                found.insert(name, std::fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

/// A registry with a partial, a split of two versions and a prompt that is nowhere live.
fn fill(gateway: &Process, folder: &Path) {
    let tone = file(folder, "tone.yaml", TONE);
    let greet = file(folder, "greet.yaml", GREET);
    let next = file(folder, "next.yaml", &GREET.replace("Speak", "Always speak"));
    let push = |id: &str, file: &str| run(gateway, &["prompt", "push", id, file, "--create", "-m", "m"]);
    push("shared/tone", &tone);
    push("support/greet", &greet);
    push("support/greet", &next);
    run(
        gateway,
        &[
            "prompt",
            "edit",
            "support/greet",
            "--description",
            "Says: hello",
            "--owner",
            "ada",
            "--tag",
            "b",
        ],
    );
    run(gateway, &["prompt", "alias", "support/greet", "pmpt_1/ä"]);
    run(gateway, &["deploy", "support/greet", "staging", "--version", "2"]);
    run(
        gateway,
        &[
            "deploy",
            "support/greet",
            "production",
            "--split",
            "control=1:66.67,b=2:33.33",
        ],
    );
    run(gateway, &["prompt", "create", "empty"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_through_an_empty_registry_are_identical() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    let first = gateway(&folder.path().join("one"), &mock).await;
    fill(&first, folder.path());
    let dirs = ["a", "b"].map(|name| folder.path().join(name));
    let [a, b] = dirs.each_ref().map(|dir| dir.to_str().unwrap());
    let pulled = run(&first, &["prompt", "pull", a]);
    assert_eq!(pulled["written"], json!(["empty", "shared/tone", "support/greet"]));
    let files = tree(&dirs[0]);
    assert!(
        files["shared/tone.yaml"].contains("        content: |\n          Be kind.\n          Be brief.\n"),
        "{files:#?}"
    );
    assert!(
        files["support/greet.yaml"].contains("    - {variant: control, version: production-control, weight: 66.67}")
    );
    // There is nothing to do where it came from, and nothing to write.
    let (code, text) = read(&first, &["prompt", "plan", a, "--check"]);
    assert!(code == 0 && text.contains("nothing to do"), "{code} {text}");
    assert_eq!(run(&first, &["prompt", "pull", a])["unchanged"], 3);

    let second = gateway(&folder.path().join("two"), &mock).await;
    let (code, text) = read(&second, &["prompt", "plan", a, "--check"]);
    assert!(code == 3 && text.contains("+ support/greet (new)"), "{code} {text}");
    let (code, text) = read(&second, &["prompt", "apply", a, "-m", "first"]);
    assert!(
        code == 0 && text.contains("stored support/greet:2 (latest)"),
        "{code} {text}"
    );
    let (code, text) = read(&second, &["prompt", "apply", a]);
    assert!(
        code == 0 && text.trim() == "nothing to do: the registry is as the files say",
        "{code} {text}"
    );
    assert_eq!(read(&second, &["prompt", "apply", a, "--check"]).0, 0);
    run(&second, &["prompt", "pull", b]);
    assert_eq!(tree(&dirs[1]), files);
    let hash = |gateway: &Process| run(gateway, &["prompt", "show", "support/greet:2"])["hash"].clone();
    assert_eq!(hash(&first), hash(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn edited_files_are_reviewed_applied_and_proposed_where_protected() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    let gateway = gateway(&folder.path().join("one"), &mock).await;
    fill(&gateway, folder.path());
    let dir = folder.path().join("prompts");
    let at = dir.to_str().unwrap();
    run(&gateway, &["prompt", "pull", at]);
    let policy = json!({"protected": true});
    gateway
        .admin(Method::PUT, "/environments/production", &policy)
        .await
        .expect(200);

    // A new text in latest, live in staging and, in part, in production.
    let greet = dir.join("support/greet.yaml");
    let text = std::fs::read_to_string(&greet).unwrap();
    let edited = format!(
        "# why: asked for\n{}",
        text.replace("Always speak", "Please speak")
            .replace("66.67", "60")
            .replace("33.33", "40")
    );
    std::fs::write(&greet, &edited).unwrap();
    std::fs::write(
        dir.join("new.yaml"),
        "deployments: {staging: only}\nversions: {only: {text: 'Hi {{ who }}'}}\n",
    )
    .unwrap();
    let (code, plan) = read(&gateway, &["prompt", "plan", at]);
    assert_eq!(code, 0, "{plan}");
    for part in [
        "+ new (new)",
        "version 3 (latest): new, compared with 2",
        "[-Always-]{+Please+} speak",
        "production: control=1:66.67, b=2:33.33 → control=1:60, b=3:40 (protected: proposed as a change)",
        "staging: control=2:100 → control=3:100",
    ] {
        assert!(plan.contains(part), "{part} is not in {plan}");
    }
    let done = run(&gateway, &["prompt", "apply", at, "-m", "politer"]);
    let steps: Vec<&str> = done["done"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["create", "version", "version", "deploy", "deploy", "propose"]);
    let change = run(&gateway, &["changes", "show", "1"]);
    assert_eq!(
        change["deployments"][0]["split"][1],
        json!({"variant": "b", "version": 3, "weight": 40.0})
    );
    // Once more: it waits, and is not proposed again.
    let done = run(&gateway, &["prompt", "apply", at]);
    assert_eq!(done["done"][0]["step"], "waits");
    assert_eq!(read(&gateway, &["prompt", "plan", at, "--check"]).0, 3);
    assert_eq!(
        run(&gateway, &["changes", "list"])["items"].as_array().unwrap().len(),
        1
    );

    // A text that was there before is that version again.
    std::fs::write(&greet, &text).unwrap();
    let plan = run(&gateway, &["prompt", "plan", at]);
    let greet_plan = &plan["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|todo| todo["id"] == "support/greet")
        .unwrap()
        .clone();
    assert_eq!(
        (
            &greet_plan["versions"],
            &greet_plan["deployments"][0]["to"][0]["version"]
        ),
        (&json!([]), &json!(2))
    );

    // What has no file stays, unless it is pruned; a file without a prompt likewise.
    std::fs::remove_file(dir.join("empty.yaml")).unwrap();
    let (_, plan) = read(&gateway, &["prompt", "plan", at]);
    assert!(plan.contains("without a file, left as they are: empty"), "{plan}");
    run(
        &gateway,
        &["prompt", "apply", at, "--prune", "--environment", "staging"],
    );
    assert!(gateway.admin(Method::GET, "/prompts/empty", &Value::Null).await.json()["archived_at"].is_string());
    let (before, arms) = text.split_once("  production:\n").unwrap();
    let after = &arms[arms.find("versions:").unwrap()..];
    std::fs::write(&greet, format!("{before}{after}")).unwrap();
    let (code, said) = read(
        &gateway,
        &["prompt", "apply", at, "--prune", "--environment", "production"],
    );
    assert!(
        code == 0 && said.contains("production is protected, support/greet stays live"),
        "{code} {said}"
    );
    std::fs::write(dir.join("gone.yaml"), "{}\n").unwrap();
    let (_, pulled) = read(&gateway, &["prompt", "pull", at]);
    assert!(
        pulled.contains("gone.yaml has no prompt") && dir.join("gone.yaml").exists(),
        "{pulled}"
    );
    run(&gateway, &["prompt", "pull", at, "--prune"]);
    assert!(!dir.join("gone.yaml").exists());

    // Every problem of every file, with its place.
    std::fs::write(
        dir.join("bad.yaml"),
        "owner: x\nversions:\n  v:\n    text: '{{ a|shout }}'\n",
    )
    .unwrap();
    std::fs::write(dir.join("worse.yaml"), "tags: [\n").unwrap();
    let (code, text) = read(&gateway, &["prompt", "apply", at]);
    assert!(
        code == 1 && text.contains("bad.yaml:4:") && text.contains("worse.yaml:1:"),
        "{code} {text}"
    );
    assert!(text.contains("2 problem(s)"), "{text}");
}

const LANGFUSE: &str = r#"[
  {"name": "Movie Critic", "type": "text", "prompt": "Do you like {{movie}}?", "version": 1, "labels": [], "tags": ["movies"], "config": {}},
  {"name": "Movie Critic", "type": "text", "prompt": "As a critic, do you like {{movie}}?", "version": 2, "labels": ["production"],
   "tags": ["movies"], "config": {"model": "mock-model", "langs": ["en"]}, "commitMessage": "in a role"},
  {"name": "broken", "type": "text", "prompt": "@@@langfusePrompt:name=nobody|label=production@@@", "version": 1, "labels": [], "tags": []}
]"#;

#[tokio::test(flavor = "multi_thread")]
async fn export_of_another_system_is_imported_and_callers_work_unchanged() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    let gateway = gateway(&folder.path().join("one"), &mock).await;
    let export = file(folder.path(), "langfuse.json", LANGFUSE);
    let args = ["import", "langfuse", &export, "--deploy", "production=production"];
    let (code, text) = read(&gateway, &[&args[..], &["--dry-run"]].concat());
    assert!(
        code == 0 && text.contains("+ movie-critic (new)") && text.contains("config.langs"),
        "{code} {text}"
    );
    let (code, text) = read(&gateway, &args);
    assert!(
        code == 0 && text.contains("live: movie-critic in production is control=2:100"),
        "{code} {text}"
    );
    assert!(
        text.contains("broken (broken)") && text.contains("the partial \"nobody\" does not exist"),
        "{text}"
    );
    let versions = run(&gateway, &["prompt", "show", "movie-critic"])["versions"].clone();
    assert_eq!(
        (&versions[0]["message"], &versions[1]["message"]),
        (&json!("in a role"), &json!("imported"))
    );
    let (code, text) = read(&gateway, &args);
    assert!(code == 0 && text.contains("nothing to do"), "{code} {text}");

    let key = gateway.new_key().await;
    let body = json!({"prompt": {"id": "Movie Critic", "variables": {"movie": "Dune"}}});
    let http = reqwest::Client::new();
    let answer = http
        .post(format!("http://{}/v1/chat/completions", gateway.data))
        .bearer_auth(key)
        .json(&body);
    let answer = answer.send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-promptgate-prompt"]),
        (200, &"movie-critic".parse().unwrap())
    );

    let dir = folder.path().join("files");
    let at = dir.to_str().unwrap();
    run(&gateway, &["import", "langfuse", &export, "--dir", at]);
    assert!(
        tree(&dir)["movie-critic.yaml"].contains("aliases: [Movie Critic]"),
        "{:?}",
        tree(&dir)
    );
    let (code, text) = read(&gateway, &["import", "langfuse", &file(folder.path(), "x.json", "{}")]);
    assert!(
        code == 1 && text.contains("there is no prompt in the export"),
        "{code} {text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_is_exported_while_it_serves_and_restored_into_another_file() {
    use std::os::unix::fs::PermissionsExt;
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let first = gateway(&one, &mock).await;
    fill(&first, folder.path());
    let url = |folder: &Path| format!("sqlite:{}", folder.join("registry.db").display());
    let export = |from: &Path, to: &Path| {
        let output = promptgate(&["export", to.to_str().unwrap(), "--registry", &url(from)])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (a, b) = (folder.path().join("a.jsonl"), folder.path().join("b.jsonl"));
    export(&one, &a);
    assert_eq!(std::fs::metadata(&a).unwrap().permissions().mode() & 0o777, 0o600);
    let restore = |to: &Path| {
        promptgate(&["restore", a.to_str().unwrap(), "--registry", &url(to)])
            .output()
            .unwrap()
    };
    let refused = restore(&one);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("is not empty"));
    std::fs::create_dir_all(&two).unwrap();
    let restored = restore(&two);
    assert!(
        restored.status.success(),
        "{}",
        String::from_utf8_lossy(&restored.stderr)
    );
    export(&two, &b);
    assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap());
    // It serves, and its people are known.
    let second = gateway(&two, &mock).await;
    let shown = |gateway: &Process| run(gateway, &["prompt", "list"]);
    assert_eq!(shown(&first), shown(&second));
    assert_eq!(run(&second, &["audit", "verify"])["ok"], true);
}
