//! The data plane.
//!
//! A request is a straight line through [`pipeline`], and the files are its stages in order:
//!
//! ```text
//! admit     the key, the generation waited for, the body within its limits
//! reference which prompt is meant, from any of the places that may say so
//! resolve   the prompt, its version and variant: a pure function of the snapshot
//! shape     the body for the provider, rendered or passed through
//! forward   attempts against the model's targets
//! relay     the answer's bytes to the caller, watched for usage
//! finish    the record, before the last bytes leave
//! ```
//!
//! [`exchange::Exchange`] is the context that goes along; its `Drop` records every exit that is not a return, and
//! [`open_calls`] sees to those that a `kill -9` would lose.

mod admit;
mod answer;
mod body;
mod captured;
mod estimate;
mod exchange;
mod feedback;
mod finish;
mod forward;
mod models;
mod open_calls;
mod pipeline;
mod reference;
mod refusals;
mod relay;
mod render;
mod resolve;
mod route;
mod series;
mod shape;
mod show;
mod worker;

pub use body::Body;
pub use open_calls::SWEEP_EVERY;
pub use pipeline::serve;
pub use worker::{Settings, Worker, WorkerParts};
