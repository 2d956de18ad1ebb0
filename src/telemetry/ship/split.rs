//! A batch with rows that the sink can never take: the good ones are stored, the others found out.
//!
//! Only what the sink has definitely refused to parse is split. First go the rows that this build cannot read itself;
//! the rest is halved until the sink takes it or a single row is left. Nothing needs to be written down about that: each
//! piece is asked for row by row, and its token is made of its bytes. So a split that is done again after a crash, even
//! along other lines, stores nothing twice, and a token never goes with other bytes.
//!
//! A sink that refuses every row is not met with bad rows but has a table that was changed: after some, the split is
//! given up, and the batch waits.

use super::super::row::{KIND_EXCHANGE, KIND_FEEDBACK, KIND_REFUSALS};
use super::super::row::{decode_exchange, decode_feedback, decode_refusals};
use super::super::sink::{Batch, Sink, SinkError};

/// Refused rows after which a sink that took none is no longer believed.
const REFUSED_MAX: usize = 16;

/// A row that cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead<'a> {
    /// That of its frame.
    pub kind: u8,
    pub row: &'a [u8],
    pub reason: String,
}

/// What became of a batch that was split.
#[derive(Debug, Default)]
pub struct Split<'a> {
    pub stored: u64,
    pub dead: Vec<Dead<'a>>,
}

/// Stores what can be stored of a batch.
///
/// # Errors
/// The sink fails for other reasons than the rows, or refuses them all: try again later.
pub async fn split<'a>(sink: &mut Sink, batch: &Batch<'a>) -> Result<Split<'a>, SinkError> {
    let mut split = Split::default();
    let mut sound = Vec::with_capacity(batch.rows());
    for (kind, row) in rows(batch) {
        match decode(batch.schema, kind, row) {
            Ok(()) => sound.push((kind, row)),
            Err(reason) => split.dead.push(Dead { kind, row, reason }),
        }
    }
    let mut refused = 0;
    let mut work = vec![&sound[..]];
    while let Some(rows) = work.pop() {
        if rows.is_empty() {
            continue;
        }
        match sink.store(&piece(batch, rows)).await {
            Ok(_) => split.stored += rows.len() as u64,
            Err(error) if !error.is_poison() => return Err(error),
            Err(error) if rows.len() == 1 => {
                refused += 1;
                if split.stored == 0 && refused > REFUSED_MAX {
                    return Err(error);
                }
                let (kind, row) = rows[0];
                let reason = error.to_string();
                split.dead.push(Dead { kind, row, reason });
            }
            Err(_) => {
                let (first, second) = rows.split_at(rows.len() / 2);
                work.extend([second, first]);
            }
        }
    }
    Ok(split)
}

/// The rows of a batch with their frames' kinds.
fn rows<'a>(batch: &Batch<'a>) -> impl Iterator<Item = (u8, &'a [u8])> {
    let of = |kind, rows: &[&'a [u8]]| rows.iter().map(move |row| (kind, *row)).collect::<Vec<_>>();
    of(KIND_EXCHANGE, &batch.exchanges)
        .into_iter()
        .chain(of(KIND_FEEDBACK, &batch.feedback))
        .chain(of(KIND_REFUSALS, &batch.refusals))
}

fn piece<'a>(batch: &Batch<'a>, rows: &[(u8, &'a [u8])]) -> Batch<'a> {
    let of = |wanted| {
        rows.iter()
            .filter(|(kind, _)| *kind == wanted)
            .map(|(_, row)| *row)
            .collect()
    };
    Batch {
        token: batch.token.clone(),
        schema: batch.schema,
        piece: true,
        doubt_since: batch.doubt_since,
        exchanges: of(KIND_EXCHANGE),
        feedback: of(KIND_FEEDBACK),
        refusals: of(KIND_REFUSALS),
    }
}

/// Whether this build can read a row; the error says why not.
fn decode(schema: u32, kind: u8, row: &[u8]) -> Result<(), String> {
    let decoded = match kind {
        KIND_EXCHANGE => decode_exchange(schema, row).map(drop),
        KIND_FEEDBACK => decode_feedback(row).map(drop),
        _ => decode_refusals(row).map(drop),
    };
    decoded.map_err(|error| error.to_string())
}
