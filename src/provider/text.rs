//! The text in requests and answers that a model reads or writes, for estimates of their tokens.
//!
//! Not bound to one dialect: what counts is decided by the names of fields, which the providers' dialects share. Everything
//! else (ids, addresses, base64 of images, sound and files) is passed over.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::json::{self, Text};

/// What a message costs besides its text: its frame and its role.
///
/// Source: OpenAI's cookbook, "How to count tokens with tiktoken".
const MESSAGE_TOKENS: u64 = 4;

/// What the beginning of the answer costs, as input.
const ANSWER_TOKENS: u64 = 3;

/// An image of 1,024 x 1,024 pixels; their real sizes are not looked at.
///
/// Source: OpenAI's guide to images, gpt-4o: 85 tokens, and 170 for each 512 pixels square.
const IMAGE_TOKENS: u64 = 85 + 4 * 170;

/// An image with `detail: low`.
const LOW_IMAGE_TOKENS: u64 = 85;

/// The texts of a request or an answer.
#[derive(Debug, Default)]
pub struct Texts<'a> {
    pub texts: Vec<Cow<'a, str>>,
    /// Tokens that are not text: images, the frames of messages, token ids.
    pub other_tokens: u64,
}

/// Collects what the model reads. A body that is no JSON gives what comes before the error.
pub fn of_request(body: &[u8]) -> Texts<'_> {
    collect(body, |name| match name {
        "messages" | "contents" => Field::Conversation,
        "input" | "instructions" | "prompt" | "suffix" | "system" => Field::Said,
        "tools" | "functions" | "response_format" | "text" | "output_config" => Field::Definition,
        _ => Field::Other,
    })
}

/// Collects what the model wrote: a plain answer, or a streamed one that was put together.
pub fn of_answer(body: &[u8]) -> Texts<'_> {
    let mut found = collect(body, |name| match name {
        "choices" | "output" | "tool_calls" | "candidates" => Field::Conversation,
        "content" | "refusal" => Field::Said,
        _ => Field::Other,
    });
    // Roles in an answer are no messages that anybody pays for.
    found.other_tokens = 0;
    found
}

/// What is done with a field's value.
#[derive(Clone, Copy)]
enum Field {
    /// Its strings are text.
    Said,
    /// Fields inside it may be text.
    Conversation,
    /// JSON that the model gets to see: counted as it is.
    Definition,
    Image,
    Other,
}

/// Which fields of messages, content parts and calls are text.
fn inside(name: &str) -> Field {
    match name {
        "content" | "text" | "name" | "arguments" | "refusal" | "output" | "thinking" | "reasoning_content"
        | "summary" | "transcript" | "result" => Field::Said,
        "input" | "args" | "response" => Field::Definition,
        "image_url" | "inline_data" | "inlineData" => Field::Image,
        // Base64 and addresses: sound, files, sources.
        "input_audio" | "audio" | "file" | "file_data" | "source" | "data" | "url" | "metadata" => Field::Other,
        _ => Field::Conversation,
    }
}

fn collect<'a>(body: &'a [u8], top: fn(&str) -> Field) -> Texts<'a> {
    let mut found = Found::default();
    let walk = Walk {
        found: &mut found,
        field: top,
        is_text: false,
    };
    // What came before an error counts: a body that we kept a part of ends anywhere.
    let _ = walk.deserialize(&mut serde_json::Deserializer::from_slice(body));
    let mut other_tokens = found.images * IMAGE_TOKENS + found.low_images * LOW_IMAGE_TOKENS + found.token_ids;
    if found.messages > 0 {
        other_tokens += found.messages * MESSAGE_TOKENS + ANSWER_TOKENS;
    }
    Texts {
        texts: found.texts,
        other_tokens,
    }
}

#[derive(Default)]
struct Found<'a> {
    texts: Vec<Cow<'a, str>>,
    messages: u64,
    images: u64,
    low_images: u64,
    token_ids: u64,
}

/// Walks one value.
struct Walk<'f, 'a> {
    found: &'f mut Found<'a>,
    field: fn(&str) -> Field,
    is_text: bool,
}

impl<'f, 'a> Walk<'f, 'a> {
    fn inner(&mut self, is_text: bool) -> Walk<'_, 'a> {
        Walk {
            found: self.found,
            field: inside,
            is_text,
        }
    }
}

impl<'a> DeserializeSeed<'a> for Walk<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Walk<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        if self.is_text {
            self.found.texts.push(Cow::Borrowed(text));
        }
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.is_text {
            self.found.texts.push(Cow::Owned(text.to_owned()));
        }
        Ok(())
    }

    // Embeddings and completions take token ids in place of text.
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.found.token_ids += u64::from(self.is_text);
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut seq: A) -> Result<(), A::Error> {
        loop {
            let (is_text, field) = (self.is_text, self.field);
            let mut inner = self.inner(is_text);
            // An answer of several choices is a list of what one choice would be.
            inner.field = if is_text { inside } else { field };
            if seq.next_element_seed(inner)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut low = false;
        let mut image = false;
        while let Some(Text(name)) = map.next_key()? {
            match name.as_ref() {
                "role" => self.found.messages += 1,
                "type" | "detail" => {
                    let value: &RawValue = map.next_value()?;
                    image |= matches!(value.get(), r#""image""# | r#""image_url""# | r#""input_image""#);
                    low |= name == "detail" && value.get() == r#""low""#;
                    continue;
                }
                _ => {}
            }
            match (self.field)(&name) {
                Field::Said => map.next_value_seed(self.inner(true))?,
                Field::Conversation => map.next_value_seed(self.inner(false))?,
                Field::Definition => {
                    let value: &RawValue = map.next_value()?;
                    let text = json::as_str(value).unwrap_or(Cow::Borrowed(value.get()));
                    self.found.texts.push(text);
                }
                Field::Image => {
                    image = true;
                    let value: &RawValue = map.next_value()?;
                    low |= serde_json::from_str(value.get()).is_ok_and(|Detail { detail }| detail == Some("low"));
                }
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        self.found.low_images += u64::from(image && low);
        self.found.images += u64::from(image && !low);
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Detail<'a> {
    #[serde(borrow, default)]
    detail: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_gives_its_text_and_no_base64() {
        let image = "A".repeat(1_000);
        for (what, body, texts, other_tokens) in [
            (
                "messages",
                r#"{"model":"m","messages":[{"role":"system","content":"be \"kind\""},{"role":"user","name":"ann","content":"hi"}],
                    "user":"u","metadata":{"text":"no"},"stop":["x"],"temperature":1}"#
                    .to_owned(),
                vec!["be \"kind\"", "ann", "hi"],
                2 * 4 + 3,
            ),
            (
                "parts",
                format!(
                    r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"look"}},
                    {{"type":"image_url","image_url":{{"url":"data:image/png;base64,{image}"}}}},
                    {{"type":"image_url","image_url":{{"url":"https://x","detail":"low"}}}},
                    {{"type":"input_audio","input_audio":{{"data":"{image}","format":"wav"}}}},
                    {{"type":"file","file":{{"file_data":"{image}","filename":"f"}}}}]}}]}}"#
                ),
                vec!["look"],
                4 + 3 + 765 + 85,
            ),
            (
                "responses",
                r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"data:,x","detail":"low"}]},
                    {"type":"function_call_output","call_id":"c","output":"42"}],"instructions":"b","previous_response_id":"r"}"#
                    .to_owned(),
                vec!["a", "42", "b"],
                4 + 3 + 85,
            ),
            ("plain input", r#"{"input":"a"}"#.to_owned(), vec!["a"], 0),
            ("several inputs", r#"{"input":["a","b"]}"#.to_owned(), vec!["a", "b"], 0),
            ("token ids", r#"{"input":[[1,2],[3]],"dimensions":5}"#.to_owned(), vec![], 3),
            (
                "tools",
                r#"{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{}"}}]},
                    {"role":"tool","tool_call_id":"c","content":"42"}],"tools":[{"type":"function"}],"tool_choice":"auto"}"#
                    .to_owned(),
                vec!["f", "{}", "42", r#"[{"type":"function"}]"#],
                2 * 4 + 3,
            ),
            (
                "anthropic",
                r#"{"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"type":"image","source":{"data":"AAAA"}},
                    {"type":"tool_use","id":"i","name":"f","input":{"x":1}}]}]}"#
                    .to_owned(),
                vec!["s", "f", r#"{"x":1}"#],
                4 + 3 + 765,
            ),
            ("cut", r#"{"messages":[{"role":"user","content":"hi"},{"ro"#.to_owned(), vec!["hi"], 4 + 3),
            ("no JSON", "hello".to_owned(), vec![], 0),
        ] {
            let found = of_request(body.as_bytes());
            assert_eq!((found.texts, found.other_tokens), (texts.into_iter().map(Cow::from).collect(), other_tokens), "{what}");
        }
    }

    #[test]
    fn answer_gives_what_the_model_wrote() {
        for (body, texts) in [
            (
                r#"{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi","refusal":null,
                    "tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}],"usage":{"x":1}}"#,
                vec!["hi", "f", "{}"],
            ),
            (r#"{"choices":[{"text":"a"},{"text":"b"}]}"#, vec!["a", "b"]),
            (
                r#"{"id":"r","instructions":"no","tools":[{"name":"no"}],"output":[{"type":"message","role":"assistant",
                    "content":[{"type":"output_text","text":"hi","annotations":[]}]}],"text":{"format":{"type":"text"}}}"#,
                vec!["hi"],
            ),
            (r#"{"role":"assistant","content":"put together"}"#, vec!["put together"]),
            (
                r#"[{"role":"assistant","content":"a"},{"role":"assistant","content":"b"}]"#,
                vec!["a", "b"],
            ),
            (r#"{"object":"list","data":[{"embedding":[1,2]}]}"#, vec![]),
            ("", vec![]),
        ] {
            let found = of_answer(body.as_bytes());
            assert_eq!(
                (found.texts, found.other_tokens),
                (texts.into_iter().map(Cow::from).collect(), 0),
                "{body}"
            );
        }
    }
}
