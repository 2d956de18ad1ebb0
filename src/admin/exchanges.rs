//! `/exchanges` and `/stats`: what was recorded.

mod content;

use std::str::FromStr;

use axum::response::Response;
use serde_json::json;

use super::call::{Call, found, instant, invalid};
use super::errors::Failure;
use crate::domain::error::{ApiError, ErrorCode};
use crate::domain::exchange::Outcome;
use crate::domain::role::{Permission, Reach, Scope};
use crate::telemetry::store::stats::KEYS_MAX;
use crate::telemetry::{ExchangeFilter, GroupBy, StatsQuery, Store, StoreError};

const DEFAULT_LIMIT: u32 = 50;
const DEFAULT_GROUPS: u32 = 1000;

/// The parameters of both: those that choose, then those of the list, then those of the statistics.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    from: Option<String>,
    to: Option<String>,
    prompt: Option<String>,
    version: Option<u32>,
    variant: Option<String>,
    environment: Option<String>,
    model: Option<String>,
    outcome: Option<String>,
    unit: Option<String>,
    min_latency_us: Option<u64>,
    min_cost_nanodollars: Option<u64>,
    text: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
    group_by: Option<String>,
    content: Option<bool>,
}

/// `GET /exchanges?from=&to=&prompt=&…&limit=&cursor=`: newest first.
///
/// Content comes with what the caller may read the content of, unless `content=false`.
pub async fn list(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let query: Query = call.query()?;
    if query.group_by.is_some() {
        return Err(invalid("group_by", "belongs to /api/v1/stats, a list has no groups"));
    }
    let (limit, cursor) = (query.limit.unwrap_or(DEFAULT_LIMIT), query.cursor.clone());
    let wanted = query.content.unwrap_or(true);
    query.may_search(&call)?;
    let filter = query.filter()?;
    let mut page = store(&call)?.exchanges(&filter, limit, cursor.as_deref()).await?;
    // A page may have fewer items than asked for; the next one begins behind those left out.
    page.items
        .retain(|record| call.may(Permission::Read, content::scope(record)));
    let shown = content::hide(&call, &mut page.items, wanted);
    content::note_many(&call, &shown, filter.text.is_some()).await?;
    Ok(found(json!({"items": page.items, "next_cursor": page.next_cursor})))
}

/// `GET /exchanges/{id}`, with its feedback.
pub async fn show(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let id = call.last_segment()?;
    match store(&call)?.exchange(&id).await? {
        Some(mut exchange) => {
            call.require(Permission::Read, content::scope(&exchange))?;
            let shown = content::hide(&call, std::slice::from_mut(&mut exchange), true);
            content::note_one(&call, &shown).await?;
            Ok(found(exchange))
        }
        None => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("there is no exchange {id:?}; one just made appears a second or two later"),
        )
        .into()),
    }
}

/// `GET /stats?group_by=prompt,version,…&from=&to=&prompt=&…&limit=`: figures by group, in the order of its keys.
pub async fn stats(call: Call) -> Result<Response, Failure> {
    call.require(Permission::Read, Scope::ANYWHERE)?;
    let query: Query = call.query()?;
    call.require(Permission::Read, query.scope())?;
    query.may_search(&call)?;
    if query.content.is_some() {
        return Err(invalid("content", "belongs to a list, statistics have none"));
    }
    if query.cursor.is_some() {
        return Err(invalid(
            "cursor",
            "belongs to a list, statistics have no pages: use limit",
        ));
    }
    let words = query.group_by.as_deref().unwrap_or_default().split(',');
    let mut group_by = Vec::new();
    for word in words.filter(|word| !word.is_empty()) {
        let by = GroupBy::from_str(word).map_err(|message| invalid("group_by", message))?;
        // Two of one name would be one field of the answer.
        let twice = |other: &GroupBy| *other == by || matches!((other, &by), (GroupBy::Time(_), GroupBy::Time(_)));
        if group_by.iter().any(twice) {
            return Err(invalid("group_by", format!("names {word:?} twice")));
        }
        group_by.push(by);
    }
    if group_by.len() > KEYS_MAX {
        return Err(invalid("group_by", format!("may have at most {KEYS_MAX} keys")));
    }
    let limit = query.limit.unwrap_or(DEFAULT_GROUPS);
    let filter = query.filter()?;
    content::note_many(&call, &[], filter.text.is_some()).await?;
    let stats = store(&call)?
        .stats(&StatsQuery {
            filter,
            group_by,
            limit,
        })
        .await?;
    Ok(found(stats.to_json()))
}

impl Query {
    /// What the filter is limited to: figures of all need authority over all.
    fn scope(&self) -> Scope<'_> {
        Scope {
            environment: self.environment.as_deref().map_or(Reach::All, Reach::One),
            prompt: self.prompt.as_deref().map_or(Reach::All, Reach::One),
        }
    }

    /// Searching in content tells what is in it.
    fn may_search(&self, call: &Call) -> Result<(), Failure> {
        match self.text {
            Some(_) => call.require(Permission::ReadContent, self.scope()),
            None => Ok(()),
        }
    }

    fn filter(self) -> Result<ExchangeFilter, Failure> {
        if let Some(outcome) = &self.outcome
            && !Outcome::ALL.iter().any(|known| known.as_str() == outcome)
        {
            let known = Outcome::ALL.map(Outcome::as_str).join(", ");
            return Err(invalid("outcome", format!("{outcome:?} is not one of {known}")));
        }
        Ok(ExchangeFilter {
            from: instant("from", self.from)?,
            to: instant("to", self.to)?,
            prompt: self.prompt,
            version: self.version,
            variant: self.variant,
            environment: self.environment,
            model: self.model,
            outcome: self.outcome,
            unit: self.unit,
            min_latency_us: self.min_latency_us,
            min_cost_nanodollars: self.min_cost_nanodollars,
            text: self.text.filter(|text| !text.is_empty()),
        })
    }
}

fn store(call: &Call) -> Result<&Store, Failure> {
    call.store().ok_or_else(|| {
        ApiError::new(
            ErrorCode::NotFound,
            "exchanges are not recorded here (telemetry.sink is \"none\")",
        )
        .into()
    })
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::BadCursor(_) => ApiError::new(ErrorCode::InvalidField, error.to_string())
                .param("cursor")
                .into(),
            error if error.is_outage() => {
                tracing::warn!(%error, "the telemetry store cannot be read");
                let message = "the telemetry store cannot be reached now; records are kept until it can, try again";
                ApiError::new(ErrorCode::Unavailable, message).into()
            }
            error => {
                tracing::error!(%error, "the telemetry store failed");
                Self::internal()
            }
        }
    }
}
