//! JSON written straight into an answer's buffer.

use serde::Serialize;

pub(super) fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends a value as JSON: a string quoted and escaped, a number, a struct.
pub(super) fn put_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("the mock's own values are JSON and a Vec takes every byte");
}
