//! The demo's applications: a few hundred requests, half of them streamed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::prompts::{CHAT, GREET, SUMMARY};
use crate::cli::client::Client;

const CONNECTIONS: u32 = 8;

/// How many requests were sent, by prompt.
pub type Sent = BTreeMap<&'static str, u32>;

/// Sends `count` requests over a few connections.
///
/// # Errors
/// The first request that fails.
pub async fn send(authority: &str, key: &str, count: u32, progress: bool) -> anyhow::Result<Sent> {
    let bar = if progress {
        ProgressBar::new(u64::from(count))
    } else {
        ProgressBar::hidden()
    };
    bar.set_style(ProgressStyle::with_template("sending requests {bar:40} {pos}/{len}")?);
    let next = Arc::new(AtomicU32::new(0));
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (next, bar) = (Arc::clone(&next), bar.clone());
            let mut client = Client::new(authority, key);
            tokio::spawn(async move {
                let mut sent = Sent::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return anyhow::Ok(sent);
                    }
                    let (prompt, body) = request(number);
                    one(&mut client, &body)
                        .await
                        .with_context(|| format!("request {number} of prompt {prompt}"))?;
                    *sent.entry(prompt).or_default() += 1;
                    bar.inc(1);
                }
            })
        })
        .collect();
    let mut total = Sent::new();
    for sender in senders {
        for (prompt, count) in sender.await?? {
            *total.entry(prompt).or_default() += count;
        }
    }
    bar.finish_and_clear();
    Ok(total)
}

/// Two thirds go to the prompt with the split; half of each prompt's are streamed.
fn request(number: u32) -> (&'static str, Value) {
    let (prompt, variables, messages) = match number % 6 {
        0 => (
            SUMMARY,
            json!({"language": "German", "text": format!("Report {number}: the parcel left the depot on Monday.")}),
            None,
        ),
        1 => (
            CHAT,
            json!({"today": "Monday"}),
            Some(json!([
                {"role": "user", "content": "Where is my order?"},
                {"role": "assistant", "content": "It left our depot."},
                {"role": "user", "content": format!("And order {number}?")},
            ])),
        ),
        _ => (
            GREET,
            json!({"question": format!("Where is order {number}?"), "name": "Ada"}),
            None,
        ),
    };
    let mut body = json!({
        "model": "any",
        "prompt": {"id": prompt, "variables": variables},
        "user": format!("customer-{number}"),
        "stream": (number / 6).is_multiple_of(2),
    });
    if let Some(messages) = messages {
        body["messages"] = messages;
    }
    (prompt, body)
}

async fn one(client: &mut Client, body: &Value) -> anyhow::Result<()> {
    let answer = client.send(Method::POST, "/v1/chat/completions", &[], body).await?;
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(
        answer.status.is_success(),
        "was answered with {}: {text}",
        answer.status
    );
    let streamed = body["stream"] == true;
    ensure!(!streamed || text.ends_with("data: [DONE]\n\n"), "the stream broke off");
    Ok(())
}
