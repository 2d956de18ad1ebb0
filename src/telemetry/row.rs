//! Records as rows: the bytes ClickHouse takes (`INSERT … FORMAT RowBinary`), written once on the hot path and read in
//! place by every other sink. Pure.
//!
//! One table of columns says names, types and order for all: the encoder, the decoder, ClickHouse's schema and query,
//! SQLite's columns, and the JSON of the control plane. Tests hold the encoder and the records against it.

mod exchange;
pub mod json;

pub use exchange::{decode_exchange, encode_exchange};

use serde_json::{Value, json};

use super::rowbinary::{DecodeError, Reader, put_len, put_str, put_uuid};
use crate::domain::exchange::{Attempt, FeedbackRecord, RefusalsRecord};

/// What the rows in a segment mean; grows with every change to a column of any record. Columns are only ever added, at
/// the end: so rows of an older schema are a prefix of today's, and ship after an upgrade (see [`exchange_columns`]).
pub const EXCHANGE_SCHEMA_ID: u32 = 2;
/// How many columns an exchange row has, by schema, from 1.
const EXCHANGE_WIDTHS: [usize; EXCHANGE_SCHEMA_ID as usize] = [57, 58];
/// Kind of a spool frame that holds an exchange row.
pub const KIND_EXCHANGE: u8 = 1;
/// Kind of a spool frame that holds a feedback row.
pub const KIND_FEEDBACK: u8 = 2;
/// Kind of a spool frame that holds a refusals row.
pub const KIND_REFUSALS: u8 = 3;

/// One column of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// That of the record's field.
    pub name: &'static str,
    pub ty: Type,
}

/// Type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Uuid,
    /// Microseconds since the Unix epoch, UTC.
    Time,
    /// A text of few different values.
    Label,
    Text,
    /// A captured body: bytes that mostly, but not always, are UTF-8 and JSON.
    Content,
    U16,
    U32,
    U64,
    F64,
    Bool,
    Map,
    Texts,
    Attempts,
}

impl Type {
    /// The type's name in ClickHouse.
    pub fn clickhouse(self) -> &'static str {
        match self {
            Self::Uuid => "UUID",
            Self::Time => "DateTime64(6, 'UTC')",
            Self::Label => "LowCardinality(String)",
            Self::Text | Self::Content => "String",
            Self::U16 => "UInt16",
            Self::U32 => "UInt32",
            Self::U64 => "UInt64",
            Self::F64 => "Float64",
            Self::Bool => "Bool",
            Self::Map => "Map(String, String)",
            Self::Texts => "Array(String)",
            Self::Attempts => "Array(Tuple(target String, status UInt16, duration_us UInt64, error String))",
        }
    }
}

const fn column(name: &'static str, ty: Type) -> Column {
    Column { name, ty }
}

/// Columns of an exchange row, in the order encoded.
pub const EXCHANGE_COLUMNS: [Column; 58] = [
    column("exchange_id", Type::Uuid),
    column("started_at", Type::Time),
    column("node", Type::Label),
    column("generation", Type::U64),
    column("config_hash", Type::Label),
    column("key_id", Type::Label),
    column("environment", Type::Label),
    column("unit", Type::Text),
    column("user", Type::Text),
    column("session", Type::Text),
    column("tags", Type::Map),
    column("trace_id", Type::Text),
    column("span_id", Type::Text),
    column("client_retries", Type::U16),
    column("prompt_id", Type::Label),
    column("version", Type::U32),
    column("variant", Type::Label),
    column("assignment", Type::Label),
    column("deployment", Type::U32),
    column("experiment_id", Type::Label),
    column("document_ids", Type::Texts),
    column("endpoint", Type::Label),
    column("streaming", Type::Bool),
    column("request_model", Type::Text),
    column("model", Type::Label),
    column("response_model", Type::Label),
    column("provider", Type::Label),
    column("target", Type::Label),
    column("attempts", Type::Attempts),
    column("cache_status", Type::Label),
    column("outcome", Type::Label),
    column("error_kind", Type::Label),
    column("error_code", Type::Label),
    column("status_code", Type::U16),
    column("finish_reason", Type::Label),
    column("response_id", Type::Text),
    column("upstream_request_id", Type::Text),
    column("total_us", Type::U64),
    column("upstream_us", Type::U64),
    column("time_to_first_token_us", Type::U64),
    column("overhead_us", Type::U64),
    column("queue_us", Type::U64),
    column("input_tokens", Type::U32),
    column("cached_input_tokens", Type::U32),
    column("output_tokens", Type::U32),
    column("reasoning_tokens", Type::U32),
    column("total_tokens", Type::U32),
    column("tokens_estimated", Type::Bool),
    column("cost_nanodollars", Type::U64),
    column("request_bytes", Type::U64),
    column("response_bytes", Type::U64),
    column("variables", Type::Content),
    column("request", Type::Content),
    column("response", Type::Content),
    column("variables_truncated", Type::Bool),
    column("request_truncated", Type::Bool),
    column("response_truncated", Type::Bool),
    column("capture", Type::Label),
];

/// What `capture` is in rows that were written before it was there.
pub const CAPTURE_BEFORE: &str = "full";

/// Columns of the exchange rows that a schema's builds wrote; None for a schema this build does not know.
pub fn exchange_columns(schema: u32) -> Option<&'static [Column]> {
    let width = EXCHANGE_WIDTHS.get((schema as usize).checked_sub(1)?)?;
    Some(&EXCHANGE_COLUMNS[..*width])
}

/// Columns of a feedback row, in the order encoded.
pub const FEEDBACK_COLUMNS: [Column; 10] = [
    column("feedback_id", Type::Uuid),
    column("at", Type::Time),
    column("exchange_id", Type::Uuid),
    column("response_id", Type::Text),
    column("key_id", Type::Label),
    column("name", Type::Label),
    column("kind", Type::Label),
    column("number", Type::F64),
    column("text", Type::Text),
    column("comment", Type::Text),
];

/// Columns of a refusals row, in the order encoded.
pub const REFUSALS_COLUMNS: [Column; 9] = [
    column("refusals_id", Type::Uuid),
    column("since", Type::Time),
    column("until", Type::Time),
    column("node", Type::Label),
    column("key_id", Type::Label),
    column("endpoint", Type::Label),
    column("error_code", Type::Label),
    column("status_code", Type::U16),
    column("requests", Type::U64),
];

/// Appends a record as one RowBinary row.
pub fn encode_feedback(record: &FeedbackRecord<'_>, out: &mut Vec<u8>) {
    // Taken apart whole: a new field does not compile until it is encoded.
    let FeedbackRecord {
        feedback_id,
        at,
        exchange_id,
        response_id,
        key_id,
        name,
        kind,
        number,
        text,
        comment,
    } = record;
    put_uuid(out, feedback_id);
    out.extend_from_slice(&at.to_le_bytes());
    put_uuid(out, exchange_id);
    put_str(out, response_id);
    put_str(out, key_id);
    put_str(out, name);
    put_str(out, kind);
    out.extend_from_slice(&number.to_le_bytes());
    put_str(out, text);
    put_str(out, comment);
}

/// Decodes one row in place.
///
/// # Errors
/// The bytes are not one row of exactly these columns.
pub fn decode_feedback(row: &[u8]) -> Result<FeedbackRecord<'_>, DecodeError> {
    let mut row = Reader::new(row);
    let record = FeedbackRecord {
        feedback_id: row.uuid()?,
        at: row.i64()?,
        exchange_id: row.uuid()?,
        response_id: row.str()?,
        key_id: row.str()?,
        name: row.str()?,
        kind: row.str()?,
        number: row.f64()?,
        text: row.str()?,
        comment: row.str()?,
    };
    row.end()?;
    Ok(record)
}

/// Appends a record as one RowBinary row.
pub fn encode_refusals(record: &RefusalsRecord<'_>, out: &mut Vec<u8>) {
    // Taken apart whole: a new field does not compile until it is encoded.
    let RefusalsRecord {
        refusals_id,
        since,
        until,
        node,
        key_id,
        endpoint,
        error_code,
        status_code,
        requests,
    } = record;
    put_uuid(out, refusals_id);
    out.extend_from_slice(&since.to_le_bytes());
    out.extend_from_slice(&until.to_le_bytes());
    put_str(out, node);
    put_str(out, key_id);
    put_str(out, endpoint);
    put_str(out, error_code);
    out.extend_from_slice(&status_code.to_le_bytes());
    out.extend_from_slice(&requests.to_le_bytes());
}

/// Decodes one row in place.
///
/// # Errors
/// The bytes are not one row of exactly these columns.
pub fn decode_refusals(row: &[u8]) -> Result<RefusalsRecord<'_>, DecodeError> {
    let mut row = Reader::new(row);
    let record = RefusalsRecord {
        refusals_id: row.uuid()?,
        since: row.i64()?,
        until: row.i64()?,
        node: row.str()?,
        key_id: row.str()?,
        endpoint: row.str()?,
        error_code: row.str()?,
        status_code: row.u16()?,
        requests: row.u64()?,
    };
    row.end()?;
    Ok(record)
}

fn put_map(out: &mut Vec<u8>, map: &[(&str, &str)]) {
    put_len(out, map.len());
    for (key, value) in map {
        put_str(out, key);
        put_str(out, value);
    }
}

fn put_strs(out: &mut Vec<u8>, strs: &[&str]) {
    put_len(out, strs.len());
    strs.iter().for_each(|s| put_str(out, s));
}

fn put_attempts(out: &mut Vec<u8>, attempts: &[Attempt<'_>]) {
    put_len(out, attempts.len());
    for Attempt {
        target,
        status,
        duration_us,
        error,
    } in attempts
    {
        put_str(out, target);
        out.extend_from_slice(&status.to_le_bytes());
        out.extend_from_slice(&duration_us.to_le_bytes());
        put_str(out, error);
    }
}

impl<'a> Reader<'a> {
    /// A map, as pairs.
    pub fn map(&mut self) -> Result<Vec<(&'a str, &'a str)>, DecodeError> {
        self.many(|row| Ok((row.str()?, row.str()?)))
    }

    pub fn strs(&mut self) -> Result<Vec<&'a str>, DecodeError> {
        self.many(Self::str)
    }

    pub fn attempts(&mut self) -> Result<Vec<Attempt<'a>>, DecodeError> {
        self.many(|row| {
            Ok(Attempt {
                target: row.str()?,
                status: row.u16()?,
                duration_us: row.u64()?,
                error: row.str()?,
            })
        })
    }
}

/// A map as JSON; of a name that is there twice the last counts.
pub fn map_value(pairs: &[(&str, &str)]) -> Value {
    let map: serde_json::Map<String, Value> = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).into()))
        .collect();
    Value::Object(map)
}

/// An attempt as JSON.
pub fn attempt_value(attempt: &Attempt<'_>) -> Value {
    json!({
        "target": attempt.target,
        "status": attempt.status,
        "duration_us": attempt.duration_us,
        "error": attempt.error,
    })
}

#[cfg(test)]
pub(super) mod tests;
