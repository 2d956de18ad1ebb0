//! `promptgate exchanges export`: page after page into a file, with no more than a page in memory.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::super::{Server, block_on};
use super::Filter;

/// Exchanges of a page; with content each may have some MiB.
const PAGE: u32 = 500;
const PAGE_WITH_CONTENT: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line
    Jsonl,
    /// A header and one row an exchange, RFC 4180
    Csv,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Format,
    #[command(flatten)]
    filter: Filter,
    /// From this time on: 2026-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// ok, client_error, upstream_error, timeout, client_disconnected, rejected or aborted
    #[arg(long)]
    outcome: Option<String>,
    /// With variables, requests and responses; reading them is in the audit log
    #[arg(long)]
    content: bool,
    /// Where to; it is there whole or not at all [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let given = [("from", &args.from), ("to", &args.to), ("outcome", &args.outcome)];
    let mut filter = args.filter;
    let more = given
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    filter.filters.extend(more);
    let limit = if args.content { PAGE_WITH_CONTENT } else { PAGE };
    let mut target = Target::open(args.output.as_deref())?;
    let progress = progress(args.output.is_some());
    block_on(async {
        let mut remote = args.server.connect()?;
        let mut cursor = String::new();
        let mut columns = None;
        loop {
            let mut page = remote.get(&filter.path(limit, &cursor, args.content)?).await?;
            let items = match page["items"].take() {
                Value::Array(items) => items,
                _ => bail!("the server's answer is not a list"),
            };
            for item in &items {
                match args.format {
                    Format::Jsonl => writeln!(target.to, "{item}")?,
                    Format::Csv => {
                        let columns = columns.get_or_insert_with(|| names(item, args.content));
                        if progress.position() == 0 {
                            write_row(&mut target.to, columns.iter().map(|name| name.as_str().into()))?;
                        }
                        write_row(&mut target.to, columns.iter().map(|name| cell(&item[name])))?;
                    }
                }
                progress.inc(1);
            }
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => return Ok(()),
            }
        }
    })?;
    progress.finish_and_clear();
    let exchanges = progress.position();
    target.finish()?;
    if let Some(path) = &args.output {
        eprintln!("{exchanges} exchanges written to {}", path.display());
    }
    Ok(())
}

/// Counts on a terminal; elsewhere it counts unseen.
fn progress(to_file: bool) -> ProgressBar {
    if !to_file || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} exchanges, {per_sec}");
    let bar = ProgressBar::new_spinner().with_style(style.expect("the template is valid"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Standard output, or a file beside its final name, which it gets at the end.
struct Target {
    to: Box<dyn Write>,
    file: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self {
                to: Box::new(BufWriter::new(io::stdout())),
                file: None,
            });
        };
        let name = path
            .file_name()
            .with_context(|| format!("{} is no file", path.display()))?;
        let unfinished = path.with_file_name(format!(".{}.unfinished", name.to_string_lossy()));
        super::super::super::keep_files_private();
        let file = File::create(&unfinished).with_context(|| format!("cannot write {}", unfinished.display()))?;
        Ok(Self {
            to: Box::new(BufWriter::new(file)),
            file: Some((unfinished, path.to_path_buf())),
        })
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.to.flush().context("cannot write the last bytes")?;
        if let Some((unfinished, path)) = self.file.take() {
            File::open(&unfinished)?.sync_all()?;
            std::fs::rename(&unfinished, &path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((unfinished, _)) = &self.file {
            // What is half there helps nobody, and holds what people wrote.
            let _ = std::fs::remove_file(unfinished);
        }
    }
}

/// The columns: those of the first exchange, in their order.
fn names(item: &Value, content: bool) -> Vec<String> {
    let fields = item.as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let mut names: Vec<String> = fields.filter(|name| content || name != "content_hidden").collect();
    if content {
        // The first may be one whose content this user may not read.
        for field in ["variables", "request", "response", "content_hidden"] {
            if !names.iter().any(|name| name == field) {
                names.push(field.to_owned());
            }
        }
    }
    names
}

/// A cell's text: nested values as JSON.
///
/// A spreadsheet would run a text that begins like a formula; in front of one goes an apostrophe.
/// Source: <https://owasp.org/www-community/attacks/CSV_Injection>.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Source: RFC 4180.
fn write_row(to: &mut dyn Write, cells: impl Iterator<Item = String>) -> io::Result<()> {
    for (i, cell) in cells.enumerate() {
        if i > 0 {
            to.write_all(b",")?;
        }
        if cell.contains(['"', ',', '\r', '\n']) {
            write!(to, "\"{}\"", cell.replace('"', "\"\""))?;
        } else {
            to.write_all(cell.as_bytes())?;
        }
    }
    to.write_all(b"\r\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_quoted_and_formulas_are_texts() {
        let values = [
            json!("plain"),
            json!("a,b"),
            json!("say \"x\"\r\nthen"),
            json!("=1+1"),
            json!("-2"),
            json!(-2),
            json!(null),
            json!({"a": "b"}),
            json!(true),
        ];
        let mut out = Vec::new();
        write_row(&mut out, values.iter().map(cell)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "plain,\"a,b\",\"say \"\"x\"\"\r\nthen\",'=1+1,'-2,-2,,\"{\"\"a\"\":\"\"b\"\"}\",true\r\n"
        );
    }

    #[test]
    fn unfinished_export_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        let mut target = Target::open(Some(&path)).unwrap();
        target.to.write_all(b"half").unwrap();
        drop(target);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut target = Target::open(Some(&path)).unwrap();
        target.to.write_all(b"whole").unwrap();
        target.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
