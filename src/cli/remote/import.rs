//! `promptgate import`: exports of other systems into prompts, or into files.
//!
//! An import is planned and applied as a folder of files is, so doing it again changes nothing, and what it would do can be
//! seen before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::files::apply::{self, Applied};
use super::files::{fetch, folder};
use super::{Remote, Server, block_on};
use crate::files::node::MAX_FILE_BYTES;
use crate::files::plan::{Action, Options, Plan};
use crate::files::planner::plan;
use crate::files::prompt_file::{PromptFile, ReadFile};
use crate::import::{Imported, Prompt, Source, System, import};

/// The most files of one export.
const MAX_FILES: usize = 20_000;

/// The deepest folder that is looked into.
const MAX_DEPTH: usize = 32;

/// Bring in prompts from another system's export.
///
/// Names that callers use stay as aliases, templates are written in ours, versions keep their order. What could not be carried is
/// listed. Nothing goes live unless --deploy says so. docs/import.md says how to get each system's export.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    system: From,
    /// Files, or folders with files
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Write files there instead, as prompt pull does; needs no server
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Make live in an environment what a label of the other system points at (repeat for several); "latest" is the newest
    /// version, "weights" the split that TensorZero's weights make
    #[arg(long, value_name = "LABEL=ENVIRONMENT", value_parser = label)]
    deploy: Vec<(String, String)>,
    /// The message of versions that have none of their own
    #[arg(long, short, default_value = "imported")]
    message: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum From {
    /// JSON of GET /api/public/v2/prompts/{name}
    Langfuse,
    /// JSON of GET /prompt-templates
    Promptlayer,
    /// JSON of prompt versions with their bodies
    Helicone,
    /// JSON of prompt objects (pmpt_…)
    Openai,
    /// tensorzero.toml with its templates and schemas
    Tensorzero,
    /// .prompt files
    Dotprompt,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (label, environment) = text
        .split_once('=')
        .ok_or("write LABEL=ENVIRONMENT, for instance production=production")?;
    Ok((label.to_owned(), environment.to_owned()))
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let sources = read(&args.paths)?;
    let sources: Vec<Source<'_>> = sources.iter().map(|(path, text)| Source { path, text }).collect();
    let system = match args.system {
        From::Langfuse => System::Langfuse,
        From::Promptlayer => System::PromptLayer,
        From::Helicone => System::Helicone,
        From::Openai => System::OpenAi,
        From::Tensorzero => System::TensorZero,
        From::Dotprompt => System::Dotprompt,
    };
    let mut imported = import(system, &sources);
    let files = imported.files(&args.deploy);
    for (label, _) in &args.deploy {
        let used = |prompt: &Prompt| {
            prompt.splits.contains_key(label) || prompt.versions.iter().any(|version| version.labels.contains(label))
        };
        if label != "latest" && !imported.prompts.iter().any(used) {
            imported
                .notes
                .push(format!("nothing in the export has the label {label:?} (--deploy)"));
        }
    }
    if imported.prompts.is_empty() {
        say_notes(&imported);
        bail!("there is no prompt in the export");
    }
    match &args.dir {
        Some(dir) => write(args, dir, &files, &imported),
        None => block_on(bring_in(args, files, imported)),
    }
}

/// Reads files and the files of folders, by their paths below what was given.
fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            walk(path, "", 0, &mut found)?;
        } else {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .context("a file's name must be UTF-8")?;
            found.push((name.to_owned(), read_file(path)?));
        }
    }
    Ok(found)
}

fn walk(dir: &Path, inside: &str, depth: usize, found: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let (name, kind) = (entry.file_name().to_string_lossy().into_owned(), entry.file_type()?);
        if name.starts_with('.') || kind.is_symlink() {
            continue;
        }
        if kind.is_dir() && depth < MAX_DEPTH {
            walk(&entry.path(), &format!("{inside}{name}/"), depth + 1, found)?;
        } else if kind.is_file() && wanted(&name) {
            found.push((format!("{inside}{name}"), read_file(&entry.path())?));
        }
        if found.len() > MAX_FILES {
            bail!("{} has more than {MAX_FILES} files", dir.display());
        }
    }
    found.sort();
    Ok(())
}

/// Whether a file of a folder can be part of an export.
fn wanted(name: &str) -> bool {
    let known = [
        "json",
        "jsonl",
        "toml",
        "prompt",
        "minijinja",
        "jinja",
        "jinja2",
        "j2",
        "txt",
        "md",
    ];
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| known.contains(&extension))
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    // An export of many prompts is one file.
    let most = 32 * MAX_FILE_BYTES as u64;
    let bytes = std::fs::metadata(path).with_context(cannot)?.len();
    if bytes > most {
        bail!("{} has {bytes} bytes, at most {most} are read", path.display());
    }
    std::fs::read_to_string(path).with_context(cannot)
}

fn write(args: &Args, dir: &Path, files: &BTreeMap<String, PromptFile>, imported: &Imported) -> anyhow::Result<()> {
    for (id, file) in files.iter().filter(|(_, file)| !file.versions.is_empty()) {
        if !args.dry_run {
            folder::write(dir, id, &file.write())?;
        }
    }
    if args.server.json {
        println!("{}", summary(imported, None));
        return Ok(());
    }
    for prompt in imported.prompts.iter().filter(|prompt| !prompt.versions.is_empty()) {
        let verb = if args.dry_run { "would write" } else { "wrote" };
        println!(
            "{verb} {}.yaml: {} version(s) of {}",
            prompt.id,
            prompt.versions.len(),
            prompt.source
        );
    }
    say_notes(imported);
    Ok(())
}

async fn bring_in(args: &Args, files: BTreeMap<String, PromptFile>, mut imported: Imported) -> anyhow::Result<()> {
    let mut remote = args.server.connect()?;
    let plan = plan_all(&mut remote, files, &mut imported).await?;
    if args.dry_run {
        match remote.json {
            true => println!("{}", summary(&imported, Some(json!({"plan": plan})))),
            false => {
                print!("{plan}");
                say_notes(&imported);
            }
        }
        return Ok(());
    }
    let message_of = |id: &str, name: &str| -> Option<String> {
        let prompt = imported.prompts.iter().find(|prompt| prompt.id == id)?;
        let version = prompt
            .versions
            .iter()
            .find(|version| Prompt::file_name(&version.name) == name)?;
        Some(version.message.clone()).filter(|message| !message.trim().is_empty())
    };
    let Applied { done, result } = apply::apply(&mut remote, &plan, &args.message, &message_of).await;
    if remote.json {
        println!(
            "{}",
            summary(&imported, Some(json!({"done": done, "complete": result.is_ok()})))
        );
    } else {
        if done.is_empty() && result.is_ok() {
            println!("nothing to do: everything was brought in before");
        }
        say_notes(&imported);
    }
    result
}

/// Plans everything that can be brought in; prompts that cannot are left out, with the reason.
async fn plan_all(
    remote: &mut Remote,
    files: BTreeMap<String, PromptFile>,
    imported: &mut Imported,
) -> anyhow::Result<Plan> {
    let mut read: BTreeMap<String, ReadFile> = BTreeMap::new();
    let mut left_out = Vec::new();
    for (id, file) in files.iter().filter(|(_, file)| !file.versions.is_empty()) {
        match ReadFile::parse(&file.write()) {
            Ok(file) => _ = read.insert(id.clone(), file),
            Err(problems) => left_out.extend(problems.into_iter().map(|problem| (id.clone(), problem))),
        }
    }
    let state = fetch::for_files(remote, &read).await?;
    let mut plan = loop {
        match plan(&read, &state, &Options::default()) {
            Ok(plan) => break plan,
            Err(problems) => {
                for (id, problem) in problems {
                    read.remove(&id);
                    left_out.push((id, problem));
                }
            }
        }
    };
    for (id, problem) in left_out {
        if let Some(prompt) = imported.prompts.iter_mut().find(|prompt| prompt.id == id) {
            prompt
                .notes
                .push(format!("left out: {}: {}", problem.path, problem.message));
        }
    }
    // What people wrote here about a prompt since it was brought in stays.
    plan.without_file.clear();
    for todo in &mut plan.prompts {
        todo.notes.clear();
        if todo.action != Action::Create {
            todo.fields.clear();
        }
        if todo.action == Action::Update
            && todo.versions.is_empty()
            && todo.deployments.is_empty()
            && todo.aliases_added.is_empty()
        {
            todo.action = Action::Nothing;
        }
    }
    plan.prompts.retain(|todo| todo.action != Action::Nothing);
    Ok(plan)
}

fn summary(imported: &Imported, more: Option<Value>) -> Value {
    let prompt = |prompt: &Prompt| {
        let versions: Vec<Value> = prompt
            .versions
            .iter()
            .map(|version| json!({"name": version.name, "labels": version.labels, "message": version.message}))
            .collect();
        json!({
            "source": prompt.source, "id": prompt.id, "aliases": prompt.aliases, "versions": versions,
            "not_carried": prompt.notes,
        })
    };
    let prompts: Vec<Value> = imported.prompts.iter().map(prompt).collect();
    let mut out = json!({"prompts": prompts, "not_carried": imported.notes});
    if let (Some(Value::Object(more)), Some(fields)) = (more, out.as_object_mut()) {
        fields.extend(more);
    }
    out
}

/// Prints what could not be carried.
fn say_notes(imported: &Imported) {
    let with_notes: Vec<&Prompt> = imported
        .prompts
        .iter()
        .filter(|prompt| !prompt.notes.is_empty())
        .collect();
    if with_notes.is_empty() && imported.notes.is_empty() {
        return;
    }
    println!("\nnot carried:");
    for note in &imported.notes {
        println!("  {note}");
    }
    for prompt in with_notes {
        println!("  {} ({})", prompt.id, prompt.source);
        for note in &prompt.notes {
            println!("    - {note}");
        }
    }
}
