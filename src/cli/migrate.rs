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
    let durable = config.telemetry.durability.is_on_disk();
    let mut last = None;
    for url in &server.urls {
        let schema = Schema::new(server, url, durable);
        let place = format!("{} on {url}", server.database);
        let done = match args.dry_run {
            true => runtime.block_on(schema.plan()).map(|plan| show(&schema, &plan, &place)),
            false => runtime
                .block_on(schema.migrate())
                .map(|applied| println!("{place}: {applied} migrations applied")),
        };
        let done = done.with_context(|| format!("cannot migrate {place}"));
        // A cluster's servers are told by any of them, the first that can be reached.
        match server.cluster {
            None => done?,
            Some(_) if done.is_ok() => return Ok(()),
            Some(_) => last = done.err(),
        }
    }
    last.map_or(Ok(()), Err)
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
