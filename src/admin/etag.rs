//! Entity tags: numbers in quotes, so that two people never overwrite each other unseen.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use super::errors::Failure;
use crate::domain::error::{ApiError, ErrorCode};

/// Adds the tag of what is answered.
pub fn tagged(mut response: Response, number: u64) -> Response {
    let etag = HeaderValue::from_str(&format!("\"{number}\"")).expect("digits in quotes are a header value");
    response.headers_mut().insert(header::ETAG, etag);
    response
}

/// Reads which state the caller saw, if it says so.
///
/// # Errors
/// 400 for anything but a number in quotes.
pub fn expected<T: std::str::FromStr>(headers: &HeaderMap) -> Result<Option<T>, Failure> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let number = value
        .to_str()
        .ok()
        .and_then(|etag| etag.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(ApiError::new(
            ErrorCode::InvalidField,
            "the header if-match must be the etag you saw, a number in quotes: \"7\" for instance, or \"0\" for none",
        )
        .param("if-match")
        .into()),
    }
}
