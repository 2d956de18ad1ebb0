//! Statistics over exchanges, by group: the question, and its SQL in either dialect. What comes back is in `answer`;
//! requests that were refused in a flood, and so have no exchange, in `refusals`.

mod answer;
mod refusals;

use std::str::FromStr;

pub use answer::{Figures, Group, Key, Scores, Stats};
pub use refusals::Refusals;

use super::filter::{Bind, Dialect, ExchangeFilter, Sql};

/// Most groups of one answer.
pub const LIMIT_MAX: u32 = 10_000;
/// Most keys that groups are made by.
pub const KEYS_MAX: usize = 6;

/// Which figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsQuery {
    pub filter: ExchangeFilter,
    /// Nothing: one group of all.
    pub group_by: Vec<GroupBy>,
    /// Groups, at most [`LIMIT_MAX`]; the answer says if there are more.
    pub limit: u32,
}

/// What groups are made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    Prompt,
    Version,
    Variant,
    Environment,
    /// The model asked for.
    Model,
    Provider,
    Outcome,
    /// The value of a tag, empty where it is not set.
    Tag(String),
    /// The start of a span of so many seconds; spans begin at the epoch, so days are those of UTC.
    Time(u32),
}

impl FromStr for GroupBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "{text:?} is not something to group by: prompt, version, variant, environment, model, provider, \
                 outcome, tag:<name>, or a span of time such as time:1m, time:1h, time:1d"
            )
        };
        Ok(match text {
            "prompt" => Self::Prompt,
            "version" => Self::Version,
            "variant" => Self::Variant,
            "environment" => Self::Environment,
            "model" => Self::Model,
            "provider" => Self::Provider,
            "outcome" => Self::Outcome,
            _ => match text.split_once(':') {
                Some(("tag", name)) if !name.is_empty() => Self::Tag(name.to_owned()),
                Some(("time", span)) => Self::Time(seconds(span).ok_or_else(unknown)?),
                _ => return Err(unknown()),
            },
        })
    }
}

/// A span such as `30s`, `5m`, `1h` or `1d`, up to a year.
fn seconds(span: &str) -> Option<u32> {
    let (number, unit) = span.split_at_checked(span.len().checked_sub(1)?)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    let seconds = number.parse::<u32>().ok().filter(|_| digits)?.checked_mul(factor)?;
    (1..=366 * 86_400).contains(&seconds).then_some(seconds)
}

impl GroupBy {
    /// The field of an answer that holds the key.
    fn name(&self) -> String {
        match self {
            Self::Prompt => "prompt".to_owned(),
            Self::Version => "version".to_owned(),
            Self::Variant => "variant".to_owned(),
            Self::Environment => "environment".to_owned(),
            Self::Model => "model".to_owned(),
            Self::Provider => "provider".to_owned(),
            Self::Outcome => "outcome".to_owned(),
            Self::Tag(name) => format!("tag:{name}"),
            Self::Time(_) => "time".to_owned(),
        }
    }

    /// Whether the key is a number (version, or µs since the epoch) rather than a text.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Version | Self::Time(_))
    }

    fn push(&self, sql: &mut Sql) {
        let sqlite = sql.dialect == Dialect::Sqlite;
        match self {
            Self::Prompt => sql.push("prompt_id"),
            Self::Version if sqlite => sql.push("version"),
            Self::Version => sql.push("toInt64(version)"),
            Self::Variant => sql.push("variant"),
            Self::Environment => sql.push("environment"),
            Self::Model => sql.push("model"),
            Self::Provider => sql.push("provider"),
            Self::Outcome => sql.push("outcome"),
            Self::Tag(name) if sqlite => sql.push_with(
                "coalesce((SELECT value FROM json_each(tags) WHERE key = ?), '')",
                Bind::Text(name.clone()),
            ),
            Self::Tag(name) => sql.push_with("tags[?]", Bind::Text(name.clone())),
            Self::Time(seconds) => {
                let span = i64::from(*seconds) * 1_000_000;
                match sqlite {
                    true => sql.push(&format!("started_at - started_at % {span}")),
                    false => sql.push(&format!("intDiv(toUnixTimestamp64Micro(started_at), {span}) * {span}")),
                }
            }
        };
    }
}

/// Columns that the figures are made of; the same text in both dialects.
const TAKEN: &str = "outcome, total_us, \
    CASE WHEN streaming AND time_to_first_token_us > 0 THEN time_to_first_token_us END AS first_us, \
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, total_tokens, cost_nanodollars FROM exchanges";

const SUMS: &str = "sum(input_tokens) AS s0, sum(cached_input_tokens) AS s1, sum(output_tokens) AS s2, \
    sum(reasoning_tokens) AS s3, sum(total_tokens) AS s4, sum(cost_nanodollars) AS s5";

impl StatsQuery {
    /// The figures of each group: its keys, then those of [`Figures`] in their order. One group more than the limit.
    pub fn figures(&self, dialect: Dialect) -> Sql {
        let mut taken = self.select_keys(dialect);
        taken.push(TAKEN).push_filter(&self.filter);
        let (keys, list) = (self.keys(), self.key_list());
        let grouped = self.clause("GROUP BY", &list);
        let tail = format!(
            "{} LIMIT {}",
            self.clause("ORDER BY", &list),
            self.limit.clamp(1, LIMIT_MAX) + 1
        );
        match dialect {
            Dialect::Sqlite => {
                // A row at rank r of n is the p-th percentile if it is the first with r >= p * n.
                let arm = self.clause("PARTITION BY", &list);
                let at = |percent: u32, column: &str, rank: &str, n: &str| {
                    format!("min({column}) FILTER (WHERE {rank} * 100 >= {percent} * {n})")
                };
                let totals = [50, 95, 99].map(|p| at(p, "total_us", "r", "n")).join(", ");
                let firsts = [50, 95, 99].map(|p| at(p, "first_us", "first_r", "first_n")).join(", ");
                taken.wrap(
                    "WITH taken AS MATERIALIZED (",
                    &format!(
                        "), ranked AS (SELECT *, count(*) OVER arm AS n, count(first_us) OVER arm AS first_n, \
                         row_number() OVER ({arm} ORDER BY total_us) AS r, \
                         row_number() OVER ({arm} ORDER BY first_us NULLS LAST) AS first_r \
                         FROM taken WINDOW arm AS ({arm})) \
                         SELECT {keys} count(*), sum(outcome <> 'ok'), {totals}, count(first_us), {firsts}, {SUMS} \
                         FROM ranked {grouped} {tail}"
                    ),
                )
            }
            Dialect::ClickHouse => {
                // Sorted lists rather than quantileExact: its rank is rounded from a float.
                let at = |percent: u32, list: &str| format!("{list}[intDiv({percent} * length({list}) + 99, 100)]");
                let totals = [50, 95, 99].map(|p| at(p, "totals")).join(", ");
                let firsts = [50, 95, 99].map(|p| at(p, "firsts")).join(", ");
                taken.wrap(
                    &format!(
                        "SELECT {keys} requests, errors, {totals}, toUInt64(length(firsts)), {firsts}, \
                         s0, s1, s2, s3, s4, s5 FROM (SELECT {keys} count() AS requests, \
                         countIf(outcome <> 'ok') AS errors, arraySort(groupArray(total_us)) AS totals, \
                         arraySort(groupArray(first_us)) AS firsts, {SUMS} FROM ("
                    ),
                    &format!(") {grouped}) {tail}"),
                )
            }
        }
    }

    /// Scores of each group: its keys, the score's name, how many there are, how many of them are numbers, their sum.
    /// Feedback names its exchange, or the provider's response id: each is a join of its own.
    pub fn feedback(&self, dialect: Dialect, by_response: bool) -> Sql {
        let mut taken = self.select_keys(dialect);
        taken
            .push("exchange_id, response_id FROM exchanges")
            .push_filter(&self.filter);
        // Compensated in both, so that the order of summing does not show.
        let sum = match dialect {
            Dialect::Sqlite => "total",
            Dialect::ClickHouse => "sumKahan",
        };
        let keys = self.keys();
        let grouped = format!("GROUP BY {keys} f.name");
        let begin = format!(
            "SELECT {keys} f.name, count(*), sum(CASE WHEN f.kind <> 'text' THEN 1 ELSE 0 END), \
             {sum}(CASE WHEN f.kind <> 'text' THEN f.number ELSE 0 END) FROM ("
        );
        if !by_response {
            let end = format!(") AS e JOIN feedback AS f ON f.exchange_id = e.exchange_id {grouped}");
            return taken.wrap(&begin, &end);
        }
        let mut sql = taken.wrap(&begin, ") AS e JOIN feedback AS f ON f.response_id = e.response_id");
        let nil = match dialect {
            Dialect::Sqlite => " WHERE e.response_id <> '' AND f.exchange_id = ? ",
            Dialect::ClickHouse => " WHERE e.response_id <> '' AND f.exchange_id = toUUID(?) ",
        };
        sql.push_with(nil, Bind::Id(uuid::Uuid::nil())).push(&grouped);
        sql
    }

    fn select_keys(&self, dialect: Dialect) -> Sql {
        let mut sql = Sql::new(dialect, "SELECT ");
        for (i, key) in self.group_by.iter().enumerate() {
            key.push(&mut sql);
            sql.push(&format!(" AS k{i}, "));
        }
        sql
    }

    /// The keys' aliases, each with a comma after it.
    fn keys(&self) -> String {
        (0..self.group_by.len()).map(|i| format!("k{i}, ")).collect()
    }

    fn key_list(&self) -> String {
        self.keys().trim_end_matches(", ").to_owned()
    }

    /// A clause by the keys; nothing without any.
    fn clause(&self, words: &str, list: &str) -> String {
        match self.group_by.is_empty() {
            true => String::new(),
            false => format!("{words} {list}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_by_words_are_read_or_explained() {
        for (text, wanted) in [
            ("prompt", GroupBy::Prompt),
            ("tag:team:a", GroupBy::Tag("team:a".to_owned())),
            ("time:5m", GroupBy::Time(300)),
            ("time:366d", GroupBy::Time(366 * 86_400)),
        ] {
            assert_eq!(text.parse(), Ok(wanted));
        }
        for text in [
            "",
            "day",
            "tag:",
            "time:",
            "time:5",
            "time:0m",
            "time:-1h",
            "time:+1h",
            "time:9999999999d",
            "time:1ß",
        ] {
            let refused = text.parse::<GroupBy>().unwrap_err();
            assert!(refused.contains("time:1h"), "{refused}");
        }
    }
}
