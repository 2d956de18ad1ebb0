//! Connections to providers.
//!
//! Each worker has a [`Pool`] of its own: a connection never changes threads, and taking one needs no lock. A connection
//! goes back to the pool when its answer has been read to the end; an answer dropped half-way closes it, which is how
//! a caller that leaves cancels its provider call.
//!
//! Hosts come from the configuration only, never from a request, and redirects are not followed.

mod connect;
mod endpoint;
mod pool;

pub use endpoint::{Endpoint, EndpointError, public_tls};
pub use pool::{Pool, SendError, UpstreamBody};
