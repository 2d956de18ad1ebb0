//! What a call costs, in whole nano-dollars, from a dated price table.
//!
//! Prices are kept as nano-dollars per million tokens and multiplied in `u128`, so that a sum over millions of calls
//! is the sum of what each one shows.

use std::collections::BTreeMap;

use super::usage::Usage;

/// Nano-dollars of one dollar.
pub const NANODOLLARS: u64 = 1_000_000_000;

const TOKENS_PER_RATE: u128 = 1_000_000;

/// Prices of one model, in nano-dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    pub input: u64,
    /// Of the input tokens that the provider had in its cache.
    pub cached_input: u64,
    pub output: u64,
    /// Of the output tokens that the model spent on reasoning.
    pub reasoning: u64,
}

impl Rates {
    /// Nano-dollars of one call, rounded to the nearest; cached tokens are part of the input tokens, reasoning tokens of
    /// the output tokens.
    pub fn cost(&self, usage: &Usage) -> u64 {
        let cached = usage.cached_input.min(usage.input);
        let reasoning = usage.reasoning.min(usage.output);
        let sum = product(usage.input - cached, self.input)
            .saturating_add(product(cached, self.cached_input))
            .saturating_add(product(usage.output - reasoning, self.output))
            .saturating_add(product(reasoning, self.reasoning));
        let cost = sum.saturating_add(TOKENS_PER_RATE / 2) / TOKENS_PER_RATE;
        u64::try_from(cost).unwrap_or(u64::MAX)
    }
}

fn product(tokens: u32, rate: u64) -> u128 {
    u128::from(tokens) * u128::from(rate)
}

/// Prices of a model from a day on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceEntry {
    pub model: String,
    /// Unix seconds; the start of a day in UTC.
    pub from: i64,
    pub rates: Rates,
}

/// Prices of all models over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceTable {
    /// Each model's entries in the order of time.
    models: BTreeMap<String, BTreeMap<i64, Rates>>,
}

impl PriceTable {
    /// Of two entries with the same model and day, the later one counts.
    pub fn new(entries: impl IntoIterator<Item = PriceEntry>) -> Self {
        let mut table = PriceTable::default();
        for entry in entries {
            let rates = table.models.entry(entry.model).or_default();
            rates.insert(entry.from, entry.rates);
        }
        table
    }

    /// Every entry, by model and time.
    pub fn entries(&self) -> impl Iterator<Item = PriceEntry> {
        self.models.iter().flat_map(|(model, rates)| {
            rates.iter().map(|(from, rates)| PriceEntry {
                model: model.clone(),
                from: *from,
                rates: *rates,
            })
        })
    }

    /// The prices of a model at a time (Unix seconds): those of its last entry until then.
    ///
    /// A dated name such as `gpt-4o-mini-2024-07-18` that has no entries of its own has those of the name without
    /// its date, and `claude-sonnet-4-5-latest` those of `claude-sonnet-4-5`.
    pub fn rates(&self, model: &str, at_unix_seconds: i64) -> Option<Rates> {
        let of_name = |name: &str| self.models.get(name);
        let rates = of_name(model).or_else(|| of_name(undated(model)?))?;
        let (_, rates) = rates.range(..=at_unix_seconds).next_back()?;
        Some(*rates)
    }
}

/// The name before a date at its end: `-2024-07-18`, `-20240718` or, as older models have it, `-0613`; or before `-latest`.
///
/// At most one of the three forms fits a name, so what is before it is the longest prefix.
fn undated(model: &str) -> Option<&str> {
    const FORMS: [&str; 3] = ["-YYYY-MM-DD", "-YYYYMMDD", "-MMDD"];
    if let Some(name) = model.strip_suffix("-latest") {
        return (!name.is_empty()).then_some(name);
    }
    FORMS.iter().find_map(|form| {
        let (name, end) = model.split_at_checked(model.len().checked_sub(form.len())?)?;
        (!name.is_empty() && is_date(end.as_bytes(), form.as_bytes())).then_some(name)
    })
}

fn is_date(text: &[u8], form: &[u8]) -> bool {
    let (mut month, mut day) = (0, 0);
    for (byte, place) in text.iter().zip(form) {
        let digit = u32::from(byte.wrapping_sub(b'0'));
        match place {
            b'-' if *byte == b'-' => {}
            b'-' => return false,
            _ if digit > 9 => return false,
            b'M' => month = month * 10 + digit,
            b'D' => day = day * 10 + digit,
            _ => {}
        }
    }
    (1..=12).contains(&month) && (1..=31).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINI: Rates = Rates {
        input: 150_000_000,
        cached_input: 75_000_000,
        output: 600_000_000,
        reasoning: 600_000_000,
    };

    fn usage(input: u32, cached_input: u32, output: u32, reasoning: u32) -> Usage {
        Usage {
            input,
            cached_input,
            output,
            reasoning,
            total: input.saturating_add(output),
        }
    }

    fn table(entries: &[(&str, i64, Rates)]) -> PriceTable {
        PriceTable::new(entries.iter().map(|(model, from, rates)| PriceEntry {
            model: (*model).to_owned(),
            from: *from,
            rates: *rates,
        }))
    }

    #[test]
    fn cost_prices_cached_tokens_as_part_of_input() {
        // 900 at 150, 100 at 75 and 50 at 600 nano-dollars.
        assert_eq!(MINI.cost(&usage(1_000, 100, 50, 0)), 135_000 + 7_500 + 30_000);
        assert_eq!(MINI.cost(&usage(0, 0, 0, 0)), 0);
    }

    #[test]
    fn cost_more_cached_than_input_counts_input_only() {
        assert_eq!(MINI.cost(&usage(10, 1_000, 0, 0)), 750);
    }

    #[test]
    fn cost_prices_reasoning_tokens_as_part_of_output() {
        let rates = Rates {
            reasoning: 900_000_000,
            ..MINI
        };
        // 40 at 600 and 10 at 900 nano-dollars; never more reasoning than output.
        assert_eq!(rates.cost(&usage(0, 0, 50, 10)), 24_000 + 9_000);
        assert_eq!(rates.cost(&usage(0, 0, 5, 10)), 4_500);
    }

    #[test]
    fn cost_of_a_fraction_rounds_to_nearest() {
        let rates = Rates {
            input: 500_000,
            cached_input: 0,
            output: 499_999,
            reasoning: 0,
        };
        assert_eq!(rates.cost(&usage(1, 0, 0, 0)), 1);
        assert_eq!(rates.cost(&usage(0, 0, 1, 0)), 0);
    }

    #[test]
    fn cost_beyond_any_sum_saturates() {
        let rates = Rates {
            input: u64::MAX,
            cached_input: u64::MAX,
            output: u64::MAX,
            reasoning: u64::MAX,
        };
        assert_eq!(rates.cost(&usage(u32::MAX, 0, u32::MAX, 0)), u64::MAX);
    }

    #[test]
    fn entry_applies_from_its_day_until_the_next() {
        let cheaper = Rates {
            input: 1,
            cached_input: 1,
            output: 1,
            reasoning: 1,
        };
        let table = table(&[("m", 200, cheaper), ("m", 100, MINI)]);
        assert_eq!(table.rates("m", 99), None);
        assert_eq!(table.rates("m", 100), Some(MINI));
        assert_eq!(table.rates("m", 199), Some(MINI));
        assert_eq!(table.rates("m", 200), Some(cheaper));
        assert_eq!(table.rates("other", 200), None);
    }

    #[test]
    fn dated_name_falls_back_to_the_name_before_its_date() {
        let table = table(&[("gpt-4o", 0, MINI), ("gpt-4o-mini", 0, MINI)]);
        for dated in [
            "gpt-4o-mini-2024-07-18",
            "gpt-4o-mini-20240718",
            "gpt-4o-0613",
            "gpt-4o-latest",
        ] {
            assert_eq!(table.rates(dated, 0), Some(MINI), "{dated}");
        }
        let not_dated = [
            "gpt-4o-audio",
            "gpt-4o-2024-13-01",
            "gpt-4o-2024-07-18-preview",
            "gpt-4o2024-07-18",
            "gpt-4o-9999",
            "-0613",
            "-latest",
            "gpt-4o-latest-0613",
            "0613",
            "",
            "gpt-4o-é613",
        ];
        for name in not_dated {
            assert_eq!(table.rates(name, 0), None, "{name}");
        }
    }

    #[test]
    fn dated_name_with_its_own_entry_keeps_it() {
        let older = Rates {
            input: 5,
            cached_input: 5,
            output: 5,
            reasoning: 5,
        };
        let table = table(&[("gpt-4o", 0, MINI), ("gpt-4o-2024-05-13", 0, older)]);
        assert_eq!(table.rates("gpt-4o-2024-05-13", 0), Some(older));
    }
}
