//! The calls of one worker that are not over: those that take long are noted in the spool, so that `kill -9` does not
//! lose them.
//!
//! A call that is quicker costs an entry in a list. Once in a while [`OpenCalls::sweep`] looks for those that are about
//! to be a second old. One that we wait for is woken and notes itself, with what is known by then. A relayed answer is
//! noted by the sweep, with what was known at its beginning: its caller may be too slow for it to be polled.

use std::cell::RefCell;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::exchange::Exchange;
use crate::telemetry::Recorder;

/// How often to sweep.
pub const SWEEP_EVERY: Duration = Duration::from_millis(200);

/// Age from which a call is noted: with the time between two sweeps and the write, it is by the time it is a second old.
const NOTE_AFTER: Duration = Duration::from_millis(700);

/// Bytes of each field of content that are noted.
pub const NOTED_CONTENT_BYTES: usize = 2048;

/// All open calls of a worker that had to wait for something.
#[derive(Default)]
pub struct OpenCalls {
    entries: RefCell<Slab<Entry>>,
}

struct Entry {
    started: Instant,
    state: State,
}

enum State {
    /// Polled when something happens; to be woken when it is old.
    Waiting(Waker),
    /// Woken, to note itself.
    Due,
    /// The row to be noted when it is old.
    Relaying(Vec<u8>),
    Noted,
}

/// A call's place in the list.
#[derive(Default)]
pub struct Place(Option<usize>);

impl OpenCalls {
    /// Wakes or notes the calls that have become old.
    pub fn sweep(&self, recorder: &Recorder) {
        let Some(limit) = Instant::now().checked_sub(NOTE_AFTER) else {
            return;
        };
        let mut woken = Vec::new();
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            if entry.started > limit {
                continue;
            }
            match std::mem::replace(&mut entry.state, State::Noted) {
                State::Waiting(waker) => {
                    woken.push(waker);
                    entry.state = State::Due;
                }
                State::Relaying(row) => recorder.note_open(&row),
                state @ (State::Due | State::Noted) => entry.state = state,
            }
        }
        // Outside the cell: a waker may run code that comes back here.
        woken.into_iter().for_each(Waker::wake);
    }

    fn is_due(&self, place: &mut Place, started: Instant, cx: &Context<'_>) -> bool {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = place.0.and_then(|index| entries.get_mut(index)) else {
            let state = State::Waiting(cx.waker().clone());
            place.0 = Some(entries.insert(Entry { started, state }));
            return false;
        };
        match &mut entry.state {
            State::Due => {
                entry.state = State::Noted;
                true
            }
            State::Waiting(waker) => {
                waker.clone_from(cx.waker());
                false
            }
            State::Relaying(_) | State::Noted => false,
        }
    }

    fn relaying(&self, place: &mut Place, started: Instant, row: impl FnOnce() -> Vec<u8>) {
        let mut entries = self.entries.borrow_mut();
        match place.0.and_then(|index| entries.get_mut(index)) {
            Some(Entry {
                state: State::Noted, ..
            }) => {}
            Some(entry) => entry.state = State::Relaying(row()),
            None => {
                let state = State::Relaying(row());
                place.0 = Some(entries.insert(Entry { started, state }));
            }
        }
    }

    fn leave(&self, place: &mut Place) -> bool {
        let Some(index) = place.0.take() else { return false };
        let entry = self.entries.borrow_mut().try_remove(index);
        entry.is_some_and(|entry| matches!(entry.state, State::Noted))
    }
}

impl Exchange {
    /// Awaits `work`, and notes the exchange as open if that takes long.
    pub async fn while_open<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            if polled.is_pending() && self.worker.recorder.is_on() {
                let calls = &self.worker.open_calls;
                if calls.is_due(&mut self.place, self.started, cx) {
                    self.worker.recorder.note_open(&self.open_row());
                }
            }
            polled
        })
        .await
    }

    /// From here on the exchange is noted without being polled.
    pub fn relaying(&mut self) {
        if self.worker.recorder.is_on() {
            let mut place = std::mem::take(&mut self.place);
            self.worker
                .open_calls
                .relaying(&mut place, self.started, || self.open_row());
            self.place = place;
        }
    }

    /// The exchange has been recorded, or is about to be dropped.
    pub fn no_longer_open(&mut self) {
        if self.worker.open_calls.leave(&mut self.place) {
            self.worker.recorder.note_closed(&self.id);
        }
    }
}
