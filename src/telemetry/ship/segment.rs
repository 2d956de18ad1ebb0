//! A segment's bytes as a batch. Pure.

use super::Dead;
use crate::spool::Sealed;
use crate::spool::format::{Header, HeaderError};
use crate::spool::recover::recover;
use crate::telemetry::dead::KIND_NOTE;
use crate::telemetry::row::{EXCHANGE_SCHEMA_ID, KIND_EXCHANGE, KIND_FEEDBACK, KIND_REFUSALS, exchange_columns};
use crate::telemetry::sink::Batch;

/// Why nothing of a segment can be shipped.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("header says {found}, the file name {named}")]
    Misnamed { found: String, named: String },
    #[error("rows have schema {0}, this build knows 1 to {EXCHANGE_SCHEMA_ID}")]
    Schema(u32),
}

/// What is in a segment.
#[derive(Debug)]
pub struct Decoded<'a> {
    pub header: Header,
    /// Its token is the segment's.
    pub batch: Batch<'a>,
    /// Frames of kinds that this build does not know.
    pub unknown: Vec<Dead<'a>>,
    /// All frames but notes.
    pub found: u64,
}

/// Sorts the frames of a segment by kind.
///
/// # Errors
/// The header cannot be read, or the rows mean what this build does not know.
pub fn decode(bytes: &[u8]) -> Result<Decoded<'_>, Unreadable> {
    let recovered = recover(bytes)?;
    let header = recovered.header;
    if exchange_columns(header.schema).is_none() {
        return Err(Unreadable::Schema(header.schema));
    }
    let mut decoded = Decoded {
        batch: Batch {
            token: format!("{}/{}-{}", header.boot, header.worker, header.sequence),
            schema: header.schema,
            ..Batch::default()
        },
        header,
        unknown: Vec::new(),
        found: 0,
    };
    for frame in &recovered.frames {
        let row = frame.payload;
        decoded.found += u64::from(frame.kind != KIND_NOTE);
        match frame.kind {
            KIND_EXCHANGE => decoded.batch.exchanges.push(row),
            KIND_FEEDBACK => decoded.batch.feedback.push(row),
            KIND_REFUSALS => decoded.batch.refusals.push(row),
            // Of a letter that is resent: what it says may no longer be so.
            KIND_NOTE => {}
            kind => decoded.unknown.push(Dead {
                kind,
                row,
                reason: format!("frame kind {kind} is not known to this build"),
            }),
        }
    }
    Ok(decoded)
}

/// Decodes a segment that must be the one its file's name says.
///
/// # Errors
/// As [`decode`]; or it is another.
pub fn decode_sealed<'a>(sealed: &Sealed, bytes: &'a [u8]) -> Result<Decoded<'a>, Unreadable> {
    let decoded = decode(bytes)?;
    let (found, named) = (decoded.batch.token.clone(), sealed.token());
    match found == named {
        true => Ok(decoded),
        false => Err(Unreadable::Misnamed { found, named }),
    }
}
