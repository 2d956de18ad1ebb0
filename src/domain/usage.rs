//! Token counts of one exchange.

/// Tokens as the provider counts them; `cached_input` is part of `input`, `reasoning` part of `output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub input: u32,
    pub cached_input: u32,
    pub output: u32,
    pub reasoning: u32,
    pub total: u32,
}
