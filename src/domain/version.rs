//! Stand-in for the compiler of versions.

use super::content::Content;

/// One thing that is wrong with a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `messages[0].content`.
    pub path: String,
    pub message: String,
}

/// Says everything that is wrong with an effective content.
///
/// # Errors
/// Every problem found.
pub fn check(content: &Content) -> Result<(), Vec<Problem>> {
    let _ = content;
    Ok(())
}
