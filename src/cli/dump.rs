//! `promptgate export` and `promptgate restore`: the registry itself, without the control plane.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::json;

use crate::config::Config;
use crate::registry::{Dumped, Registry};

/// Which registry.
#[derive(Debug, clap::Args)]
struct Place {
    /// Configuration file [default: config/promptgate.toml if it exists, else built-in defaults]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The registry, for instance sqlite:data/registry.db, instead of the configuration's
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Write everything in the registry into one file.
///
/// Prompts, versions, deployments and their history, environments, users, keys and tokens (as hashes), changes, drafts, shifts, the
/// audit log. A gateway may be running. Only this user can read the file; records of requests are not in it.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// - writes to standard output
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// Read what export wrote into an empty registry, one that no gateway was started on: all of it, or nothing.
///
/// The generation goes on where it was; nodes read everything anew.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// - reads standard input
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

impl Place {
    fn url(&self) -> anyhow::Result<String> {
        match &self.registry {
            Some(url) => Ok(url.clone()),
            None => Ok(Config::load(self.config.as_deref(), &super::environment)?.registry.url),
        }
    }

    fn say(&self, verb: &str, done: &Dumped) {
        let Dumped {
            tables,
            rows,
            generation,
        } = done;
        if self.json {
            eprintln!("{}", json!({"rows": rows, "tables": tables, "generation": generation}));
        } else {
            eprintln!("{verb} {rows} rows of {tables} tables, generation {generation}");
        }
    }
}

pub fn export(args: &ExportArgs) -> anyhow::Result<()> {
    super::keep_files_private();
    super::start_log(false, "warn");
    let url = args.place.url()?;
    let done = super::control_runtime()?.block_on(async {
        let registry = Registry::open_read_only(&url)
            .await
            .with_context(|| format!("cannot read {url}"))?;
        if args.file == Path::new("-") {
            let mut out = BufWriter::new(std::io::stdout());
            return Ok::<_, anyhow::Error>(registry.export(&mut out).await?);
        }
        // Whole or not at all under its name, and never readable by others.
        let name = args.file.file_name().context("the file needs a name")?;
        let new = args
            .file
            .with_file_name(format!(".{}.{}.new", name.to_string_lossy(), std::process::id()));
        let written = write(&registry, &new).await;
        let renamed = written.and_then(|done| {
            fs::rename(&new, &args.file)?;
            Ok(done)
        });
        renamed
            .inspect_err(|_| _ = fs::remove_file(&new))
            .with_context(|| format!("cannot write {}", args.file.display()))
    })?;
    args.place.say("exported", &done);
    Ok(())
}

async fn write(registry: &Registry, path: &Path) -> anyhow::Result<Dumped> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut out = BufWriter::new(file);
    let done = registry.export(&mut out).await?;
    out.flush()?;
    out.get_ref().sync_all()?;
    Ok(done)
}

pub fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    super::keep_files_private();
    super::start_log(false, "warn");
    let url = args.place.url()?;
    let stdin = args.file == Path::new("-");
    if stdin && std::io::stdin().is_terminal() {
        bail!("standard input is a terminal: name the file, or pipe it in");
    }
    let done = super::control_runtime()?.block_on(async {
        let from = match stdin {
            true => "/dev/stdin".into(),
            false => args.file.clone(),
        };
        let file = File::open(&from).with_context(|| format!("cannot read {}", from.display()))?;
        let registry = Registry::open(&url)
            .await
            .with_context(|| format!("cannot open {url}"))?;
        let done = registry.restore(&mut BufReader::new(file)).await;
        let done =
            done.with_context(|| format!("cannot restore {} into {url}, which is as it was", args.file.display()))?;
        let audit = registry.verify_audit(None).await?;
        if let Some(broken) = audit.broken {
            eprintln!(
                "warning: the audit log breaks at entry {}: {}",
                broken.entry, broken.message
            );
        }
        registry.close().await;
        Ok::<_, anyhow::Error>(done)
    })?;
    args.place.say("restored", &done);
    Ok(())
}
