//! `promptgate demo`: everything at work in one process, in a folder of its own.

mod prompts;
mod report;
mod traffic;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use http::Method;
use serde_json::json;

use super::client::Client;
use super::shutdown::Shutdown;
use crate::app::App;
use crate::config::Config;
use crate::mock_provider::{Controls, MockProvider, MockProviderOptions};

const DATA_PORT: u16 = 8080;
const CONTROL_PORT: u16 = 8081;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// End after the table instead of serving on
    #[arg(long)]
    once: bool,
    /// Requests to send
    #[arg(long, default_value_t = 400, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    requests: u32,
    /// Folder for the demo's data [default: a new temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    super::start_log(false, "warn");
    super::keep_files_private();
    let folder = Folder::open(args.dir.clone())?;
    let mock = MockProvider::start(MockProviderOptions {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        workers: 1,
        defaults: Controls::default(),
    })
    .context("cannot start the mock provider")?;
    let config = configuration(&folder.path, mock.local_addr())?;
    let runtime = super::control_runtime()?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen()?;
        let ended = tokio::select! {
            result = show(&args, config, mock.local_addr()) => result.map(Some),
            () = shutdown.asked() => Ok(None),
        };
        let Some(app) = ended? else {
            return Ok(());
        };
        if !args.once {
            shutdown.asked().await;
        }
        app.stop().await;
        Ok::<(), anyhow::Error>(())
    })?;
    mock.stop();
    Ok(())
}

/// Starts the gateway, seeds it, sends the traffic, prints what came of it.
async fn show(args: &Args, config: Config, mock: SocketAddr) -> anyhow::Result<App> {
    let token = format!("pga_demo_{:032x}", rand::random::<u128>());
    let app = App::start(config, Some(&token)).await?;
    let say = |text: &str| {
        if !args.json {
            println!("{text}");
        }
    };
    say(&format!("gateway       http://{}/v1", app.data_address));
    say(&format!("control plane http://{}/api/v1", app.control_address));
    say(&format!("mock provider http://{mock}/v1\n"));
    let mut control = Client::new(app.control_address.to_string(), &token);
    prompts::seed(&mut control)
        .await
        .context("cannot create the demo's prompts")?;
    let key = control
        .json(
            Method::POST,
            "/api/v1/keys",
            &json!({"name": "demo", "environment": prompts::ENVIRONMENT}),
        )
        .await?;
    let key = key["key"].as_str().context("the new key is missing")?.to_owned();

    let since = jiff::Timestamp::now().as_microsecond();
    let sent = traffic::send(&app.data_address.to_string(), &key, args.requests, !args.json).await?;
    let store = app.store.clone().context("the demo records")?;
    let rows = report::read_back(&store, since, args.requests).await?;
    report::print(&rows, &sent, args.json)?;
    if !args.once && !args.json {
        report::recipes(app.data_address, app.control_address, &key, &token);
    }
    Ok(app)
}

/// The demo's configuration: the default ports, or free ones where those are taken.
fn configuration(folder: &std::path::Path, mock: SocketAddr) -> anyhow::Result<Config> {
    let (data, control) = (free_port(DATA_PORT)?, free_port(CONTROL_PORT)?);
    let quoted = |text: String| serde_json::Value::String(text).to_string();
    let path = |name: &str| quoted(folder.join(name).display().to_string());
    let text = format!(
        r#"
        [server]
        listen = "127.0.0.1:{data}"
        admin_listen = "127.0.0.1:{control}"
        drain = "2s"
        [registry]
        url = {registry}
        [telemetry]
        sqlite_path = {telemetry}
        spool_dir = {spool}
        seal_after = "200ms"
        [[providers]]
        name = "mock"
        kind = "openai"
        base_url = "http://{mock}/v1"
        [[models]]
        name = "mock-model"
        targets = [{{ provider = "mock" }}]
        "#,
        registry = quoted(format!("sqlite:{}", folder.join("registry.db").display())),
        telemetry = path("telemetry.db"),
        spool = path("spool"),
    );
    Ok(Config::parse(&text, "the demo's configuration", &super::environment)?)
}

fn free_port(wanted: u16) -> std::io::Result<u16> {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    Ok(free(wanted).or_else(|_| free(0))?.port())
}

/// The demo's data, removed at the end unless the user chose the folder.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn open(chosen: Option<PathBuf>) -> anyhow::Result<Self> {
        let temporary = chosen.is_none();
        let name = || {
            std::env::temp_dir().join(format!(
                "promptgate-demo-{}-{:08x}",
                std::process::id(),
                rand::random::<u32>()
            ))
        };
        let path = chosen.unwrap_or_else(name);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, temporary })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // Nothing of value is in it.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// How long the records may take to be readable.
const READ_BACK: Duration = Duration::from_secs(30);
