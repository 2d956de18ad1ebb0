//! The folder of files: one `.yaml` file a prompt, its path below the folder the prompt's id.
//!
//! Nothing outside of the folder is read or written: symbolic links are refused, ids have no `..`. A file is replaced in one
//! step, so that whoever reads meanwhile sees the old or the new one.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::domain::prompt::validate_prompt_id;
use crate::files::node::MAX_FILE_BYTES;

/// The most files of one folder.
const MAX_FILES: usize = 100_000;

/// The deepest folder: every one is at least two bytes of an id.
const MAX_DEPTH: usize = 100;

/// Reads the files of ids that begin with `folder`, by id.
///
/// # Errors
/// Every file that cannot be one of a prompt.
pub fn read(dir: &Path, folder: &str) -> anyhow::Result<BTreeMap<String, String>> {
    if !dir.is_dir() {
        bail!("{} is not a folder", dir.display());
    }
    let mut found = Found {
        files: BTreeMap::new(),
        wrong: Vec::new(),
    };
    walk(dir, "", folder, 0, &mut found)?;
    if !found.wrong.is_empty() {
        bail!("{}", found.wrong.join("\n"));
    }
    Ok(found.files)
}

struct Found {
    files: BTreeMap<String, String>,
    wrong: Vec<String>,
}

fn walk(dir: &Path, inside: &str, folder: &str, depth: usize, found: &mut Found) -> anyhow::Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            found.wrong.push(format!("{}: the name is not UTF-8", path.display()));
            continue;
        };
        // .git, .github and the like.
        if name.starts_with('.') {
            continue;
        }
        let id = format!("{inside}{}", name.strip_suffix(".yaml").unwrap_or(name));
        let is_ours = id.starts_with(folder) || (!kind.is_file() && folder.starts_with(&format!("{id}/")));
        if kind.is_symlink() {
            if is_ours {
                let why = "is a symbolic link, which is not followed: put the file here";
                found.wrong.push(format!("{}: {why}", path.display()));
            }
        } else if kind.is_dir() {
            if depth >= MAX_DEPTH {
                found
                    .wrong
                    .push(format!("{}: too many folders in each other", path.display()));
                continue;
            }
            walk(&path, &format!("{inside}{name}/"), folder, depth + 1, found)?;
        } else if name.ends_with(".yml") && is_ours {
            found.wrong.push(format!("{}: name it .yaml", path.display()));
        } else if name.ends_with(".yaml") && is_ours {
            match read_file(&path, &id) {
                Ok(text) => _ = found.files.insert(id, text),
                Err(why) => found.wrong.push(format!("{}: {why:#}", path.display())),
            }
            if found.files.len() > MAX_FILES {
                bail!("{} has more than {MAX_FILES} files", dir.display());
            }
        }
    }
    Ok(())
}

fn read_file(path: &Path, id: &str) -> anyhow::Result<String> {
    validate_prompt_id(id).map_err(|why| anyhow::anyhow!("the file's path is the prompt's id: {why}"))?;
    let bytes = fs::metadata(path)?.len();
    if bytes > MAX_FILE_BYTES as u64 {
        bail!("has {bytes} bytes, at most {MAX_FILE_BYTES} are allowed");
    }
    String::from_utf8(fs::read(path)?).context("is not UTF-8")
}

/// Returns the file of a prompt, unless something on the way to it is a symbolic link.
fn path_of(dir: &Path, id: &str) -> anyhow::Result<PathBuf> {
    validate_prompt_id(id).map_err(|why| anyhow::anyhow!(why))?;
    let mut path = dir.to_owned();
    let file = format!("{id}.yaml");
    for segment in file.split('/') {
        path.push(segment);
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_symlink()) {
            bail!("{} is a symbolic link, which is not followed", path.display());
        }
    }
    Ok(path)
}

/// Writes the file of a prompt in one step.
pub fn write(dir: &Path, id: &str, text: &str) -> anyhow::Result<()> {
    let path = path_of(dir, id)?;
    let folder = path.parent().unwrap_or(dir);
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let new = folder.join(format!(".{name}.{}.new", std::process::id()));
    let written = fs::File::create_new(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_data()
    });
    written
        .and_then(|()| fs::rename(&new, &path))
        .inspect_err(|_| _ = fs::remove_file(&new))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Removes the file of a prompt, and the folders that it leaves empty.
pub fn remove(dir: &Path, id: &str) -> anyhow::Result<()> {
    let path = path_of(dir, id)?;
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    let mut folder = path.parent();
    while let Some(inside) = folder.filter(|folder| *folder != dir) {
        if fs::remove_dir(inside).is_err() {
            break;
        }
        folder = inside.parent();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_id_and_nothing_outside_is() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, outside) = (dir.path().join("prompts"), dir.path().join("outside.yaml"));
        write(&dir, "support/eu/greet", "owner: a\n").unwrap();
        write(&dir, "support/eu/greet", "owner: b\n").unwrap();
        write(&dir, "a", "{}\n").unwrap();
        fs::write(dir.join("README.md"), "about").unwrap();
        fs::create_dir(dir.join(".git")).unwrap();
        fs::write(dir.join(".git/config.yaml"), "x").unwrap();
        let all = read(&dir, "").unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "support/eu/greet"]);
        assert_eq!(all["support/eu/greet"], "owner: b\n");
        assert_eq!(read(&dir, "support/").unwrap().len(), 1);

        fs::write(&outside, "{}").unwrap();
        std::os::unix::fs::symlink(&outside, dir.join("b.yaml")).unwrap();
        std::os::unix::fs::symlink(dir.parent().unwrap(), dir.join("up")).unwrap();
        fs::write(dir.join("Capital.yaml"), "{}").unwrap();
        fs::write(dir.join("c.yml"), "{}").unwrap();
        fs::write(dir.join("big.yaml"), "#".repeat(MAX_FILE_BYTES + 1)).unwrap();
        let why = read(&dir, "").unwrap_err().to_string();
        assert_eq!(why.lines().count(), 5, "{why}");
        assert!(
            why.contains("b.yaml: is a symbolic link") && why.contains("name it .yaml"),
            "{why}"
        );
        assert!(write(&dir, "b", "x").is_err() && write(&dir, "up/x", "x").is_err());
        assert!(write(&dir, "../x", "x").is_err());
        assert_eq!(fs::read_to_string(&outside).unwrap(), "{}");
        remove(&dir, "support/eu/greet").unwrap();
        assert!(!dir.join("support").exists() && dir.exists());
    }
}
