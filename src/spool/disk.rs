//! A worker's segments: a batch in, frames in files and sealed segments out. Never fails: what it cannot write it counts
//! as lost.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::format::{HEADER_LEN, Header, Salt, count_frames, stamp};
use super::log_gate::LogGate;
use super::segment::Segment;
use super::stats::WorkerStats;
use super::sync::Written;

/// Pause after a segment could not be opened; records in between are lost (and counted) without another try, so that a
/// full disk does not also slow the answers.
const OPEN_RETRY_AFTER: Duration = Duration::from_millis(250);

/// The file side of a writer.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    worker: usize,
    segment: Option<Segment>,
    seal_at: Option<Instant>,
    retry_open_at: Option<Instant>,
    /// What is to be synced, for durability `disk`.
    written: Written,
    gate: LogGate,
}

impl Disk {
    pub fn new(shared: Arc<Shared>, worker: usize) -> Self {
        Self {
            shared,
            worker,
            segment: None,
            seal_at: None,
            retry_open_at: None,
            written: Written::default(),
            gate: LogGate::default(),
        }
    }

    /// When the open segment is due; None if none is open.
    pub fn seal_at(&self) -> Option<Instant> {
        self.seal_at
    }

    /// Returns what was written since the last call, for the syncer.
    pub fn take_written(&mut self) -> Written {
        std::mem::take(&mut self.written)
    }

    /// Counts a record that is not kept since the spool is full.
    pub fn refuse_full(&mut self) {
        self.stats().full.fetch_add(1, Relaxed);
        self.lose(1);
        if let Some(suppressed) = self.gate.pass() {
            let room = &self.shared.room;
            tracing::error!(
                used_bytes = room.used(),
                capacity_bytes = room.capacity(),
                suppressed,
                "the spool is full, records are being lost; is the sink down? see telemetry.spool_max_bytes"
            );
        }
    }

    /// Counts a record that no segment has room for.
    pub fn refuse(&mut self, bytes: usize) {
        self.stats().too_large.fetch_add(1, Relaxed);
        self.lose(1);
        if let Some(suppressed) = self.gate.pass() {
            tracing::error!(
                bytes,
                suppressed,
                "record is larger than a whole spool segment, not kept"
            );
        }
    }

    fn stats(&self) -> &WorkerStats {
        &self.shared.stats.workers[self.worker]
    }

    fn lose(&self, records: u64) {
        self.stats().lost.fetch_add(records, Relaxed);
    }

    /// Writes a batch into as many segments as it takes. A batch that cannot be written is tried once more in a new
    /// segment: the file may be at fault, and not the disk.
    pub fn write(&mut self, batch: &mut [u8]) {
        let frames_max = self.shared.options.segment_frames.max(1);
        let mut retried = false;
        let mut at = 0;
        while at < batch.len() {
            let Some(segment) = self.open_segment() else {
                self.lose(count_frames(&batch[at..]));
                return;
            };
            let frames_left = frames_max.saturating_sub(segment.frames());
            let (len, frames) = stamp(&mut batch[at..], segment.header().salt, segment.space(), frames_left);
            if frames == 0 {
                // An empty segment has room for any frame `append` lets through.
                debug_assert!(segment.frames() > 0, "a fresh segment takes at least one frame");
                self.seal();
                continue;
            }
            match segment.write(&batch[at..at + len], frames) {
                Ok(()) => {
                    let file = Arc::clone(segment.file());
                    if self.shared.syncer.is_some() {
                        self.written.files.push(file);
                    }
                    self.stats().written_bytes.fetch_add(len as u64, Relaxed);
                    (at, retried) = (at + len, false);
                }
                Err(error) => {
                    self.stats().write_errors.fetch_add(1, Relaxed);
                    if let Some(suppressed) = self.gate.pass() {
                        tracing::error!(%error, suppressed, retried, "cannot write to the spool segment");
                    }
                    self.seal();
                    if retried {
                        self.lose(u64::from(frames));
                        at += len;
                    }
                    retried = !retried;
                }
            }
        }
    }

    fn open_segment(&mut self) -> Option<&mut Segment> {
        if self.segment.is_none() {
            self.begin_segment();
        }
        self.segment.as_mut()
    }

    /// Begins a new segment, unless one could not be begun a moment ago.
    fn begin_segment(&mut self) {
        let now = Instant::now();
        if self.retry_open_at.is_some_and(|at| now < at) {
            return;
        }
        let shared = &self.shared;
        let header = Header {
            boot: shared.options.boot.clone(),
            worker: u32::try_from(self.worker).unwrap_or(u32::MAX),
            sequence: shared.next_sequence.fetch_add(1, Relaxed) + 1,
            schema: shared.options.schema,
            salt: Salt(rand::random()),
            created_at: jiff::Timestamp::now().as_microsecond(),
        };
        let created_at = header.created_at;
        match Segment::open(&shared.pool, &shared.boot_folder, shared.options.segment_bytes, header) {
            Ok(segment) => {
                self.segment = Some(segment);
                self.written.renamed = true;
                self.shared.room.set_broken(false);
                self.seal_at = Some(now + shared.options.seal_after);
                self.retry_open_at = None;
                self.stats().written_bytes.fetch_add(HEADER_LEN as u64, Relaxed);
                self.stats().open_since.store(created_at, Relaxed);
            }
            Err(error) => {
                self.shared.room.set_broken(true);
                self.retry_open_at = Some(now + OPEN_RETRY_AFTER);
                self.stats().write_errors.fetch_add(1, Relaxed);
                if let Some(suppressed) = self.gate.pass() {
                    tracing::error!(%error, suppressed, "cannot open a spool segment, records are being lost");
                }
            }
        }
    }

    /// Seals the open segment, if there is one, and hands it to the shipper.
    pub fn seal(&mut self) {
        self.seal_at = None;
        let Some(segment) = self.segment.take() else { return };
        if segment.frames() == 0 {
            // Only after a failed first write; the file has told us that it is no good.
            let _ = std::fs::remove_file(segment.path());
            self.shared.stats.released_bytes.fetch_add(HEADER_LEN as u64, Relaxed);
        } else {
            let (sealed, written) = segment.seal();
            if let Err(error) = written
                && let Some(suppressed) = self.gate.pass()
            {
                tracing::error!(%error, suppressed, "cannot seal the spool segment; its frames are recovered without");
            }
            self.stats().sealed.fetch_add(1, Relaxed);
            // Without a receiver we are past shutdown: the next start finds the file.
            let _ = self.shared.sealed.send(sealed);
        }
        self.stats().open_since.store(0, Relaxed);
    }
}
