//! Dead letters: what could not be stored, kept for people under `spool_dir/dead/`.
//!
//! ```text
//! dead/
//!   <boot>-<worker>-<seq>.seg             a segment that could not be read at all, as it was
//!   <boot>-<worker>-<seq>-<digest>.seg    rows of a segment that the sink refused, each behind a note that says why
//!   resend/                               the inbox: what is moved here is tried again
//! ```
//!
//! Both are segment files: header, frames, seal. Everything that people do is one rename or one removal of a file, so it
//! needs no lock, and works while a gateway runs as well as without one. A gateway looks into the inbox every few
//! seconds, and at its start. What it has stored it removes; what is refused again comes back as a new letter. Each row
//! is asked for before it is stored, so that resending twice stores nothing twice.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::row::{
    FEEDBACK_COLUMNS, KIND_EXCHANGE, KIND_FEEDBACK, KIND_REFUSALS, REFUSALS_COLUMNS, exchange_columns, json::item,
};
use super::rowbinary::Reader;
use super::ship::Dead;
use super::sink::digest;
use crate::spool::format::{Header, SEAL_AT, Seal, encode_header, encode_seal, push_frame, stamp};
use crate::spool::recover::recover;

/// Kind of a frame that says why the one behind it is here; its payload is text.
pub const KIND_NOTE: u8 = 255;

const FOLDER: &str = "dead";
const INBOX: &str = "resend";
/// What is shown of a row that cannot be read.
const SHOWN_BYTES: usize = 64;

/// The dead letters of one spool folder. All calls block.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    folder: PathBuf,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its file's name.
    pub name: String,
    /// Whether it waits in the inbox.
    pub resending: bool,
    pub bytes: u64,
    /// Rows in it, of whatever kind; 0 if it cannot be read.
    pub rows: usize,
    /// When its segment was begun, µs since the epoch; 0 if it cannot be read.
    pub created_at: i64,
    /// The first reason found.
    pub reason: String,
}

/// One row of a letter.
#[derive(Debug, Clone, PartialEq)]
pub struct LetterRow {
    /// `exchange`, `feedback`, `refusals`, or a number.
    pub kind: String,
    pub reason: String,
    /// The record, or what its bytes begin with.
    pub record: Value,
}

/// Why dead letters could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    #[error("there is no dead letter {name:?} in {folder}; `promptgate dead-letters list` shows those there are")]
    Absent { name: String, folder: PathBuf },
    #[error("dead letter {0:?} waits to be resent already")]
    Resending(String),
    #[error("dead letter {name:?} cannot be read: {reason}")]
    Unreadable { name: String, reason: String },
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

impl DeadLetters {
    /// Those of a spool folder, which need not be there.
    pub fn of(spool_dir: &Path) -> Self {
        Self {
            folder: spool_dir.join(FOLDER),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All letters, by name, those of the inbox last.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn list(&self) -> Result<Vec<Letter>, DeadLetterError> {
        let mut letters = Vec::new();
        for (folder, resending) in [(self.folder.clone(), false), (self.inbox(), true)] {
            for name in names(&folder)? {
                let path = folder.join(&name);
                match fs::read(&path) {
                    Ok(bytes) => letters.push(described(name, resending, &bytes)),
                    // Taken by the gateway meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(DeadLetterError::File { path, source }),
                }
            }
        }
        Ok(letters)
    }

    /// The rows of a letter, in both folders.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn show(&self, name: &str) -> Result<Vec<LetterRow>, DeadLetterError> {
        let path = self.find(name)?;
        let bytes = fs::read(&path).map_err(|source| DeadLetterError::File { path, source })?;
        let recovered = recover(&bytes).map_err(|error| DeadLetterError::Unreadable {
            name: name.to_owned(),
            reason: error.to_string(),
        })?;
        let mut rows = Vec::new();
        let mut note = String::new();
        for frame in &recovered.frames {
            if frame.kind == KIND_NOTE {
                note = String::from_utf8_lossy(frame.payload).into_owned();
                continue;
            }
            rows.push(letter_row(recovered.header.schema, frame.kind, frame.payload, &note));
            note.clear();
        }
        Ok(rows)
    }

    /// Moves a letter into the inbox, where the gateway finds it.
    ///
    /// # Errors
    /// It is not there, or waits already, or cannot be moved.
    pub fn resend(&self, name: &str) -> Result<(), DeadLetterError> {
        let from = self.find(name)?;
        let inbox = self.inbox();
        if from.parent() == Some(&inbox) {
            return Err(DeadLetterError::Resending(name.to_owned()));
        }
        let moved = fs::create_dir_all(&inbox).and_then(|()| fs::rename(&from, inbox.join(name)));
        moved.map_err(|source| DeadLetterError::File { path: from, source })
    }

    /// Removes a letter for ever.
    ///
    /// # Errors
    /// It is not there or cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), DeadLetterError> {
        let path = self.find(name)?;
        fs::remove_file(&path).map_err(|source| DeadLetterError::File { path, source })
    }

    /// Writes a letter, whole or not at all; returns where it is.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.folder)?;
        let (path, unfinished) = (self.folder.join(name), self.folder.join(format!(".{name}")));
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        Ok(path)
    }

    /// The next letter to be resent; None if there is none.
    ///
    /// # Errors
    /// The inbox cannot be read.
    pub fn next_resend(&self) -> io::Result<Option<PathBuf>> {
        let inbox = self.inbox();
        match names(&inbox) {
            Ok(names) => Ok(names.first().map(|name| inbox.join(name))),
            Err(DeadLetterError::File { source, .. }) => Err(source),
            Err(_) => Ok(None),
        }
    }

    /// Moves a letter of the inbox that cannot be read back to where people look for it.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn return_unread(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default();
        fs::rename(path, self.folder.join(name))
    }

    fn inbox(&self) -> PathBuf {
        self.folder.join(INBOX)
    }

    /// Where a letter is: only what is listed can be named, so no path leads elsewhere.
    fn find(&self, name: &str) -> Result<PathBuf, DeadLetterError> {
        for folder in [self.folder.clone(), self.inbox()] {
            if names(&folder)?.iter().any(|other| other == name) {
                return Ok(folder.join(name));
            }
        }
        Err(DeadLetterError::Absent {
            name: name.to_owned(),
            folder: self.folder.clone(),
        })
    }
}

/// Files of a folder, sorted; none if it is not there. Those that are being written begin with a dot.
fn names(folder: &Path) -> Result<Vec<String>, DeadLetterError> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_file() && !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(DeadLetterError::File {
            path: folder.to_path_buf(),
            source,
        }),
        Ok(names) => Ok(names),
    }
}

/// Name and bytes of a letter of some rows of a segment: the same for the same rows, so that a letter that is written
/// again after a crash replaces itself.
pub fn letter(header: &Header, dead: &[Dead<'_>]) -> (String, Vec<u8>) {
    let rows: Vec<&[u8]> = dead.iter().map(|dead| dead.row).collect();
    let (boot, worker, sequence) = (&header.boot, header.worker, header.sequence);
    let name = format!("{boot}-{worker}-{sequence:08}-{}.seg", digest(&rows));
    let mut frames = Vec::new();
    for dead in dead {
        let note = |out: &mut Vec<u8>| out.extend_from_slice(dead.reason.as_bytes());
        let row = |out: &mut Vec<u8>| out.extend_from_slice(dead.row);
        // Frames of a segment fit into one again: the only limit is that of their length field.
        let _ = push_frame(&mut frames, KIND_NOTE, u32::MAX as usize, note);
        let _ = push_frame(&mut frames, dead.kind, u32::MAX as usize, row);
    }
    let (payload_bytes, count) = stamp(&mut frames, header.salt, usize::MAX, u32::MAX);
    let seal = Seal {
        frames: count,
        payload_bytes: payload_bytes as u64,
    };
    let mut bytes = encode_header(header).to_vec();
    let seal = encode_seal(seal, header.salt);
    bytes[SEAL_AT..SEAL_AT + seal.len()].copy_from_slice(&seal);
    bytes.extend_from_slice(&frames);
    (name, bytes)
}

fn described(name: String, resending: bool, bytes: &[u8]) -> Letter {
    let len = bytes.len() as u64;
    let unread = |reason: String| Letter {
        name: name.clone(),
        resending,
        bytes: len,
        rows: 0,
        created_at: 0,
        reason,
    };
    let recovered = match recover(bytes) {
        Ok(recovered) => recovered,
        Err(error) => return unread(error.to_string()),
    };
    let schema = recovered.header.schema;
    let is_note = |kind: u8| kind == KIND_NOTE;
    let note = recovered.frames.iter().find(|frame| is_note(frame.kind));
    let reason = match note {
        Some(note) => String::from_utf8_lossy(note.payload).into_owned(),
        None if exchange_columns(schema).is_none() => {
            format!("rows have schema {schema}, which this build does not know")
        }
        None => String::new(),
    };
    Letter {
        rows: recovered.frames.iter().filter(|frame| !is_note(frame.kind)).count(),
        created_at: recovered.header.created_at,
        ..unread(reason)
    }
}

fn letter_row(schema: u32, kind: u8, row: &[u8], note: &str) -> LetterRow {
    let (name, columns) = match kind {
        KIND_EXCHANGE => ("exchange".to_owned(), exchange_columns(schema)),
        KIND_FEEDBACK => ("feedback".to_owned(), Some(&FEEDBACK_COLUMNS[..])),
        KIND_REFUSALS => ("refusals".to_owned(), Some(&REFUSALS_COLUMNS[..])),
        other => (other.to_string(), None),
    };
    let mut reader = Reader::new(row);
    let read = columns.map(|columns| item(&mut reader, columns).and_then(|record| reader.end().map(|()| record)));
    let (record, problem) = match read {
        Some(Ok(record)) => (record, String::new()),
        Some(Err(error)) => (Value::Null, error.to_string()),
        None => (Value::Null, "this build does not know such rows".to_owned()),
    };
    let beginning = || {
        let shown = &row[..row.len().min(SHOWN_BYTES)];
        let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"bytes": row.len(), "begins": hex})
    };
    LetterRow {
        kind: name,
        reason: if note.is_empty() { problem } else { note.to_owned() },
        record: if record.is_null() { beginning() } else { record },
    }
}
