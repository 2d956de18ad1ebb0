//! Reads dated price tables, such as the one built in from `config/prices.toml`.

use std::fs;
use std::path::Path;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::ConfigError;
use super::models::Price;
use super::problem::shown;
use super::reader::{self, Reader};
use crate::domain::price::{PriceEntry, PriceTable};

const BUILTIN: &str = include_str!("../../config/prices.toml");

impl PriceTable {
    /// The table of this release.
    pub fn builtin() -> Self {
        parse(BUILTIN, "config/prices.toml").expect("a test reads the table that is built in")
    }

    /// Reads `[[prices]]` from TOML.
    ///
    /// # Errors
    /// Every problem of the text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        parse(text, "prices")
    }

    /// Reads a file in place of the built-in table.
    ///
    /// # Errors
    /// That the file cannot be read, or every problem of its text.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError::whole_file(&file, format!("cannot be read: {error}")))?;
        parse(&text, &file)
    }
}

fn parse(text: &str, file: &str) -> Result<PriceTable, ConfigError> {
    let mut earlier = Vec::new();
    let entries = reader::read(file, text, |r| {
        r.needs(
            "prices",
            r#"[{ model = "gpt-4o-mini", from = "2024-07-18", input = 0.15, output = 0.60 }]"#,
        );
        r.list("prices", |r| read_entry(r, &mut earlier))
    })?;
    Ok(PriceTable::new(entries))
}

fn read_entry(r: &mut Reader<'_>, earlier: &mut Vec<(String, i64)>) -> Option<PriceEntry> {
    r.needs("model", r#""gpt-4o-mini""#);
    r.needs("from", r#""2024-07-18""#);
    let model = r.parsed("model", "gpt-4o-mini", |text| match text {
        "" => Err("is empty, write the name of a model".to_owned()),
        _ => Ok(text.to_owned()),
    });
    let from = r.parsed("from", "2024-07-18", parse_day);
    let price = Price::read(r);

    let (model, from) = (model?, from?);
    if earlier.iter().any(|(other, day)| *other == model && *day == from) {
        r.problem("from", format!("{} already has a price from this day", shown(&model)));
    }
    earlier.push((model.clone(), from));
    Some(PriceEntry {
        model,
        from,
        rates: price?.rates(),
    })
}

/// Reads a day such as `2024-07-18`: Unix seconds of its start in UTC.
///
/// # Errors
/// What is wrong with it, and the form it should have.
pub fn parse_day(text: &str) -> Result<i64, String> {
    let date: Option<Date> = text.parse().ok().filter(|_| text.len() == "2024-07-18".len());
    let start = date.and_then(|date| date.to_zoned(TimeZone::UTC).ok());
    let message = || format!(r#"{} is not a day, write e.g. "2024-07-18""#, shown(text));
    Ok(start.ok_or_else(message)?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::domain::usage::Usage;

    #[test]
    fn builtin_prices_are_exact() {
        let prices = PriceTable::builtin();
        // 2026-01-01
        let now = 1_767_225_600;
        let cost = |model: &str, input, cached_input, output| {
            let usage = Usage {
                input,
                cached_input,
                output,
                ..Usage::default()
            };
            prices.rates(model, now).map(|rates| rates.cost(&usage))
        };
        assert_eq!(cost("gpt-4o-mini-2024-07-18", 1_000_000, 0, 0), Some(150_000_000));
        assert_eq!(cost("gpt-5-nano", 3, 1, 7), Some(2 * 50 + 5 + 7 * 400));
        assert_eq!(cost("text-embedding-3-small", 1_000, 0, 0), Some(20_000));
        assert_eq!(cost("gpt-4o-2024-05-13", 1, 0, 0), Some(5_000));
        assert_eq!(cost("claude-sonnet-4-5-20250929", 10, 10, 1), Some(10 * 300 + 15_000));
        assert_eq!(cost("claude-3-5-haiku-latest", 1, 0, 1), Some(800 + 4_000));
        assert_eq!(prices.rates("mock-model", now), prices.rates("gpt-4o-mini", now));
        assert_eq!(
            prices.rates("gpt-4o-mini", 1_721_260_799),
            None,
            "the second before 2024-07-18"
        );
        assert!(prices.rates("gpt-4o-mini", 1_721_260_800).is_some());
    }

    #[test]
    fn reasoning_costs_what_output_costs_unless_it_has_a_price() {
        let text = r#"
prices = [
    { model = "a", from = "2026-01-01", input = 1, output = 2.5 },
    { model = "b", from = "2026-01-01", input = 1, output = 2.5, reasoning = 4 },
]"#;
        let prices = PriceTable::parse(text).unwrap();
        let reasoning = |model| prices.rates(model, 1_800_000_000).unwrap().reasoning;
        assert_eq!((reasoning("a"), reasoning("b")), (2_500_000_000, 4_000_000_000));
    }

    #[test]
    fn price_table_mistakes_are_reported_at_once() {
        let text = r#"
[[prices]]
model = "a"
from = "2024-07-18"
input = 1
[[prices]]
model = "a"
from = "2024-07-18"
input = -1.0
[[prices]]
model = "b"
from = "18.07.2024"
output = "0.6"
inputs = 1
"#;
        assert_snapshot!(PriceTable::parse(text).unwrap_err(), @r#"
        prices:2: prices[0].output: is missing, write e.g. output = 0.60
        prices:6: prices[1].output: is missing, write e.g. output = 0.60
        prices:8: prices[1].from: "a" already has a price from this day
        prices:9: prices[1].input: -1.0 is out of range, write dollars from 0 to 1000000, e.g. 0.15
        prices:10: prices[2].input: is missing, write e.g. input = 0.15
        prices:12: prices[2].from: "18.07.2024" is not a day, write e.g. "2024-07-18"
        prices:13: prices[2].output: is a string, write dollars such as 0.15
        prices:14: prices[2].inputs: unknown key, did you mean input?
        "#);
        assert_snapshot!(PriceTable::parse("").unwrap_err(), @r#"
        prices:1: prices: is missing, write e.g. prices = [{ model = "gpt-4o-mini", from = "2024-07-18", input = 0.15, output = 0.60 }]
        "#);
    }
}
