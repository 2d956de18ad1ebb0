use super::*;
use serde_json::json;

fn variable(schema: Value) -> Variable {
    Variable::compile("x", &schema).unwrap()
}

/// Checks one value given as JSON text, and returns the value or the problem as text.
fn read(schema: Value, given: &str) -> String {
    let declared = [variable(schema)];
    let text = format!("{{\"x\": {given}}}");
    let raw: &RawValue = serde_json::from_str(&text).unwrap();
    match super::check(&declared, Some(raw), false) {
        Ok((values, _)) => values[0].to_json().to_string(),
        Err(error) => error.details.unwrap()["problems"][0]["message"]
            .as_str()
            .unwrap()
            .to_owned(),
    }
}

#[test]
fn value_of_each_type_is_taken_or_refused() {
    for (schema, given, expected) in [
        (json!({"type": "string"}), r#""a""#, r#""a""#),
        (json!({"type": "string"}), "3", "must be a string, not a number"),
        (json!({"type": "string"}), "null", "is missing"),
        (
            json!({"type": "string"}),
            r#"{"type":"input_text","text":"hé"}"#,
            r#""hé""#,
        ),
        (
            json!({"type": "string"}),
            r#"{"type":"input_image"}"#,
            "must be a string, not an object",
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            r#""c""#,
            "must be one of a, b",
        ),
        (json!({"type": "string", "maxLength": 2}), r#""éé""#, r#""éé""#),
        (
            json!({"type": "string", "maxLength": 2}),
            r#""ééé""#,
            "has 3 characters, at most 2 are allowed",
        ),
        (
            json!({"type": "string", "minLength": 2}),
            r#""é""#,
            "has 1 characters, at least 2 are needed",
        ),
        (
            json!({"type": "string", "pattern": "^[a-z]+$"}),
            r#""a1""#,
            "\"a1\" does not match \"^[a-z]+$\"",
        ),
        (json!({"type": "number"}), r#"" 3.5 ""#, "3.5"),
        (
            json!({"type": "number"}),
            r#""three""#,
            "must be a number, the string given is not one",
        ),
        (
            json!({"type": "number", "maximum": 3}),
            "4",
            "4 is greater than the maximum of 3",
        ),
        (json!({"type": "integer"}), r#""3""#, "3"),
        (
            json!({"type": "integer"}),
            r#""4.5""#,
            "must be a whole number, the string given is not one",
        ),
        (json!({"type": "integer"}), "3.5", "must be a whole number, not 3.5"),
        (json!({"type": "boolean"}), r#""true""#, "true"),
        (json!({"type": "boolean"}), "1", "must be true or false, not a number"),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            r#"["a"]"#,
            r#"["a"]"#,
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            "[1]",
            "/0: 1 is not of type \"string\"",
        ),
        (
            json!({"type": "documents"}),
            r#"[{"id": "1", "text": "t"}]"#,
            r#"[{"id":"1","text":"t"}]"#,
        ),
        (
            json!({"type": "documents"}),
            r#"[{"id": "1"}]"#,
            "must be a list of {\"id\": \"…\", \"text\": \"…\"}, item 0 is not",
        ),
        (json!({}), "[1]", "[1]"),
    ] {
        assert_eq!(read(schema.clone(), given), expected, "{schema} {given}");
    }
}

#[test]
fn every_problem_is_listed_and_unknown_names_come_back() {
    let declared = ["a", "b"].map(|name| Variable::compile(name, &json!({"type": "string"})).unwrap());
    let raw: &RawValue = serde_json::from_str(r#"{"b": 1, "c": 2}"#).unwrap();
    let error = super::check(&declared, Some(raw), false).unwrap_err();
    assert_eq!(
        error.message,
        "variables do not fit the prompt: a is missing; b must be a string, not a number"
    );
    let error = super::check(&declared, Some(raw), true).unwrap_err();
    assert!(
        error.message.ends_with("c is not a variable of this prompt (a, b)"),
        "{error}"
    );
    let raw: &RawValue = serde_json::from_str(r#"{"a": "", "b": "", "c": 2}"#).unwrap();
    assert_eq!(super::check(&declared, Some(raw), false).unwrap().1, ["c"]);
}

#[test]
fn default_and_optional_stand_in_for_what_was_not_given() {
    let declared = [
        variable(json!({"type": "string", "default": "d"})),
        Variable::compile("y", &json!({"type": "documents", "optional": true})).unwrap(),
        Variable::compile("z", &json!({"type": "string", "optional": true})).unwrap(),
    ];
    let (values, _) = super::check(&declared, None, true).unwrap();
    let values: Vec<Value> = values.iter().map(Given::to_json).collect();
    assert_eq!(values, [json!("d"), json!([]), json!("")]);
}

#[test]
fn bad_declaration_is_refused_with_the_fix() {
    for (schema, expected) in [
        (
            json!("string"),
            "must be an object such as {\"type\": \"string\"}, not \"string\"",
        ),
        (
            json!({"maxLenght": 3}),
            "keyword \"maxLenght\" is not known, did you mean \"maxLength\"?",
        ),
        (
            json!({"type": "string", "default": 3}),
            "the default does not fit: must be a string, not a number",
        ),
        (
            json!({"type": "string", "enum": []}),
            "enum must be a list of strings, not []",
        ),
        (
            json!({"optional": "yes"}),
            "optional must be true or false, not \"yes\"",
        ),
    ] {
        assert_eq!(Variable::compile("x", &schema).unwrap_err(), expected);
    }
    assert!(Variable::compile("a b", &json!({})).is_err());
}
