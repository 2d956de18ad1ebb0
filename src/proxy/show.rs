//! `GET /v1/prompts/{name}`: the version that a request would get, for applications that render it themselves.
//!
//! The answer has an `ETag`, and `If-None-Match` saves all but the look-up in the snapshot: it can be asked for before each
//! use. The content is read from the registry, so that the snapshot need not keep what requests never look at.

use http::request::Parts;
use http::{HeaderValue, header};
use serde_json::json;

use super::admit::Admitted;
use super::exchange::{Exchange, PromptFacts, UNIT_HEADER};
use super::pipeline::{Failure, Reply, note_prompt, pinned_error};
use super::{reference, resolve};
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::json::Fields;

/// Answers with the version that is live for this key and unit, or that the name names.
///
/// # Errors
/// Those of resolving a prompt, and 503 when its content cannot be read now.
pub async fn answer(exchange: &mut Exchange, head: &Parts, admitted: Admitted, name: &str) -> Result<Reply, Failure> {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let fields = Fields::default();
    let found = reference::find(&fields, &head.headers, Some(name), None)?;
    let reference = found.ok_or_else(|| ApiError::new(ErrorCode::PromptIdMissing, "the path names no prompt"))?;
    let unit = header(UNIT_HEADER).filter(|unit| !unit.is_empty());
    let own_id = exchange.id.to_string();
    exchange.caller.unit = unit.map_or_else(String::new, |unit| exchange.pseudonym(unit));
    let Admitted { snapshot, key } = admitted;
    let unit = unit.unwrap_or(&own_id).as_bytes();
    let resolved = resolve::resolve(&snapshot, &key, &reference, unit, header(resolve::VARIANT_HEADER))?;
    drop(snapshot);
    note_prompt(exchange, &resolved);
    let Some(prompt) = &exchange.prompt else {
        return Err(ApiError::new(ErrorCode::Internal, "no prompt was noted").into());
    };
    let uid = &resolved.prompt.uid;
    let etag = etag(uid, prompt)?;
    let known = header(header::IF_NONE_MATCH.as_str()).unwrap_or_default();
    if known.split(',').any(|one| same(one, &etag)) {
        return Ok(Reply::Unchanged(etag));
    }
    let content = exchange.worker.pinned.content(uid, prompt.version).await;
    let content = content.map_err(|error| pinned_error(&resolved.prompt, &error))?;
    let value = json!({
        "object": "prompt",
        "id": &*prompt.id,
        "version": prompt.version,
        "variant": &*prompt.variant,
        "environment": &*exchange.environment,
        "deployment": (prompt.deployment > 0).then_some(prompt.deployment),
        "content": content,
    });
    Ok(Reply::Own(value, Some(etag)))
}

/// A version never changes, so its number says what is in it; deployment and variant are said as well.
fn etag(uid: &str, prompt: &PromptFacts) -> Result<HeaderValue, ApiError> {
    let text = format!("\"{uid}.{}.{}.{}\"", prompt.version, prompt.deployment, prompt.variant);
    HeaderValue::from_str(&text).map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))
}

/// Weak comparison. Source: RFC 9110, section 13.1.2.
fn same(one: &str, etag: &HeaderValue) -> bool {
    let one = one.trim();
    one == "*" || one.strip_prefix("W/").unwrap_or(one).as_bytes() == etag.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_compared_weakly() {
        let etag = HeaderValue::from_static("\"u.3.5.control\"");
        for (one, expected) in [
            ("\"u.3.5.control\"", true),
            (" W/\"u.3.5.control\"", true),
            ("*", true),
            ("\"u.2.5.control\"", false),
            ("u.3.5.control", false),
        ] {
            assert_eq!(same(one, &etag), expected, "{one}");
        }
    }
}
