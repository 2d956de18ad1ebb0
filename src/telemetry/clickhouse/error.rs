//! What a failure says about the fate of an INSERT.
//!
//! Three classes matter. *Certain*: nothing was stored, since the server was never reached or refused before writing.
//! *Poison*: certain, and the rows are to blame. *In doubt*: anything else; a lost answer, a timeout, a broken
//! connection, and also most errors the server reports, since a view may fail after the table was written.

use std::error::Error as _;

use clickhouse::error::Error;
use hyper_util::client::legacy;

/// Codes with which ClickHouse says that bytes are not the rows they should be: text, quoted text, date, datetime,
/// number, assertion, end of input, short read, too large, incorrect data.
///
/// Source: `src/Common/ErrorCodes.cpp` of ClickHouse.
const PARSE_CODES: [u32; 14] = [6, 25, 26, 27, 32, 33, 38, 41, 72, 117, 128, 130, 131, 675];

/// Codes that are raised before an INSERT writes: unknown column, function, identifier, table, database, setting;
/// syntax; read-only; users, passwords and rights.
const REFUSED_CODES: [u32; 16] = [16, 46, 47, 60, 62, 73, 81, 115, 164, 192, 193, 194, 291, 395, 497, 516];

/// `UNKNOWN_TABLE` and `UNKNOWN_DATABASE`.
const ABSENT_CODES: [u32; 2] = [60, 81];

/// Why ClickHouse did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClickHouseError {
    #[error("clickhouse cannot be reached: {0}")]
    Unreachable(String),
    /// The server's own words.
    #[error("clickhouse answered: {message}")]
    Answered { code: u32, message: String },
    /// No answer, or one that is not ClickHouse's.
    #[error("clickhouse: {0}")]
    Unknown(String),
    #[error("clickhouse did not answer in time")]
    Timeout,
    #[error("clickhouse: migration {version} ({name}) was applied with another text, {found}; this build has {known}")]
    Changed {
        version: u32,
        name: &'static str,
        found: String,
        known: String,
    },
    #[error("clickhouse: the database has migration {found}, this build knows {known}; run the newer build again")]
    Newer { found: u32, known: u32 },
    #[error("clickhouse: another process holds the migration lock since {seconds} s, waiting")]
    Locked { seconds: u64 },
    /// Nothing was stored: another server may have the batch, and cannot be asked yet.
    #[error("clickhouse: a server that may have the batch cannot be asked, waiting: {0}")]
    Unasked(String),
    #[error("clickhouse: rows have schema {0}, which this build does not know")]
    Schema(u32),
    #[error("clickhouse: an answer cannot be read: {0}")]
    Decode(#[from] crate::telemetry::rowbinary::DecodeError),
}

impl ClickHouseError {
    /// Whether the rows are at fault.
    pub fn is_poison(&self) -> bool {
        self.has_code(&PARSE_CODES)
    }

    /// Whether it is certain that an INSERT has stored nothing.
    pub fn is_certain(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Schema(_) | Self::Unasked(_))
            || self.has_code(&PARSE_CODES)
            || self.has_code(&REFUSED_CODES)
    }

    /// Whether the table or database is not there.
    pub fn is_absent(&self) -> bool {
        self.has_code(&ABSENT_CODES)
    }

    /// Whether the server was not to be had, rather than unwilling.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Unknown(_) | Self::Timeout) || self.is_absent()
    }

    pub(super) fn has_code(&self, codes: &[u32]) -> bool {
        matches!(self, Self::Answered { code, .. } if codes.contains(code))
    }
}

impl From<Error> for ClickHouseError {
    fn from(error: Error) -> Self {
        match error {
            Error::BadResponse(message) => match code_of(&message) {
                Some(code) => Self::Answered { code, message },
                None => Self::Unknown(message),
            },
            Error::TimedOut => Self::Timeout,
            Error::Network(source) => {
                let connecting = source
                    .downcast_ref::<legacy::Error>()
                    .is_some_and(legacy::Error::is_connect);
                // The outer texts say no more than "client error"; the reason is the innermost.
                let mut reason: &dyn std::error::Error = &*source;
                while let Some(inner) = reason.source() {
                    reason = inner;
                }
                match connecting {
                    true => Self::Unreachable(reason.to_string()),
                    false => Self::Unknown(reason.to_string()),
                }
            }
            other => Self::Unknown(match other.source() {
                Some(source) => format!("{other}: {source}"),
                None => other.to_string(),
            }),
        }
    }
}

/// The number in `Code: 60. DB::Exception: …`.
fn code_of(message: &str) -> Option<u32> {
    let rest = &message[message.find("Code: ")? + 6..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_by_their_code() {
        let of = |text: &str| ClickHouseError::from(Error::BadResponse(text.to_owned()));
        let parse = of("Code: 33. DB::Exception: Cannot read all data. (CANNOT_READ_ALL_DATA) (version 26.9)");
        assert!(parse.is_poison() && parse.is_certain() && !parse.is_outage());
        let memory = of("Code: 241. DB::Exception: (total) memory limit exceeded");
        assert!(!memory.is_poison() && !memory.is_certain() && !memory.is_outage());
        let absent = of("Code: 60. DB::Exception: Table x.exchanges does not exist");
        assert!(!absent.is_poison() && absent.is_certain() && absent.is_absent());
        let proxy = of("502 Bad Gateway");
        assert!(!proxy.is_poison() && !proxy.is_certain() && proxy.is_outage());
    }
}
