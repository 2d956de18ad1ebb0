//! The vocabulary: pure types and rules.
//!
//! Nothing here knows tokio, hyper, the file system, a clock or randomness; time and random numbers are arguments. So
//! every rule (which prompt, which arm, which text) can be tested without a socket.

pub mod audit;
pub mod content;
pub mod diff;
pub mod error;
pub mod exchange;
pub mod folder;
pub mod json;
pub mod partial;
pub mod pattern;
pub mod preflight;
pub mod price;
pub mod prompt;
pub mod pseudonym;
pub mod rendering;
pub mod review;
pub mod role;
pub mod scrub;
pub mod search;
pub mod shift;
pub mod split;
pub mod template;
pub mod text_size;
pub mod usage;
pub mod variables;
pub mod version;
pub mod webhook;
