//! Which call a method and path mean.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::domain::error::{ApiError, ErrorCode};
use crate::provider::openai::Call;

/// A call of the data plane.
#[derive(Debug, PartialEq)]
pub enum Route<'a> {
    Call(Call),
    Models,
    Feedback,
    /// The prompt's name as in the path, decoded: `id`, `id@environment` or `id:version`.
    Render(Cow<'a, str>),
    PromptCompletions(Cow<'a, str>),
    /// The prompt itself.
    Prompt(Cow<'a, str>),
}

impl Route<'_> {
    /// Returns the name used in metrics and records.
    pub fn endpoint(&self) -> &'static str {
        match self {
            Self::Call(call) => call.endpoint(),
            Self::Models => "models",
            Self::Feedback => "feedback",
            Self::Render(_) => "prompt_render",
            Self::PromptCompletions(_) => "prompt_completions",
            Self::Prompt(_) => "prompt",
        }
    }

    /// Checks the method.
    ///
    /// # Errors
    /// 405 with the right one.
    pub fn allow(&self, method: &Method) -> Result<(), ApiError> {
        let wanted = match self {
            Self::Models | Self::Prompt(_) => Method::GET,
            _ => Method::POST,
        };
        if *method == wanted {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::MethodNotAllowed,
            format!("{method} is not possible here, use {wanted}"),
        ))
    }
}

/// Finds the call.
///
/// # Errors
/// 404 with the paths there are.
pub fn find(path: &str) -> Result<Route<'_>, ApiError> {
    match path {
        "/v1/chat/completions" => Ok(Route::Call(Call::ChatCompletions)),
        "/v1/responses" => Ok(Route::Call(Call::Responses)),
        "/v1/completions" => Ok(Route::Call(Call::Completions)),
        "/v1/embeddings" => Ok(Route::Call(Call::Embeddings)),
        "/v1/models" => Ok(Route::Models),
        "/v1/feedback" => Ok(Route::Feedback),
        _ => prompt_route(path).ok_or_else(|| unknown(path)),
    }
}

fn decode(name: &str) -> Option<Cow<'_, str>> {
    let name = percent_decode_str(name).decode_utf8().ok()?;
    (!name.is_empty()).then_some(name)
}

/// The action is the last segment, if it is one: those words are in no id. Ids may have raw or encoded slashes.
fn prompt_route(path: &str) -> Option<Route<'_>> {
    let rest = path.strip_prefix("/v1/prompts/")?;
    match rest.rsplit_once('/').unwrap_or(("", rest)) {
        (name, "render") => decode(name).map(Route::Render),
        (name, "completions") => decode(name).map(Route::PromptCompletions),
        (_, "") => None,
        _ => decode(rest).map(Route::Prompt),
    }
}

fn unknown(path: &str) -> ApiError {
    let shown: String = path.chars().take(200).collect();
    ApiError::new(
        ErrorCode::UnknownRoute,
        format!(
            "there is no route {shown:?}; there are /v1/chat/completions, /v1/responses, /v1/completions, \
             /v1/embeddings, /v1/models, /v1/feedback, /v1/prompts/{{id}}, /v1/prompts/{{id}}/render and /v1/prompts/{{id}}/completions"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_with_raw_and_encoded_slashes_are_the_same() {
        for path in ["/v1/prompts/a/b@staging/render", "/v1/prompts/a%2Fb%40staging/render"] {
            assert_eq!(find(path).unwrap(), Route::Render("a/b@staging".into()));
        }
        for path in ["/v1/prompts/a/b@staging", "/v1/prompts/a%2Fb%40staging"] {
            assert_eq!(find(path).unwrap(), Route::Prompt("a/b@staging".into()));
        }
        let completions = find("/v1/prompts/a:3/completions").unwrap();
        assert_eq!(completions, Route::PromptCompletions("a:3".into()));
    }

    #[test]
    fn wrong_path_or_method_says_what_is_right() {
        for path in [
            "/",
            "/v1",
            "/v1/prompts/render",
            "/v1/prompts//render",
            "/v1/prompts/%ff/render",
            "/v1/prompts/%ff",
            "/v1/prompts/",
        ] {
            assert_eq!(find(path).unwrap_err().code, ErrorCode::UnknownRoute, "{path}");
        }
        for (path, right, wrong) in [
            ("/v1/chat/completions", Method::POST, Method::GET),
            ("/v1/models", Method::GET, Method::POST),
        ] {
            let route = find(path).unwrap();
            assert_eq!(route.allow(&right), Ok(()));
            assert_eq!(route.allow(&wrong).unwrap_err().code, ErrorCode::MethodNotAllowed);
        }
    }
}
