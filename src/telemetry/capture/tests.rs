use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const KEY: &str = "sk-proj-4f9A8b7C6d5E4f3A2b1C";
const OURS: &str = "pg_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP0";

fn redactor(fields: &[&str], patterns: &[&str]) -> Redactor {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Redactor::new(&Redaction {
        fields: owned(fields),
        patterns: owned(patterns),
        hash_users: true,
    })
}

fn whole(redactor: &Redactor, text: &str) -> String {
    let kept = redactor.content(text.as_bytes(), true, usize::MAX, None);
    assert!(!kept.truncated);
    String::from_utf8(kept.bytes.into_owned()).unwrap()
}

#[test]
fn credentials_are_found_by_their_shape() {
    let none = redactor(&[], &[]);
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P";
    for secret in [
        KEY,
        OURS,
        "pga_integration_test_token_0123456789",
        "sk-ant-api03-abcdefghijklmnopqrstuvwxyz",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        jwt,
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    ] {
        for (before, after) in [
            ("", ""),
            ("key=", "&x"),
            ("say \"", "\"."),
            ("(", ")"),
            ("ä", "\n"),
            ("Bearer ", ""),
        ] {
            let text = format!("{before}{secret}{after}");
            let clean = whole(&none, &text);
            assert_eq!(clean, format!("{before}[redacted]{after}"), "{text}");
            let body = json!({"a": [1, {"text": text}], text.clone(): true}).to_string();
            let clean: Value = serde_json::from_str(&whole(&none, &body)).unwrap();
            assert_eq!(clean["a"][1]["text"], format!("{before}[redacted]{after}"));
            assert!(!clean.to_string().contains(&secret[8..]));
        }
    }
    assert_eq!(
        whole(&none, "authorization: Basic dXNlcjpwYXNzd29yZA=="),
        "authorization: Basic [redacted]"
    );
    assert_eq!(whole(&none, "BEARER  abcdefghijklmnop1"), "BEARER  [redacted]");
}

#[test]
fn words_and_names_are_no_credentials() {
    let none = redactor(&[], &[]);
    for text in [
        "a task-force-with-a-very-long-name-indeed of desk-bound risk-takers",
        "SELECT * FROM pg_stat_user_tables_with_a_name_as_long_as_no_other_one_is",
        "bearer responsibilities of the office, basic understanding, Basic Understanding",
        "sk-upstream",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "{\"api_key\": {\"type\": \"string\"}, \"cookie\": 3, \"x\": \"the api_key: none\"}",
        "{\"text\": \"\\u0041 \\u00e9 \\u003c\"}",
    ] {
        let kept = none.content(text.as_bytes(), true, usize::MAX, None);
        assert_eq!(kept.bytes, Cow::Borrowed(text.as_bytes()), "{text}");
        assert!(matches!(kept.bytes, Cow::Borrowed(_)), "{text}");
    }
}

#[test]
fn credentials_written_with_escapes_are_found() {
    let none = redactor(&[], &[]);
    let escaped: String = KEY.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    for inside in [
        format!("x {escaped}"),
        format!("line\\n{KEY}"),
        format!("tab\\u0009{KEY}"),
        format!("\\u0073k{}", &KEY[2..]),
        format!("{}\\u002d{}", &KEY[..2], &KEY[3..]),
        format!("Bearer a\\/{}", &KEY[3..]),
    ] {
        let body = format!("{{\"messages\":[{{\"content\":\"{inside}\"}}]}}");
        let clean = whole(&none, &body);
        let text = serde_json::from_str::<Value>(&clean).unwrap()["messages"][0]["content"].to_string();
        assert!(
            text.contains("[redacted]") && !text.contains("4f9A8b"),
            "{body} became {clean}"
        );
    }
}

#[test]
fn fields_go_whatever_their_value_at_any_depth() {
    let redactor = redactor(&["Password", "PIN", "größe"], &[]);
    let arguments = json!({"user": "u", "password": "hunter2", "more": {"pin": [1, 2]}}).to_string();
    let body = json!({
        "password": "hunter2", "a": {"PASSWORD": {"x": ["hunter2", "}"]}, "pin": 1234, "Größe": null, "passwords": "stay"},
        "b": [{"pin": true}, "password", "pin"], "tool": {"arguments": arguments}, "c": "\"password\": \"x\"",
    });
    let clean: Value = serde_json::from_str(&whole(&redactor, &body.to_string())).unwrap();
    let inner: Value = serde_json::from_str(clean["tool"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(
        inner,
        json!({"user": "u", "password": "[redacted]", "more": {"pin": "[redacted]"}})
    );
    assert_eq!(
        (&clean["password"], &clean["a"], &clean["b"], &clean["c"]),
        (
            &json!("[redacted]"),
            &json!({"PASSWORD": "[redacted]", "pin": "[redacted]", "Größe": "[redacted]", "passwords": "stay"}),
            &json!([{"pin": "[redacted]"}, "password", "pin"]),
            &json!("\"password\": \"x\""),
        )
    );
    let escaped = r#"{"pass\u0077ord" : "x", "p\u0049n":-1.5e3 ,"z":0}"#;
    assert_eq!(
        whole(&redactor, escaped),
        r#"{"pass\u0077ord" : "[redacted]", "p\u0049n":"[redacted]" ,"z":0}"#
    );
    assert_eq!(
        whole(&redactor, "data: {\"password\": \"hunter2\"}\n\ndata: {\"pin\": 1}\n\n"),
        "data: {\"password\": \"[redacted]\"}\n\ndata: {\"pin\": \"[redacted]\"}\n\n"
    );
}

#[test]
fn credential_fields_are_always_redacted() {
    let none = redactor(&[], &[]);
    let body = r#"{"tools":[{"type":"mcp","authorization":"opaque","headers":{"X-API-Key":"short","Cookie":"a=b"}}],"apikey":{"type":"string"}}"#;
    assert_eq!(
        whole(&none, body),
        r#"{"tools":[{"type":"mcp","authorization":"[redacted]","headers":{"X-API-Key":"[redacted]","Cookie":"[redacted]"}}],"apikey":{"type":"string"}}"#
    );
}

#[test]
fn patterns_match_unescaped_text_and_leave_json() {
    let redactor = redactor(&[], &[r"\b\d{4}-\d{4}\b", r#"say "\w+""#, r"[\w.]+@[\w.]+", r"\d{16}"]);
    let body = r#"{"a":"no 1234-5678!","b":"he said: say \"hello\" \u0061da\u0040example.com","c":4111111111111111,"d":[14111111111111111.5],"1234-5678":1}"#;
    let clean = whole(&redactor, body);
    let clean: Value = serde_json::from_str(&clean).unwrap();
    assert_eq!(
        clean,
        json!({"a": "no [redacted]!", "b": "he said: [redacted] [redacted]", "c": "[redacted]", "d": ["[redacted]"], "[redacted]": 1})
    );
    assert_eq!(
        whole(&redactor, "plain: say \"hello\" to 1234-5678"),
        "plain: [redacted] to [redacted]"
    );
    let invalid = [b"x ada@example.com ".as_slice(), &[0xff, 0xfe]].concat();
    let kept = redactor.content(&invalid, true, 100, None);
    assert_eq!(&*kept.bytes, [b"x [redacted] ".as_slice(), &[0xff, 0xfe]].concat());
}

#[test]
fn people_are_pseudonyms_where_they_are_named() {
    let none = redactor(&[], &[]);
    let known = ["ada@example.com".to_owned(), "münchen 7".to_owned()];
    let pseudonym = |id: &str| format!("#{}", id.chars().next().unwrap());
    let people = |is_call| People {
        known: &known,
        is_call,
        pseudonym: &pseudonym,
    };
    let body = r#"{"user":"ada@example.com","safety_identifier" : "m\u00fcnchen 7","metadata":{"user_id":"bob","team":"user"},
        "messages":[{"role":"user","content":"I am ada@example.com","user":"stays"}],"input":{"user":"ada@example.com","user_id":17}}"#;
    let kept = none.content(body.as_bytes(), true, usize::MAX, Some(&people(true)));
    assert_eq!(
        std::str::from_utf8(&kept.bytes).unwrap(),
        r##"{"user":"#a","safety_identifier" : "#m","metadata":{"user_id":"#b","team":"user"},
        "messages":[{"role":"user","content":"I am ada@example.com","user":"stays"}],"input":{"user":"#a","user_id":17}}"##
    );
    let variables = br#"{"user":"Ada","user_id":"ada@example.com"}"#;
    let kept = none.content(variables, true, usize::MAX, Some(&people(false)));
    assert_eq!(&*kept.bytes, br##"{"user":"Ada","user_id":"#a"}"##);
    let number = br#"{"user":17,"x":"ada@example.com"}"#;
    let kept = none.content(number, true, usize::MAX, Some(&people(true)));
    assert_eq!(&*kept.bytes, br##"{"user":"#1","x":"ada@example.com"}"##);
}

/// A secret of any length up to the margin, at any place near the cap, in any of the forms a body has.
#[test]
fn no_part_of_a_secret_survives_a_cut() {
    let redactor = redactor(&["password"], &["TOP[0-9]+SECRET"]);
    let limit = 300usize;
    for length in [5, 40, 250, 4000] {
        let secret = format!("TOP{}SECRET", "7".repeat(length));
        for place in limit.saturating_sub(length + 20)..limit + 5 {
            let filler = "x".repeat(place);
            let escaped: String = secret.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
            let forms = [
                format!("{filler} {secret} tail"),
                format!("{{\"a\":\"{filler} {secret} tail\"}}"),
                format!("{{\"a\":\"{filler}\",\"password\":\"{}\"}}", "7".repeat(length)),
                format!("{{\"a\":\"{filler}\",\"password\":[\"{}\"]}}", "7".repeat(length)),
                // An escape has six bytes for one, and a secret its length in bytes.
                format!(
                    "{{\"a\":\"{filler}{}\"}}",
                    if length * 6 < MARGIN { &escaped } else { &secret }
                ),
                json!({"a": filler, "arguments": json!({"deep": secret, "password": "77777"}).to_string()}).to_string(),
            ];
            for form in forms {
                for is_whole in [true, false] {
                    let kept = redactor.content(form.as_bytes(), is_whole, limit, None);
                    let text = std::str::from_utf8(&kept.bytes).unwrap();
                    assert!(text.len() <= limit);
                    assert!(
                        !text.contains('7') && !text.contains("TOP") && !text.contains("\\u00"),
                        "{form}\nbecame {text}"
                    );
                    assert_eq!(kept.truncated, form.len() > limit || !is_whole, "{form}");
                }
            }
        }
    }
}

#[test]
fn unfinished_text_loses_its_end() {
    let none = redactor(&[], &[]);
    let text = "y".repeat(10) + &"é".repeat(MARGIN);
    assert_eq!(none.unfinished(&text).len(), text.len() - MARGIN);
    assert_eq!(none.unfinished("short sk-"), "");
}

#[test]
fn labels_are_redacted_before_they_are_cut() {
    let redactor = redactor(&[], &["secret-[a-z]+"]);
    assert_eq!(redactor.label("gpt-4o", 256), "gpt-4o");
    assert_eq!(redactor.label(&format!("m {KEY}"), 256), "m [redacted]");
    assert_eq!(redactor.label("aaaa secret-abcdefgh", 12), "aaaa [redact");
    assert_eq!(redactor.label("éééé", 3), "é");
}

proptest! {
    /// Whatever the JSON is, it stays JSON, nothing else in it changes, and the secret is gone.
    #[test]
    fn json_stays_the_same_but_for_the_secret(strings in prop::collection::vec(any::<String>(), 1..6), place in 0usize..6, number in any::<f64>()) {
        let redactor = redactor(&["hidden"], &["qqq[a-z0-9]{4}qqq"]);
        let mut with: Vec<String> = strings.clone();
        let mut without = strings.clone();
        let at = place % strings.len();
        with[at].push_str(" qqqab12qqq ");
        without[at].push_str(" [redacted] ");
        let body = |strings: &[String], hidden: Value| json!({"s": strings, "n": number, "o": {"hidden": hidden, "e": [{}, []]}});
        let clean = whole(&redactor, &body(&with, json!({"a": [number, "x"]})).to_string());
        prop_assume!(!strings.iter().any(|s| s.contains("hidden")));
        let clean: Value = serde_json::from_str(&clean).unwrap();
        prop_assert_eq!(clean, serde_json::from_str::<Value>(&body(&without, json!("[redacted]")).to_string()).unwrap());
    }

    /// Any bytes, any cap: no panic, never longer than the cap, and never a credential.
    #[test]
    fn any_bytes_are_walked(before in prop::collection::vec(any::<u8>(), 0..60), text in "[\\[\\]{}:,\"\\\\ua-z0-9 ]{0,60}", limit in 0usize..200, is_whole in any::<bool>()) {
        let redactor = redactor(&["a"], &["b+c"]);
        let pseudonym = |id: &str| id.len().to_string();
        let known = ["a".to_owned()];
        let people = People { known: &known, is_call: true, pseudonym: &pseudonym };
        let body = [before.as_slice(), b" ", text.as_bytes(), b" ", KEY.as_bytes(), b" ", &before].concat();
        let kept = redactor.content(&body, is_whole, limit, Some(&people));
        prop_assert!(kept.bytes.len() <= limit);
        prop_assert!(memchr::memmem::find(&kept.bytes, b"4f9A8b7C").is_none());
    }
}
