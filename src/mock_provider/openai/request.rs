//! What the mock reads of a request: borrowed, and no deeper than an answer needs.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Controls, Failure, prompt::Prompt, unreadable};

/// The fields of all endpoints in one struct: a request is parsed once, before its endpoint's rules apply.
#[derive(Default, Deserialize)]
pub(in crate::mock_provider) struct Request<'a> {
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_choice: Option<&'a RawValue>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    pub(super) max_output_tokens: Option<usize>,
    n: Option<usize>,
    pub(super) dimensions: Option<usize>,
    #[serde(borrow)]
    pub(super) encoding_format: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl<'a> Request<'a> {
    pub(in crate::mock_provider) fn parse(body: &'a [u8]) -> Result<Self, Failure> {
        serde_json::from_slice(body).map_err(|error| unreadable(&error))
    }

    /// The model without the controls that may follow it.
    pub(super) fn model_name(&self) -> &str {
        self.model.split_once('?').map_or(&*self.model, |(name, _)| name)
    }

    pub(in crate::mock_provider) fn controls_in_model(&self) -> Option<&str> {
        self.model.split_once('?').map(|(_, controls)| controls)
    }

    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    pub(super) fn wants_usage_chunk(&self) -> bool {
        self.stream_options
            .as_ref()
            .is_some_and(|options| options.include_usage)
    }

    /// Words a choice may have at most.
    pub(super) fn token_limit(&self) -> Option<usize> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    pub(super) fn choices(&self) -> usize {
        self.n.unwrap_or(1).clamp(1, 4)
    }

    pub(super) fn messages(&self) -> Result<Prompt<'a>, Failure> {
        Prompt::read("messages", self.messages)
    }

    pub(super) fn input(&self) -> Result<Prompt<'a>, Failure> {
        Prompt::read("input", self.input)
    }

    pub(super) fn prompt(&self) -> Result<Prompt<'a>, Failure> {
        Prompt::read("prompt", self.prompt)
    }

    /// The function to call, if one must be: the one `tool_choice` names, else the first.
    pub(super) fn called_function(&self, controls: &Controls) -> Result<Option<Cow<'a, str>>, Failure> {
        let choice = self.tool_choice.map_or("", RawValue::get);
        let names_one = choice.starts_with('{');
        let Some(tools) = self
            .tools
            .filter(|_| names_one || controls.tool_call || choice == r#""required""#)
        else {
            return Ok(None);
        };
        let tools: Vec<Tool> = serde_json::from_str(tools.get()).map_err(|error| unreadable(&error))?;
        let mut called = tools.into_iter().find_map(|tool| tool.function);
        if names_one && called.is_some() {
            let named: Tool = serde_json::from_str(choice).map_err(|error| unreadable(&error))?;
            called = named.function.or(called);
        }
        Ok(called.map(|function| function.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_name_ends_where_controls_begin() {
        let request = Request::parse(br#"{"model":"mock-model?latency=20ms&tokens=5"}"#).unwrap();
        assert_eq!(request.model_name(), "mock-model");
        assert_eq!(request.controls_in_model(), Some("latency=20ms&tokens=5"));
        let request = Request::parse(br#"{"model":"mock-model"}"#).unwrap();
        assert_eq!(
            (request.model_name(), request.controls_in_model()),
            ("mock-model", None)
        );
    }

    #[test]
    fn function_is_called_when_required_or_named() {
        let called = |tools: &str, choice: &str, tool_call| {
            let body = format!(r#"{{"tools":{tools},"tool_choice":{choice}}}"#);
            let controls = Controls {
                tool_call,
                ..Controls::default()
            };
            Request::parse(body.as_bytes())
                .unwrap()
                .called_function(&controls)
                .unwrap()
                .map(Cow::into_owned)
        };
        let tools = r#"[{"type":"function","function":{"name":"first"}}]"#;
        let named = r#"{"type":"function","function":{"name":"named"}}"#;
        assert_eq!(called(tools, r#""required""#, false).as_deref(), Some("first"));
        assert_eq!(called(tools, "null", true).as_deref(), Some("first"));
        assert_eq!(called(tools, named, false).as_deref(), Some("named"));
        assert_eq!(called(tools, r#""auto""#, false), None);
        for none in ["[]", "null"] {
            assert_eq!(called(none, r#""required""#, true), None);
            assert_eq!(called(none, named, true), None);
        }
    }
}
