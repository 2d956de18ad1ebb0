//! The commands.

mod check;
mod client;
mod dead_letters;
mod demo;
mod dump;
mod migrate;
mod mock_provider;
mod prices;
mod remote;
mod serve;
mod shutdown;

use clap::{Parser, Subcommand};

/// LLM gateway and prompt management in one binary.
///
/// Applications send a prompt id and variables to an OpenAI-compatible endpoint; promptgate renders the live version,
/// splits traffic, forwards to the provider, streams the answer back and records everything.
#[derive(Debug, Parser)]
#[command(name = "promptgate", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway and its control plane
    Serve(serve::Args),
    /// Check a configuration file and say everything that is wrong with it
    Check(check::Args),
    /// Show what a model's tokens are charged
    Prices(prices::Args),
    /// Bring ClickHouse's tables to this build's schema (the gateway does so itself when it starts)
    Migrate(migrate::Args),
    /// Write everything in the registry into one file
    Export(dump::ExportArgs),
    /// Read what export wrote into an empty registry
    Restore(dump::RestoreArgs),
    /// Look into, resend or drop records that could not be stored
    DeadLetters(dead_letters::Args),
    /// Show everything at work: gateway, mock provider, prompts, an A/B split, records
    Demo(demo::Args),
    /// Create, store, find, show, compare, rename and archive prompts; keep them as files
    Prompt(remote::prompt::Args),
    /// Bring in prompts from another system's export
    Import(remote::import::Args),
    /// Make a version or a split live
    Deploy(remote::deploy::DeployArgs),
    /// Make several prompts live in one change
    DeployTogether(remote::moves::TogetherArgs),
    /// Copy what is live from one environment to another
    Promote(remote::moves::PromoteArgs),
    /// Take a prompt off an environment: nothing is live there afterwards
    TakeDown(remote::moves::TakeDownArgs),
    /// Move what is live step by step, at given times
    Shift(remote::shift::Args),
    /// Have other systems told of what happens
    Webhooks(remote::webhooks::Args),
    /// List, create, order, protect and delete environments
    Environments(remote::environments::Args),
    /// Go back to what was live before
    Rollback(remote::deploy::RollbackArgs),
    /// Propose, review and apply changes of what is live
    Changes(remote::changes::Args),
    /// Make, list and revoke applications' keys
    Keys(remote::keys::Args),
    /// Create users and grant them roles
    Users(remote::users::Args),
    /// Make, list and revoke tokens of the control plane
    Tokens(remote::users::TokensArgs),
    /// Show whose token this is, and what it may do
    Whoami(remote::users::WhoamiArgs),
    /// See who changed what, prove that the log is whole, export it
    Audit(remote::audit::Args),
    /// Look into what was recorded
    Exchanges(remote::exchanges::Args),
    /// Follow exchanges as they are recorded
    Tail(remote::exchanges::TailArgs),
    /// Erase what a person's requests and answers said
    Erase(remote::erase::Args),
    /// List the processes that serve the registry, and how far each is
    Nodes(remote::nodes::Args),
    /// Requests, errors, latencies, tokens and cost by group
    Stats(remote::stats::Args),
    /// Run a stand-in provider for tests and benchmarks
    MockProvider(Box<mock_provider::Args>),
}

/// Runs the command line. Wrong usage ends the process with code 2.
///
/// # Errors
/// What made the command fail.
pub fn run() -> anyhow::Result<()> {
    end_quietly_on_a_closed_pipe();
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(&args),
        Command::Prices(args) => prices::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Export(args) => dump::export(&args),
        Command::Restore(args) => dump::restore(&args),
        Command::DeadLetters(args) => dead_letters::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::Prompt(args) => remote::prompt::run(args),
        Command::Import(args) => remote::import::run(&args),
        Command::Deploy(args) => remote::deploy::deploy(args),
        Command::DeployTogether(args) => remote::moves::together(args),
        Command::Promote(args) => remote::moves::promote(args),
        Command::TakeDown(args) => remote::moves::take_down(args),
        Command::Shift(args) => remote::shift::run(args),
        Command::Webhooks(args) => remote::webhooks::run(args),
        Command::Environments(args) => remote::environments::run(args),
        Command::Rollback(args) => remote::deploy::rollback(args),
        Command::Changes(args) => remote::changes::run(args),
        Command::Keys(args) => remote::keys::run(args),
        Command::Users(args) => remote::users::run(args),
        Command::Tokens(args) => remote::users::tokens(args),
        Command::Whoami(args) => remote::users::whoami(args),
        Command::Audit(args) => remote::audit::run(args),
        Command::Exchanges(args) => remote::exchanges::run(args),
        Command::Tail(args) => remote::exchanges::tail(args),
        Command::Erase(args) => remote::erase::run(args),
        Command::Nodes(args) => remote::nodes::run(&args),
        Command::Stats(args) => remote::stats::run(args),
        Command::MockProvider(args) => mock_provider::run(*args),
    }
}

/// Returns an error with its causes as one line. Some errors name their cause themselves: it is said once.
pub fn explain(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// A command that was asked to check found differences: no failure, but not success either.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Differences(pub String);

/// Returns the exit code of an error: 3 for differences that were asked for, 1 for a failure.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Differences>() { 3 } else { 1 }
}

/// Starts the control runtime.
fn control_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
}

/// What is written holds prompts and answers: only this user may read it.
fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// A reader that closes the pipe (`| head`) ends the command, and is no failure of ours.
fn end_quietly_on_a_closed_pipe() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(0);
        }
        usual(panic);
    }));
}

/// Reads a variable of the process's environment.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Sends log lines to standard error: `RUST_LOG` chooses them, the default is `info`.
fn start_log(json: bool, default: &str) {
    use std::io::IsTerminal;

    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A log that is set up already (a test's) stays.
    let _ = if json {
        log.json().try_init()
    } else {
        log.with_target(false).try_init()
    };
}

#[cfg(test)]
mod tests {
    use super::explain;
    use crate::spool::SpoolError;
    use anyhow::Context;

    #[test]
    fn cause_is_said_once() {
        let source = std::io::Error::other("no room");
        let path = "spool/lock".into();
        let error = Err::<(), _>(SpoolError::Folder { path, source }).context("cannot start");
        let told = explain(&error.unwrap_err());
        assert_eq!(told, "cannot start: cannot use spool/lock in the spool folder: no room");
    }
}
