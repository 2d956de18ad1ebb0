//! Threads, connections, and stopping them.
//!
//! One socket listens; the first worker accepts and hands each connection to the worker that has the fewest.
//! Several sockets (`SO_REUSEPORT`) would spread few connections unevenly, which benchmarks would show.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Controls,
    respond::respond,
    stats::{Counters, LastRequest},
};

const BACKLOG: u32 = 4096;
/// How long answers under way may take once the mock is told to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// Accepting fails when descriptors run out; try again when some may have been closed.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);
const HANDOVER_QUEUE: usize = 1024;

/// What to start.
#[derive(Clone, Debug)]
pub struct MockProviderOptions {
    /// Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Threads, each with a runtime of its own; 0 counts as 1.
    pub workers: usize,
    /// What requests get that ask for nothing else.
    pub defaults: Controls,
}

/// A running mock provider on threads of its own; dropping it stops it.
#[derive(Debug)]
pub struct MockProvider {
    local_addr: SocketAddr,
    stop: Vec<watch::Sender<bool>>,
    threads: Vec<JoinHandle<()>>,
}

impl MockProvider {
    /// Binds, starts the workers and returns; connections are accepted from now on.
    ///
    /// # Errors
    /// The address cannot be bound, or a runtime or thread not be made.
    pub fn start(options: MockProviderOptions) -> io::Result<Self> {
        let worker_count = options.workers.max(1);
        let shared = Arc::new(Shared {
            boot: boot_stamp(),
            defaults: options.defaults,
            counters: (0..worker_count).map(|_| Counters::default()).collect(),
            last_request: LastRequest::default(),
        });
        let runtimes: Vec<Runtime> = (0..worker_count)
            .map(|_| Builder::new_current_thread().enable_all().build())
            .collect::<io::Result<_>>()?;
        let listener = bind(&runtimes[0], options.listen)?;
        let mut provider = Self {
            local_addr: listener.local_addr()?,
            stop: Vec::new(),
            threads: Vec::with_capacity(worker_count),
        };
        let (queues, handed_over): (Vec<_>, Vec<_>) = (0..worker_count).map(|_| mpsc::channel(HANDOVER_QUEUE)).unzip();
        let mut acceptor = Some(Acceptor {
            listener,
            queues,
            shared: Arc::clone(&shared),
        });
        for (index, (runtime, connections)) in runtimes.into_iter().zip(handed_over).enumerate() {
            let (stop, stopping) = watch::channel(false);
            let worker = Arc::new(Worker {
                index,
                shared: Arc::clone(&shared),
                stopping,
            });
            let acceptor = acceptor.take();
            let thread = std::thread::Builder::new()
                .name(format!("mock-provider-{index}"))
                .spawn(move || {
                    runtime.block_on(worker.run(acceptor, connections));
                })?;
            provider.stop.push(stop);
            provider.threads.push(thread);
        }
        Ok(provider)
    }

    /// The address connections are accepted on, with the port that was picked.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting, lets answers under way end for up to a second, and joins the threads.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for MockProvider {
    fn drop(&mut self) {
        for stop in &self.stop {
            stop.send_replace(true);
        }
        for thread in self.threads.drain(..) {
            // A worker that panicked has printed why, and must not take its owner down while that unwinds.
            let _ = thread.join();
        }
    }
}

/// What all workers have in common.
pub(super) struct Shared {
    /// Tells apart the answers of two runs: 24 bits.
    boot: u64,
    pub(super) defaults: Controls,
    pub(super) counters: Vec<Counters>,
    pub(super) last_request: LastRequest,
}

/// One thread's part of the mock.
pub(super) struct Worker {
    index: usize,
    pub(super) shared: Arc<Shared>,
    stopping: watch::Receiver<bool>,
}

impl Worker {
    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters[self.index]
    }

    /// A number no other answer has: 24 bits of the boot, 8 of the worker, 32 counting up.
    pub(super) fn next_answer_number(&self) -> u64 {
        let count = self.counters().answers.fetch_add(1, Relaxed) & 0xffff_ffff;
        (self.shared.boot << 40) | ((self.index as u64 & 0xff) << 32) | count
    }

    /// Resolves when the mock is told to stop.
    pub(super) fn until_stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.stopping.clone();
        async move {
            // An error says that the mock itself is gone, which is as good.
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    }

    async fn run(self: Arc<Self>, acceptor: Option<Acceptor>, mut connections: mpsc::Receiver<std::net::TcpStream>) {
        let mut tasks = JoinSet::new();
        let until_stopped = self.until_stopped();
        tokio::pin!(until_stopped);
        if let Some(acceptor) = acceptor {
            let until_stopped = self.until_stopped();
            tasks.spawn(async move {
                tokio::select! {
                    () = acceptor.run() => {}
                    () = until_stopped => {}
                }
            });
        }
        loop {
            tokio::select! {
                Some(connection) = connections.recv() => {
                    tasks.spawn(Arc::clone(&self).serve(connection));
                }
                Some(_) = tasks.join_next() => {}
                () = &mut until_stopped => break,
            }
        }
        // What has not ended by then is dropped with the runtime.
        let _ = timeout(DRAIN_LIMIT, async { while tasks.join_next().await.is_some() {} }).await;
    }

    async fn serve(self: Arc<Self>, connection: std::net::TcpStream) {
        let _open = OpenConnection(Arc::clone(&self));
        let Ok(connection) = tokio::net::TcpStream::from_std(connection) else {
            return;
        };
        let until_stopped = self.until_stopped();
        let service = service_fn(move |request| respond(Arc::clone(&self), request));
        let server = auto::Builder::new(TokioExecutor::new());
        let connection = server.serve_connection(TokioIo::new(connection), service);
        tokio::pin!(connection);
        // Errors are clients that left and cuts that were asked for: counted elsewhere.
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = until_stopped => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}

/// Keeps the worker's connection count, from the hand-over on.
struct OpenConnection(Arc<Worker>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.counters().connections.fetch_sub(1, Relaxed);
    }
}

/// Accepts for all workers.
struct Acceptor {
    listener: TcpListener,
    queues: Vec<mpsc::Sender<std::net::TcpStream>>,
    shared: Arc<Shared>,
}

impl Acceptor {
    async fn run(self) {
        loop {
            let accepted = match self.listener.accept().await {
                // Events are small and each must leave at once.
                Ok((connection, _)) => connection.set_nodelay(true).and_then(|()| connection.into_std()),
                Err(error) => Err(error),
            };
            match accepted {
                Ok(connection) => self.hand_over(connection).await,
                Err(_) => sleep(ACCEPT_RETRY).await,
            }
        }
    }

    async fn hand_over(&self, connection: std::net::TcpStream) {
        let counters = self.shared.counters.iter().zip(&self.queues);
        let (counters, queue) = counters
            .min_by_key(|(counters, _)| counters.connections.load(Relaxed))
            .expect("there is at least one worker");
        counters.connections.fetch_add(1, Relaxed);
        // Fails only when that worker is stopping, and then so is this one.
        let _ = queue.send(connection).await;
    }
}

fn bind(runtime: &Runtime, address: SocketAddr) -> io::Result<TcpListener> {
    let _registers_with = runtime.enter();
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn boot_stamp() -> u64 {
    let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    super::text::split_mix(since_epoch.as_nanos() as u64) & 0x00ff_ffff
}
