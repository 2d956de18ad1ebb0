//! Records whose every field can be told from their number.

use promptgate::domain::exchange::{Attempt, ExchangeRecord, FeedbackRecord};
use uuid::Uuid;

/// 2026-01-02T03:04:05.000006Z
pub const START: i64 = 1_767_323_045_000_006;

/// The i-th exchange: ids and times grow with it, a second apart; all else varies.
pub fn record(i: u64) -> ExchangeRecord<'static> {
    let at = START + 1_000_000 * i as i64;
    let pick = |all: [&'static str; 3], by: u64| all[(i / by % 3) as usize];
    ExchangeRecord {
        exchange_id: id_at(at, i),
        started_at: at,
        node: "node-1",
        generation: 42,
        config_hash: "0123456789abcdef",
        key_id: "key_1",
        environment: pick(["production", "staging", "production"], 1),
        unit: pick(["u1", "u2", "ü3"], 2),
        user: "user",
        tags: if i.is_multiple_of(4) {
            vec![("team", "süd"), ("it's", "a")]
        } else {
            vec![("team", "nord")]
        },
        prompt_id: pick(["support/greet", "support/chat", ""], 3),
        version: (i % 3) as u32 + 1,
        variant: pick(["control", "b", "control"], 5),
        assignment: "split",
        document_ids: if i.is_multiple_of(7) { vec!["d1", "d2"] } else { vec![] },
        endpoint: "/v1/chat/completions",
        streaming: i.is_multiple_of(2),
        request_model: "any",
        model: pick(["gpt-4o-mini", "small", "house"], 4),
        response_model: "gpt-4o-mini-2024-07-18",
        provider: pick(["openai", "ollama", "openai"], 6),
        target: "openai/gpt-4o-mini",
        attempts: vec![Attempt {
            target: "openai/gpt-4o-mini",
            status: 200,
            duration_us: 900 + i,
            error: "",
        }],
        outcome: if i.is_multiple_of(11) { "timeout" } else { "ok" },
        status_code: 200,
        response_id: if i.is_multiple_of(5) { "chatcmpl-five" } else { "" },
        total_us: i * 7919 % 100_000,
        upstream_us: 900,
        time_to_first_token_us: if i.is_multiple_of(2) { i * 31 % 400 } else { 0 },
        input_tokens: (i % 100) as u32,
        cached_input_tokens: (i % 10) as u32,
        output_tokens: 50,
        reasoning_tokens: (i % 2) as u32,
        total_tokens: (i % 100) as u32 + 50,
        cost_nanodollars: 45_000 * (i % 7),
        request_bytes: 120,
        response_bytes: 700,
        variables: br#"{"question": "why?"}"#,
        request: if i.is_multiple_of(13) {
            b"not JSON, but \\ it's 100% ? text"
        } else {
            br#"{"messages": [{"a": 1.5}]}"#
        },
        response: if i.is_multiple_of(17) {
            b"\xff\xfe"
        } else {
            br#"{"choices": []}"#
        },
        response_truncated: i.is_multiple_of(17),
        capture: "metadata",
        ..ExchangeRecord::default()
    }
}

/// Feedback on the i-th exchange, every third by the provider's response id.
pub fn feedback(i: u64) -> FeedbackRecord<'static> {
    let at = START + 1_000_000 * i as i64 + 500;
    let by_response = i.is_multiple_of(3);
    FeedbackRecord {
        feedback_id: id_at(at, 1 << 40 | i),
        at,
        exchange_id: if by_response {
            Uuid::nil()
        } else {
            record(i).exchange_id
        },
        response_id: if by_response { "chatcmpl-five" } else { "" },
        key_id: "key_1",
        name: if i.is_multiple_of(2) { "helpful" } else { "note" },
        kind: if i.is_multiple_of(2) { "number" } else { "text" },
        number: if i.is_multiple_of(2) { i as f64 * 0.1 } else { 0.0 },
        text: if i.is_multiple_of(2) { "" } else { "good" },
        comment: "c",
    }
}

fn id_at(at: i64, i: u64) -> Uuid {
    Uuid::from_u64_pair((at as u64 / 1000) << 16 | 0x7000, 1 << 63 | i)
}
