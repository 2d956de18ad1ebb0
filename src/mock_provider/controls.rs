//! What a request may ask of the mock provider: names, allowed values, and which source wins.

use std::{borrow::Cow, num::NonZeroUsize, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;

const HEADER_PREFIX: &str = "x-mock-";
const MAX_TOKENS: usize = 100_000;
const MAX_SIZE_BYTES: usize = 16 << 20;
const MAX_DURATION: Duration = Duration::from_secs(3600);

/// Every control's name, as in flags, headers and model names.
const NAMES: &str = "latency, tokens, chunk-interval, status, retry-after, stall, cut, malformed, error-in-stream, \
                     no-usage, no-done, split, text, size, crlf, pad-comments, echo, tool-call, require-key, seed";

/// How an answer is to be given; the default is a correct and immediate one.
///
/// The module's table ([`crate::mock_provider`]) says what each field does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controls {
    pub latency: Duration,
    pub tokens: usize,
    pub chunk_interval: Duration,
    pub status: Option<StatusCode>,
    pub retry_after: HeaderValue,
    pub stall: Option<Point>,
    pub cut: Option<Point>,
    /// Counted from 1.
    pub malformed: Option<NonZeroUsize>,
    pub error_in_stream: Option<usize>,
    pub no_usage: bool,
    pub no_done: bool,
    /// In bytes.
    pub split: Option<NonZeroUsize>,
    /// Decoded.
    pub text: Option<String>,
    pub size_bytes: Option<usize>,
    pub crlf: bool,
    pub pad_comments: bool,
    pub echo: bool,
    pub tool_call: bool,
    pub require_key: Option<String>,
    pub seed: u64,
    /// Keep the last request for `GET /__mock/stats`. Only at start: it is not a control of a request.
    pub remember: bool,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            tokens: 16,
            chunk_interval: Duration::ZERO,
            status: None,
            retry_after: HeaderValue::from_static("1"),
            stall: None,
            cut: None,
            malformed: None,
            error_in_stream: None,
            no_usage: false,
            no_done: false,
            split: None,
            text: None,
            size_bytes: None,
            crlf: false,
            pad_comments: false,
            echo: false,
            tool_call: false,
            require_key: None,
            seed: 0,
            remember: false,
        }
    }
}

/// Where in an answer something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before the first byte of the response.
    Head,
    /// After the head and so many chunks.
    AfterChunks(usize),
}

/// A control that cannot be obeyed; its text is for whoever set it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ControlError {
    #[error("mock control `{control}` cannot be `{value}`: expected {expected}")]
    Value {
        control: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("unknown mock control `{0}`: known are {NAMES}")]
    Unknown(String),
}

impl Controls {
    /// Sets one control by its name.
    ///
    /// # Errors
    /// The name is unknown, or the value not of the control's form.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ControlError> {
        match name {
            "latency" => self.latency = duration("latency", value)?,
            "tokens" => self.tokens = number("tokens", value, "a number of words up to 100000", 0..=MAX_TOKENS)?,
            "chunk-interval" => self.chunk_interval = duration("chunk-interval", value)?,
            "status" => self.status = Some(status(value)?),
            "retry-after" => self.retry_after = header_value(value)?,
            "stall" => self.stall = Some(point("stall", value)?),
            "cut" => self.cut = Some(point("cut", value)?),
            "malformed" => self.malformed = Some(positive("malformed", value)?),
            "error-in-stream" => {
                let chunks = number("error-in-stream", value, "a number of chunks", 0..=usize::MAX)?;
                self.error_in_stream = Some(chunks);
            }
            "no-usage" => self.no_usage = flag("no-usage", value)?,
            "no-done" => self.no_done = flag("no-done", value)?,
            "split" => self.split = Some(positive("split", value)?),
            "text" => self.text = Some(decoded(value)?),
            "size" => {
                let bytes = number("size", value, "a number of bytes up to 16777216", 0..=MAX_SIZE_BYTES)?;
                self.size_bytes = Some(bytes);
            }
            "crlf" => self.crlf = flag("crlf", value)?,
            "pad-comments" => self.pad_comments = flag("pad-comments", value)?,
            "echo" => self.echo = flag("echo", value)?,
            "tool-call" => self.tool_call = flag("tool-call", value)?,
            "require-key" => self.require_key = Some(value.to_owned()),
            "seed" => {
                self.seed = value
                    .parse()
                    .map_err(|_| invalid("seed", value, "a number from 0 to 2^64-1"))?;
            }
            _ => return Err(ControlError::Unknown(name.to_owned())),
        }
        Ok(())
    }

    /// Combines the defaults with a request's own controls; borrows where the request has none.
    ///
    /// `in_model` is what follows the `?` of the model's name.
    ///
    /// # Errors
    /// As [`Controls::set`], for the first control that cannot be obeyed.
    pub(super) fn for_request<'a>(
        defaults: &'a Self,
        in_model: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Cow<'a, Self>, ControlError> {
        let mut controls = Cow::Borrowed(defaults);
        for pair in in_model.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            controls.to_mut().set(name, value)?;
        }
        for (name, value) in headers {
            if let Some(name) = name.as_str().strip_prefix(HEADER_PREFIX) {
                controls
                    .to_mut()
                    .set(name, &String::from_utf8_lossy(value.as_bytes()))?;
            }
        }
        Ok(controls)
    }
}

fn invalid(control: &'static str, value: &str, expected: &'static str) -> ControlError {
    ControlError::Value {
        control,
        value: value.to_owned(),
        expected,
    }
}

fn number(
    control: &'static str,
    value: &str,
    expected: &'static str,
    allowed: std::ops::RangeInclusive<usize>,
) -> Result<usize, ControlError> {
    value
        .parse()
        .ok()
        .filter(|number| allowed.contains(number))
        .ok_or_else(|| invalid(control, value, expected))
}

fn positive(control: &'static str, value: &str) -> Result<NonZeroUsize, ControlError> {
    value.parse().map_err(|_| invalid(control, value, "a number from 1"))
}

fn flag(control: &'static str, value: &str) -> Result<bool, ControlError> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(invalid(control, value, "true, false or no value")),
    }
}

fn point(control: &'static str, value: &str) -> Result<Point, ControlError> {
    match value {
        "head" => Ok(Point::Head),
        "body" => Ok(Point::AfterChunks(0)),
        _ => number(control, value, "head, body or a number of chunks", 0..=usize::MAX).map(Point::AfterChunks),
    }
}

fn status(value: &str) -> Result<StatusCode, ControlError> {
    let code = number("status", value, "an error status from 400 to 599", 400..=599)?;
    Ok(StatusCode::from_u16(code as u16).expect("400 to 599 are status codes"))
}

fn header_value(value: &str) -> Result<HeaderValue, ControlError> {
    HeaderValue::from_str(value).map_err(|_| invalid("retry-after", value, "seconds or an HTTP date"))
}

fn decoded(value: &str) -> Result<String, ControlError> {
    let text = percent_decode_str(value).decode_utf8();
    text.map(Cow::into_owned)
        .map_err(|_| invalid("text", value, "percent-encoded UTF-8"))
}

fn duration(control: &'static str, value: &str) -> Result<Duration, ControlError> {
    let error = || invalid(control, value, "a duration up to 1h such as 20ms, 1.5s, 250us or 0");
    if value == "0" {
        return Ok(Duration::ZERO);
    }
    let unit_at = value.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(error)?;
    let (count, unit) = value.split_at(unit_at);
    let unit_seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(error()),
    };
    let count: f64 = count.parse().map_err(|_| error())?;
    let duration = Duration::try_from_secs_f64(count * unit_seconds).map_err(|_| error())?;
    if duration > MAX_DURATION {
        Err(error())
    } else {
        Ok(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Result<Controls, ControlError> {
        let mut controls = Controls::default();
        controls.set(name, value).map(|()| controls)
    }

    #[test]
    fn durations_with_units_are_read() {
        for (text, expected) in [
            ("0", Duration::ZERO),
            ("20ms", Duration::from_millis(20)),
            ("1.5s", Duration::from_millis(1500)),
            ("250us", Duration::from_micros(250)),
            ("1h", MAX_DURATION),
        ] {
            assert_eq!(set("latency", text).unwrap().latency, expected, "{text}");
        }
        for text in ["", "20", "-1s", "ms", "1e99s", "2h", "1 s", "20MS"] {
            assert!(set("latency", text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_listed_name_is_known_and_every_bad_value_is_refused_with_its_form() {
        for name in NAMES.split(", ") {
            match set(name, "\n%ff") {
                Err(ControlError::Value { control, value, .. }) => {
                    assert_eq!((control, &*value), (name, "\n%ff"))
                }
                other => assert!(name == "require-key" && other.is_ok(), "{name}: {other:?}"),
            }
        }
        let error = set("cut", "soon").unwrap_err().to_string();
        assert_eq!(
            error,
            "mock control `cut` cannot be `soon`: expected head, body or a number of chunks"
        );
        assert!(
            set("colour", "red")
                .unwrap_err()
                .to_string()
                .starts_with("unknown mock control `colour`: known are")
        );
        for (name, value) in [
            ("status", "200"),
            ("malformed", "0"),
            ("split", "0"),
            ("size", "16777217"),
        ] {
            assert!(set(name, value).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn header_wins_over_model_and_model_over_default() {
        let defaults = Controls {
            tokens: 1,
            seed: 1,
            crlf: true,
            ..Controls::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-mock-tokens", HeaderValue::from_static("3"));
        headers.insert("x-mock-crlf", HeaderValue::from_static("false"));
        let controls = Controls::for_request(&defaults, Some("tokens=2&seed=2&echo"), &headers).unwrap();
        assert_eq!(
            (controls.tokens, controls.seed, controls.echo, controls.crlf),
            (3, 2, true, false)
        );
    }

    #[test]
    fn request_without_controls_borrows_the_defaults() {
        let defaults = Controls::default();
        let mut headers = HeaderMap::new();
        headers.insert("x-other", HeaderValue::from_static("3"));
        assert!(matches!(
            Controls::for_request(&defaults, None, &headers),
            Ok(Cow::Borrowed(_))
        ));
    }

    #[test]
    fn text_is_percent_decoded_once() {
        assert_eq!(
            set("text", "a%26b %E2%82%AC %2541").unwrap().text.as_deref(),
            Some("a&b € %41")
        );
    }
}
