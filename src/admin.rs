//! The control plane's REST API under `/api/v1`.
//!
//! [`router`] lists every route; each resource is one file. A request passes three stages: `guard` lets it run to its
//! end whatever the caller does and turns a panic into an answer, `auth` says who calls, and the handler asks for a
//! permission, reads its input through `call::Call` and answers JSON or a `errors::Failure`. `openapi` says of each
//! route which permission that is; a test calls every route as somebody who may do nothing.
//!
//! A change is served by this node before it is answered: handlers wait for the publisher to catch up with the
//! generation that the registry returned, and tell it to the caller.
//!
//! Ids contain slashes, raw or as `%2F`, so everything below `/prompts/` is one wildcard route that
//! `prompt_path` reads.

mod aliases;
pub mod audit;
mod auth;
mod call;
mod changes;
mod deployments;
mod diff;
mod drafts;
mod environments;
mod erasures;
mod errors;
mod etag;
mod exchanges;
mod guard;
mod keys;
mod nodes;
mod openapi;
mod preflight;
mod prompt_path;
mod prompts;
mod refusals;
mod shifts;
mod users;
mod uses;
mod versions;
mod webhooks;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, delete, get, post, put};

pub use nodes::ThisNode;
pub use preflight::RehearsalSettings;

use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::snapshot::Publisher;
use crate::telemetry::Store;

/// What the control plane works on.
#[derive(Clone)]
pub struct AdminState {
    pub registry: Arc<Registry>,
    pub publisher: Arc<Publisher>,
    pub metrics: Arc<Metrics>,
    /// None where nothing is recorded.
    pub store: Option<Arc<Store>>,
    pub rehearsal: Arc<RehearsalSettings>,
    pub node: Arc<ThisNode>,
}

/// Builds the routes under `/api/v1`; all of them ask for a token, and nearly all for a permission.
pub fn router(state: AdminState) -> Router {
    let door = auth::Door {
        state: state.clone(),
        refusals: Arc::default(),
    };
    let api = Router::new()
        .route("/prompts", get(prompts::list).post(prompts::create))
        .route("/prompts/{*path}", any(prompt_path::dispatch))
        .route("/folders", get(prompts::folders))
        .route("/deployments", post(deployments::together))
        .route("/shifts", get(shifts::list_all))
        .route("/shifts/{id}", get(shifts::show))
        .route("/shifts/{id}/cancel", post(shifts::cancel))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{id}", delete(keys::revoke))
        .route("/environments", get(environments::list))
        .route(
            "/environments/{name}",
            get(environments::show)
                .put(environments::set)
                .patch(environments::update)
                .delete(environments::delete),
        )
        .route("/audit", get(audit::list))
        .route("/audit/verify", get(audit::verify))
        .route("/exchanges", get(exchanges::list))
        .route("/exchanges/{id}", get(exchanges::show))
        .route("/openapi.json", get(openapi::show))
        .route("/stats", get(exchanges::stats))
        .route("/nodes", get(nodes::list))
        .route("/erasures", get(erasures::list).post(erasures::create))
        .route("/erasures/{id}", get(erasures::show))
        .route("/changes", get(changes::list).post(changes::propose))
        .route("/changes/stats", get(changes::stats))
        .route("/changes/{change}", get(changes::show).put(changes::revise))
        .route("/changes/{change}/submit", post(changes::submit))
        .route("/changes/{change}/refresh", post(changes::refresh))
        .route("/changes/{change}/preflight", post(changes::preflight))
        .route("/changes/{change}/withdraw", post(changes::withdraw))
        .route("/changes/{change}/approve", post(changes::approve))
        .route("/changes/{change}/reject", post(changes::reject))
        .route("/changes/{change}/comments", post(changes::comment))
        .route("/changes/{change}/checks/{name}", put(changes::check))
        .route("/changes/{change}/apply", post(changes::apply))
        .route("/webhooks", get(webhooks::list).post(webhooks::create))
        .route(
            "/webhooks/{webhook}",
            get(webhooks::show).patch(webhooks::update).delete(webhooks::delete),
        )
        .route("/webhooks/{webhook}/secret", post(webhooks::rotate))
        .route("/webhooks/{webhook}/test", post(webhooks::test))
        .route("/webhooks/{webhook}/deliveries", get(webhooks::deliveries))
        .route(
            "/webhooks/{webhook}/deliveries/{delivery}/resend",
            post(webhooks::resend),
        )
        .route("/whoami", get(users::whoami))
        .route("/users", get(users::list).post(users::create))
        .route("/users/{user}", get(users::show).put(users::update))
        .route(
            "/users/{user}/grants",
            get(users::list_grants)
                .post(users::add_grant)
                .delete(users::remove_grant),
        )
        .route(
            "/users/{user}/tokens",
            get(users::list_tokens).post(users::create_token),
        )
        .route("/users/{user}/tokens/{token}", delete(users::revoke_token))
        .fallback(errors::unknown_route)
        .method_not_allowed_fallback(errors::method_not_allowed)
        .layer(from_fn_with_state(door, auth::require_token))
        .layer(from_fn(guard::run_to_the_end))
        .with_state(state);
    Router::new().nest("/api/v1", api)
}
