//! Seek pagination: a page says where the next one begins, so pages stay right while rows are added.

use super::RegistryError;

/// The most items of one page.
pub const MAX_PAGE: u32 = 200;

/// Which page is asked for.
#[derive(Debug, Clone, Copy)]
pub struct PageOf<'a> {
    /// At most [`MAX_PAGE`].
    pub limit: u32,
    /// `next_cursor` of the page before.
    pub cursor: Option<&'a str>,
}

/// Some items, and where the next page begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next_cursor: Option<String>,
}

impl PageOf<'_> {
    /// How many rows to read: one more than asked for tells whether there is a next page.
    pub(super) fn rows(self) -> i64 {
        i64::from(self.limit.clamp(1, MAX_PAGE)) + 1
    }

    /// The cursor of lists that run downwards by number: items below it are wanted.
    pub(super) fn below(self) -> Result<i64, RegistryError> {
        let Some(cursor) = self.cursor else {
            return Ok(i64::MAX);
        };
        cursor.parse().map_err(|_| self.not_a_cursor(cursor))
    }

    /// The refusal of what is not a cursor of the list.
    pub(super) fn not_a_cursor(self, cursor: &str) -> RegistryError {
        RegistryError::InvalidField {
            field: "cursor",
            message: format!("{cursor:?} is not a cursor of this list, use the next_cursor of the page before"),
        }
    }

    /// Makes the page of up to one row too many.
    pub(super) fn page<T>(self, mut items: Vec<T>, cursor_of: impl Fn(&T) -> String) -> Page<T> {
        let limit = self.limit.clamp(1, MAX_PAGE) as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(cursor_of);
        Page { items, next_cursor }
    }
}
