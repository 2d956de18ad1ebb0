//! Says who calls: every route asks for `Authorization: Bearer <token>`. What the caller may do, handlers ask through
//! `call::Call::require`; what was refused is written to the audit log here, on the way out.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::AdminState;
use super::errors::{Failure, Refusal};
use super::refusals::RefusalGate;
use crate::domain::error::{ApiError, ErrorCode};
use crate::registry::{Actor, Caller, RegistryError};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The most of a path that the audit log repeats.
const MAX_PATH_CHARS: usize = 300;

/// The id of a request, for the answer's header and the audit log.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// What the door needs.
#[derive(Clone)]
pub struct Door {
    pub state: AdminState,
    pub refusals: Arc<RefusalGate>,
}

/// Lets a request with a known token pass, with its [`Caller`] and [`RequestId`] in its extensions.
pub async fn require_token(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let id = uuid::Uuid::now_v7().to_string();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let caller = match authenticate(&door.state, request.headers()).await {
        Ok(caller) => caller,
        Err(error) => return with_id(Failure::from(error).into_response(), &id),
    };
    let (actor, response) = match &caller {
        Some(caller) => {
            request.extensions_mut().insert(RequestId(id.clone()));
            request.extensions_mut().insert(caller.clone());
            (actor(caller, &id), next.run(request).await)
        }
        None => {
            // Always the same text, so that nothing can be learnt from it.
            let message = "no valid admin token, send it as \"Authorization: Bearer <token>\"";
            let failure = Failure::from(ApiError::new(ErrorCode::InvalidApiKey, message));
            let nobody = Actor {
                request_id: &id,
                ..Actor::named("anonymous")
            };
            (nobody, failure.into_response())
        }
    };
    if let Some(refusal) = response.extensions().get::<Refusal>() {
        note(&door, actor, &method, &path, refusal).await;
    }
    with_id(response, &id)
}

/// How the registry names a caller.
pub fn actor<'a>(caller: &'a Caller, request_id: &'a str) -> Actor<'a> {
    Actor {
        name: &caller.user,
        user_id: &caller.user_id,
        token_id: &caller.token_id,
        request_id,
    }
}

async fn authenticate(state: &AdminState, headers: &HeaderMap) -> Result<Option<Caller>, RegistryError> {
    let Some(token) = bearer(headers) else { return Ok(None) };
    let caller = state.registry.authenticate_token(token).await?;
    if let Some(caller) = caller.clone() {
        let registry = Arc::clone(&state.registry);
        // Not worth waiting for whoever writes at the moment.
        tokio::spawn(async move {
            if let Err(error) = registry.note_use(&caller).await {
                tracing::debug!(%error, "cannot note that a token was used");
            }
        });
    }
    Ok(caller)
}

/// Writes a refusal to the audit log. That it cannot be written does not make it less of a refusal.
async fn note(door: &Door, actor: Actor<'_>, method: &Method, path: &str, refusal: &Refusal) {
    let Some(suppressed) = door.refusals.admit(actor.user_id) else {
        return;
    };
    let subject: String = path.chars().take(MAX_PATH_CHARS).collect();
    let detail = json!({
        "method": method.as_str(),
        "code": refusal.code.as_str(),
        "message": refusal.message,
        "not_listed_before": suppressed,
    });
    if let Err(error) = door.state.registry.note(actor, "refused", &subject, detail).await {
        tracing::error!(%error, "cannot write a refusal to the audit log");
    }
}

fn with_id(mut response: Response, id: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Source: RFC 6750, section 2.1; the scheme's name has no case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
