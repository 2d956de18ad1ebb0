//! `promptgate serve`

use std::path::PathBuf;

use anyhow::Context;

use super::shutdown::Shutdown;
use crate::app::App;
use crate::config::Config;

/// Environment variable with the admin token to use.
const ADMIN_TOKEN: &str = "PROMPTGATE_ADMIN_TOKEN";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file [default: config/promptgate.toml if it exists, else built-in defaults]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the log as JSON lines
    #[arg(long)]
    log_json: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    super::start_log(args.log_json, "info");
    super::keep_files_private();
    let config = Config::load(args.config.as_deref(), &super::environment)?;
    for warning in warnings(&config) {
        tracing::warn!("{warning}");
    }
    let runtime = super::control_runtime()?;
    runtime.block_on(async {
        // Before anything is served, so that a signal never meets a gateway that does not listen to it.
        let mut shutdown = Shutdown::listen().context("cannot listen to signals")?;
        let app = App::start(config, super::environment(ADMIN_TOKEN).as_deref()).await?;
        if let Some(token) = &app.new_admin_token {
            println!("admin token (shown once, keep it): {token}");
        }
        println!("data plane    http://{}/v1", app.data_address);
        println!("control plane http://{}/api/v1", app.control_address);
        shutdown.asked().await;
        tracing::info!("stopping: open requests are finished first, a second signal ends them");
        let stopped = tokio::select! {
            stopped = app.stop() => stopped,
            () = shutdown.asked() => anyhow::bail!("ended by a second signal; what was recorded is kept in the spool"),
        };
        if stopped.unshipped_segments > 0 {
            tracing::warn!(
                segments = stopped.unshipped_segments,
                "left in the spool, the next start ships them"
            );
        }
        Ok(())
    })
}

/// Says what is allowed but probably not meant.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.models.is_empty() {
        warnings.push(
            "no [[models]] are configured: every completion will be answered with 404 model_not_found".to_owned(),
        );
    }
    if config.registry.is_postgres()
        && !config.registry.url.contains("sslmode=")
        && !config.registry.url.contains("host=/")
    {
        warnings.push(
            "registry.url has no sslmode: if PostgreSQL offers no TLS, prompts go over the network as they are; write \
             sslmode=verify-full, or sslmode=disable where the network is trusted"
                .to_owned(),
        );
    }
    for provider in &config.providers {
        let used = config
            .models
            .iter()
            .flat_map(|model| &model.targets)
            .any(|target| target.provider == provider.name);
        if !used {
            warnings.push(format!(
                "provider {:?} is configured, but no model has it as a target",
                provider.name
            ));
        }
    }
    warnings
}
