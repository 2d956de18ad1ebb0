//! The compiled table that requests read, and how a change becomes a new one.
//!
//! A [`Snapshot`] is immutable. A request loads the current one once, and finds in it, ready to use: its key, its prompt
//! with the live arms compiled, the model and its targets. The [`Publisher`] builds the next snapshot from the registry's
//! changes, sharing everything that did not change, and swaps it in; a request sees the old table or the new one, never
//! a mix. Swaps never move backwards. On a shared registry the last state is also kept in a [`SnapshotFile`], to start from while
//! the registry is away.
//!
//! Requests keep the parts they use, not the table: old tables are freed by the publisher, so that no request pays for
//! it.

mod build;
mod cell;
mod file;
mod pinned;
mod publisher;
mod routing;
mod sharded;
mod tables;

pub use cell::Cell;
pub use file::{FileError, Loaded, SnapshotFile};
pub use pinned::{Pinned, PinnedError};
pub use publisher::{Following, Publisher};
pub use routing::{Model, Routing, RoutingError, Target};
pub use tables::{Arm, Key, Live, PromptEntry, Snapshot};
