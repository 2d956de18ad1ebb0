//! A provider behind TLS: trusted by `ca_file` alone.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::TestGateway;

/// A self-signed certificate and TLS in front of a mock.
struct Tls {
    address: SocketAddr,
    certificate: String,
}

impl Tls {
    /// Starts a listener that passes what it decrypts to `mock`.
    async fn before(mock: String) -> Self {
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key.into())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, mock) = (TlsAcceptor::from(Arc::new(config.clone())), mock.clone());
                tokio::spawn(async move {
                    // A gateway that does not trust us ends the handshake: that is what a test looks for.
                    if let Ok(mut inside) = acceptor.accept(stream).await {
                        let mut outside = TcpStream::connect(mock).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                    }
                });
            }
        });
        Self {
            address,
            certificate: signed.cert.pem(),
        }
    }
}

/// A gateway whose provider is the mock behind TLS, trusting `ca_file`.
async fn gateway(ca_file: Option<&Path>, tls: &Tls, host: &str) -> TestGateway {
    TestGateway::with(|config| {
        let provider = &mut config.providers[0];
        provider.base_url = format!("https://{host}:{}/v1", tls.address.port()).parse().unwrap();
        provider.ca_file = ca_file.map(Path::to_owned);
    })
    .await
}

fn body(streamed: bool) -> Value {
    json!({"model": "mock-model", "messages": [{"role": "user", "content": "hi"}], "stream": streamed})
}

#[tokio::test(flavor = "multi_thread")]
async fn https_provider_is_trusted_by_its_ca_file_and_refused_without() {
    let mock = crate::support::Mock::start();
    let address = mock
        .url()
        .trim_start_matches("http://")
        .trim_end_matches("/v1")
        .to_owned();
    let tls = Tls::before(address).await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, &tls.certificate).unwrap();

    let trusting = gateway(Some(&ca_file), &tls, "127.0.0.1").await;
    for streamed in [false, true] {
        let answer = trusting.chat(body(streamed)).await.expect(200);
        assert_eq!(trusting.record(answer.id()).await["outcome"], "ok");
    }
    assert_eq!(mock.requests().await, 2);

    let public_roots = gateway(None, &tls, "127.0.0.1").await;
    public_roots
        .chat(body(false))
        .await
        .refused(502, "upstream_unreachable");
    // The certificate is for 127.0.0.1 only.
    let wrong_name = gateway(Some(&ca_file), &tls, "localhost").await;
    wrong_name.chat(body(false)).await.refused(502, "upstream_unreachable");
    assert_eq!(mock.requests().await, 2);
}
