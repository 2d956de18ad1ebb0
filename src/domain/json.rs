//! JSON looked at without building a tree.
//!
//! A request's body is split into its top-level fields, whose values stay slices of the body: what passes through is
//! neither decoded nor encoded again.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of a JSON object, in order, with their values as slices of the text.
#[derive(Debug, Default)]
pub struct Fields<'a>(pub Vec<Field<'a>>);

#[derive(Debug, Clone)]
pub struct Field<'a> {
    pub name: Cow<'a, str>,
    pub value: &'a RawValue,
}

impl<'a> Fields<'a> {
    /// Returns the value of a field; `null` counts as absent.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let field = self.0.iter().find(|field| field.name == name)?;
        (!is_null(field.value)).then_some(field.value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Vec<Field<'de>> = Vec::with_capacity(16);
        while let Some(Text(name)) = map.next_key()? {
            // A repeated field means one thing to us and perhaps another to the provider.
            if fields.iter().any(|field| field.name == name) {
                return Err(A::Error::custom(format_args!("field {name:?} appears twice")));
            }
            if fields.len() == MAX_FIELDS {
                return Err(A::Error::custom(format_args!(
                    "more than {MAX_FIELDS} fields in one object"
                )));
            }
            let value = map.next_value()?;
            fields.push(Field { name, value });
        }
        Ok(Fields(fields))
    }
}

/// The most fields of an object that we look into: the search for repeated ones is quadratic.
const MAX_FIELDS: usize = 256;

/// A string that borrows from the text unless it has escapes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Returns the string that `value` is, if it is one.
pub fn as_str(value: &RawValue) -> Option<Cow<'_, str>> {
    if !value.get().starts_with('"') {
        return None;
    }
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

pub fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Says whether `value` is an array or object with nothing in it.
pub fn is_empty_container(value: &RawValue) -> bool {
    let text = value.get().as_bytes();
    matches!(text, [b'[', .., b']'] | [b'{', .., b'}']) && text[1..text.len() - 1].trim_ascii().is_empty()
}

/// Returns the text between the brackets of an array, trimmed; `None` if it is not an array.
pub fn array_items(value: &RawValue) -> Option<&str> {
    value.get().strip_prefix('[')?.strip_suffix(']').map(str::trim)
}

/// Names the JSON type of `value`, for error messages.
pub fn type_name(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Says whether brackets nest deeper than `limit`.
///
/// Only a text with more than `limit` opening brackets is looked at closely. The text need not be valid JSON.
pub fn deeper_than(text: &[u8], limit: usize) -> bool {
    if memchr::memchr2_iter(b'{', b'[', text).nth(limit).is_none() {
        return false;
    }
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at = end_of_string(text, at + 1),
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    false
}

/// Returns the index of the quote that ends the string whose content starts at `at`.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(offset) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += offset;
        if text[at] == b'"' {
            return at;
        }
        at += 2;
    }
    text.len()
}

/// Appends `text` to `out` as the inside of a JSON string.
///
/// Source: RFC 8259 §7.
pub fn escape_into(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// Appends `text` to `out` as a JSON string with its quotes.
pub fn string_into(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape_into(out, text);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn escaped_text_reads_back_the_same(text in any::<String>()) {
            let mut out = Vec::new();
            string_into(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn depth_agrees_with_a_tree(depth in 1usize..100, limit in 1usize..100) {
            let text = format!("{}\"]}}{{[\\\"\"{}", "[".repeat(depth), "]".repeat(depth));
            prop_assert_eq!(deeper_than(text.as_bytes(), limit), depth > limit);
        }
    }

    #[test]
    fn fields_keep_order_and_slices() {
        let fields: Fields<'_> = serde_json::from_str(r#"{"b": [1, 2], "a\u0041": null}"#).unwrap();
        let seen: Vec<_> = fields.0.iter().map(|f| (f.name.as_ref(), f.value.get())).collect();
        assert_eq!(seen, [("b", "[1, 2]"), ("aA", "null")]);
        assert!(fields.get("aA").is_none());
    }

    #[test]
    fn repeated_field_is_refused() {
        let error = serde_json::from_str::<Fields<'_>>(r#"{"a": 1, "\u0061": 2}"#).unwrap_err();
        assert!(error.to_string().contains("\"a\" appears twice"), "{error}");
    }
}
