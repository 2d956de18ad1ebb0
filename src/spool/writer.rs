//! A worker's end of the spool: its buffer, the flusher that empties it once a tick, and those who wait.
//!
//! ```text
//! append ── encode into the buffer ── first of the tick? wake the flusher
//!                                        │ (queued behind the tasks that are ready now: they append too)
//!                                        ▼
//!                       stamp CRCs ── one pwrite ── wake all who wait ── answers leave
//! ```
//!
//! Everything is on one thread, so there are cells and no locks. A frame's CRC is made at the write, because only then
//! is it known which segment, and so which salt, it gets. The write is synchronous on purpose: into the page cache of
//! a preallocated file it takes microseconds, less than handing it to another thread.
//!
//! It never fails its caller and never lets one hang: if a batch cannot be written, its records are counted as lost
//! and those who wait go on.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::disk::Disk;
use super::format::{HEADER_LEN, push_frame};
use super::stats::WorkerStats;

/// A buffer that grew beyond this in one tick is not kept.
const BUFFER_KEEP_BYTES: usize = 4 << 20;
/// How far off the flusher's timer is while no segment is open.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// Stands for one appended record; compares with what has been flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ticket(u64);

/// Makes a [`Writer`] in the worker's thread.
#[derive(Debug)]
pub struct WriterSeed {
    shared: Arc<Shared>,
    worker: usize,
}

impl WriterSeed {
    pub(super) fn new(shared: Arc<Shared>, worker: usize) -> Self {
        assert!(
            worker < shared.options.workers,
            "workers are counted from 0 to the number the spool was opened with"
        );
        Self { shared, worker }
    }

    /// Makes the writer and starts its flusher; call it on the worker's `LocalSet`.
    pub fn start(self) -> Writer {
        let core = Rc::new(Core {
            batch: RefCell::new(Batch::default()),
            disk: RefCell::new(Disk::new(Arc::clone(&self.shared), self.worker)),
            shared: self.shared,
            worker: self.worker,
            waiters: RefCell::new(Vec::new()),
            epoch: Cell::new(0),
            flushed: Cell::new(0),
            flusher: RefCell::new(None),
            closed: Cell::new(false),
        });
        tokio::task::spawn_local(run_flusher(Rc::clone(&core)));
        Writer { core }
    }
}

/// Appends records and waits until they are written. Cheap to clone; stays in its thread.
#[derive(Debug, Clone)]
pub struct Writer {
    core: Rc<Core>,
}

impl Writer {
    /// Encodes a record into the buffer of this tick. Never fails and never waits; a record too large for a whole
    /// segment is counted as lost. After [`close`](Self::close) it is written at once, and found at the next start.
    pub fn append(&self, kind: u8, encode: impl FnOnce(&mut Vec<u8>)) -> Ticket {
        self.core.append(kind, encode)
    }

    /// Whether the record is written (or counted as lost).
    pub fn is_flushed(&self, ticket: Ticket) -> bool {
        self.core.flushed.get() >= ticket.0
    }

    /// Waits until the record is written, or counted as lost. Allocates nothing.
    pub fn flushed(&self, ticket: Ticket) -> Flushed {
        Flushed {
            core: Some(Rc::clone(&self.core)),
            ticket,
            place: None,
        }
    }

    /// Writes and seals what there is, and ends the flusher.
    pub async fn close(&self) {
        self.core.flush();
        self.core.disk.borrow_mut().seal();
        self.core.closed.set(true);
        self.core.wake_flusher();
    }
}

/// Ready once a record is written. Safe to drop at any time.
#[derive(Debug)]
pub struct Flushed {
    /// None: ready at once.
    core: Option<Rc<Core>>,
    ticket: Ticket,
    /// Epoch and index in the list of waiters, once polled.
    place: Option<(u64, usize)>,
}

impl Flushed {
    /// Is ready at once, for when nothing is recorded.
    pub fn ready() -> Self {
        Self {
            core: None,
            ticket: Ticket(0),
            place: None,
        }
    }
}

impl Future for Flushed {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(core) = &this.core else { return Poll::Ready(()) };
        if core.flushed.get() >= this.ticket.0 {
            return Poll::Ready(());
        }
        let mut waiters = core.waiters.borrow_mut();
        match this.place {
            // Polled again before the flush: the same place, so that the list stays as long as the waiters are many.
            Some((epoch, index)) if epoch == core.epoch.get() => waiters[index].clone_from(cx.waker()),
            _ => {
                this.place = Some((core.epoch.get(), waiters.len()));
                waiters.push(cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

/// Frames that are not written yet, those of one tick.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// End of the last whole frame; more is there only if an encoder panicked.
    whole: usize,
    appended: u64,
}

#[derive(Debug)]
struct Core {
    shared: Arc<Shared>,
    worker: usize,
    batch: RefCell<Batch>,
    disk: RefCell<Disk>,
    /// Those who wait for the next flush; drained by each.
    waiters: RefCell<Vec<Waker>>,
    /// Number of flushes; tells a waiter whether its place in the list is still its own.
    epoch: Cell<u64>,
    /// Every ticket up to this is done with.
    flushed: Cell<u64>,
    flusher: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

/// Why the flusher was woken.
enum Wake {
    Flush,
    Seal,
    Closed,
}

async fn run_flusher(core: Rc<Core>) {
    let mut timer = pin!(sleep_until(Instant::now() + FAR));
    loop {
        let due = core.disk.borrow().seal_at();
        if let Some(due) = due
            && due != timer.deadline()
        {
            timer.as_mut().reset(due);
        }
        let wake = poll_fn(|cx| {
            if core.closed.get() {
                return Poll::Ready(Wake::Closed);
            }
            if core.batch.borrow().whole > 0 {
                return Poll::Ready(Wake::Flush);
            }
            core.flusher.replace(Some(cx.waker().clone()));
            if due.is_some() {
                timer.as_mut().poll(cx).map(|()| Wake::Seal)
            } else {
                Poll::Pending
            }
        });
        match wake.await {
            Wake::Flush => core.flush(),
            Wake::Seal => core.disk.borrow_mut().seal(),
            Wake::Closed => return,
        }
    }
}

impl Core {
    fn stats(&self) -> &WorkerStats {
        &self.shared.stats.workers[self.worker]
    }

    fn append(&self, kind: u8, encode: impl FnOnce(&mut Vec<u8>)) -> Ticket {
        let max = usize::try_from(self.shared.options.segment_bytes).unwrap_or(usize::MAX) - HEADER_LEN;
        let mut batch = self.batch.borrow_mut();
        let whole = batch.whole;
        batch.bytes.truncate(whole);
        let pushed = push_frame(&mut batch.bytes, kind, max, encode);
        self.stats().appended.fetch_add(1, Relaxed);
        let len = match pushed {
            Ok(len) => len,
            Err(len) => {
                drop(batch);
                self.disk.borrow_mut().refuse(len);
                return Ticket(0);
            }
        };
        batch.whole += len;
        batch.appended += 1;
        let ticket = Ticket(batch.appended);
        drop(batch);
        if self.closed.get() {
            self.flush();
        } else if whole == 0 {
            self.wake_flusher();
        }
        ticket
    }

    fn wake_flusher(&self) {
        let flusher = self.flusher.take();
        if let Some(waker) = flusher {
            waker.wake();
        }
    }

    /// Writes the batch and wakes all who wait, whatever came of it.
    fn flush(&self) {
        let mut batch = self.batch.borrow_mut();
        if batch.whole > 0 {
            let whole = batch.whole;
            self.disk.borrow_mut().write(&mut batch.bytes[..whole]);
            self.stats().flushes.fetch_add(1, Relaxed);
        }
        if batch.bytes.capacity() > BUFFER_KEEP_BYTES {
            batch.bytes = Vec::new();
        }
        batch.bytes.clear();
        batch.whole = 0;
        self.flushed.set(batch.appended);
        drop(batch);

        // Woken from outside the cell: a waker may run code that appends or waits.
        self.epoch.set(self.epoch.get() + 1);
        let mut woken = self.waiters.take();
        for waker in woken.drain(..) {
            waker.wake();
        }
        let mut waiters = self.waiters.borrow_mut();
        if waiters.is_empty() {
            *waiters = woken;
        }
    }
}
