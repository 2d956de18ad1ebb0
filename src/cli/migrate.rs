//! `promptgate migrate`

use std::path::PathBuf;

use anyhow::Context;

use crate::config::{Config, Sink};
use crate::telemetry::clickhouse::schema::{Plan, Schema};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file [default: config/promptgate.toml if it exists, else built-in defaults]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the statements that would run, and run none
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    super::start_log(false, "warn");
    let config = Config::load(args.config.as_deref(), &super::environment)?;
    let Sink::ClickHouse(server) = &config.telemetry.sink else {
        println!("nothing to migrate: telemetry.sink is not \"clickhouse\"; SQLite files are made when first opened");
        return Ok(());
    };
    let runtime = super::control_runtime()?;
    // A cluster's servers are told by any of them.
    let urls = if server.cluster.is_some() {
        &server.urls[..1]
    } else {
        &server.urls[..]
    };
    for url in urls {
        let schema = Schema::new(server, url, false);
        let asked = || format!("cannot migrate {} on {url}", server.database);
        if args.dry_run {
            let plan = runtime.block_on(schema.plan()).with_context(asked)?;
            show(&schema, &plan, &format!("{} on {url}", server.database));
        } else {
            let applied = runtime.block_on(schema.migrate()).with_context(asked)?;
            println!("{} on {url}: {applied} migrations applied", server.database);
        }
    }
    Ok(())
}

/// Prints the statements of a plan.
fn show(schema: &Schema<'_>, plan: &Plan, place: &str) {
    if plan.is_empty() {
        println!("-- {place} is up to date");
    }
    if let Some(statement) = &plan.database {
        println!("{statement};\n");
    }
    for migration in &plan.pending {
        println!(
            "-- {:04} {}, checksum {}",
            migration.version,
            migration.name,
            migration.checksum()
        );
        for statement in schema.statements(migration) {
            println!("{statement};\n");
        }
    }
    for statement in &plan.settings {
        println!("{statement};\n");
    }
}
