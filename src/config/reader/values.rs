//! Values of a table: each method takes one key, and reports what does not fit.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::Reader;
use crate::config::problem::{closest, shown, write_one_of};
use crate::config::units;

impl Reader<'_> {
    /// A string that `parse` accepts; `parse` says what is wrong with the others.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let DeValue::String(text) = &value else {
            self.wrong_type(key, &value, &format!("a string such as {example:?}"));
            return None;
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(key, message);
                None
            }
        }
    }

    /// A list of at least one string, each of which `parse` accepts.
    pub fn texts<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.take(key)?;
        let items = match value {
            DeValue::Array(items) if !items.is_empty() => items,
            other => {
                self.wrong_type(
                    key,
                    &other,
                    &format!("a list of at least one string such as [{example:?}]"),
                );
                return None;
            }
        };
        let mut values = Vec::new();
        for item in items {
            let parsed = match item.get_ref() {
                DeValue::String(text) => parse(text),
                _ => Err(format!("has something else than strings, write e.g. [{example:?}]")),
            };
            match parsed {
                Ok(value) => values.push(value),
                Err(message) => {
                    self.problem(key, message);
                    return None;
                }
            }
        }
        Some(values)
    }

    pub fn address(&mut self, key: &'static str, default: SocketAddr) -> SocketAddr {
        let example = default.to_string();
        let parse = |text: &str| {
            let message = |_| format!("{} is not an address and port, write e.g. {example:?}", shown(text));
            text.parse().map_err(message)
        };
        self.parsed(key, &example, parse).unwrap_or(default)
    }

    /// A path as written: a relative one is relative to the working directory.
    pub fn path(&mut self, key: &'static str, example: &str) -> Option<PathBuf> {
        self.parsed(key, example, |text| match text {
            "" => Err(format!("is empty, write a path such as {example:?}")),
            _ if text.starts_with('~') => {
                let text = shown(text);
                Err(format!(
                    "{text} begins with ~, which is not expanded: write the whole path"
                ))
            }
            _ => Ok(PathBuf::from(text)),
        })
    }

    pub fn duration(&mut self, key: &'static str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let parse = |text: &str| {
            let value = units::parse_duration(text)?;
            within(value, text, &range, units::show_duration)
        };
        let example = units::show_duration(&default);
        self.parsed(key, &example, parse).unwrap_or(default)
    }

    /// Bytes.
    pub fn size(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let parse = |text: &str| {
            let value = units::parse_size(text)?;
            within(value, text, &range, units::show_size)
        };
        let example = units::show_size(&default);
        self.parsed(key, &example, parse).unwrap_or(default)
    }

    pub fn integer<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let Some(value) = self.take(key) else {
            return default;
        };
        let DeValue::Integer(digits) = &value else {
            self.wrong_type(key, &value, &format!("a whole number such as {default}"));
            return default;
        };
        let number = i64::from_str_radix(digits.as_str(), digits.radix()).ok();
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) if range.contains(&number) => number,
            _ => {
                let (low, high) = (range.start(), range.end());
                self.problem(
                    key,
                    format!("{digits} is out of range, write a number from {low} to {high}"),
                );
                default
            }
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(DeValue::Boolean(flag)) => flag,
            Some(other) => {
                self.wrong_type(key, &other, "true or false");
                default
            }
        }
    }

    /// A list of strings, without those that `check` refuses.
    pub fn words(
        &mut self,
        key: &'static str,
        most: usize,
        mut check: impl FnMut(&str) -> Result<(), String>,
    ) -> Vec<String> {
        const WANTED: &str = "a list of strings such as [\"one\", \"two\"]";
        let items = match self.take(key) {
            None => return Vec::new(),
            Some(DeValue::Array(items)) => items,
            Some(other) => {
                self.wrong_type(key, &other, WANTED);
                return Vec::new();
            }
        };
        if items.len() > most {
            self.problem(key, format!("has {} entries, at most {most} are possible", items.len()));
            return Vec::new();
        }
        let mut texts = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let DeValue::String(text) = item.get_ref() else {
                self.wrong_type(key, item.get_ref(), WANTED);
                continue;
            };
            match check(text) {
                Ok(()) => texts.push(text.clone().into_owned()),
                Err(message) => self.problem(key, format!("entry {}: {message}", index + 1)),
            }
        }
        texts
    }

    /// An amount of dollars, zero or more.
    pub fn dollars(&mut self, key: &'static str) -> Option<f64> {
        const MOST: f64 = 1e6;
        let value = self.take(key)?;
        let digits = match &value {
            DeValue::Integer(integer) => integer.to_string(),
            DeValue::Float(float) => float.to_string(),
            other => {
                self.wrong_type(key, other, "dollars such as 0.15");
                return None;
            }
        };
        let amount = digits.parse().ok().filter(|amount| (0.0..=MOST).contains(amount));
        if amount.is_none() {
            self.problem(
                key,
                format!("{digits} is out of range, write dollars from 0 to {MOST}, e.g. 0.15"),
            );
        }
        amount
    }

    /// One of several words; a word without a value is known, but not available in this build.
    pub fn choice<T: Copy>(&mut self, key: &'static str, default: T, words: &[(&str, Option<T>)]) -> T {
        let available = || words.iter().filter(|word| word.1.is_some()).map(|word| word.0);
        let example = available().next().unwrap_or_default();
        let parse = |text: &str| match words.iter().find(|word| word.0 == text) {
            Some((_, Some(value))) => Ok(*value),
            Some((_, None)) => {
                let (text, usable) = (shown(text), write_one_of(available()));
                Err(format!("{text} is not available in this build yet, {usable}"))
            }
            None => {
                let (shown, usable) = (shown(text), write_one_of(available()));
                let hint = closest(text, available()).map(|word| format!("did you mean {word:?}? "));
                let hint = hint.unwrap_or_default();
                Err(format!("{shown} is not a known word, {hint}{usable}"))
            }
        };
        self.parsed(key, example, parse).unwrap_or(default)
    }
}

fn within<T: PartialOrd>(
    value: T,
    text: &str,
    range: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (text, low, high) = (shown(text), show(range.start()), show(range.end()));
    Err(format!("{text} is out of range, write {low:?} to {high:?}"))
}
