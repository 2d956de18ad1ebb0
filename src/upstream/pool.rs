//! Idle connections of one worker, and sending a request over one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;

use super::connect::{self, Sender};
use super::endpoint::Endpoint;

/// Idle connections kept per endpoint and worker.
const MAX_IDLE: usize = 512;

/// An idle connection older than this is closed: servers drop them after a minute or so.
const MAX_IDLE_AGE: Duration = Duration::from_secs(50);

/// Connections of one worker to all endpoints.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<HashMap<u64, VecDeque<Idle>>>,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("no connection in time")]
    ConnectTimeout,
    #[error("the connection broke before an answer: {0}")]
    Broken(String),
    #[error("no answer in time")]
    FirstByteTimeout,
}

impl Pool {
    /// Sends a request and waits for the answer's head within the endpoint's `first_byte` limit.
    ///
    /// A pooled connection that turns out to be dead is replaced: the provider cannot have seen the request, or closed
    /// the connection before any byte of an answer.
    ///
    /// `request` makes the request, once more for each dead connection.
    ///
    /// Cancel safe: dropping the future closes the connection.
    ///
    /// # Errors
    /// See [`SendError`].
    ///
    /// Source: RFC 9112 §9.3.1 for the retry.
    pub async fn send(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        request: impl Fn() -> Request<Full<Bytes>>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let exchange = async {
            while let Some(mut sender) = self.checkout(endpoint.id) {
                if sender.ready().await.is_err() {
                    continue;
                }
                match sender.try_send_request(request()).await {
                    Ok(response) => return Ok(self.answer(endpoint, sender, response)),
                    Err(error) if error.error().is_parse() => return Err(SendError::Broken(error.error().to_string())),
                    Err(error) => tracing::debug!(error = %error.error(), "pooled connection was dead"),
                }
            }
            let mut sender = connect::open(endpoint).await?;
            match sender.send_request(request()).await {
                Ok(response) => Ok(self.answer(endpoint, sender, response)),
                Err(error) => Err(SendError::Broken(error.to_string())),
            }
        };
        match tokio::time::timeout(endpoint.timeouts.first_byte, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(SendError::FirstByteTimeout),
        }
    }

    /// Takes the connection used last, so that the others can grow old.
    fn checkout(&self, endpoint: u64) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&endpoint)?;
        while let Some(connection) = connections.pop_back() {
            if !connection.sender.is_closed() && connection.since.elapsed() < MAX_IDLE_AGE {
                return Some(connection.sender);
            }
        }
        None
    }

    fn checkin(&self, endpoint: u64, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(endpoint).or_default();
        while connections.len() >= MAX_IDLE
            || connections
                .front()
                .is_some_and(|oldest| now - oldest.since > MAX_IDLE_AGE)
        {
            connections.pop_front();
        }
        connections.push_back(Idle { sender, since: now });
    }

    fn answer(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        sender: Sender,
        response: Response<Incoming>,
    ) -> Response<UpstreamBody> {
        response.map(|body| UpstreamBody {
            body,
            lease: Some((Rc::clone(self), endpoint.id, sender)),
        })
    }
}

/// A provider's answer as it arrives. Dropped before its end, it closes the connection.
pub struct UpstreamBody {
    body: Incoming,
    lease: Option<(Rc<Pool>, u64, Sender)>,
}

impl UpstreamBody {
    /// Returns the next bytes, or `None` at the end.
    ///
    /// # Errors
    /// The connection's, when it breaks before the end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            let frame = match ready!(std::pin::Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    self.release();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    self.lease = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => frame,
            };
            if self.body.is_end_stream() {
                self.release();
            }
            if let Ok(data) = frame.into_data() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }

    /// Returns the length that the provider announced.
    pub fn announced_bytes(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    fn release(&mut self) {
        if let Some((pool, endpoint, sender)) = self.lease.take() {
            pool.checkin(endpoint, sender);
        }
    }
}
