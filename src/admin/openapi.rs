//! `GET /openapi.json`: the control plane described for programs.
//!
//! The calls are one table, `calls`, which a test holds against the router; the shapes of bodies are in `openapi_schemas.json`.

mod calls;
mod refusals;

use axum::response::Response;
use serde_json::{Map, Value, json};

use super::call::{Call as Request, found};
use super::errors::Failure;
use crate::domain::role::Role;

pub(super) use calls::{CALLS, Call, Need};

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
    if call.creates {
        responses.insert("201".to_owned(), done.clone());
    }
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
