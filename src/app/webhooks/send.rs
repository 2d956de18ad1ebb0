//! One attempt: a POST to an address that was looked at, without redirects.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::Webhooks;
use crate::domain::webhook::signature;
use crate::registry::{Receiver, Waiting};
use crate::upstream::public_tls;

/// How much of an answer is read, so that the receiver sees it taken.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Returns the status of the answer.
///
/// # Errors
/// A sentence: it leads nowhere, or where it may not, or did not answer in time.
pub async fn send(settings: &Webhooks, to: &Receiver, what: &Waiting, timestamp_s: i64) -> Result<u16, String> {
    match tokio::time::timeout(settings.timeout, exchange(settings, to, what, timestamp_s)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", settings.timeout.as_secs_f32())),
    }
}

async fn exchange(settings: &Webhooks, to: &Receiver, what: &Waiting, timestamp_s: i64) -> Result<u16, String> {
    let uri: Uri = to.url.parse().map_err(|_| "its address is not valid".to_owned())?;
    let host = uri.host().ok_or("its address has no host")?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let address = resolve(settings, bare, port, secure).await?;
    let tcp = TcpStream::connect(address)
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    let request = request(&uri, to, what, timestamp_s)?;
    if !secure {
        return post(tcp, request).await;
    }
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| "its host is not a name for TLS".to_owned())?;
    let tls = TlsConnector::from(public_tls()).connect(name, tcp).await;
    post(tls.map_err(|error| format!("TLS: {error}"))?, request).await
}

/// Looks a name up, and returns the first address that may be called. That address is then connected to: a name that leads
/// elsewhere a moment later changes nothing.
async fn resolve(settings: &Webhooks, host: &str, port: u16, secure: bool) -> Result<SocketAddr, String> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found: Vec<SocketAddr> = found
        .map_err(|error| format!("cannot look {host:?} up: {error}"))?
        .collect();
    let networks = &settings.allow_networks;
    let Some(address) = found.iter().find(|address| networks.allow(address.ip())) else {
        let led = found
            .first()
            .map_or_else(String::new, |address| address.ip().to_string());
        return Err(format!(
            "{host:?} leads to {led}, which is not a public address: allow it with webhooks.allow_networks"
        ));
    };
    if !secure && !networks.contain(address.ip()) {
        return Err("http is for networks of webhooks.allow_networks only, use https".to_owned());
    }
    Ok(*address)
}

fn request(uri: &Uri, to: &Receiver, what: &Waiting, timestamp_s: i64) -> Result<Request<Full<Bytes>>, String> {
    let signature = signature(&to.secret, &what.event_id, timestamp_s, &what.body);
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Request::post(path)
        .header(header::HOST, uri.authority().map_or("", http::uri::Authority::as_str))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("promptgate/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", &what.event_id)
        .header("webhook-timestamp", timestamp_s)
        .header("webhook-signature", signature.ok_or("its secret cannot be read")?)
        .body(Full::new(Bytes::from(what.body.clone())))
        .map_err(|error| error.to_string())
}

async fn post<Io>(io: Io, request: Request<Full<Bytes>>) -> Result<u16, String>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| format!("no answer: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(failed)?;
    // Ends when the sender is dropped, with this attempt.
    let connection = async {
        let _ = connection.await;
    };
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let body: Incoming = response.into_body();
        let _ = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        Ok(status)
    };
    tokio::select! {
        answer = answer => answer,
        () = connection => Err("no answer: the connection was closed".to_owned()),
    }
}
