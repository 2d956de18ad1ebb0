//! A worker's end of the spool: its buffer, the flusher that empties it once a tick, and those who wait.
//!
//! ```text
//! append ── encode into the buffer ── first of the tick? wake the flusher
//!                                        │ (queued behind the tasks that are ready now: they append too)
//!                                        ▼
//!                       stamp CRCs ── one pwrite ── wake all who wait ── answers leave
//! ```
//!
//! With durability `disk` those who wait are woken by the syncer's word instead; with `relaxed` nobody waits, and batches
//! are written a few milliseconds apart.
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

use super::disk::Disk;
use super::format::{HEADER_LEN, push_frame};
use super::open_log::{Key, OpenLog};
use super::room::{Level, Reservation};
use super::stats::WorkerStats;
use super::sync::Progress;
use super::{Durability, Shared};

/// A buffer that grew beyond this in one tick is not kept.
const BUFFER_KEEP_BYTES: usize = 4 << 20;
/// How long a batch may grow with durability `relaxed`, unless it has this many bytes.
const RELAXED_GAP: Duration = Duration::from_millis(5);
const RELAXED_BYTES: usize = 256 << 10;
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
        let progress = self
            .shared
            .syncer
            .as_ref()
            .map(|thread| thread.syncer().progress(self.worker));
        let worker = u32::try_from(self.worker).unwrap_or(u32::MAX);
        let options = &self.shared.options;
        let open = OpenLog::new(self.shared.boot_folder.clone(), &options.boot, worker, options.schema);
        let core = Rc::new(Core {
            batch: RefCell::new(Batch::default()),
            open: RefCell::new(open),
            used: Cell::new(self.shared.stats.unshipped_bytes()),
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
        if let Some(progress) = progress {
            tokio::task::spawn_local(follow_syncer(Rc::clone(&core), progress));
        }
        Writer { core }
    }
}

/// Appends records and waits until they are written. Cheap to clone; stays in its thread.
#[derive(Debug, Clone)]
pub struct Writer {
    core: Rc<Core>,
}

impl Writer {
    /// Encodes a record into the buffer of this tick. Never waits. After [`close`](Self::close) it is written at once, and
    /// found at the next start.
    ///
    /// # Errors
    /// There is no room for it. Nothing is counted yet: a smaller one may fit; if there is none, [`lose`](Self::lose) it.
    pub fn append(&self, kind: u8, encode: impl FnOnce(&mut Vec<u8>)) -> Result<Ticket, Refused> {
        self.core.append(kind, false, encode)
    }

    /// Appends an aggregate, for which there is a headroom when the spool is full.
    ///
    /// # Errors
    /// Even that is used up.
    pub fn append_aggregate(&self, kind: u8, encode: impl FnOnce(&mut Vec<u8>)) -> Result<Ticket, Refused> {
        self.core.append(kind, true, encode)
    }

    /// Counts a record that is not kept.
    pub fn lose(&self, why: Refused) -> Ticket {
        self.core.stats().appended.fetch_add(1, Relaxed);
        let mut disk = self.core.disk.borrow_mut();
        match why {
            Refused::Full => disk.refuse_full(),
            Refused::TooLarge(bytes) => disk.refuse(bytes),
        }
        Ticket(0)
    }

    /// Counts a record that is kept without its content, since there is little room.
    pub fn count_shed(&self) {
        self.core.stats().shed.fetch_add(1, Relaxed);
    }

    /// Notes a record that will take long, as far as it is known; `encode` appends a payload that begins with its key.
    /// If the process dies before the record is appended, the next start finds this instead.
    pub fn opened(&self, kind: u8, encode: impl FnOnce(&mut Vec<u8>)) {
        self.core.open.borrow_mut().opened(kind, encode);
        self.core.wake_flusher();
    }

    /// Says that an opened record has been appended; call it right after that.
    pub fn closed(&self, key: Key) {
        self.core.open.borrow_mut().closed(key);
    }

    /// How full the spool is.
    pub fn level(&self) -> Level {
        let room = &self.core.shared.room;
        match room.level(self.core.used()) {
            Level::Plenty => Level::Plenty,
            // It may have become better since the last flush.
            _ => {
                self.refresh();
                room.level(self.core.used())
            }
        }
    }

    /// Promises room to a record that will be appended; None if there is none.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        let room = &self.core.shared.room;
        room.reserve(self.core.used(), bytes).or_else(|| {
            self.refresh();
            room.reserve(self.core.used(), bytes)
        })
    }

    /// Takes over how full the spool has become by others; call it now and then.
    pub fn refresh(&self) {
        self.core.used.set(self.core.shared.stats.unshipped_bytes());
    }

    /// Whether the record is written (or counted as lost).
    pub fn is_flushed(&self, ticket: Ticket) -> bool {
        self.core.flushed.get() >= ticket.0
    }

    /// Waits until the record is as durable as was asked for, or counted as lost. Allocates nothing.
    pub fn flushed(&self, ticket: Ticket) -> Flushed {
        if self.core.shared.options.limits.durability == Durability::Relaxed {
            return Flushed::ready();
        }
        Flushed {
            core: Some(Rc::clone(&self.core)),
            ticket,
            place: None,
        }
    }

    /// Writes and seals what there is, and ends the flusher.
    pub async fn close(&self) {
        self.core.flush();
        let last = Ticket(self.core.batch.borrow().appended);
        self.flushed(last).await;
        self.core.disk.borrow_mut().seal();
        self.core.open.borrow_mut().close();
        self.core.closed.set(true);
        self.core.wake_flusher();
    }
}

/// Why a record is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The spool is full.
    Full,
    /// Larger than a whole segment: its bytes.
    TooLarge(usize),
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
    open: RefCell<OpenLog>,
    /// Bytes in the spool, as of the last flush.
    used: Cell<u64>,
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
            if core.batch.borrow().whole > 0 || !core.open.borrow().is_idle() {
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
            Wake::Flush => {
                core.collect().await;
                core.flush();
            }
            Wake::Seal => core.disk.borrow_mut().seal(),
            Wake::Closed => return,
        }
    }
}

/// Wakes those who wait, when the syncer says so.
async fn follow_syncer(core: Rc<Core>, progress: Arc<Progress>) {
    while !core.closed.get() {
        progress.changed().await;
        core.release(progress.durable());
    }
}

impl Core {
    fn stats(&self) -> &WorkerStats {
        &self.shared.stats.workers[self.worker]
    }

    fn append(&self, kind: u8, aggregate: bool, encode: impl FnOnce(&mut Vec<u8>)) -> Result<Ticket, Refused> {
        let max = usize::try_from(self.shared.options.segment_bytes).unwrap_or(usize::MAX) - HEADER_LEN;
        let mut batch = self.batch.borrow_mut();
        let whole = batch.whole;
        batch.bytes.truncate(whole);
        let len = push_frame(&mut batch.bytes, kind, max, encode).map_err(Refused::TooLarge)?;
        let room = &self.shared.room;
        let fits = || {
            let used = self.used.get() + whole as u64;
            room.fits(used, len as u64) || (aggregate && room.fits_headroom(used))
        };
        let fits = fits() || {
            self.used.set(self.shared.stats.unshipped_bytes());
            fits()
        };
        if !fits {
            batch.bytes.truncate(whole);
            return Err(Refused::Full);
        }
        self.stats().appended.fetch_add(1, Relaxed);
        batch.whole += len;
        batch.appended += 1;
        let ticket = Ticket(batch.appended);
        drop(batch);
        if self.closed.get() {
            self.flush();
        } else if whole == 0 {
            self.wake_flusher();
        }
        Ok(ticket)
    }

    /// Bytes in the spool, those not yet written included.
    fn used(&self) -> u64 {
        self.used.get() + self.batch.borrow().whole as u64
    }

    /// Waits for more records where nobody waits for these.
    async fn collect(&self) {
        let relaxed = self.shared.options.limits.durability == Durability::Relaxed;
        if relaxed && !self.closed.get() && self.batch.borrow().whole < RELAXED_BYTES {
            tokio::time::sleep(RELAXED_GAP).await;
        }
    }

    fn wake_flusher(&self) {
        let flusher = self.flusher.take();
        if let Some(waker) = flusher {
            waker.wake();
        }
    }

    /// Writes the batch; those who wait are woken, whatever came of it, now or when it is synced.
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
        let appended = batch.appended;
        drop(batch);

        // After the records: one that is closed must be there.
        let log = self.open.borrow_mut().flush();
        self.used.set(self.shared.stats.unshipped_bytes());
        match &self.shared.syncer {
            None => self.release(appended),
            Some(thread) => {
                let mut written = self.disk.borrow_mut().take_written();
                written.files.extend(log);
                written.renamed |= self.open.borrow_mut().take_begun();
                thread.syncer().submit(self.worker, appended, written);
            }
        }
    }

    /// Wakes those who wait for records up to a ticket.
    fn release(&self, ticket: u64) {
        self.flushed.set(ticket);
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
