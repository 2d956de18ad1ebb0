//! Lets every request run to its end.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::errors::Failure;

/// Runs a request in a task of its own.
///
/// So a caller that leaves between the commit of a change and its publication does not leave this node behind the
/// registry, and a panic becomes an answer instead of a reset connection.
pub async fn run_to_the_end(request: Request, next: Next) -> Response {
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "a handler of the control plane failed");
            Failure::internal().into_response()
        }
    }
}
