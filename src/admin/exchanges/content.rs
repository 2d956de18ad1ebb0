//! Who sees what was captured: without the permission the same records come without content, and each look at content
//! is written to the audit log before it is answered.

use serde_json::{Map, Value, json};

use crate::admin::call::Call;
use crate::admin::errors::Failure;
use crate::domain::role::{Permission, Scope};

/// What callers wrote and models answered.
const FIELDS: [&str; 3] = ["variables", "request", "response"];

/// The scope of a record.
pub fn scope(record: &Value) -> Scope<'_> {
    let text = |name: &str| record[name].as_str().unwrap_or_default();
    Scope::live(text("prompt_id"), text("environment"))
}

/// Takes the content out of records that the caller may not read, or does not want.
///
/// Returns the ids of those whose content is shown.
pub fn hide(call: &Call, records: &mut [Value], wanted: bool) -> Vec<String> {
    let mut shown = Vec::new();
    for record in records {
        let may = wanted && call.may(Permission::ReadContent, scope(record));
        let Value::Object(fields) = record else { continue };
        if !may {
            for field in FIELDS {
                fields.shift_remove(field);
            }
            fields.insert("content_hidden".to_owned(), json!(true));
        } else if FIELDS.iter().any(|field| has_content(fields, field)) {
            shown.extend(fields["exchange_id"].as_str().map(str::to_owned));
        }
    }
    shown
}

fn has_content(fields: &Map<String, Value>, name: &str) -> bool {
    match fields.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Object(object)) => !object.is_empty(),
        Some(_) => true,
    }
}

/// Notes that the content of one exchange was read.
///
/// # Errors
/// When it cannot be noted: then it is not shown either.
pub async fn note_one(call: &Call, shown: &[String]) -> Result<(), Failure> {
    match shown.first() {
        Some(id) => note(call, id, json!({})).await,
        None => Ok(()),
    }
}

/// Notes that the content of a list was read. A search in content reads it, whatever is shown then.
///
/// # Errors
/// When it cannot be noted: then it is not shown either.
pub async fn note_many(call: &Call, shown: &[String], searched: bool) -> Result<(), Failure> {
    if shown.is_empty() && !searched {
        return Ok(());
    }
    let filter = call.parts.uri.query().unwrap_or_default();
    let (newest, oldest) = (shown.first(), shown.last());
    let detail = json!({"filter": filter, "exchanges": shown.len(), "newest": newest, "oldest": oldest});
    note(call, "exchanges", detail).await
}

async fn note(call: &Call, subject: &str, detail: Value) -> Result<(), Failure> {
    let noted = call.registry().note(call.actor(), "content.read", subject, detail);
    Ok(noted.await?)
}
