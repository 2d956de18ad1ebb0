//! Requests that were refused in a flood: rows of their own, shown beside the figures so that nothing is invisible.

use serde::Serialize;

use super::StatsQuery;
use crate::domain::exchange::Outcome;
use crate::telemetry::store::filter::{Bind, Dialect, ExchangeFilter, Sql};

/// Most kinds of refusals of one answer; those with the most requests.
const LIMIT: u32 = 1000;

/// Requests refused alike, none of which has an exchange of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusals {
    /// Empty if they named no key that is known.
    pub key_id: String,
    pub endpoint: String,
    pub error_code: String,
    pub status_code: u16,
    pub requests: u64,
}

impl StatsQuery {
    /// SQL for what was refused in the span asked for: key, endpoint, code, status, requests. None if the filter asks
    /// for what refused requests do not have, so that none is meant.
    pub fn refusals(&self, dialect: Dialect) -> Option<Sql> {
        let filter = &self.filter;
        let spans_only = ExchangeFilter {
            from: filter.from,
            to: filter.to,
            outcome: filter.outcome.clone(),
            ..ExchangeFilter::default()
        };
        if *filter != spans_only
            || filter
                .outcome
                .as_deref()
                .is_some_and(|o| o != Outcome::Rejected.as_str())
        {
            return None;
        }
        let status = match dialect {
            Dialect::Sqlite => "status_code",
            Dialect::ClickHouse => "toUInt64(status_code)",
        };
        let begin = format!(
            "SELECT key_id, endpoint, error_code, {status} AS status, sum(requests) AS refused FROM refusals WHERE TRUE"
        );
        let mut sql = Sql::new(dialect, begin);
        let times = [(">=", filter.from), ("<", filter.to)];
        for (sign, at) in times {
            if let Some(at) = at {
                sql.push_with(&format!(" AND since {sign} {}", dialect.time()), Bind::Int(at));
            }
        }
        sql.push(&format!(
            " GROUP BY key_id, endpoint, error_code, status ORDER BY refused DESC, key_id, endpoint, error_code, status \
             LIMIT {LIMIT}"
        ));
        Some(sql)
    }
}
