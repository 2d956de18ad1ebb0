//! What is known of records that are not finished yet, so that a crash does not lose those that take long.
//!
//! A worker writes an *open frame* when a call is about to be a second old, and a *closed frame* once its record is in
//! a segment. After a crash, opened less closed less what the segments hold are the records that nobody will finish:
//! their open frames become records of a segment of their own, as they are.
//!
//! ```text
//! <boot>/<worker>-<number>.open     header and frames as in a segment, never sealed
//!   frame of a record's kind        the record as far as it is known; its payload begins with the key
//!   frame of kind 255               a key alone: that record is in a segment
//! ```
//!
//! Costs one small write a tick in which such a call begins or ends, and none for calls that are quicker. Files are
//! begun anew at 8 MiB and removed in the order they were begun, each when nothing open is in it; so the folder holds
//! what is open and a bounded rest. (Writing all that is open once a second, as was planned, costs as much for a call
//! that takes a minute as for sixty.)
//!
//! In a crash of the machine (not only of the process) the newest frames may be missing, unless durability is `disk`.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet};

use super::format::{FRAME_HEAD_LEN, HEADER_LEN, Header, Salt, Seal, encode_header, encode_seal, push_frame, stamp};
use super::log_gate::LogGate;
use super::recover::recover;
use super::segment::{Sealed, segment_path};

/// Names a record; the first bytes of its payload.
pub type Key = [u8; KEY_LEN];

/// Bytes of a [`Key`].
pub const KEY_LEN: usize = 16;

/// Ending of the files' names.
pub const EXTENSION: &str = "open";

const CLOSED: u8 = 255;
/// Largest open frame; what is larger is not kept.
const FRAME_MAX: usize = 256 << 10;
/// Size at which a new file is begun.
const ROTATE_BYTES: u64 = 8 << 20;
/// With nothing open, a file of at least this size is removed.
const REST_BYTES: u64 = 1 << 20;
/// With more files than this, what is open in the oldest is written again into the newest.
const FILES_MAX: usize = 4;
/// Sequence of the first segment made of open frames: after all others of its boot.
const ABORTED_SEQUENCE: u64 = 1 << 48;
/// Most bytes of frames in such a segment.
const ABORTED_BYTES: usize = 16 << 20;
/// Of a worker's segments, the newest ones up to this size are searched for records that were finished but not noted
/// as closed. They are in the last write of a process that was killed, so far less would do.
const SEARCH_BYTES: u64 = 256 << 20;

/// Where an open frame is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Number of its file.
    number: u64,
    at: u64,
    len: u32,
}

#[derive(Debug)]
struct LogFile {
    number: u64,
    path: PathBuf,
    /// None until something is written.
    file: Option<Arc<File>>,
    salt: Salt,
    len: u64,
    /// Open frames in it whose record is not finished.
    live: usize,
}

/// One worker's log.
#[derive(Debug)]
pub struct OpenLog {
    folder: PathBuf,
    /// That of every file; salt, sequence and time differ.
    header: Header,
    /// Oldest first; the last is written to. Never empty.
    files: VecDeque<LogFile>,
    open: HashMap<Key, Place>,
    /// Frames of this tick.
    batch: Vec<u8>,
    /// Keys closed in this tick, for when it cannot be written.
    closed: Vec<Key>,
    /// A file was created.
    begun: bool,
    gate: LogGate,
}

impl OpenLog {
    pub fn new(folder: PathBuf, boot: &str, worker: u32, schema: u32) -> Self {
        let header = Header {
            boot: boot.to_owned(),
            worker,
            sequence: 0,
            schema,
            salt: Salt([0; 8]),
            created_at: 0,
        };
        let mut log = Self {
            folder,
            header,
            files: VecDeque::new(),
            open: HashMap::new(),
            batch: Vec::new(),
            closed: Vec::new(),
            begun: false,
            gate: LogGate::default(),
        };
        log.rotate();
        log
    }

    /// Whether there is anything to write.
    pub fn is_idle(&self) -> bool {
        self.batch.is_empty()
    }

    /// Takes over the beginning of a record; `encode` appends a payload that begins with its key.
    pub fn opened(&mut self, kind: u8, encode: impl FnOnce(&mut Vec<u8>)) {
        debug_assert_ne!(kind, CLOSED, "this kind says that a record is closed");
        let at = self.batch.len();
        let pushed = push_frame(&mut self.batch, kind, FRAME_MAX, encode);
        let key = pushed.ok().and_then(|len| {
            let payload = &self.batch[at + FRAME_HEAD_LEN..at + len];
            Some((key_of(payload)?, len))
        });
        let Some((key, len)) = key else {
            self.batch.truncate(at);
            return;
        };
        let file = self.files.back_mut().expect("there is always a file");
        let place = Place {
            number: file.number,
            at: file.len + at as u64,
            len: len as u32,
        };
        file.live += 1;
        if let Some(before) = self.open.insert(key, place) {
            self.leave(before);
        }
    }

    /// Notes that a record is in a segment; does nothing if it was never opened.
    pub fn closed(&mut self, key: Key) {
        if let Some(place) = self.open.remove(&key) {
            self.leave(place);
            self.push_closed(key);
        }
    }

    /// Writes this tick's frames; call it after the segment's. Returns the file that was written to.
    pub fn flush(&mut self) -> Option<Arc<File>> {
        if self.batch.is_empty() {
            return None;
        }
        let written = self.write();
        match &written {
            Ok(_) => {
                self.batch.clear();
                self.closed.clear();
                self.tidy();
            }
            Err(error) => {
                if let Some(suppressed) = self.gate.pass() {
                    tracing::error!(
                        %error, suppressed,
                        "cannot note open calls in the spool; if this process dies now, they leave no record"
                    );
                }
                self.forget_batch();
            }
        }
        written.ok()
    }

    /// Whether a file was created since the last call.
    pub fn take_begun(&mut self) -> bool {
        std::mem::take(&mut self.begun)
    }

    /// Writes what there is and removes the files, unless something is still open.
    pub fn close(&mut self) {
        self.flush();
        if self.open.is_empty() {
            self.files.drain(..).for_each(LogFile::remove);
            self.rotate();
        }
    }

    fn write(&mut self) -> io::Result<Arc<File>> {
        let number = self.files.back().map_or(0, |file| file.number);
        let log = self.files.back_mut().expect("there is always a file");
        let file = match &log.file {
            Some(file) => Arc::clone(file),
            None => {
                let header = Header {
                    sequence: number,
                    salt: log.salt,
                    created_at: jiff::Timestamp::now().as_microsecond(),
                    ..self.header.clone()
                };
                let file = Arc::new(create(&log.path)?);
                file.write_all_at(&encode_header(&header), 0)?;
                log.file = Some(Arc::clone(&file));
                self.begun = true;
                file
            }
        };
        stamp(&mut self.batch, log.salt, usize::MAX, u32::MAX);
        file.write_all_at(&self.batch, log.len)?;
        log.len += self.batch.len() as u64;
        Ok(file)
    }

    /// The batch could not be written: what it opened is not kept, what it closed is said again in a new file.
    fn forget_batch(&mut self) {
        let (number, from) = self.files.back().map_or((0, 0), |file| (file.number, file.len));
        self.open.retain(|_, place| place.number != number || place.at < from);
        let live = self.open.values().filter(|place| place.number == number).count();
        if let Some(file) = self.files.back_mut() {
            file.live = live;
        }
        if self.files.back().is_some_and(|file| file.file.is_some()) {
            self.rotate();
        }
        self.batch.clear();
        for key in std::mem::take(&mut self.closed) {
            self.push_closed(key);
        }
    }

    fn push_closed(&mut self, key: Key) {
        // A key always fits.
        let _ = push_frame(&mut self.batch, CLOSED, FRAME_MAX, |out| out.extend_from_slice(&key));
        self.closed.push(key);
    }

    fn leave(&mut self, place: Place) {
        if let Some(file) = self.files.iter_mut().find(|file| file.number == place.number) {
            file.live -= 1;
        }
    }

    fn rotate(&mut self) {
        let number = self.files.back().map_or(0, |file| file.number + 1);
        self.begin(number);
    }

    fn begin(&mut self, number: u64) {
        let path = self
            .folder
            .join(format!("{}-{number:08}.{EXTENSION}", self.header.worker));
        self.files.push_back(LogFile {
            number,
            path,
            file: None,
            salt: Salt(rand::random()),
            len: HEADER_LEN as u64,
            live: 0,
        });
    }

    fn tidy(&mut self) {
        let len = self.files.back().map_or(0, |file| file.len);
        if len >= ROTATE_BYTES || (self.open.is_empty() && len >= REST_BYTES) {
            self.rotate();
        }
        if self.files.len() > FILES_MAX {
            self.move_oldest();
        }
        // In this order only: a file may close what an older one opened.
        while self.files.len() > 1 && self.files.front().is_some_and(|file| file.live == 0) {
            self.files.pop_front().into_iter().for_each(LogFile::remove);
        }
    }

    /// Writes what is open in the oldest file again into the newest. Nothing is lost if that fails: the file stays.
    fn move_oldest(&mut self) {
        let Some(oldest) = self.files.front() else { return };
        let number = oldest.number;
        let Some(file) = oldest.file.clone() else { return };
        let moved: Vec<(Key, Place)> = self
            .open
            .iter()
            .filter(|(_, place)| place.number == number)
            .map(|(key, place)| (*key, *place))
            .collect();
        for (_, place) in &moved {
            let mut frame = vec![0; place.len as usize];
            if file.read_exact_at(&mut frame, place.at).is_err() {
                continue;
            }
            self.opened(frame[8], |out| out.extend_from_slice(&frame[FRAME_HEAD_LEN..]));
        }
        if self.write().is_ok() {
            self.batch.clear();
            return;
        }
        self.forget_batch();
        for (key, place) in moved {
            if self.open.insert(key, place).is_none()
                && let Some(file) = self.files.iter_mut().find(|file| file.number == place.number)
            {
                file.live += 1;
            }
        }
    }
}

impl LogFile {
    fn remove(self) {
        if self.file.is_some() {
            // One that is gone already is as good as removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    options.open(path).or_else(|error| match (error.kind(), path.parent()) {
        (io::ErrorKind::NotFound, Some(folder)) => {
            fs::create_dir_all(folder)?;
            options.open(path)
        }
        _ => Err(error),
    })
}

fn key_of(payload: &[u8]) -> Option<Key> {
    payload.first_chunk().copied()
}

/// Turns the logs of an ended process into segments of the records it left open, then removes the logs. `segments` are
/// those that are left of the same boot. Blocks.
///
/// Done half and begun again it gives the same: what a segment holds already is not open any more.
///
/// # Errors
/// A file cannot be read, written or removed.
pub fn recover_logs(folder: &Path, mut logs: Vec<PathBuf>, segments: &[Sealed]) -> io::Result<Vec<Sealed>> {
    logs.sort();
    let mut workers: Vec<Opened> = Vec::new();
    for path in &logs {
        let bytes = fs::read(path)?;
        // Without a header it was being created: nothing was in it.
        let Ok(log) = recover(&bytes) else { continue };
        let at = workers
            .iter()
            .position(|opened| opened.header.worker == log.header.worker);
        let at = at.unwrap_or_else(|| {
            workers.push(Opened::new(log.header.clone()));
            workers.len() - 1
        });
        for frame in &log.frames {
            workers[at].take(frame.kind, frame.payload);
        }
    }
    let mut aborted = Vec::new();
    for mut opened in workers {
        opened.less_finished(segments)?;
        opened.write(folder, segments, &mut aborted)?;
    }
    for path in logs {
        fs::remove_file(path)?;
    }
    Ok(aborted)
}

/// What a worker had open.
struct Opened {
    header: Header,
    /// In the order opened.
    records: Vec<(Key, u8, Vec<u8>)>,
    /// Of the records: one that was moved to another file is there twice.
    keys: HashSet<Key>,
    closed: HashSet<Key>,
}

impl Opened {
    fn new(header: Header) -> Self {
        Self {
            header,
            records: Vec::new(),
            keys: HashSet::default(),
            closed: HashSet::default(),
        }
    }

    fn take(&mut self, kind: u8, payload: &[u8]) {
        let Some(key) = key_of(payload) else { return };
        if kind == CLOSED {
            self.closed.insert(key);
        } else if self.keys.insert(key) {
            self.records.push((key, kind, payload.to_vec()));
        }
    }

    /// Drops the records that are closed, or in a segment.
    fn less_finished(&mut self, segments: &[Sealed]) -> io::Result<()> {
        self.records.retain(|record| !self.closed.contains(&record.0));
        let mut own: Vec<&Sealed> = segments.iter().filter(|s| s.worker == self.header.worker).collect();
        own.sort_by_key(|sealed| std::cmp::Reverse(sealed.sequence));
        let mut searched = 0;
        for sealed in own {
            if self.records.is_empty() || searched > SEARCH_BYTES {
                break;
            }
            searched += sealed.bytes;
            let bytes = sealed.read()?;
            // One that cannot be read is the shipper's business.
            let Ok(segment) = recover(&bytes) else { continue };
            let finished: HashSet<Key> = segment
                .frames
                .iter()
                .filter_map(|frame| key_of(frame.payload))
                .collect();
            self.records.retain(|record| !finished.contains(&record.0));
        }
        Ok(())
    }

    fn write(&self, folder: &Path, segments: &[Sealed], into: &mut Vec<Sealed>) -> io::Result<()> {
        let is_own = |sealed: &&Sealed| sealed.worker == self.header.worker && sealed.sequence >= ABORTED_SEQUENCE;
        let mut sequence = ABORTED_SEQUENCE + segments.iter().filter(is_own).count() as u64;
        let mut records = self.records.as_slice();
        while !records.is_empty() {
            let mut batch = Vec::new();
            let mut frames = 0;
            while let Some(((_, kind, payload), rest)) = records.split_first()
                && batch.len() < ABORTED_BYTES
            {
                // It fitted once.
                let _ = push_frame(&mut batch, *kind, FRAME_MAX, |out| out.extend_from_slice(payload));
                frames += 1;
                records = rest;
            }
            let header = Header {
                sequence,
                salt: Salt(rand::random()),
                ..self.header.clone()
            };
            let seal = Seal {
                frames,
                payload_bytes: batch.len() as u64,
            };
            stamp(&mut batch, header.salt, usize::MAX, u32::MAX);
            let mut page = encode_header(&header);
            let sealed = encode_seal(seal, header.salt);
            page[super::format::SEAL_AT..super::format::SEAL_AT + sealed.len()].copy_from_slice(&sealed);
            let path = segment_path(folder, header.worker, sequence);
            // Whole, or not there at all.
            let unfinished = path.with_extension(UNFINISHED);
            fs::write(&unfinished, [&page[..], &batch].concat())?;
            File::open(&unfinished)?.sync_data()?;
            fs::rename(&unfinished, &path)?;
            into.push(Sealed::new(path, &header, seal));
            sequence += 1;
        }
        Ok(())
    }
}

/// Ending of a segment that is being written from open frames.
pub const UNFINISHED: &str = "new";

#[cfg(test)]
mod tests;
