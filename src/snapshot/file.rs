//! The last state of a shared registry on this node's disk, to start from while the registry is away.
//!
//! A text file, readable by its owner alone. It holds what is served: prompts' contents, and keys by their digests; never a
//! secret.
//!
//! ```text
//! promptgate-snapshot 1 0001763850000000 5f0c3b1a9e77d2c4
//! 8d1f6a02 {"whole":true,"generation":41,…}
//! 1b44e9c0 {"whole":false,"generation":42,…}
//! ```
//!
//! The first line: the format's number, when the registry last confirmed that this is the newest (milliseconds since the Unix
//! epoch, overwritten in place), and which registry it is of. Then what was read of it, a line each: the CRC-32 of the JSON,
//! and a [`Delta`]. The first one is whole; the others are applied in their order. The file is written anew, beside the old one
//! and then in its place, when the additions outgrow the beginning. An addition that is cut off at the end is left out: the
//! rest is an earlier state, as whole as it was. Any other damage makes the file useless, and that is said.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::registry::Delta;

const FORMAT: &str = "promptgate-snapshot 1 ";

/// Digits of the time in the first line, from [`FORMAT`] on.
const TIME_DIGITS: usize = 16;

/// Additions up to this size never cause a new file, in bytes.
const LEAST_ADDITIONS: u64 = 1 << 20;

/// Why a snapshot is not started from.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("there is no snapshot {path} to start from: {source}")]
    Io { path: String, source: io::Error },
    #[error("snapshot {path} is not started from: {why}")]
    Useless { path: String, why: String },
}

/// What was read of a snapshot.
#[derive(Debug)]
pub struct Loaded {
    /// To be applied in this order; at least one.
    pub deltas: Vec<Delta>,
    /// How long ago the registry confirmed it.
    pub age: Duration,
}

/// A snapshot's file, and what waits to be written to it.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    /// Names the registry, so that the state of another one is never served.
    registry: String,
    state: Mutex<State>,
    pub(super) woken: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The file as it was written last; none until it begins with a state of this run.
    file: Option<File>,
    /// Bytes of its beginning, and of all additions.
    beginning: u64,
    additions: u64,
    /// Encoded deltas of a file that is yet to be begun: a whole one first, and what came after it.
    waiting: Option<Vec<u8>>,
    /// Additions that came while a file was being written.
    late: Vec<u8>,
}

impl SnapshotFile {
    /// `registry` is the registry's address; only its hash is written.
    pub fn new(path: &Path, registry: &str) -> Self {
        let digest = format!("{:x}", Sha256::digest(registry.as_bytes()));
        Self {
            path: path.to_owned(),
            registry: digest[..16].to_owned(),
            state: Mutex::default(),
            woken: Notify::new(),
        }
    }

    /// Reads the state back.
    ///
    /// # Errors
    /// When there is none, or it is another registry's, damaged, or older than `max_age`.
    pub fn load(&self, max_age: Duration) -> Result<Loaded, FileError> {
        let path = self.path.display().to_string();
        let bytes = fs::read(&self.path).map_err(|source| FileError::Io {
            path: path.clone(),
            source,
        })?;
        self.read(&bytes, max_age)
            .map_err(|why| FileError::Useless { path, why })
    }

    fn read(&self, bytes: &[u8], max_age: Duration) -> Result<Loaded, String> {
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let head = lines.next().and_then(|line| std::str::from_utf8(line).ok());
        let head = head.and_then(|line| line.strip_prefix(FORMAT)?.strip_suffix('\n'));
        let (confirmed, registry) = head
            .and_then(|head| head.split_once(' '))
            .ok_or("it is not of this program's format")?;
        if registry != self.registry {
            return Err("it is the state of another registry than registry.url".to_owned());
        }
        let confirmed: u64 = confirmed.parse().map_err(|_| "its first line is damaged")?;
        let age = now().saturating_sub(Duration::from_millis(confirmed));
        if age > max_age {
            return Err(format!(
                "the registry confirmed it {} s ago, registry.snapshot_max_age is {} s",
                age.as_secs(),
                max_age.as_secs()
            ));
        }
        let mut deltas: Vec<Delta> = Vec::new();
        for (number, line) in (2..).zip(lines) {
            let Some(line) = line.strip_suffix(b"\n") else {
                tracing::warn!(
                    line = number,
                    "the end of the snapshot is cut off: an earlier state is used"
                );
                break;
            };
            let delta = decode(line).ok_or_else(|| format!("line {number} is damaged"))?;
            if delta.whole != deltas.is_empty() {
                return Err(format!("line {number} is out of place"));
            }
            deltas.push(delta);
        }
        match deltas.is_empty() {
            true => Err("it is empty".to_owned()),
            false => Ok(Loaded { deltas, age }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a state that is about to be served: an addition is in the kernel's hands at once, so that a process that is
    /// killed serves nothing older when it starts again; a whole state is written soon.
    pub(super) fn push(&self, delta: &Delta) {
        let json = serde_json::to_vec(delta).expect("a delta's keys are strings");
        let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
        line.extend_from_slice(&json);
        line.push(b'\n');
        let mut state = self.state();
        if delta.whole {
            state.waiting = Some(line);
            self.woken.notify_one();
        } else if let Some(waiting) = &mut state.waiting {
            waiting.extend_from_slice(&line);
        } else if state.file.is_some() {
            state.add(&line);
        } else {
            state.late.extend_from_slice(&line);
            self.woken.notify_one();
        }
    }

    /// Begins the file anew if a whole state waits, and notes when the registry last confirmed it. Returns whether a whole
    /// state is needed.
    pub(super) fn write(&self, age: Duration) -> io::Result<bool> {
        let confirmed = now().saturating_sub(age).as_millis();
        let waiting = {
            let mut state = self.state();
            let waiting = state.waiting.take();
            if waiting.is_some() {
                state.file = None;
            }
            state.late.clear();
            waiting
        };
        if let Some(lines) = waiting {
            // Long, and so not under the lock.
            let file = self.begin(&lines, confirmed)?;
            let mut state = self.state();
            state.file = Some(file);
            (state.beginning, state.additions) = (lines.len() as u64, 0);
            let late = std::mem::take(&mut state.late);
            state.add(&late);
        }
        let state = self.state();
        let Some(file) = &state.file else { return Ok(true) };
        let time = format!("{confirmed:0width$}", width = TIME_DIGITS);
        file.write_all_at(time.as_bytes(), FORMAT.len() as u64)?;
        Ok(state.additions > state.beginning.max(LEAST_ADDITIONS))
    }

    /// Writes a new file in the place of the old one.
    fn begin(&self, lines: &[u8], confirmed: u128) -> io::Result<File> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let beside = PathBuf::from(name);
        let options = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .clone();
        let mut file = options.open(&beside)?;
        let head = format!("{FORMAT}{confirmed:0width$} {}\n", self.registry, width = TIME_DIGITS);
        file.write_all(head.as_bytes())?;
        file.write_all(lines)?;
        file.sync_data()?;
        fs::rename(&beside, &self.path)?;
        Ok(file)
    }
}

impl State {
    fn add(&mut self, lines: &[u8]) {
        let Some(file) = &mut self.file else { return };
        match file.write_all(lines) {
            Ok(()) => self.additions += lines.len() as u64,
            Err(error) => {
                tracing::warn!(%error, "cannot add to the snapshot's file, it will be written anew");
                self.file = None;
            }
        }
    }
}

fn decode(line: &[u8]) -> Option<Delta> {
    let (crc, json) = line.split_at_checked(9)?;
    let crc = std::str::from_utf8(crc).ok()?.strip_suffix(' ')?;
    let crc = u32::from_str_radix(crc, 16).ok()?;
    (crc == crc32fast::hash(json)).then(|| serde_json::from_slice(json).ok())?
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
