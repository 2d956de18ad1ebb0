//! Opening one connection: TCP, TLS, the HTTP handshake.

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::endpoint::Endpoint;
use super::pool::SendError;

pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Opens a connection within the endpoint's `connect` limit, which covers name look-up, TCP and TLS.
///
/// # Errors
/// [`SendError::Connect`] or [`SendError::ConnectTimeout`].
pub(super) async fn open(endpoint: &Endpoint) -> Result<Sender, SendError> {
    match tokio::time::timeout(endpoint.timeouts.connect, dial(endpoint)).await {
        Ok(opened) => opened,
        Err(_) => Err(SendError::ConnectTimeout),
    }
}

async fn dial(endpoint: &Endpoint) -> Result<Sender, SendError> {
    let failed = |error: std::io::Error| SendError::Connect(error.to_string());
    let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    match &endpoint.tls {
        None => handshake(TokioIo::new(tcp)).await,
        Some((config, name)) => {
            let tls = TlsConnector::from(config.clone())
                .connect(name.clone(), tcp)
                .await
                .map_err(failed)?;
            handshake(TokioIo::new(tls)).await
        }
    }
}

/// Starts HTTP/1.1 on `io`; the connection's own task ends when either side closes.
async fn handshake<Io: Read + Write + Unpin + 'static>(io: Io) -> Result<Sender, SendError> {
    let (sender, connection) = http1::handshake(io)
        .await
        .map_err(|error| SendError::Connect(error.to_string()))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}
