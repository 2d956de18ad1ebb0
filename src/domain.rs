//! The vocabulary: pure types and rules.
//!
//! Nothing here knows tokio, hyper, the file system, a clock or randomness; time and random numbers are arguments. So
//! every rule (which prompt, which arm, which text) can be tested without a socket.

pub mod content;
pub mod error;
pub mod exchange;
pub mod partial;
pub mod prompt;
pub mod split;
pub mod version;
