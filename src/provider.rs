//! What providers speak: paths, the meaning of answers and of streamed chunks.
//!
//! One file a dialect. Nothing here does IO: bytes go in, facts come out.

pub mod openai;
pub mod sse;
pub mod text;
