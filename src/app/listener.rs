//! One listening socket, whose connections go to the worker that has the fewest.
//!
//! With `SO_REUSEPORT` the kernel spreads by hash: with few connections one worker may get them all, and a listener that
//! closes resets what waits in its queue.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Context;
use prometheus::IntCounterVec;
use tokio::sync::watch;

use super::worker::Inbox;

/// After the system refused to accept (no file descriptors, say), wait this long.
const PAUSE: Duration = Duration::from_millis(50);

/// Binds an address.
///
/// # Errors
/// Names the configuration's key and the address.
pub fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address} ({key}); is another process using it?"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What accepting needs.
pub struct Accept {
    pub inboxes: Vec<Inbox>,
    pub max_connections: usize,
    pub refused: IntCounterVec,
}

/// Accepts until told to stop.
pub async fn accept(listener: TcpListener, accept: Accept, mut stopped: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot accept connections"),
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => hand_over(stream, &accept),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                accept.refused.with_label_values(&["accept"]).inc();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn hand_over(stream: tokio::net::TcpStream, accept: &Accept) {
    let open: usize = accept.inboxes.iter().map(Inbox::open).sum();
    if open >= accept.max_connections {
        return accept.refused.with_label_values(&["max_connections"]).inc();
    }
    let sent = stream.into_std().is_ok_and(|stream| {
        let least = accept.inboxes.iter().min_by_key(|inbox| inbox.open());
        least.is_some_and(|inbox| inbox.send(stream))
    });
    if !sent {
        accept.refused.with_label_values(&["worker_busy"]).inc();
    }
}
