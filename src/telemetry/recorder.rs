//! A worker's end of telemetry: encodes records into its spool writer.

use super::row::{KIND_EXCHANGE, KIND_FEEDBACK, encode_exchange, encode_feedback};
use crate::domain::exchange::{ExchangeRecord, FeedbackRecord};
use crate::spool::{Flushed, Ticket, Writer, WriterSeed};

/// Makes a [`Recorder`] in its worker's thread.
#[derive(Debug)]
pub struct RecorderSeed {
    pub(super) writer: Option<WriterSeed>,
}

impl RecorderSeed {
    /// Makes the recorder and starts its flusher; call it on the worker's `LocalSet`.
    pub fn into_recorder(self) -> Recorder {
        Recorder {
            writer: self.writer.map(WriterSeed::start),
        }
    }
}

/// Records exchanges and feedback. Cheap to clone; stays in its thread. With recording off it does nothing.
#[derive(Debug, Clone)]
pub struct Recorder {
    writer: Option<Writer>,
}

impl Recorder {
    /// Encodes an exchange record. Never fails, never waits.
    pub fn exchange(&self, record: &ExchangeRecord<'_>) -> Ticket {
        self.append(KIND_EXCHANGE, |out| encode_exchange(record, out))
    }

    /// Encodes a feedback record. Never fails, never waits.
    pub fn feedback(&self, record: &FeedbackRecord<'_>) -> Ticket {
        self.append(KIND_FEEDBACK, |out| encode_feedback(record, out))
    }

    fn append(&self, kind: u8, encode: impl FnOnce(&mut Vec<u8>)) -> Ticket {
        self.writer
            .as_ref()
            .map_or_else(Ticket::default, |writer| writer.append(kind, encode))
    }

    /// Waits until the record is in the kernel's hands (or counted as lost); ready at once with recording off. Safe to
    /// drop.
    pub fn flushed(&self, ticket: Ticket) -> Flushed {
        self.writer
            .as_ref()
            .map_or_else(Flushed::ready, |writer| writer.flushed(ticket))
    }

    /// Whether records are kept at all: if not, what is only recorded need not be gathered.
    pub fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Writes and seals what there is; the worker's last act. What is recorded afterwards is written at once, and
    /// shipped at the next start.
    pub async fn close(&self) {
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }
}
