//! The text a request gives the model: measured while it is parsed, never copied.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Controls, Failure, unreadable};

/// What the model is asked, whichever field holds it.
pub(super) struct Prompt<'a> {
    /// As received.
    pub(super) raw: &'a str,
    /// Of the last user message, or of all where there are no messages.
    pub(super) seed: u64,
    pub(super) tokens: usize,
    /// How many texts, where it is an array; one of token ids is one text.
    pub(super) elements: Option<usize>,
}

impl<'a> Prompt<'a> {
    pub(super) fn read(param: &'static str, raw: Option<&'a RawValue>) -> Result<Self, Failure> {
        let raw = raw.map_or("", RawValue::get);
        if param == "messages" && !raw.is_empty() && !raw.starts_with('[') {
            return Err(Failure::invalid(
                param,
                "invalid type for 'messages': expected an array",
            ));
        }
        if matches!(raw, "" | r#""""#) {
            return Err(Failure::missing(param));
        }
        let text: Text = serde_json::from_str(raw).map_err(|error| unreadable(&error))?;
        if text.elements == Some(0) {
            return Err(Failure::invalid(param, format!("invalid '{param}': empty array")));
        }
        Ok(Self {
            raw,
            seed: text.last_user_hash.unwrap_or(text.hash),
            tokens: text.bytes.div_ceil(4).max(1),
            elements: text.elements,
        })
    }

    /// The seed of one of several choices.
    pub(super) fn seed_of(&self, choice: usize, controls: &Controls) -> u64 {
        self.seed ^ controls.seed.rotate_left(32) ^ (choice as u64).rotate_right(3)
    }
}

/// The text in messages, content parts, or a bare string.
#[derive(Clone, Copy, Default)]
struct Text {
    bytes: usize,
    hash: u64,
    from_user: bool,
    is_token: bool,
    last_user_hash: Option<u64>,
    elements: Option<usize>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Role,
    Content,
    Text,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Role {
    User,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("messages, content parts or text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text {
            bytes: text.len(),
            hash: u64::from(crc32fast::hash(text.as_bytes())),
            ..Text::default()
        })
    }

    // A token id, in the arrays that completions and embeddings take.
    fn visit_u64<E>(self, token: u64) -> Result<Text, E> {
        Ok(Text {
            bytes: 4,
            hash: token,
            is_token: true,
            ..Text::default()
        })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
        let mut all = Text::default();
        let (mut elements, mut tokens) = (0, 0);
        while let Some(element) = seq.next_element::<Text>()? {
            elements += 1;
            tokens += usize::from(element.is_token);
            all.bytes += element.bytes;
            all.hash = (all.hash.rotate_left(5) ^ element.hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if element.from_user {
                all.last_user_hash = Some(element.hash);
            }
        }
        all.elements = Some(if tokens > 0 && tokens == elements { 1 } else { elements });
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let mut text = Text::default();
        while let Some(key) = map.next_key()? {
            match key {
                Key::Role => text.from_user = matches!(map.next_value()?, Role::User),
                Key::Content | Key::Text => {
                    let inner: Text = map.next_value()?;
                    text.bytes += inner.bytes;
                    text.hash ^= inner.hash;
                }
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Request, *};

    fn messages(json: &str) -> Result<(u64, usize), Failure> {
        let body = format!(r#"{{"model":"m","messages":{json}}}"#);
        let prompt = Request::parse(body.as_bytes())?.messages()?;
        assert_eq!(prompt.raw, json);
        Ok((prompt.seed, prompt.tokens))
    }

    #[test]
    fn seed_is_the_last_user_message_and_tokens_count_all_text() {
        let (seed, tokens) = messages(r#"[{"role":"user","content":"hello"}]"#).unwrap();
        assert_eq!(tokens, 2);
        let longer = r#"[{"content":"be kind","role":"system"},{"content":"hello","role":"user"},
            {"role":"assistant","content":null,"tool_calls":[{"id":"x"}]}]"#;
        assert_eq!(messages(longer).unwrap(), (seed, 3));
        assert_ne!(messages(r#"[{"role":"user","content":"hello!"}]"#).unwrap().0, seed);
    }

    #[test]
    fn content_parts_count_their_text() {
        let parts = r#"[{"role":"user","content":[{"type":"text","text":"12345678"},
            {"type":"image_url","image_url":{"url":"data:,xxxxxxxxxxxx"}},{"type":"text","text":"1234"}]}]"#;
        assert_eq!(messages(parts).unwrap().1, 3);
    }

    #[test]
    fn missing_or_blank_messages_are_refused() {
        for json in ["null", "[]", r#""""#, r#""hello""#, "{}", "7"] {
            let failure = messages(json).expect_err(json);
            assert_eq!(
                (failure.status().as_u16(), failure.param),
                (400, Some("messages")),
                "{json}"
            );
        }
    }
}
