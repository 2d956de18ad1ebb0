//! Refusals in a flood: counted in one row a second, so that whoever guesses keys cannot fill the store, and so that a
//! full spool can still say what it cost.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::exchange::Exchange;
use super::worker::Worker;
use crate::domain::error::ErrorCode;
use crate::domain::exchange::RefusalsRecord;

/// How often the rows are written.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Keys told apart; those beyond count as no key.
const MAX_ROWS: usize = 1024;

/// What a worker has refused and not recorded one by one.
#[derive(Default)]
pub struct Refusals {
    rows: RefCell<HashMap<Kind, Count>>,
    written: Cell<Option<Instant>>,
    /// Recorded one by one since `written`.
    recorded: Cell<u32>,
}

/// Key's id, endpoint and code.
type Kind = (Arc<str>, &'static str, ErrorCode);

struct Count {
    /// Microseconds since the Unix epoch.
    since: i64,
    until: i64,
    requests: u64,
}

impl Refusals {
    /// Takes an exchange that is refused with `code`, if it is not to have a record of its own.
    pub fn take(&self, exchange: &Exchange, code: ErrorCode) -> bool {
        let settings = &exchange.worker.settings;
        let taken = match code {
            ErrorCode::RecordingFull => true,
            ErrorCode::InvalidApiKey => {
                let recorded = self.recorded.get();
                self.recorded.set(recorded.saturating_add(1));
                recorded >= settings.refusals_per_second
            }
            _ => false,
        };
        if taken {
            let mut rows = self.rows.borrow_mut();
            let key_id = if rows.len() < MAX_ROWS {
                Arc::clone(&exchange.key_id)
            } else {
                "".into()
            };
            let count = rows.entry((key_id, exchange.endpoint, code)).or_insert(Count {
                since: exchange.started_at,
                until: exchange.started_at,
                requests: 0,
            });
            count.since = count.since.min(exchange.started_at);
            count.until = count.until.max(exchange.started_at);
            count.requests += 1;
        }
        taken
    }

    /// Writes the rows if it is time; `now` None: it is.
    pub fn write(&self, worker: &Worker, now: Option<Instant>) {
        let written = self.written.get();
        if let (Some(now), Some(written)) = (now, written)
            && now.saturating_duration_since(written) < WRITE_EVERY
        {
            return;
        }
        self.written.set(now);
        self.recorded.set(0);
        for ((key_id, endpoint, code), count) in self.rows.take() {
            worker.recorder.refusals(&RefusalsRecord {
                refusals_id: worker.new_id(count.until),
                since: count.since,
                until: count.until,
                node: &worker.settings.node,
                key_id: &key_id,
                endpoint,
                error_code: code.as_str(),
                status_code: code.status(),
                requests: count.requests,
            });
        }
    }
}
