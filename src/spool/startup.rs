//! What is done once at start: the folder is locked against a second process, and what earlier runs left is recovered.
//!
//! Segments of older boots are offered in the order they were begun. One that was still open is sealed at its last
//! whole frame; an empty one is removed; one whose header cannot be read goes to `dead/`, where nothing is deleted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use super::SpoolError;
use super::format::{HEADER_LEN, HeaderError, SEAL_AT, decode_header, encode_seal};
use super::open_log::{self, recover_logs};
use super::recover::recover;
use super::segment::Sealed;
use super::stats::SpoolStats;

/// Folder of files the recovery and the shipper cannot use, kept for people.
pub const DEAD: &str = "dead";
/// Folder of spare files.
pub const POOL: &str = "pool";

/// Takes the folder's lock; it is released when the file is dropped, also by `kill -9`.
pub fn lock(folder: &Path) -> Result<File, SpoolError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| SpoolError::Folder {
            path: path.clone(),
            source,
        })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(SpoolError::InUse {
            path: folder.to_path_buf(),
        }),
        Err(fs::TryLockError::Error(source)) => Err(SpoolError::Folder { path, source }),
    }
}

/// Recovers the segments of every boot folder that is there; call it before the present boot's folder is created.
pub fn recover_folder(folder: &Path, stats: &SpoolStats) -> Result<Vec<Sealed>, SpoolError> {
    let mut found = Vec::new();
    for boot in entries(folder)? {
        let name = boot.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        if !boot.is_dir() || name == DEAD || name == POOL {
            continue;
        }
        let mut segments = Vec::new();
        let mut logs = Vec::new();
        for path in entries(&boot)? {
            match path.extension().and_then(|ending| ending.to_str()) {
                Some(open_log::EXTENSION) => {
                    logs.push(path);
                    continue;
                }
                Some(open_log::UNFINISHED) => {
                    remove(&path)?;
                    continue;
                }
                _ => {}
            }
            match recover_file(&path, &name, stats) {
                Ok(Some(sealed)) => segments.push(sealed),
                Ok(None) => remove(&path)?,
                Err(Unusable::Header(error)) => {
                    tracing::error!(%error, path = %path.display(), "spool segment cannot be read, moved to dead/");
                    stats.damaged_segments.fetch_add(1, Relaxed);
                    stats.dead_segments.fetch_add(1, Relaxed);
                    bury(folder, &path).map_err(|source| SpoolError::Folder { path, source })?;
                }
                Err(Unusable::Io(source)) => return Err(SpoolError::Folder { path, source }),
            }
        }
        let aborted = recover_logs(&boot, logs, &segments).map_err(|source| SpoolError::Folder {
            path: boot.clone(),
            source,
        })?;
        for sealed in &aborted {
            stats.recovered_open.fetch_add(u64::from(sealed.frames), Relaxed);
        }
        found.append(&mut segments);
        found.extend(aborted);
        // Fails while segments are in it, which is what is wanted.
        let _ = fs::remove_dir(&boot);
    }
    found.sort_by(|a, b| (&a.boot, a.sequence, a.worker).cmp(&(&b.boot, b.sequence, b.worker)));
    for sealed in &found {
        stats.recovered_segments.fetch_add(1, Relaxed);
        stats.recovered_frames.fetch_add(u64::from(sealed.frames), Relaxed);
        stats.recovered_bytes.fetch_add(sealed.file_bytes(), Relaxed);
    }
    Ok(found)
}

/// Moves a file that cannot be shipped to `dead/`, under a name that says where it was; returns the new path.
pub fn bury(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let dead = folder.join(DEAD);
    fs::create_dir_all(&dead)?;
    let part = |p: Option<&std::ffi::OsStr>| p.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let boot = part(path.parent().and_then(Path::file_name));
    let target = dead.join(format!("{boot}-{}", part(path.file_name())));
    fs::rename(path, &target)?;
    Ok(target)
}

enum Unusable {
    Header(HeaderError),
    Io(io::Error),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads only the header of a sealed segment: a long backlog must not delay the start.
fn recover_file(path: &Path, boot: &str, stats: &SpoolStats) -> Result<Option<Sealed>, Unusable> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let mut page = vec![0; HEADER_LEN.min(usize::try_from(len).unwrap_or(usize::MAX))];
    file.read_exact_at(&mut page, 0)?;
    let (header, seal) = match decode_header(&page) {
        Ok(read) => read,
        Err(HeaderError::Blank) => return Ok(None),
        Err(error) => return Err(Unusable::Header(error)),
    };
    if header.boot != boot {
        // A spare that got its name but, after a power failure, not its header: still that of its earlier use.
        return Ok(None);
    }
    if let Some(seal) = seal {
        return Ok((seal.frames > 0).then(|| Sealed::new(path.to_path_buf(), &header, seal)));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    let recovered = recover(&bytes).map_err(Unusable::Header)?;
    if recovered.frames.is_empty() {
        return Ok(None);
    }
    if recovered.is_damaged() {
        stats.damaged_segments.fetch_add(1, Relaxed);
        let kept_behind_damage = recovered.damaged_after;
        tracing::error!(path = %path.display(), kept_behind_damage, "spool segment is damaged, its whole frames are kept");
    }
    let found = recovered.found();
    file.write_all_at(&encode_seal(found, header.salt), SEAL_AT as u64)?;
    Ok(Some(Sealed::new(path.to_path_buf(), &header, found)))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, SpoolError> {
    let read = || {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()
    };
    read().map_err(|source| SpoolError::Folder {
        path: folder.to_path_buf(),
        source,
    })
}

fn remove(path: &Path) -> Result<(), SpoolError> {
    fs::remove_file(path).map_err(|source| SpoolError::Folder {
        path: path.to_path_buf(),
        source,
    })
}
