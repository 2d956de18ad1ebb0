//! Webhooks: which events there are, how a delivery is signed, when it is tried again, and what must wait for what.
//!
//! Signatures and headers are those of Standard Webhooks (<https://www.standardwebhooks.com>), so that receivers can use its
//! libraries: HMAC-SHA256 over `id.timestamp.body`.

mod address;

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::Value;

pub use address::{Networks, is_public};

/// What a secret begins with; base64 of the key follows.
pub const SECRET_PREFIX: &str = "whsec_";

/// How long a delivery is tried, in microseconds: three days.
pub const PATIENCE_US: i64 = 3 * 24 * 3600 * 1_000_000;

/// The first and the longest pause between two attempts, in microseconds.
const FIRST_PAUSE_US: i64 = 1_000_000;
const LONGEST_PAUSE_US: i64 = 300_000_000;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    VersionCreated,
    ChangeProposed,
    ChangeApproved,
    ChangeRejected,
    ChangeApplied,
    ChangeWithdrawn,
    DeploymentChanged,
    DeploymentRolledBack,
    /// A test call; every webhook gets its own.
    Ping,
}

impl EventType {
    /// Those that a webhook can ask for.
    pub const ALL: [Self; 8] = [
        Self::VersionCreated,
        Self::ChangeProposed,
        Self::ChangeApproved,
        Self::ChangeRejected,
        Self::ChangeApplied,
        Self::ChangeWithdrawn,
        Self::DeploymentChanged,
        Self::DeploymentRolledBack,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::VersionCreated => "version.created",
            Self::ChangeProposed => "change.proposed",
            Self::ChangeApproved => "change.approved",
            Self::ChangeRejected => "change.rejected",
            Self::ChangeApplied => "change.applied",
            Self::ChangeWithdrawn => "change.withdrawn",
            Self::DeploymentChanged => "deployment.changed",
            Self::DeploymentRolledBack => "deployment.rolled_back",
            Self::Ping => "ping",
        }
    }

    /// Returns the event of an audited action, if others are told of it.
    pub fn of_action(action: &str, detail: &Value) -> Option<Self> {
        Some(match action {
            "version.create" => Self::VersionCreated,
            // A draft is not yet for others.
            "change.propose" if detail["to"]["state"] == "draft" => return None,
            "change.propose" | "change.submit" => Self::ChangeProposed,
            "change.approve" => Self::ChangeApproved,
            "change.reject" => Self::ChangeRejected,
            "change.apply" => Self::ChangeApplied,
            "change.withdraw" => Self::ChangeWithdrawn,
            "deployment.deploy" | "deployment.take_down" | "deployment.break_glass" => Self::DeploymentChanged,
            "deployment.rollback" => Self::DeploymentRolledBack,
            "webhook.test" => Self::Ping,
            _ => return None,
        })
    }
}

/// Whether a webhook's list of events names one: `deployment.changed`, `deployment` for all of that kind, or an empty list
/// for all.
pub fn wants(events: &[String], event: EventType) -> bool {
    let name = event.as_str();
    let kind = name.split('.').next().unwrap_or_default();
    events.is_empty() || events.iter().any(|wanted| wanted == name || wanted == kind)
}

/// Says what is wrong with a name in such a list.
///
/// # Errors
/// A sentence with the names there are.
pub fn check_event(name: &str) -> Result<(), String> {
    let known = EventType::ALL.map(EventType::as_str);
    if known.contains(&name) || known.iter().any(|known| known.split('.').next() == Some(name)) {
        return Ok(());
    }
    let known = known.join(", ");
    Err(format!(
        "{name:?} is not an event, use one of {known}, or only what is in front of the dot"
    ))
}

/// Signs a delivery: the header `webhook-signature`. `None` if the secret is none of ours.
pub fn signature(secret: &str, id: &str, timestamp_s: i64, body: &str) -> Option<String> {
    let key = STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let tag = hmac::sign(&key, format!("{id}.{timestamp_s}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(tag)))
}

/// Makes a secret of 32 random bytes.
pub fn secret(random: [u8; 32]) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(random))
}

/// Returns how long to wait after so many failed attempts, in microseconds: doubling, with up to a quarter of jitter.
/// `random` is in 0..1.
pub fn pause_us(attempts: u32, random: f64) -> i64 {
    let doubled = FIRST_PAUSE_US << attempts.saturating_sub(1).min(20);
    let pause = doubled.min(LONGEST_PAUSE_US);
    pause - (pause as f64 * 0.25 * random) as i64
}

/// Picks those of a webhook's waiting deliveries that may be sent now, oldest first: an event waits for every earlier one
/// of a prompt that it is about. `deliveries` are oldest first: the event's prompts, and whether its own pause is over.
pub fn sendable<'a>(deliveries: impl IntoIterator<Item = (&'a [String], bool)>) -> Vec<usize> {
    let mut waiting: HashSet<&str> = HashSet::new();
    let mut sendable = Vec::new();
    for (place, (prompts, is_due)) in deliveries.into_iter().enumerate() {
        if is_due && !prompts.iter().any(|prompt| waiting.contains(prompt.as_str())) {
            sendable.push(place);
        }
        // Sent or not: until it is known to have arrived, what follows it waits.
        waiting.extend(prompts.iter().map(String::as_str));
    }
    sendable
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The example of the specification.
    #[test]
    fn signature_is_that_of_standard_webhooks() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = r#"{"test": 2432232314}"#;
        let signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(
            signed.as_deref(),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
        assert_eq!(signature("pg_x", "a", 1, "b"), None);
        assert!(signature(&super::secret([7; 32]), "a", 1, "b").is_some());
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let pauses: Vec<i64> = [1, 2, 3, 9, 10, 60].map(|n| pause_us(n, 0.0) / 1_000_000).into();
        assert_eq!(pauses, [1, 2, 4, 256, 300, 300]);
        assert!((750_000..1_000_000).contains(&pause_us(1, 0.99)));
    }

    #[test]
    fn events_are_those_that_others_should_know() {
        let of = |action: &str, detail: Value| EventType::of_action(action, &detail).map(EventType::as_str);
        assert_eq!(
            of("change.propose", json!({"to": {"state": "open"}})),
            Some("change.proposed")
        );
        assert_eq!(of("change.propose", json!({"to": {"state": "draft"}})), None);
        assert_eq!(of("deployment.break_glass", json!({})), Some("deployment.changed"));
        assert_eq!(of("key.create", json!({})), None);
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(wants(&[], EventType::ChangeApplied));
        assert!(wants(&list(&["change"]), EventType::ChangeApplied));
        assert!(!wants(
            &list(&["change.proposed", "deployment"]),
            EventType::ChangeApplied
        ));
        assert!(check_event("deployment").is_ok());
        assert!(check_event("deploy").is_err());
    }

    #[test]
    fn an_event_waits_for_earlier_ones_of_its_prompts() {
        let prompts: Vec<Vec<String>> = [vec!["a"], vec!["b"], vec!["a", "b"], vec!["c"], vec!["b"], vec![]]
            .map(|names| names.into_iter().map(str::to_owned).collect())
            .into();
        let sendable = |due: [bool; 6]| super::sendable(prompts.iter().map(Vec::as_slice).zip(due));
        assert_eq!(sendable([true; 6]), [0, 1, 3, 5]);
        assert_eq!(sendable([false, true, true, true, true, true]), [1, 3, 5]);
    }
}
