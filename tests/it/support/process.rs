//! The real binary.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::gateway::send;
use super::{ADMIN_TOKEN, Answer, DEADLINE, PROVIDER_KEY, PROVIDER_KEY_ENV};

/// Prepares a command of the real binary.
pub fn promptgate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_promptgate"));
    command
        .args(args)
        .env(PROVIDER_KEY_ENV, PROVIDER_KEY)
        .env("PROMPTGATE_ADMIN_TOKEN", ADMIN_TOKEN)
        .env("RUST_LOG", "warn");
    command
}

/// `promptgate serve`; dropped, it is killed.
pub struct Process {
    child: Child,
    pub data: String,
    pub control: String,
    http: reqwest::Client,
}

impl Process {
    /// Starts it with the configuration `gateway.toml` of a folder, and returns once it serves.
    pub fn serve(folder: &Path) -> Self {
        Self::serve_with(folder, |_| {})
    }

    /// The same, with a command that `change` has changed.
    pub fn serve_with(folder: &Path, change: impl FnOnce(&mut Command)) -> Self {
        let config: PathBuf = folder.join("gateway.toml");
        let mut command = promptgate(&["serve", "--config", config.to_str().unwrap()]);
        change(&mut command);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |label: &str| {
            let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with(label)));
            let line = line.unwrap_or_else(|| panic!("no line {label:?}")).unwrap();
            let url = line.rsplit_once("http://").expect("an address").1;
            url.split('/').next().unwrap().to_owned()
        };
        let (data, control) = (address("data plane"), address("control plane"));
        Self {
            child,
            data,
            control,
            http: reqwest::Client::new(),
        }
    }

    pub async fn admin(&self, method: Method, path: &str, body: &Value) -> Answer {
        let url = format!("http://{}/api/v1{path}", self.control);
        send(self.http.request(method, url).bearer_auth(ADMIN_TOKEN).json(body)).await
    }

    pub async fn new_key(&self) -> String {
        let created = self.admin(Method::POST, "/keys", &json!({"name": "test"})).await;
        created.expect(201).json()["key"].as_str().unwrap().to_owned()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill").success());
    }

    /// Waits until it has ended.
    pub fn wait(mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(started.elapsed() < DEADLINE, "the gateway does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already where a test waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
