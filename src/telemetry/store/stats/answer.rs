//! Figures by group, as a store finds them and as the API answers them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{GroupBy, LIMIT_MAX, Refusals, StatsQuery};
use crate::telemetry::store::{VariantSummary, time};

/// A value that a group is made by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Text(String),
    Number(i64),
}

/// A group's figures, in the order of the query's columns. Times are µs, costs nano-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    pub requests: u64,
    /// Outcome other than `ok`.
    pub errors: u64,
    pub latency: [u64; 3],
    /// Streamed answers that had content.
    pub first_tokens: u64,
    pub time_to_first_token: [u64; 3],
    pub input_tokens: u64,
    pub cached_input_tokens: u64,
    pub output_tokens: u64,
    pub reasoning_tokens: u64,
    pub total_tokens: u64,
    pub cost_nanodollars: u64,
}

impl Figures {
    /// Reads them one after another.
    ///
    /// # Errors
    /// Those of `next`.
    pub fn read<E>(mut next: impl FnMut() -> Result<u64, E>) -> Result<Self, E> {
        Ok(Self {
            requests: next()?,
            errors: next()?,
            latency: [next()?, next()?, next()?],
            first_tokens: next()?,
            time_to_first_token: [next()?, next()?, next()?],
            input_tokens: next()?,
            cached_input_tokens: next()?,
            output_tokens: next()?,
            reasoning_tokens: next()?,
            total_tokens: next()?,
            cost_nanodollars: next()?,
        })
    }
}

/// Scores of one name in one group, as a store has summed them.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    pub key: Vec<Key>,
    pub name: String,
    pub count: u64,
    /// Those that are numbers or booleans (1 and 0), and their sum.
    pub numbers: u64,
    pub sum: f64,
}

/// One group.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub key: Vec<Key>,
    pub figures: Figures,
    /// By name: how many, and the mean of those that are numbers.
    pub feedback: BTreeMap<String, (u64, Option<f64>)>,
}

/// Figures by group.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    names: Vec<String>,
    times: Vec<bool>,
    pub groups: Vec<Group>,
    /// Whether there are more groups than were asked for.
    pub truncated: bool,
    /// Requests refused in a flood, which are in no group.
    pub refusals: Vec<Refusals>,
}

impl Stats {
    /// Joins what a store has found: groups in their order, one more than the limit if there are more.
    pub(in crate::telemetry::store) fn new(
        query: &StatsQuery,
        figures: Vec<(Vec<Key>, Figures)>,
        scores: Vec<Scores>,
    ) -> Self {
        let limit = query.limit.clamp(1, LIMIT_MAX) as usize;
        let truncated = figures.len() > limit;
        let mut found: BTreeMap<(Vec<Key>, String), (u64, u64, f64)> = BTreeMap::new();
        for score in scores {
            let sum = found.entry((score.key, score.name)).or_default();
            *sum = (sum.0 + score.count, sum.1 + score.numbers, sum.2 + score.sum);
        }
        let mut groups: Vec<Group> = figures
            .into_iter()
            .take(limit)
            // Without keys there is always one group, of nothing if nothing was found.
            .filter(|(_, figures)| figures.requests > 0)
            .map(|(key, figures)| Group {
                key,
                figures,
                feedback: BTreeMap::new(),
            })
            .collect();
        for ((key, name), (count, numbers, sum)) in found {
            if let Some(group) = groups.iter_mut().find(|group| group.key == key) {
                // Sums of fractions end differently in their last bits, depending on their order.
                let mean = (numbers > 0).then(|| (sum / numbers as f64 * 1e9).round() / 1e9);
                group.feedback.insert(name, (count, mean));
            }
        }
        Self {
            names: query.group_by.iter().map(GroupBy::name).collect(),
            times: query.group_by.iter().map(|by| matches!(by, GroupBy::Time(_))).collect(),
            groups,
            truncated,
            refusals: Vec::new(),
        }
    }

    /// As the API answers: each group's keys, then its figures.
    pub fn to_json(&self) -> Value {
        let groups: Vec<Value> = self.groups.iter().map(|group| self.group_json(group)).collect();
        json!({"groups": groups, "truncated": self.truncated, "refusals": self.refusals})
    }

    fn group_json(&self, group: &Group) -> Value {
        let mut fields = Map::new();
        for ((name, is_time), key) in self.names.iter().zip(&self.times).zip(&group.key) {
            let value = match key {
                Key::Number(micros) if *is_time => time(*micros),
                Key::Number(number) => (*number).into(),
                Key::Text(text) => text.as_str().into(),
            };
            fields.insert(name.clone(), value);
        }
        let figures = &group.figures;
        let quantiles = |[p50, p95, p99]: [u64; 3]| json!({"p50": p50, "p95": p95, "p99": p99});
        let first = (figures.first_tokens > 0).then(|| quantiles(figures.time_to_first_token));
        let feedback: Map<String, Value> = group
            .feedback
            .iter()
            .map(|(name, (count, mean))| (name.clone(), json!({"count": count, "mean": mean})))
            .collect();
        let more = [
            ("requests", figures.requests.into()),
            ("errors", figures.errors.into()),
            ("latency_us", quantiles(figures.latency)),
            ("time_to_first_token_us", first.unwrap_or_default()),
            ("input_tokens", figures.input_tokens.into()),
            ("cached_input_tokens", figures.cached_input_tokens.into()),
            ("output_tokens", figures.output_tokens.into()),
            ("reasoning_tokens", figures.reasoning_tokens.into()),
            ("total_tokens", figures.total_tokens.into()),
            ("cost_nanodollars", figures.cost_nanodollars.into()),
            ("feedback", Value::Object(feedback)),
        ];
        fields.extend(more.map(|(name, value): (&str, Value)| (name.to_owned(), value)));
        Value::Object(fields)
    }
}

impl Group {
    /// A group by version and variant.
    pub(in crate::telemetry::store) fn variant_summary(&self) -> VariantSummary {
        let (version, variant) = match self.key.as_slice() {
            [Key::Number(version), Key::Text(variant)] => {
                (u32::try_from(*version).unwrap_or_default(), variant.clone())
            }
            _ => (0, String::new()),
        };
        let figures = &self.figures;
        let first = |i: usize| (figures.first_tokens > 0).then_some(figures.time_to_first_token[i]);
        VariantSummary {
            version,
            variant,
            requests: figures.requests,
            errors: figures.errors,
            p50_total_us: figures.latency[0],
            p99_total_us: figures.latency[2],
            p50_time_to_first_token_us: first(0),
            p99_time_to_first_token_us: first(2),
            input_tokens: figures.input_tokens,
            output_tokens: figures.output_tokens,
            cost_nanodollars: figures.cost_nanodollars,
        }
    }
}
