//! One data plane worker: a thread, a single-threaded runtime, its connections.

use std::convert::Infallible;
use std::net::TcpStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use prometheus::IntCounterVec;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use crate::config::Config;
use crate::metrics::WorkerMetrics;
use crate::proxy::{self, Settings, Worker, WorkerParts};
use crate::snapshot::{Cell, Pinned};
use crate::telemetry::RecorderSeed;

/// Accepted connections that may wait for a worker.
const INBOX: usize = 1024;

/// Templates may recurse; the default of 2 MiB would do, this leaves room.
const STACK_BYTES: usize = 4 << 20;

/// How often series of versions no longer live are dropped.
const RETIRE_EVERY: Duration = Duration::from_secs(60);

/// After the word to stop, connections without a request stay open for so long: a caller may be sending one just now. It
/// is answered, and told by the answer that it was the last one here.
const LAST_REQUEST: Duration = Duration::from_millis(250);

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    pub cell: Arc<Cell>,
    pub pinned: Arc<Pinned>,
    pub settings: Arc<Settings>,
    pub http: HttpLimits,
    pub drain: Duration,
    /// Counts what never became a request.
    pub refused: IntCounterVec,
}

/// Limits on what comes before a request.
#[derive(Clone, Copy)]
pub struct HttpLimits {
    head_timeout: Duration,
    max_head_bytes: usize,
}

impl HttpLimits {
    pub fn new(config: &Config) -> Self {
        Self {
            head_timeout: config.timeouts.request_head,
            max_head_bytes: config.limits.max_headers_bytes as usize,
        }
    }
}

/// Where a worker's new connections go.
#[derive(Clone)]
pub struct Inbox {
    sender: mpsc::Sender<TcpStream>,
    open: Arc<AtomicUsize>,
}

impl Inbox {
    /// Returns the number of connections that the worker has.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Hands a connection over; says whether the worker could take it.
    pub fn send(&self, stream: TcpStream) -> bool {
        self.open.fetch_add(1, Ordering::Relaxed);
        let sent = self.sender.try_send(stream).is_ok();
        if !sent {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        sent
    }
}

/// A running worker.
pub struct Handle {
    inbox: Inbox,
    thread: std::thread::JoinHandle<()>,
}

impl Handle {
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// Waits until the worker has drained.
    pub fn join(self) {
        drop(self.inbox);
        if self.thread.join().is_err() {
            tracing::error!("a worker thread panicked");
        }
    }
}

/// Starts a worker's thread.
///
/// # Errors
/// When the system has no thread or runtime to give.
pub fn start(
    index: usize,
    shared: Shared,
    recorder: RecorderSeed,
    metrics: WorkerMetrics,
    stopped: watch::Receiver<bool>,
) -> std::io::Result<Handle> {
    let (sender, receiver) = mpsc::channel(INBOX);
    let open = Arc::new(AtomicUsize::new(0));
    let inbox = Inbox {
        sender,
        open: Arc::clone(&open),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .stack_size(STACK_BYTES)
        .spawn(move || {
            LocalSet::new().block_on(&runtime, async move {
                let worker = Worker::new(WorkerParts {
                    cell: shared.cell,
                    pinned: shared.pinned,
                    recorder: recorder.into_recorder(),
                    metrics,
                    settings: shared.settings,
                });
                let connections = Connections::new(Rc::clone(&worker), shared.http, open, stopped, shared.refused);
                connections.run(receiver, shared.drain).await;
                worker.close().await;
            });
        })?;
    Ok(Handle { inbox, thread })
}

struct Connections {
    worker: Rc<Worker>,
    http: Rc<Builder<LocalExecutor>>,
    open: Arc<AtomicUsize>,
    stopped: watch::Receiver<bool>,
    refused: IntCounterVec,
    tasks: JoinSet<()>,
}

impl Connections {
    fn new(
        worker: Rc<Worker>,
        limits: HttpLimits,
        open: Arc<AtomicUsize>,
        stopped: watch::Receiver<bool>,
        refused: IntCounterVec,
    ) -> Self {
        let mut http = Builder::new(LocalExecutor);
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .max_buf_size(limits.max_head_bytes.max(16 * 1024));
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX));
        Self {
            worker,
            http: Rc::new(http),
            open,
            stopped,
            refused,
            tasks: JoinSet::new(),
        }
    }

    /// Serves connections until told to stop, then gives the open requests until `drain` to end.
    async fn run(mut self, mut inbox: mpsc::Receiver<TcpStream>, drain: Duration) {
        let mut stopped = self.stopped.clone();
        let mut retire = tokio::time::interval(RETIRE_EVERY);
        // Its timer is due before those of requests: tokio tells its event loop of a new earliest timer by a write to an
        // eventfd, from the loop's own thread too, which so no request pays for.
        let mut sweep = tokio::time::interval(proxy::SWEEP_EVERY);
        loop {
            tokio::select! {
                stream = inbox.recv() => match stream {
                    Some(stream) => self.serve(stream),
                    None => break,
                },
                Some(_) = self.tasks.join_next() => {}
                _ = retire.tick() => self.worker.retire_series(),
                _ = sweep.tick() => self.worker.sweep(),
                _ = stopped.wait_for(|stop| *stop) => break,
            }
        }
        let worker = Rc::clone(&self.worker);
        let ended = async {
            loop {
                tokio::select! {
                    ended = self.tasks.join_next() => if ended.is_none() { break },
                    _ = sweep.tick() => worker.sweep(),
                }
            }
        };
        if tokio::time::timeout(drain, ended).await.is_err() {
            tracing::warn!(
                open = self.tasks.len(),
                "requests were still open at the end of server.drain, ending them"
            );
        }
        // Whatever is dropped from here on was ended by us.
        self.worker.stop();
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }

    fn serve(&mut self, stream: TcpStream) {
        let (worker, http) = (Rc::clone(&self.worker), Rc::clone(&self.http));
        let refused = self.refused.clone();
        let (counted, mut stopped) = (Counted(Arc::clone(&self.open)), self.stopped.clone());
        self.tasks.spawn_local(async move {
            let _counted = counted;
            let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
                return;
            };
            // Without this a small answer may wait for the caller's acknowledgement of the one before.
            let _ = stream.set_nodelay(true);
            let stopping = Rc::new(std::cell::Cell::new(false));
            let last = Rc::clone(&stopping);
            let service = service_fn(move |request: Request<Incoming>| {
                let (last, version) = (Rc::clone(&last), request.version());
                let answer = proxy::serve(Rc::clone(&worker), request);
                async move {
                    let mut answer = answer.await?;
                    // HTTP/2 has a frame for it.
                    if last.get() && version < Version::HTTP_2 {
                        answer
                            .headers_mut()
                            .insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                _ = stopped.wait_for(|stop| *stop) => {
                    stopping.set(true);
                    tokio::select! {
                        ended = connection.as_mut() => ended,
                        () = tokio::time::sleep(LAST_REQUEST) => {
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    }
                }
            };
            if let Err(error) = ended {
                let error = error.downcast_ref::<hyper::Error>();
                if let Some(reason) = error.and_then(never_a_request) {
                    refused.with_label_values(&[reason]).inc();
                }
                tracing::debug!(?error, "connection ended");
            }
        });
    }
}

/// Says why a connection ended before it had a request, if it did.
fn never_a_request(error: &hyper::Error) -> Option<&'static str> {
    if error.is_parse_too_large() {
        Some("head_too_large")
    } else if error.is_parse() {
        Some("malformed_head")
    } else if error.is_timeout() {
        Some("head_timeout")
    } else {
        None
    }
}

/// Counts a connection for as long as it lives, a panic included.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs hyper's tasks on this thread.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
