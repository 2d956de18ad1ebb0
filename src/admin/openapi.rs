//! `GET /openapi.json`: the control plane described for programs.
//!
//! The calls are one table, which a test holds against the router; the shapes of bodies are in `openapi_schemas.json`.

mod refusals;

use axum::response::Response;
use serde_json::{Map, Value, json};

use super::call::{Call as Request, found};
use super::errors::Failure;
use crate::domain::role::Permission::{self, *};
use crate::domain::role::Role;

/// One call.
pub(super) struct Call {
    pub method: &'static str,
    pub path: &'static str,
    pub need: Need,
    summary: &'static str,
    query: &'static [&'static str],
    /// Schema of the body.
    body: Option<&'static str>,
    status: u16,
    /// Schema of the answer.
    answer: &'static str,
}

/// What a call asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing at all.
    Nothing,
    /// A token, whatever it may do.
    Token,
    May(Permission),
    /// The permission, unless it is about the caller's own user.
    Unless(Permission),
}

const PAGE: &[&str] = &["limit", "cursor"];
const PROMPTS: &[&str] = &["query", "limit", "cursor"];
const EXCHANGES: &[&str] = &[
    "from",
    "to",
    "prompt",
    "version",
    "variant",
    "environment",
    "model",
    "outcome",
    "unit",
    "min_latency_us",
    "min_cost_nanodollars",
    "text",
    "limit",
    "cursor",
    "content",
];
const CHANGES: &[&str] = &["state", "environment", "proposer", "prompt", "limit", "cursor"];
const CHANGE_STATS: &[&str] = &["environment", "from", "to"];
const AUDIT: &[&str] = &[
    "actor",
    "action",
    "subject",
    "environment",
    "from",
    "to",
    "order",
    "limit",
    "cursor",
];
const GRANT: &[&str] = &["role", "environment", "folder"];
const STATS: &[&str] = &[
    "group_by",
    "from",
    "to",
    "prompt",
    "version",
    "variant",
    "environment",
    "model",
    "outcome",
    "unit",
    "min_latency_us",
    "min_cost_nanodollars",
    "text",
    "limit",
];

const fn read(path: &'static str, summary: &'static str, query: &'static [&'static str], answer: &'static str) -> Call {
    Call {
        method: "get",
        path,
        need: Need::May(Permission::Read),
        summary,
        query,
        body: None,
        status: 200,
        answer,
    }
}

const fn write(
    method: &'static str,
    permission: Permission,
    path: &'static str,
    summary: &'static str,
    body: Option<&'static str>,
    answer: (u16, &'static str),
) -> Call {
    Call {
        method,
        path,
        need: Need::May(permission),
        summary,
        query: &[],
        body,
        status: answer.0,
        answer: answer.1,
    }
}

impl Call {
    const fn needs(mut self, need: Need) -> Self {
        self.need = need;
        self
    }
}

/// Every call under `/api/v1`.
pub(super) const CALLS: &[Call] = &[
    read(
        "/prompts",
        "List prompts and what is live of them",
        PROMPTS,
        "PromptList",
    ),
    write(
        "post",
        Write,
        "/prompts",
        "Create a prompt",
        Some("NewPrompt"),
        (201, "Prompt"),
    ),
    read("/prompts/{id}", "Show a prompt, also by an alias", &[], "Prompt"),
    read(
        "/prompts/{id}/versions",
        "List versions, newest first",
        PAGE,
        "VersionList",
    ),
    write(
        "post",
        Write,
        "/prompts/{id}/versions",
        "Store the next version",
        Some("NewVersion"),
        (201, "Version"),
    ),
    read(
        "/prompts/{id}/versions/{version}",
        "Show a version with its content",
        &[],
        "Version",
    ),
    read(
        "/prompts/{id}/deployments/{environment}",
        "Show what is live, with its ETag",
        &[],
        "Deployment",
    ),
    write(
        "put",
        Deploy,
        "/prompts/{id}/deployments/{environment}",
        "Make a split live",
        Some("NewDeployment"),
        (200, "Deployment"),
    ),
    read(
        "/prompts/{id}/deployments/{environment}/history",
        "List deployments, newest first",
        PAGE,
        "DeploymentList",
    ),
    write(
        "post",
        Deploy,
        "/prompts/{id}/deployments/{environment}/rollback",
        "Go back",
        Some("Rollback"),
        (200, "Deployment"),
    ),
    write(
        "post",
        Read,
        "/prompts/{id}/preflight",
        "Rehearse a deployment on recorded requests",
        Some("NewPreflight"),
        (200, "Preflight"),
    ),
    write(
        "put",
        Write,
        "/prompts/{id}/aliases/{alias}",
        "Let another name lead here",
        None,
        (200, "Prompt"),
    ),
    write(
        "delete",
        Write,
        "/prompts/{id}/aliases/{alias}",
        "Take such a name away",
        None,
        (200, "Prompt"),
    ),
    read("/keys", "List applications' keys, never their secrets", PAGE, "KeyList"),
    write(
        "post",
        ManageKeys,
        "/keys",
        "Make a key, shown once",
        Some("NewKey"),
        (201, "Key"),
    ),
    write("delete", ManageKeys, "/keys/{key}", "Revoke a key", None, (200, "Key")),
    read("/environments", "List environments", &[], "EnvironmentList"),
    read("/environments/{name}", "Show an environment", &[], "Environment"),
    write(
        "put",
        ManageEnvironments,
        "/environments/{name}",
        "Protect an environment, or create one",
        Some("SetEnvironment"),
        (200, "Environment"),
    ),
    read("/changes", "List proposed changes, newest first", CHANGES, "ChangeList"),
    write(
        "post",
        Propose,
        "/changes",
        "Propose deployments",
        Some("NewChange"),
        (201, "Change"),
    ),
    read("/changes/stats", "How long reviews take", CHANGE_STATS, "ChangeStats"),
    read("/changes/{change}", "Show a change", &[], "Change"),
    write(
        "put",
        Propose,
        "/changes/{change}",
        "Propose something else instead",
        Some("ReviseChange"),
        (200, "Change"),
    ),
    write(
        "post",
        Propose,
        "/changes/{change}/submit",
        "Open a draft for review",
        None,
        (200, "Change"),
    ),
    write(
        "post",
        Propose,
        "/changes/{change}/refresh",
        "Put it on top of what is live by now",
        None,
        (200, "Change"),
    ),
    write(
        "post",
        Propose,
        "/changes/{change}/preflight",
        "Rehearse it on recorded requests again",
        None,
        (200, "Change"),
    ),
    write(
        "post",
        Propose,
        "/changes/{change}/withdraw",
        "Take it back",
        Some("Message"),
        (200, "Change"),
    ),
    write(
        "post",
        Approve,
        "/changes/{change}/approve",
        "Approve it",
        Some("Verdict"),
        (200, "Change"),
    ),
    write(
        "post",
        Approve,
        "/changes/{change}/reject",
        "Reject it",
        Some("Verdict"),
        (200, "Change"),
    ),
    write(
        "post",
        Propose,
        "/changes/{change}/comments",
        "Comment on it",
        Some("NewComment"),
        (201, "Change"),
    ),
    write(
        "put",
        Check,
        "/changes/{change}/checks/{name}",
        "Report a check",
        Some("NewCheck"),
        (200, "Change"),
    ),
    write(
        "post",
        Deploy,
        "/changes/{change}/apply",
        "Make it live",
        None,
        (200, "Change"),
    ),
    read("/audit", "List who changed what, newest first", AUDIT, "AuditList").needs(Need::May(ReadAudit)),
    read(
        "/audit/verify",
        "Follow the audit log's chain",
        &["head"],
        "AuditVerification",
    )
    .needs(Need::May(ReadAudit)),
    read(
        "/whoami",
        "Show the caller's user, token and permissions",
        &[],
        "WhoAmI",
    )
    .needs(Need::Token),
    read("/users", "List users, by name", PAGE, "UserList").needs(Need::May(ManageUsers)),
    write(
        "post",
        ManageUsers,
        "/users",
        "Create a user",
        Some("NewUser"),
        (201, "User"),
    ),
    read("/users/{user}", "Show a user, by name or id", &[], "User").needs(Need::Unless(ManageUsers)),
    write(
        "put",
        ManageUsers,
        "/users/{user}",
        "Rename for display, disable or enable",
        Some("SetUser"),
        (200, "User"),
    ),
    read("/users/{user}/grants", "List what a user is granted", &[], "GrantList").needs(Need::Unless(ManageUsers)),
    write(
        "post",
        ManageUsers,
        "/users/{user}/grants",
        "Grant a role",
        Some("Grant"),
        (200, "User"),
    ),
    Call {
        query: GRANT,
        ..write(
            "delete",
            ManageUsers,
            "/users/{user}/grants",
            "Take a grant away",
            None,
            (200, "User"),
        )
    },
    read(
        "/users/{user}/tokens",
        "List a user's tokens, never their secrets",
        &[],
        "TokenList",
    )
    .needs(Need::Unless(ManageUsers)),
    write(
        "post",
        ManageUsers,
        "/users/{user}/tokens",
        "Make a token, shown once",
        Some("NewToken"),
        (201, "Token"),
    )
    .needs(Need::Unless(ManageUsers)),
    write(
        "delete",
        ManageUsers,
        "/users/{user}/tokens/{token}",
        "Revoke a token",
        None,
        (200, "Token"),
    )
    .needs(Need::Unless(ManageUsers)),
    read(
        "/exchanges",
        "List what was recorded, newest first",
        EXCHANGES,
        "ExchangeList",
    ),
    read(
        "/exchanges/{exchange}",
        "Show an exchange with its feedback",
        &[],
        "Exchange",
    ),
    read("/stats", "Figures by group", STATS, "Stats"),
    read("/openapi.json", "This text", &[], "Any").needs(Need::Token),
    read(
        "/healthz",
        "Is the process alive? (not under /api/v1, no token)",
        &[],
        "Any",
    )
    .needs(Need::Nothing),
    read(
        "/readyz",
        "Does it take requests? (not under /api/v1, no token)",
        &[],
        "Any",
    )
    .needs(Need::Nothing),
];

/// `GET /openapi.json`.
pub async fn show(_caller: Request) -> Result<Response, Failure> {
    Ok(found(document()))
}

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for call in CALLS {
        let operations = paths.entry(call.path).or_insert_with(|| json!({}));
        operations[call.method] = operation(call);
        if call.path.ends_with('z') {
            operations["servers"] = json!([{"url": "/"}]);
        }
    }
    let schemas: Value = serde_json::from_str(include_str!("openapi_schemas.json"))
        .expect("the embedded schemas are JSON, a test says so");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "promptgate control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Prompts, versions, deployments, keys and records. Ids may have slashes, raw or as %2F.",
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    })
}

fn operation(call: &Call) -> Value {
    let reference =
        |name: &str| json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}});
    let in_path = call
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(
        call.query
            .iter()
            .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}})),
    );
    let mut operation = json!({
        "summary": call.summary,
        "parameters": parameters,
    });
    let mut responses = refusals::responses(call, &reference("Error"));
    let text = json!({"text/plain": {"schema": {"type": "string"}}});
    let content = if call.need == Need::Nothing {
        text.clone()
    } else {
        reference(call.answer)
    };
    let done = json!({"description": "done", "content": content});
    responses.insert(call.status.to_string(), done);
    if call.path == "/readyz" {
        responses.insert("503".to_owned(), json!({"description": "stopping", "content": text}));
    }
    responses.sort_keys();
    operation["responses"] = Value::Object(responses);
    let permission = match call.need {
        Need::Nothing => {
            operation["security"] = json!([]);
            None
        }
        Need::Token => None,
        Need::May(permission) | Need::Unless(permission) => Some(permission),
    };
    if let Some(permission) = permission {
        operation["x-promptgate-permission"] = json!(permission.as_str());
        let roles = Role::with(permission).join(", ");
        let own = match call.need {
            Need::Unless(_) => ", except about oneself (`me`)",
            _ => "",
        };
        operation["description"] = json!(format!(
            "Needs the permission `{}`{own}, which these roles have: {roles}.",
            permission.as_str()
        ));
    }
    if let Some(body) = call.body {
        operation["requestBody"] = json!({"required": true, "content": reference(body)});
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_to_a_schema() {
        let document = document();
        let text = document.to_string();
        let mut references = 0;
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
            references += 1;
        }
        assert!(references > 60, "{references}");
    }
}
