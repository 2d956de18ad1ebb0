//! `promptgate check`

use std::path::PathBuf;

use serde_json::json;

use crate::config::{Config, ConfigError};
use crate::domain::price::PriceTable;
use crate::snapshot::Routing;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file [default: config/promptgate.toml if it exists, else built-in defaults]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let checked = Config::load(args.config.as_deref(), &super::environment).and_then(|config| {
        if let Some(path) = &config.prices_file {
            PriceTable::load(path)?;
        }
        Ok(config)
    });
    let config = match checked {
        Ok(config) => config,
        Err(error) if args.json => {
            println!(
                "{}",
                json!({"ok": false, "file": error.file, "problems": problems(&error)})
            );
            anyhow::bail!("the configuration has problems");
        }
        Err(error) => return Err(error.into()),
    };
    Routing::new(&config)?;
    let warnings = super::serve::warnings(&config);
    if args.json {
        let models: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
        let providers: Vec<&str> = config.providers.iter().map(|provider| provider.name.as_str()).collect();
        println!(
            "{}",
            json!({"ok": true, "warnings": warnings, "providers": providers, "models": models})
        );
        return Ok(());
    }
    for warning in warnings {
        println!("warning: {warning}");
    }
    println!(
        "ok: {} providers, {} models, data plane on {}, control plane on {}",
        config.providers.len(),
        config.models.len(),
        config.server.listen,
        config.server.admin_listen
    );
    Ok(())
}

fn problems(error: &ConfigError) -> Vec<serde_json::Value> {
    let problems = error.problems.iter();
    problems
        .map(|problem| json!({"line": problem.line, "key": problem.key, "message": problem.message}))
        .collect()
}
