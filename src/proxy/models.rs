//! `GET /v1/models`: the models that this key may use.

use serde_json::{Value, json};

use super::admit::Admitted;

/// Returns OpenAI's list of models. Patterns are left out: they have no name to show.
///
/// Source: <https://platform.openai.com/docs/api-reference/models/list>.
pub fn list(admitted: &Admitted) -> Value {
    let names = admitted
        .snapshot
        .routing
        .names()
        .iter()
        .filter(|name| admitted.key.may_use_model(name));
    let data: Vec<Value> = names
        .map(|name| json!({"id": &**name, "object": "model", "created": 0, "owned_by": "promptgate"}))
        .collect();
    json!({"object": "list", "data": data})
}
