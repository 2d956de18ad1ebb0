//! Counters of what the mock saw, per worker so that cores share no cache line, and the guard that keeps them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use http::request::Parts;
use serde::Serialize;

use super::server::Worker;

/// One worker's counters, alone on their cache lines.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Counters {
    pub(super) connections: AtomicUsize,
    /// Grows for ever: the answers' ids come from it.
    pub(super) answers: AtomicU64,
    requests: AtomicU64,
    cancelled: AtomicU64,
    open_streams: AtomicU64,
}

/// The last request's slot; stays empty unless the mock remembers.
#[derive(Default)]
pub(super) struct LastRequest(Mutex<Option<SeenRequest>>);

#[derive(Clone, Serialize)]
struct SeenRequest {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// What `GET /__mock/stats` answers.
#[derive(Serialize)]
struct Stats {
    requests: u64,
    open_streams: u64,
    cancelled: u64,
    last_request: Option<SeenRequest>,
}

impl LastRequest {
    pub(super) fn remember(&self, head: &Parts, body: &[u8]) {
        let mut headers = BTreeMap::new();
        for (name, value) in &head.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers
                .entry(name.to_string())
                .and_modify(|earlier: &mut String| *earlier = format!("{earlier}, {value}"))
                .or_insert_with(|| value.to_string());
        }
        let seen = SeenRequest {
            method: head.method.to_string(),
            path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            headers,
            body: String::from_utf8_lossy(body).into_owned(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }
}

/// Sums all workers' counters.
pub(super) fn to_json(workers: &[Counters], last: &LastRequest) -> Vec<u8> {
    let sum = |counter: fn(&Counters) -> &AtomicU64| workers.iter().map(|worker| counter(worker).load(Relaxed)).sum();
    let stats = Stats {
        requests: sum(|worker| &worker.requests),
        open_streams: sum(|worker| &worker.open_streams),
        cancelled: sum(|worker| &worker.cancelled),
        last_request: last.0.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    };
    serde_json::to_vec(&stats).expect("counters and strings are JSON")
}

/// Forgets what was counted; streams that are open stay open.
pub(super) fn reset(workers: &[Counters], last: &LastRequest) {
    for worker in workers {
        worker.requests.store(0, Relaxed);
        worker.cancelled.store(0, Relaxed);
    }
    *last.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Accompanies one request; dropped before [`AnswerGuard::finish`], it counts the client as gone.
pub(super) struct AnswerGuard {
    worker: Arc<Worker>,
    streaming: bool,
    finished: bool,
}

impl AnswerGuard {
    pub(super) fn new(worker: Arc<Worker>) -> Self {
        worker.counters().requests.fetch_add(1, Relaxed);
        Self {
            worker,
            streaming: false,
            finished: false,
        }
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn begin_stream(&mut self) {
        self.streaming = true;
        self.worker.counters().open_streams.fetch_add(1, Relaxed);
    }

    /// The answer went as it was meant to, deliberate faults included.
    pub(super) fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        if self.streaming {
            self.worker.counters().open_streams.fetch_sub(1, Relaxed);
        }
        if !self.finished {
            self.worker.counters().cancelled.fetch_add(1, Relaxed);
        }
    }
}
