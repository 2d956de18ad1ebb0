//! `promptgate demo` as a newcomer runs it.

use serde_json::Value;

use crate::support::promptgate;

const REQUESTS: u64 = 600;

#[test]
fn demo_once_records_what_it_sent_and_splits_as_configured() {
    let folder = tempfile::tempdir().unwrap();
    let requests = REQUESTS.to_string();
    let args = [
        "demo",
        "--once",
        "--json",
        "--requests",
        &requests,
        "--dir",
        folder.path().to_str().unwrap(),
    ];
    let output = promptgate(&args).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table: Value = serde_json::from_slice(&output.stdout).expect("JSON alone on standard output");
    let rows = table["rows"].as_array().unwrap();
    let recorded = |prompt: &str, variant: Option<&str>| -> u64 {
        let rows = rows.iter().filter(|row| row["prompt"] == prompt);
        let rows = rows.filter(|row| variant.is_none_or(|variant| row["summary"]["variant"] == variant));
        rows.map(|row| row["summary"]["requests"].as_u64().unwrap()).sum()
    };
    let sent = table["sent"].as_object().unwrap();
    for (prompt, count) in sent {
        assert_eq!(recorded(prompt, None), count.as_u64().unwrap(), "{prompt}: {table}");
    }
    assert_eq!(sent.values().filter_map(Value::as_u64).sum::<u64>(), REQUESTS);
    for row in rows {
        assert_eq!(row["summary"]["errors"], 0, "{row}");
        assert!(row["summary"]["cost_nanodollars"].as_u64() > Some(0), "{row}");
    }
    let total = recorded("support/greet", None) as f64;
    let control = recorded("support/greet", Some("control")) as f64;
    let sigma = (total * 0.8 * 0.2).sqrt();
    assert!(
        (control - total * 0.8).abs() <= 4.0 * sigma,
        "{control} of {total} are not 80 %"
    );
}
