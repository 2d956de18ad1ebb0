//! What is recorded of each exchange, and where it goes.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::units::{GIB, MIB};

const DEFAULT_SQLITE_PATH: &str = "data/telemetry.db";

const SEAL_AFTER: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(300);

/// `[telemetry]`: what is recorded of each exchange, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    pub sink: Sink,
    pub durability: Durability,
    pub when_full: WhenFull,
    pub capture: Capture,
    /// Bytes kept of each captured field; the rest is cut and flagged.
    pub capture_max_field: u64,
    /// Folder of the segment files, relative to the working directory.
    pub spool_dir: PathBuf,
    /// Bytes of all segment files together.
    pub spool_max_bytes: u64,
    /// Age at which a segment goes to the sink, however small.
    pub seal_after: Duration,
}

/// Where exchange records end up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// A file of this process, relative to the working directory.
    Sqlite { path: PathBuf },
    /// Nowhere: exchanges are counted, not kept.
    None,
}

/// What a finished exchange survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The end of this process, also by `kill -9`; not the loss of power.
    Process,
}

/// What happens to a record when the spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped, counted and alarmed; requests go on.
    Drop,
}

/// Which content is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// Variables, requests and responses.
    Full,
    /// None of it: sizes, times, tokens and costs only.
    Metadata,
}

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry {
            sink: Sink::Sqlite {
                path: PathBuf::from(DEFAULT_SQLITE_PATH),
            },
            durability: Durability::Process,
            when_full: WhenFull::Drop,
            capture: Capture::Full,
            capture_max_field: MIB,
            spool_dir: PathBuf::from("data/spool"),
            spool_max_bytes: 16 * GIB,
            seal_after: Duration::from_secs(1),
        }
    }
}

impl Telemetry {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        /// The words of `sink`; its settings are keys of their own.
        #[derive(Clone, Copy)]
        enum Word {
            Sqlite,
            None,
        }
        // A word without a value is known, but not in this build yet.
        let sinks = [
            ("sqlite", Some(Word::Sqlite)),
            ("none", Some(Word::None)),
            ("clickhouse", None),
        ];
        let durabilities = [
            ("process", Some(Durability::Process)),
            ("disk", None),
            ("relaxed", None),
        ];
        let fates = [("drop", Some(WhenFull::Drop)), ("reject", None)];
        let captures = [("full", Some(Capture::Full)), ("metadata", Some(Capture::Metadata))];

        let default = Telemetry::default();
        let word = r.choice("sink", Word::Sqlite, &sinks);
        let sqlite_path = r.path("sqlite_path", DEFAULT_SQLITE_PATH);
        r.refuse("clickhouse", "this table is not available in this build yet");
        Telemetry {
            sink: match word {
                Word::Sqlite => sqlite_path.map_or(default.sink, |path| Sink::Sqlite { path }),
                Word::None => Sink::None,
            },
            durability: r.choice("durability", default.durability, &durabilities),
            when_full: r.choice("when_full", default.when_full, &fates),
            capture: r.choice("capture", default.capture, &captures),
            capture_max_field: r.size("capture_max_field", default.capture_max_field, 256..=64 * MIB),
            spool_dir: r.path("spool_dir", "data/spool").unwrap_or(default.spool_dir),
            spool_max_bytes: r.size("spool_max_bytes", default.spool_max_bytes, MIB..=1024 * 1024 * GIB),
            seal_after: r.duration("seal_after", default.seal_after, SEAL_AFTER),
        }
    }
}
