//! Says who calls: every route asks for `Authorization: Bearer <token>`.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

use super::AdminState;
use super::errors::Failure;
use crate::domain::error::{ApiError, ErrorCode};

/// Lets a request with a known token pass, with the [`Token`](crate::registry::Token) in its extensions.
pub async fn require_token(
    State(state): State<AdminState>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let known = match bearer(request.headers()) {
        Some(token) => state.registry.authenticate_token(token).await?,
        None => None,
    };
    // Always the same text, so that nothing can be learnt from it.
    let Some(token) = known else {
        let message = "no valid admin token, send it as \"Authorization: Bearer <token>\"";
        return Err(ApiError::new(ErrorCode::InvalidApiKey, message).into());
    };
    request.extensions_mut().insert(token);
    Ok(next.run(request).await)
}

/// Source: RFC 6750, section 2.1; the scheme's name has no case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
