//! `promptgate migrate`

use std::path::PathBuf;

use anyhow::Context;

use crate::config::{Config, Sink};
use crate::telemetry::clickhouse::schema;

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
    let asked = || format!("cannot migrate {} on {}", server.database, server.url);
    if !args.dry_run {
        let applied = runtime.block_on(schema::migrate(server)).with_context(asked)?;
        println!("{} on {}: {applied} migrations applied", server.database, server.url);
        return Ok(());
    }
    let plan = runtime.block_on(schema::plan(server)).with_context(asked)?;
    if plan.is_empty() {
        println!("-- {} on {} is up to date", server.database, server.url);
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
        for statement in migration.statements() {
            println!("{statement};\n");
        }
    }
    for statement in &plan.expiry {
        println!("{statement};\n");
    }
    Ok(())
}
