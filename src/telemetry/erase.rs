//! Erasing the content of exchanges that are stored: variables, request, response, tags, session, and the texts of
//! feedback. What is counted (times, tokens, costs, outcomes) stays, and so do the pseudonyms: `capture` becomes `erased`.
//!
//! It can be repeated at any time: what is erased is not touched again.

/// Whose exchanges, up to when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erase {
    /// As in the columns `user` and `unit`: hexadecimal digits.
    pub user_hash: String,
    /// Those that began by then, µs since the epoch.
    pub until: i64,
}

/// What `capture` is of an erased exchange.
pub const ERASED: &str = "erased";
