//! Public model names and the targets behind them.

use super::problem::{closest, shown, write_one_of};
use super::reader::Reader;
use crate::domain::price::{NANODOLLARS, Rates};

/// One of `[[models]]`: a name that applications ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Unique; `*` or a `prefix*` stands for all names that begin so.
    pub name: String,
    /// Never empty.
    pub targets: Vec<Target>,
    /// In place of the price table's.
    pub price: Option<Price>,
}

/// One way to answer for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name of one of the providers.
    pub provider: String,
    /// The provider's name of the model; the requested name by default.
    pub model: Option<String>,
    /// Share among the model's targets, 1 to 10,000.
    pub weight: u32,
}

/// Dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    pub input: f64,
    /// Of input tokens that the provider had in its cache; the price of input by default.
    pub cached_input: Option<f64>,
    pub output: f64,
    /// Of output tokens spent on reasoning; the price of output by default.
    pub reasoning: Option<f64>,
}

const DEFAULT_WEIGHT: u32 = 100;

impl Price {
    /// The same price in whole nano-dollars, rounded to the nearest.
    pub fn rates(&self) -> Rates {
        // The reader accepts 0 to a million dollars: at most 1e15, which f64 holds exactly.
        let nanodollars = |dollars: f64| (dollars * NANODOLLARS as f64).round() as u64;
        Rates {
            input: nanodollars(self.input),
            cached_input: nanodollars(self.cached_input.unwrap_or(self.input)),
            output: nanodollars(self.output),
            reasoning: nanodollars(self.reasoning.unwrap_or(self.output)),
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Option<Self> {
        r.needs("input", "0.15");
        r.needs("output", "0.60");
        let input = r.dollars("input");
        let cached_input = r.dollars("cached_input");
        let output = r.dollars("output");
        let reasoning = r.dollars("reasoning");
        Some(Price {
            input: input?,
            cached_input,
            output: output?,
            reasoning,
        })
    }
}

impl Model {
    /// `earlier` are the names of the models before this one.
    pub(super) fn read(r: &mut Reader<'_>, providers: &[String], earlier: &mut Vec<String>) -> Option<Self> {
        const TARGETS: &str = r#"[{ provider = "openai" }]"#;
        r.needs("name", r#""gpt-4o-mini""#);
        r.needs("targets", TARGETS);

        let name = r.parsed("name", "gpt-4o-mini", parse_name);
        if let Some(name) = &name {
            r.unique("name", name, earlier);
        }
        let targets = r.list("targets", |r| Target::read(r, providers));
        if targets.is_empty() && r.given("targets") && r.sound(&["targets"]) {
            r.problem("targets", format!("is empty, write e.g. targets = {TARGETS}"));
        }
        let price = r.optional_section("price", Price::read);
        Some(Model {
            name: name?,
            targets,
            price,
        })
    }
}

impl Target {
    fn read(r: &mut Reader<'_>, providers: &[String]) -> Option<Self> {
        r.needs("provider", r#""openai""#);
        let provider = r.parsed("provider", "openai", |name| known_provider(name, providers));
        let model = r.parsed("model", "gpt-4o-mini", parse_upstream_model);
        let weight = r.integer("weight", DEFAULT_WEIGHT, 1..=10_000);
        Some(Target {
            provider: provider?,
            model,
            weight,
        })
    }
}

fn known_provider(name: &str, providers: &[String]) -> Result<String, String> {
    if providers.iter().any(|provider| provider == name) {
        return Ok(name.to_owned());
    }
    let known = || providers.iter().map(String::as_str);
    let shown = shown(name);
    Err(match closest(name, known()) {
        Some(word) => format!("{shown} is not a provider, did you mean {word:?}?"),
        None if providers.is_empty() => format!("{shown} is not a provider: there is none, add a [[providers]] table"),
        None => format!("{shown} is not a provider, {}", write_one_of(known())),
    })
}

fn parse_name(text: &str) -> Result<String, String> {
    let name = parse_upstream_model(text)?;
    match name.strip_suffix('*').unwrap_or(&name).contains('*') {
        true => Err(format!(
            r#"{} has a * before its end, write "*", "gpt-*" or a whole name"#,
            shown(text)
        )),
        false => Ok(name),
    }
}

fn parse_upstream_model(text: &str) -> Result<String, String> {
    let unprintable = |c: char| c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > 200 || text.contains(unprintable) {
        let text = shown(text);
        return Err(format!(
            "{text} is not a model name: 1 to 200 bytes without white space"
        ));
    }
    Ok(text.to_owned())
}
