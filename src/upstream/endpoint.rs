//! A provider's API as the pool needs it: address, TLS, ready-made headers, time limits.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, InvalidHeaderName, InvalidHeaderValue};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{Provider, ProviderKind, Timeouts};
use crate::domain::scrub::{Scrubber, Scrubbing};

/// A provider, ready to be called.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique in this process; the pool's key, so that a reloaded provider never meets old connections.
    pub id: u64,
    pub name: Arc<str>,
    pub name_header: HeaderValue,
    pub kind: ProviderKind,
    pub timeouts: Timeouts,
    /// `Host`, credentials and configured headers; sensitive values are marked so.
    pub headers: HeaderMap,
    pub(super) host: String,
    pub(super) port: u16,
    /// Path of the base URL without a slash at its end.
    base_path: String,
    /// Finds the credential in what the provider says.
    credential: Option<Scrubber>,
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("provider {0:?}: its base_url has no host")]
    NoHost(String),
    #[error("provider {0:?}: its name or api key has characters that no header may have")]
    Value(String, #[source] InvalidHeaderValue),
    #[error("provider {0:?}: a header's name is not valid")]
    Name(String, #[source] InvalidHeaderName),
    #[error("provider {0:?}: its host is not a valid server name for TLS")]
    ServerName(String, #[source] InvalidDnsNameError),
    #[error("provider {0:?}: cannot read certificates from {1}: {2}")]
    CaFile(String, PathBuf, String),
}

impl Endpoint {
    /// Builds an endpoint from its configuration.
    ///
    /// # Errors
    /// What in the configuration cannot become a header, a TLS name or a certificate.
    pub fn new(provider: &Provider) -> Result<Self, EndpointError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let name = provider.name.clone();
        let uri = &provider.base_url;
        let bare_host = uri.host().ok_or_else(|| EndpointError::NoHost(name.clone()))?;
        let secure = uri.scheme_str() == Some("https");
        let default_port = if secure { 443 } else { 80 };
        let host = bare_host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(default_port);
        let authority = if port == default_port {
            bare_host.to_owned()
        } else {
            format!("{bare_host}:{port}")
        };
        let value = |text: &str| HeaderValue::from_str(text).map_err(|e| EndpointError::Value(name.clone(), e));

        let mut headers = HeaderMap::new();
        headers.insert(http::header::HOST, value(&authority)?);
        if let Some(key) = &provider.api_key {
            let mut credential = value(&format!("Bearer {}", key.expose()))?;
            credential.set_sensitive(true);
            headers.insert(AUTHORIZATION, credential);
        }
        for (header, text) in &provider.headers {
            let header: HeaderName = header.parse().map_err(|e| EndpointError::Name(name.clone(), e))?;
            let mut text = value(text)?;
            text.set_sensitive(true);
            headers.insert(header, text);
        }
        let tls = match secure {
            false => None,
            true => {
                let server =
                    ServerName::try_from(host.clone()).map_err(|e| EndpointError::ServerName(name.clone(), e))?;
                Some((tls_config(&name, provider.ca_file.as_deref())?, server))
            }
        };
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name_header: value(&name)?,
            name: name.as_str().into(),
            kind: provider.kind,
            timeouts: provider.timeouts,
            headers,
            host,
            port,
            credential: provider.api_key.as_ref().and_then(|key| Scrubber::new(key.expose())),
            base_path: uri.path().trim_end_matches('/').to_owned(),
            tls,
        })
    }

    /// Returns the request target of an API path such as `/chat/completions`.
    pub fn target(&self, path: &str) -> http::Uri {
        let text = format!("{}{path}", self.base_path);
        text.parse().expect("a base path and an API path make a request target")
    }

    /// Removes headers of the provider's that hold the credential.
    pub fn scrub_headers(&self, headers: &mut HeaderMap) {
        let Some(credential) = &self.credential else {
            return;
        };
        while let Some(name) = headers
            .iter()
            .find_map(|(name, value)| credential.finds(value.as_bytes()).then(|| name.clone()))
        {
            headers.remove(name);
        }
    }

    /// Replaces the credential in a text of the provider's, should it have put it there.
    pub fn scrub(&self, text: Bytes) -> Bytes {
        let Some(credential) = &self.credential else {
            return text;
        };
        match credential.clean(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(clean) => clean.into(),
        }
    }

    /// Begins to do so in a text that comes in pieces; `None` where there is no credential.
    pub fn scrubbing(&self) -> Option<Scrubbing> {
        self.credential.as_ref().map(Scrubber::begin)
    }
}

/// Trusts the public roots, or those in `ca_file` alone.
fn tls_config(name: &str, ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, EndpointError> {
    let Some(path) = ca_file else {
        return Ok(public_tls());
    };
    let mut roots = RootCertStore::empty();
    let failed = |why: String| EndpointError::CaFile(name.to_owned(), path.to_owned(), why);
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))? {
        let certificate = certificate.map_err(|e| failed(e.to_string()))?;
        roots.add(certificate).map_err(|e| failed(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it has no certificate".to_owned()));
    }
    Ok(trusting(roots))
}

/// TLS for HTTP/1.1 towards servers with a certificate of a public authority.
pub fn public_tls() -> Arc<ClientConfig> {
    static PUBLIC: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        trusting(roots)
    });
    Arc::clone(&PUBLIC)
}

fn trusting(roots: RootCertStore) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default TLS versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
