//! `GET /openapi.json`: the control plane described for programs.
//!
//! The calls are one table, which a test holds against the router; the shapes of bodies are in `openapi_schemas.json`.

use axum::response::Response;
use serde_json::{Map, Value, json};

use super::call::{Call as Request, found};
use super::errors::Failure;

/// One call.
pub(super) struct Call {
    pub method: &'static str,
    pub path: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
    /// Schema of the body.
    body: Option<&'static str>,
    status: u16,
    /// Schema of the answer.
    answer: &'static str,
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
];
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
        summary,
        query,
        body: None,
        status: 200,
        answer,
    }
}

const fn write(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    body: Option<&'static str>,
    answer: (u16, &'static str),
) -> Call {
    Call {
        method,
        path,
        summary,
        query: &[],
        body,
        status: answer.0,
        answer: answer.1,
    }
}

/// Every call under `/api/v1`.
pub(super) const CALLS: [Call; 25] = [
    read(
        "/prompts",
        "List prompts and what is live of them",
        PROMPTS,
        "PromptList",
    ),
    write(
        "post",
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
        "/prompts/{id}/deployments/{environment}/rollback",
        "Go back",
        Some("Rollback"),
        (200, "Deployment"),
    ),
    write(
        "put",
        "/prompts/{id}/aliases/{alias}",
        "Let another name lead here",
        None,
        (200, "Prompt"),
    ),
    write(
        "delete",
        "/prompts/{id}/aliases/{alias}",
        "Take such a name away",
        None,
        (200, "Prompt"),
    ),
    read("/keys", "List applications' keys, never their secrets", PAGE, "KeyList"),
    write("post", "/keys", "Make a key, shown once", Some("NewKey"), (201, "Key")),
    write("delete", "/keys/{key}", "Revoke a key", None, (200, "Key")),
    read("/environments", "List environments", &[], "EnvironmentList"),
    read("/environments/{name}", "Show an environment", &[], "Environment"),
    write(
        "put",
        "/environments/{name}",
        "Protect an environment, or create one",
        Some("SetEnvironment"),
        (200, "Environment"),
    ),
    read("/audit", "List who changed what, newest first", PAGE, "AuditList"),
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
    read("/openapi.json", "This text", &[], "Any"),
    read(
        "/healthz",
        "Is the process alive? (not under /api/v1, no token)",
        &[],
        "Any",
    ),
    read(
        "/readyz",
        "Does it take requests? (not under /api/v1, no token)",
        &[],
        "Any",
    ),
];

/// `GET /openapi.json`.
pub async fn show(_caller: Request) -> Result<Response, Failure> {
    Ok(found(document()))
}

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for call in &CALLS {
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
        "responses": {
            call.status.to_string(): {"description": "done", "content": reference(call.answer)},
            "default": {"description": "refused or failed", "content": reference("Error")},
        },
    });
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
