use super::*;

/// Finds the reference of a body, headers and a path, as `name selector variables` or the error's code.
fn found(body: &str, headers: &[(&'static str, &str)], path: Option<&str>) -> String {
    let fields: Fields<'_> = serde_json::from_str(body).unwrap();
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    let from_header = match header_variables(&headers) {
        Ok(variables) => variables,
        Err(error) => return error.code.as_str().to_owned(),
    };
    match find(&fields, &headers, path, from_header.as_deref()) {
        Err(error) => error.code.as_str().to_owned(),
        Ok(None) => "none".to_owned(),
        Ok(Some(reference)) => {
            let selector = match &reference.selector {
                Selector::Default => String::new(),
                Selector::Environment(name) => format!("@{name}"),
                Selector::Version(version) => format!(":{version}"),
            };
            let variables = reference.variables.map(RawValue::get).unwrap_or_default();
            format!("{}{selector} {variables}", reference.name)
                .trim_end()
                .to_owned()
        }
    }
}

#[test]
fn every_form_names_the_same_prompt() {
    for (body, headers, path) in [
        (
            r#"{"prompt":{"id":"a/b","version":3,"variables":{"x":1}}}"#,
            &[][..],
            None,
        ),
        (
            r#"{"prompt":{"id":"a/b","version":"3","environment":null,"variables":{"x":1}}}"#,
            &[],
            None,
        ),
        (
            r#"{"prompt":{"prompt_id":"a/b","version":3,"variables":{"x":1}}}"#,
            &[],
            None,
        ),
        (r#"{"prompt_id":"a/b","version_id":"3","inputs":{"x":1}}"#, &[], None),
        (
            r#"{"prompt_id":"a/b","prompt_version":3,"prompt_variables":{"x":1}}"#,
            &[],
            None,
        ),
        (r#"{"model":"prompt/a/b:3","variables":{"x":1}}"#, &[], None),
        (r#"{"model":"prompt\/a\/b:3","variables":{"x":1}}"#, &[], None),
        (
            r#"{"model":"m"}"#,
            &[
                ("x-promptgate-prompt", "a/b:3"),
                ("x-promptgate-variables", r#"{"x":1}"#),
            ],
            None,
        ),
        (r#"{"variables":{"x":1}}"#, &[], Some("a/b:3")),
        (r#"{"prompt":{"variables":{"x":1}}}"#, &[], Some("a/b:3")),
        (
            r#"{"prompt":{"id":"a/b"},"prompt_id":"a/b","inputs":{"x":1},"variables":{"x" :1}}"#,
            &[],
            Some("a/b:3"),
        ),
    ] {
        assert_eq!(found(body, headers, path), "a/b:3 {\"x\":1}", "{body}");
    }
    for body in [
        r#"{"prompt":{"id":"a","environment":"staging"}}"#,
        r#"{"prompt":{"id":"a","label":"staging"}}"#,
        r#"{"prompt_id":"a","environment":"staging"}"#,
        r#"{"prompt_id":"a","prompt_label":"staging"}"#,
        r#"{"model":"prompt/a@staging"}"#,
    ] {
        assert_eq!(found(body, &[], None), "a@staging", "{body}");
    }
    let encoded = ("x-promptgate-variables", r#"{"x":"Zo%C3%AB"}"#);
    assert_eq!(
        found("{}", &[("x-promptgate-prompt", "a"), encoded], None),
        r#"a {"x":"Zoë"}"#
    );
}

#[test]
fn wrong_form_or_contradiction_is_refused() {
    for (body, code) in [
        (r#"{"prompt":"a/b"}"#, "invalid_field"),
        (r#"{"prompt":["a/b"]}"#, "invalid_field"),
        (r#"{"prompt":{}}"#, "prompt_id_missing"),
        (r#"{"prompt":{"id":null}}"#, "prompt_id_missing"),
        (r#"{"prompt":{"id":""}}"#, "prompt_id_missing"),
        (r#"{"prompt":{"id":3}}"#, "invalid_field"),
        (r#"{"prompt":{"id":"a","verison":3}}"#, "invalid_field"),
        (r#"{"prompt":{"id":"a","version":"latest"}}"#, "invalid_field"),
        (r#"{"prompt":{"id":"a","version":0}}"#, "invalid_field"),
        (r#"{"prompt":{"id":"a","version":1.5}}"#, "invalid_field"),
        (
            r#"{"prompt":{"id":"a","version":1,"environment":"staging"}}"#,
            "contradiction",
        ),
        (
            r#"{"prompt":{"id":"a","version":1},"environment":"staging"}"#,
            "contradiction",
        ),
        (r#"{"prompt":{"id":"a"},"prompt_id":"b"}"#, "contradiction"),
        (r#"{"prompt":{"id":"a"},"model":"prompt/b"}"#, "contradiction"),
        (
            r#"{"prompt":{"id":"a","environment":"x","label":"y"}}"#,
            "contradiction",
        ),
        (
            r#"{"prompt":{"id":"a","variables":{"x":1}},"inputs":{"x":2}}"#,
            "contradiction",
        ),
    ] {
        assert_eq!(found(body, &[], None), code, "{body}");
    }
    assert_eq!(found("{}", &[("x-promptgate-variables", "{x}")], None), "invalid_field");
}

#[test]
fn request_without_id_is_raw() {
    for body in [
        "{}",
        r#"{"prompt":null,"model":"gpt"}"#,
        r#"{"environment":"staging","variables":{"a":1}}"#,
        r#"{"model":"prompts/x"}"#,
    ] {
        assert_eq!(found(body, &[], None), "none", "{body}");
    }
}
