//! How long reviews take.

use std::collections::BTreeMap;

use crate::domain::review::percentile;
use crate::registry::{Registry, RegistryError};

/// The most changes that are counted: the newest.
const MAX_CHANGES: i64 = 10_000;

/// Times from opening a change to something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadTime {
    /// Of how many changes.
    pub count: usize,
    pub median_us: Option<i64>,
    pub p90_us: Option<i64>,
}

/// Figures of reviews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewStats {
    pub count: usize,
    pub by_state: BTreeMap<String, usize>,
    pub to_first_approval: LeadTime,
    pub to_apply: LeadTime,
}

/// State, and when it was opened, first approved and applied.
type Row = (String, Option<i64>, Option<i64>, Option<i64>);

fn lead_time(mut times: Vec<i64>) -> LeadTime {
    LeadTime {
        count: times.len(),
        median_us: percentile(&mut times, 50),
        p90_us: percentile(&mut times, 90),
    }
}

impl Registry {
    /// Returns how long reviews take, of changes proposed in a time (µs since the Unix epoch); an empty environment is
    /// all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn review_stats(
        &self,
        environment: &str,
        from_us: Option<i64>,
        to_us: Option<i64>,
    ) -> Result<ReviewStats, RegistryError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT state, opened_at, first_approved_at, applied_at FROM changes \
             WHERE ($1 = '' OR environment = $1) AND created_at >= $2 AND created_at < $3 ORDER BY id DESC LIMIT $4",
        )
        .bind(environment)
        .bind(from_us.unwrap_or(i64::MIN))
        .bind(to_us.unwrap_or(i64::MAX))
        .bind(MAX_CHANGES)
        .fetch_all(self.reader()?)
        .await?;
        let mut by_state = BTreeMap::new();
        for (state, ..) in &rows {
            *by_state.entry(state.clone()).or_default() += 1;
        }
        let times = |until: fn(&Row) -> Option<i64>| {
            lead_time(rows.iter().filter_map(|row| Some(until(row)? - row.1?)).collect())
        };
        Ok(ReviewStats {
            count: rows.len(),
            to_first_approval: times(|row| row.2),
            to_apply: times(|row| row.3),
            by_state,
        })
    }
}
