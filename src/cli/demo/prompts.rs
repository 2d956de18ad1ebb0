//! The demo's three prompts.

use http::Method;
use serde_json::{Value, json};

use crate::cli::client::Client;

pub const ENVIRONMENT: &str = "production";

/// The prompt with the split.
pub const GREET: &str = "support/greet";
/// The prompt with a history.
pub const CHAT: &str = "support/chat";
/// The prompt with a typed choice.
pub const SUMMARY: &str = "docs/summary";

/// Creates the prompts over the control plane, as a user would, and puts them live.
///
/// # Errors
/// The control plane's.
pub async fn seed(control: &mut Client) -> anyhow::Result<()> {
    let greet = [
        json!({
            "messages": [
                {"role": "system", "content": "You are {{ company }}'s support assistant. Be friendly and brief."},
                {"role": "user", "content": "{{ question }}"},
            ],
            "variables": {"company": {"type": "string", "default": "Acme"}, "question": {"type": "string", "maxLength": 4000}},
            "model": "mock-model",
            "parameters": {"temperature": 0.7, "max_tokens": 40},
        }),
        json!({
            "messages": [
                {"role": "system", "content": "You are {{ company }}'s support assistant. Greet {{ name or \"the customer\" }}, then answer in at most two sentences."},
                {"role": "user", "content": "{{ question }}"},
            ],
            "variables": {
                "company": {"type": "string", "default": "Acme"},
                "name": {"type": "string", "optional": true},
                "question": {"type": "string", "maxLength": 4000},
            },
            "model": "mock-model",
            "parameters": {"temperature": 0.3, "max_tokens": 24},
        }),
    ];
    let chat = json!({
        "messages": [
            {"role": "system", "content": "You help customers of {{ company }}. Today is {{ today }}."},
            {"placeholder": "history"},
        ],
        "variables": {"company": {"type": "string", "default": "Acme"}, "today": {"type": "string"}},
        "model": "mock-model",
        "overrides": ["temperature"],
    });
    let summary = json!({
        "messages": [{"role": "user", "content": "Summarise in {{ language }}, as {{ style }}:\n\n{{ text }}"}],
        "variables": {
            "language": {"type": "string", "enum": ["English", "German", "French"]},
            "style": {"type": "string", "enum": ["bullet points", "one paragraph"], "default": "one paragraph"},
            "text": {"type": "string", "minLength": 1},
        },
        "model": "mock-model",
        "parameters": {"max_tokens": 60},
    });
    create(control, GREET, "The first answer a customer gets", &greet).await?;
    create(control, CHAT, "A conversation with its history", &[chat]).await?;
    create(control, SUMMARY, "Summaries in a chosen language", &[summary]).await?;
    let split = json!([
        {"variant": "control", "version": 1, "weight": 80},
        {"variant": "b", "version": 2, "weight": 20},
    ]);
    deploy(control, GREET, split).await?;
    for id in [CHAT, SUMMARY] {
        deploy(
            control,
            id,
            json!([{"variant": "control", "version": 1, "weight": 100}]),
        )
        .await?;
    }
    Ok(())
}

async fn create(control: &mut Client, id: &str, description: &str, versions: &[Value]) -> anyhow::Result<()> {
    // With a folder that is used again, the prompts are there already.
    if control
        .json(Method::GET, &format!("/api/v1/prompts/{id}"), &Value::Null)
        .await
        .is_ok()
    {
        return Ok(());
    }
    let prompt = json!({"id": id, "description": description, "tags": ["demo"]});
    control.json(Method::POST, "/api/v1/prompts", &prompt).await?;
    for (i, content) in versions.iter().enumerate() {
        let message = if i == 0 {
            "first version"
        } else {
            "greet by name, shorter, cooler"
        };
        let body = json!({"content": content, "message": message});
        control
            .json(Method::POST, &format!("/api/v1/prompts/{id}/versions"), &body)
            .await?;
    }
    Ok(())
}

async fn deploy(control: &mut Client, id: &str, split: Value) -> anyhow::Result<()> {
    let path = format!("/api/v1/prompts/{id}/deployments/{ENVIRONMENT}");
    control
        .json(Method::PUT, &path, &json!({"split": split, "message": "demo"}))
        .await?;
    Ok(())
}
