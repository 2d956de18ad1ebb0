//! `promptgate prompt pull|plan|apply`: prompts as files, for Git.
//!
//! What files say and how they differ from the registry is decided in [`crate::files`]; here is only the way to and from the disk
//! and the control plane.

mod apply;
mod fetch;
mod folder;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{Server, block_on};
use crate::cli::Differences;
use crate::domain::folder::prefix;
use crate::files::plan::{Options, Plan, plan};
use crate::files::prompt_file::{FileProblem, ReadFile};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write every prompt into a file of a folder: support/greet into DIR/support/greet.yaml
    ///
    /// A file that says what the registry has is left as it is, comments and all.
    Pull {
        dir: PathBuf,
        /// Only prompts of this folder, at any depth: support
        #[arg(long, default_value = "", hide_default_value = true)]
        folder: String,
        /// Remove files of prompts that are not there any more
        #[arg(long)]
        prune: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Show what apply would change, text word by word
    Plan {
        #[command(flatten)]
        wanted: Wanted,
        /// Exit with code 3 if there is anything to do, for CI
        #[arg(long)]
        check: bool,
    },
    /// Make the registry what the files of a folder say; a second time there is nothing to do
    ///
    /// Where an environment is protected, a change is proposed instead of a deployment made.
    Apply {
        #[command(flatten)]
        wanted: Wanted,
        /// Why: the message of new versions, deployments and changes
        #[arg(long, short, default_value = "applied from files")]
        message: String,
        /// Change nothing: the same as plan --check
        #[arg(long)]
        check: bool,
    },
}

/// Which files, and how far they reach.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    dir: PathBuf,
    /// Only prompts of this folder, at any depth: support
    #[arg(long, default_value = "", hide_default_value = true)]
    folder: String,
    /// Move only what is live there (repeat for several) [default: everywhere]
    #[arg(long = "environment", value_name = "ENVIRONMENT")]
    environments: Vec<String>,
    /// Also take away what no file has: aliases, deployments, and prompts (archived, if they are live nowhere)
    #[arg(long)]
    prune: bool,
    /// Make new versions of prompts whose text is the same but includes another prompt that has a newer version
    #[arg(long)]
    refresh_partials: bool,
    #[command(flatten)]
    server: Server,
}

pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Pull {
            dir,
            folder,
            prune,
            server,
        } => block_on(pull(&dir, &folder, prune, &server)),
        Command::Plan { wanted, check } => block_on(show(&wanted, check)),
        Command::Apply {
            wanted, check: true, ..
        } => block_on(show(&wanted, true)),
        Command::Apply {
            wanted,
            message,
            check: false,
        } => block_on(apply(&wanted, &message)),
    }
}

async fn pull(dir: &Path, folder: &str, prune: bool, server: &Server) -> anyhow::Result<()> {
    let mut remote = server.connect()?;
    let folder = prefix(folder);
    let before = match dir.try_exists()? {
        true => folder::read(dir, &folder)?,
        false => BTreeMap::new(),
    };
    let state = fetch::everything(&mut remote, &folder).await?;
    let (mut written, mut unchanged, mut removed, mut stray) = (Vec::new(), 0, Vec::new(), Vec::new());
    for (id, prompt) in state.prompts.iter().filter(|(_, prompt)| !prompt.archived) {
        // A file that cannot be read is replaced: its text is in Git.
        let known = before
            .get(id)
            .and_then(|text| ReadFile::parse(text).ok())
            .map(|read| read.file);
        let file = prompt.to_file(known.as_ref());
        if known.is_some_and(|known| known.says_the_same(&file)) {
            unchanged += 1;
            continue;
        }
        folder::write(dir, id, &file.write())?;
        written.push(id.clone());
    }
    for id in before.keys() {
        if state.prompts.get(id).is_some_and(|prompt| !prompt.archived) {
            continue;
        }
        if prune {
            folder::remove(dir, id)?;
            removed.push(id.clone());
        } else {
            stray.push(id.clone());
        }
    }
    let done = json!({"written": written, "unchanged": unchanged, "removed": removed, "without_prompt": stray});
    remote.done(&done, || {
        let mut lines: Vec<String> = Vec::new();
        lines.extend(written.iter().map(|id| format!("wrote {id}.yaml")));
        lines.extend(removed.iter().map(|id| format!("removed {id}.yaml")));
        let left = |id: &String| format!("{id}.yaml has no prompt (any more): left as it is, --prune removes it");
        lines.extend(stray.iter().map(left));
        lines.push(format!(
            "{} files written, {unchanged} unchanged, {} removed",
            written.len(),
            removed.len()
        ));
        lines.join("\n")
    });
    Ok(())
}

impl Wanted {
    fn options(&self) -> Options {
        Options {
            prune: self.prune,
            refresh_partials: self.refresh_partials,
            environments: self.environments.clone(),
            folder: prefix(&self.folder),
        }
    }

    /// Reads files and registry, and compares them.
    async fn plan(&self, remote: &mut super::Remote) -> anyhow::Result<Plan> {
        let options = self.options();
        let texts = folder::read(&self.dir, &options.folder)?;
        let (mut files, mut problems) = (BTreeMap::new(), Vec::new());
        for (id, text) in texts {
            match ReadFile::parse(&text) {
                Ok(file) => _ = files.insert(id, file),
                Err(found) => problems.extend(found.into_iter().map(|problem| (id.clone(), problem))),
            }
        }
        let state = fetch::for_files(remote, &files).await?;
        for name in &options.environments {
            if !state.environments.iter().any(|(known, _)| known == name) {
                bail!("environment {name:?} does not exist (--environment)");
            }
        }
        match plan(&files, &state, &options) {
            Ok(plan) if problems.is_empty() => Ok(plan),
            Ok(_) => self.refuse(remote.json, problems),
            Err(more) => {
                problems.extend(more);
                self.refuse(remote.json, problems)
            }
        }
    }

    /// Says everything that is wrong with the files.
    fn refuse(&self, as_json: bool, mut problems: Vec<(String, FileProblem)>) -> anyhow::Result<Plan> {
        problems.sort_by(|a, b| (&a.0, a.1.line).cmp(&(&b.0, b.1.line)));
        if as_json {
            let problem = |(id, problem): &(String, FileProblem)| {
                let mut value = json!(problem);
                value["file"] = json!(format!("{id}.yaml"));
                value
            };
            println!(
                "{}",
                json!({"problems": problems.iter().map(problem).collect::<Vec<Value>>()})
            );
        } else {
            for (id, problem) in &problems {
                let file = self.dir.join(format!("{id}.yaml"));
                let path = if problem.path.is_empty() {
                    String::new()
                } else {
                    format!("{}: ", problem.path)
                };
                eprintln!(
                    "{}:{}:{}: {path}{}",
                    file.display(),
                    problem.line,
                    problem.column,
                    problem.message
                );
            }
        }
        bail!(
            "{} problem(s) in the files of {}, nothing was changed",
            problems.len(),
            self.dir.display()
        );
    }
}

async fn show(wanted: &Wanted, check: bool) -> anyhow::Result<()> {
    let mut remote = wanted.server.connect()?;
    let plan = wanted.plan(&mut remote).await?;
    if remote.json {
        let mut value = json!(plan);
        value["nothing_to_do"] = json!(plan.is_empty());
        println!("{value}");
    } else {
        print!("{plan}");
    }
    if check && !plan.is_empty() {
        return Err(Differences("the registry is not as the files say".to_owned()).into());
    }
    Ok(())
}

async fn apply(wanted: &Wanted, message: &str) -> anyhow::Result<()> {
    let mut remote = wanted.server.connect()?;
    let plan = wanted.plan(&mut remote).await?;
    apply::apply(&mut remote, &plan, message).await
}
