//! What a big library costs: start-up, memory, publishing, searching.
//!
//! `cargo bench --bench registry [-- PROMPTS...]`, by default 1,000 and 10,000 prompts of 10 versions each. Starts the real
//! binary on a database of that size and drives it over HTTP. Prints figures, asserts nothing about time.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use promptgate::domain::content::Content;
use promptgate::registry::Registry;
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::SqliteConnection;

const VERSIONS: i64 = 10;
const PUBLISHES: usize = 400;
const TOKEN: &str = "bench-admin-token-bench-admin-token";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let asked: Vec<i64> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if asked.is_empty() { vec![1_000, 10_000] } else { asked };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for prompts in sizes {
        runtime.block_on(measure(prompts))?;
    }
    Ok(())
}

/// A prompt as support teams have them: about 1 KiB, a fifth of them with a condition.
fn content(prompt: i64, version: i64) -> Value {
    let rule = if prompt % 5 == 0 {
        "{% if tier == 'gold' %}Offer a call back.{% else %}Offer the contact form.{% endif %}"
    } else {
        "Offer a call back within the hour."
    };
    let filler = "Never promise a refund, a date or a discount: say that a colleague will confirm it. ".repeat(8);
    let system = format!(
        "You are {{{{ company }}}}'s assistant number {prompt}.{version} for {{{{ tier }}}} customers. {rule} {filler}Answer \
         in {{{{ language }}}}."
    );
    json!({
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": "{{ question }}"}],
        "variables": {
            "company": {"type": "string", "default": "Acme"},
            "tier": {"type": "string", "enum": ["gold", "standard"]},
            "language": {"type": "string", "enum": ["English", "German"]},
            "question": {"type": "string", "maxLength": 4000},
        },
        "model": "gpt-4o-mini",
        "parameters": {"temperature": 0.2, "max_tokens": 400},
    })
}

/// Writes a library into an empty registry: through SQL, because 100,000 changes one by one would take minutes.
async fn fill(url: &str, prompts: i64) -> Outcome<()> {
    use sqlx::Connection;
    Registry::open(url).await?.close().await;
    let mut sql = SqliteConnection::connect(url).await?;
    sqlx::raw_sql("BEGIN").execute(&mut sql).await?;
    for prompt in 0..prompts {
        let id = format!("folder-{}/prompt-{prompt:05}", prompt % 100);
        sqlx::query(
            "INSERT INTO prompts (id, description, tags, created_at, created_by, generation, uid, salt_id) \
             VALUES ($1, 'A prompt of the bench', '[\"bench\"]', 1, 'ada', 2, $1, $1)",
        )
        .bind(&id)
        .execute(&mut sql)
        .await?;
        for version in 1..=VERSIONS {
            let content: Content = serde_json::from_value(content(prompt, version))?;
            let text = serde_json::to_string(&content)?;
            sqlx::query(
                "INSERT INTO versions (prompt_id, version, content, source, hash, message, author, created_at) \
                 VALUES ($1, $2, $3, $3, $4, 'bench', 'ada', 1)",
            )
            .bind(&id)
            .bind(version)
            .bind(text)
            .bind(content.hash())
            .execute(&mut sql)
            .await?;
        }
        let split = json!([{"variant": "control", "version": VERSIONS, "weight": 100.0}]).to_string();
        for statement in [
            "INSERT INTO deployments (prompt_id, environment, number, split, message, actor, created_at, kind, generation) \
             VALUES ($1, 'production', 1, $2, 'bench', 'ada', 1, 'deploy', 2)",
            "INSERT INTO live (prompt_id, environment, number) SELECT $1, 'production', 1 WHERE $2 <> ''",
            "INSERT INTO deployed_versions (prompt_id, environment, version, live) SELECT $1, 'production', 10, 1 WHERE $2 <> ''",
        ] {
            sqlx::query(statement).bind(&id).bind(&split).execute(&mut sql).await?;
        }
    }
    sqlx::raw_sql("UPDATE meta SET generation = 2; COMMIT")
        .execute(&mut sql)
        .await?;
    sql.close().await?;
    Ok(())
}

/// The gateway; dropped, it is killed.
struct Gateway {
    child: Child,
    control: String,
    http: Client,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    fn start(folder: &Path) -> Outcome<Self> {
        let config = folder.join("gateway.toml");
        let at = |name: &str| folder.join(name).display().to_string();
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[registry]\nurl = \"sqlite:{}\"\n\
             [telemetry]\nsink = \"none\"\nspool_dir = \"{}\"\n",
            at("registry.db"),
            at("spool")
        );
        std::fs::write(&config, text)?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_promptgate"))
            .args(["serve", "--config"])
            .arg(&config)
            .env("PROMPTGATE_ADMIN_TOKEN", TOKEN)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let line = lines
            .map_while(Result::ok)
            .find(|line| line.starts_with("control plane"));
        let line = line.ok_or("the gateway does not serve")?;
        let url = line.rsplit_once("http://").ok_or("no address")?.1;
        let control = format!("http://{}/api/v1", url.split('/').next().unwrap_or_default());
        let http = Client::new();
        Ok(Self { child, control, http })
    }

    /// Resident memory, and how much of it is the process's own, in MiB.
    fn memory(&self) -> Outcome<(f64, f64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            kib.unwrap_or(f64::NAN) / 1024.0
        };
        Ok((field("VmRSS:"), field("RssAnon:")))
    }

    /// Sends a call, and returns its answer and how long that took.
    async fn call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Outcome<(Value, Duration)> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.control))
            .bearer_auth(TOKEN);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let began = Instant::now();
        let answer = request.send().await?.error_for_status()?.json().await?;
        Ok((answer, began.elapsed()))
    }
}

fn figures(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("  {name:<42} p50 {:>8.2} ms   p99 {:>8.2} ms", at(0.5), at(0.99));
}

async fn measure(prompts: i64) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite:{}", folder.path().join("registry.db").display());
    fill(&url, prompts).await?;
    let bytes = std::fs::metadata(folder.path().join("registry.db"))?.len();
    println!(
        "{prompts} prompts of {VERSIONS} versions, one live each ({} MiB on disk)",
        bytes >> 20
    );
    let began = Instant::now();
    let gateway = Gateway::start(folder.path())?;
    println!(
        "  start to serving                           {:>12.0} ms",
        began.elapsed().as_secs_f64() * 1e3
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (resident, own) = gateway.memory()?;
    println!("  memory, idle                               {resident:>12.1} MiB ({own:.1} MiB its own)");

    let (mut deploys, mut versions) = (Vec::new(), Vec::new());
    for at in 0..PUBLISHES {
        let prompt = at as i64 * 37 % prompts;
        let path = format!("/prompts/folder-{}/prompt-{prompt:05}", prompt % 100);
        let body = json!({"content": content(prompt, 1_000 + at as i64), "message": "bench"});
        let (made, took) = gateway
            .call(reqwest::Method::POST, &format!("{path}/versions"), Some(body))
            .await?;
        versions.push(took);
        let body =
            json!({"split": [{"variant": "control", "version": made["version"], "weight": 100}], "message": "bench"});
        let deploy = format!("{path}/deployments/production");
        deploys.push(gateway.call(reqwest::Method::PUT, &deploy, Some(body)).await?.1);
    }
    figures("publish: PUT a split until it is served", deploys);
    figures("store a version", versions);
    for (name, path) in [
        ("list a page of 50", "/prompts"),
        ("list a folder", "/prompts?folder=folder-7"),
        ("count folders", "/folders"),
        ("search a word that nothing has", "/prompts?q=nowhere"),
        ("search a word that everything has", "/prompts?q=COLLEAGUE"),
    ] {
        let mut times = Vec::new();
        let first = gateway.call(reqwest::Method::GET, path, None).await?.1;
        for _ in 0..50 {
            times.push(gateway.call(reqwest::Method::GET, path, None).await?.1);
        }
        figures(name, times);
        println!(
            "    the first time                           {:>12.2} ms",
            first.as_secs_f64() * 1e3
        );
    }
    let mut times = Vec::new();
    for at in 0..20 {
        let description = json!({"description": format!("changed {at}"), "message": "bench"});
        gateway
            .call(
                reqwest::Method::PATCH,
                "/prompts/folder-0/prompt-00000",
                Some(description),
            )
            .await?;
        times.push(gateway.call(reqwest::Method::GET, "/prompts?q=nowhere", None).await?.1);
    }
    figures("search after a change", times);
    let (resident, own) = gateway.memory()?;
    println!("  memory afterwards                          {resident:>12.1} MiB ({own:.1} MiB its own)");
    Ok(())
}
