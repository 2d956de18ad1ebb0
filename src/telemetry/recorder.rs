//! A worker's end of telemetry: encodes records into its spool writer.

use uuid::Uuid;

use super::row::{KIND_EXCHANGE, KIND_FEEDBACK, KIND_REFUSALS, encode_exchange, encode_feedback, encode_refusals};
use super::rowbinary::put_uuid;
use crate::domain::exchange::{ExchangeRecord, FeedbackRecord, RefusalsRecord};
use crate::spool::{Flushed, KEY_LEN, Level, Refused, Reservation, Ticket, Writer, WriterSeed};

/// Room promised to each request where a full spool refuses requests: a record without its content.
const RECORD_BYTES: u64 = 32 << 10;

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
    /// Encodes an exchange record. Never fails, never waits. Where there is little room, its content is left out.
    pub fn exchange(&self, record: &ExchangeRecord<'_>) -> Ticket {
        let Some(writer) = &self.writer else {
            return Ticket::default();
        };
        let encode = |record: &ExchangeRecord<'_>| writer.append(KIND_EXCHANGE, |out| encode_exchange(record, out));
        let appended = if record.has_content() && writer.level() > Level::Plenty {
            Err(Refused::Full)
        } else {
            encode(record)
        };
        let appended = match appended {
            Err(_) if record.has_content() => {
                writer.count_shed();
                encode(&record.clone().without_content())
            }
            appended => appended,
        };
        appended.unwrap_or_else(|why| writer.lose(why))
    }

    /// Encodes a feedback record. Never fails, never waits.
    pub fn feedback(&self, record: &FeedbackRecord<'_>) -> Ticket {
        let Some(writer) = &self.writer else {
            return Ticket::default();
        };
        let appended = writer.append(KIND_FEEDBACK, |out| encode_feedback(record, out));
        appended.unwrap_or_else(|why: Refused| writer.lose(why))
    }

    /// Encodes a row of refusals, also when the spool is full. Never fails, never waits.
    pub fn refusals(&self, record: &RefusalsRecord<'_>) {
        if let Some(writer) = &self.writer {
            let appended = writer.append_aggregate(KIND_REFUSALS, |out| encode_refusals(record, out));
            appended.unwrap_or_else(|why| writer.lose(why));
        }
    }

    /// Encodes what is known of a call that is not over, for [`note_open`](Self::note_open).
    pub fn encode_open(&self, record: &ExchangeRecord<'_>) -> Vec<u8> {
        let mut row = Vec::new();
        if self.is_on() {
            encode_exchange(record, &mut row);
        }
        row
    }

    /// Notes a call that takes long: should this process die before it records the exchange, the next one records this.
    pub fn note_open(&self, row: &[u8]) {
        if let Some(writer) = &self.writer {
            writer.opened(KIND_EXCHANGE, |out| out.extend_from_slice(row));
        }
    }

    /// Says that a call noted as open has been recorded; call it right after that.
    pub fn note_closed(&self, exchange_id: &Uuid) {
        if let Some(writer) = &self.writer {
            // As at the beginning of the row.
            let mut key = Vec::with_capacity(KEY_LEN);
            put_uuid(&mut key, exchange_id);
            if let Some(key) = key.first_chunk() {
                writer.closed(*key);
            }
        }
    }

    /// Waits until the record is as durable as the configuration asks (or counted as lost); ready at once with recording
    /// off. Safe to drop.
    pub fn flushed(&self, ticket: Ticket) -> Flushed {
        self.writer
            .as_ref()
            .map_or_else(Flushed::ready, |writer| writer.flushed(ticket))
    }

    /// Whether records are kept at all: if not, what is only recorded need not be gathered.
    pub fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Promises room to the record of a request; None if the spool is full, and always with recording off.
    pub fn reserve(&self) -> Option<Reservation> {
        self.writer.as_ref()?.reserve(RECORD_BYTES)
    }

    /// Takes over how full the spool has become by others; call it now and then.
    pub fn refresh(&self) {
        if let Some(writer) = &self.writer {
            writer.refresh();
        }
    }

    /// Writes and seals what there is; the worker's last act. What is recorded afterwards is written at once, and
    /// shipped at the next start.
    pub async fn close(&self) {
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }
}
