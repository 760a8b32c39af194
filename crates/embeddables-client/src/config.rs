//! How requests are made, with its defaults, and the TLS that follows from it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};

/// How requests are made. `ClientConfig::default()` suits production.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Longest wait for a connection: name, TCP and TLS together. Default: `5s`. Never more than half of `attempt_timeout`,
    /// so that it is known whether time ran out before or after the request left.
    pub connect_timeout: Duration,
    /// Longest time of one attempt from its start to the last byte read of the answer. Default: `30s`.
    pub attempt_timeout: Duration,
    /// Certificates in PEM that are trusted besides the system's, for a private authority. Default: none.
    pub ca_pem: Option<Vec<u8>>,
    /// URL of a proxy for every request, `http://…` or `https://…`. Default: none; the environment is not looked at.
    pub proxy: Option<String>,
    /// `User-Agent` header. Default: `embeddables-client/` and the version.
    pub user_agent: String,
    /// Time after which an unused connection is closed. Default: `60s`.
    pub pool_idle_timeout: Duration,
    /// Most unused HTTP/1.1 connections kept to a host. Default: `64`.
    pub pool_max_idle: usize,
    /// Most HTTP/2 connections, each used once the ones before it have [`STREAMS_PER_CONNECTION`](crate::STREAMS_PER_CONNECTION)
    /// requests under way. Default: `4`. Requests beyond what upstream allows on all of them wait, and their time runs.
    pub http2_connections: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(30),
            ca_pem: None,
            proxy: None,
            user_agent: concat!("embeddables-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            pool_idle_timeout: Duration::from_secs(60),
            pool_max_idle: 64,
            http2_connections: 4,
        }
    }
}

impl fmt::Debug for ClientConfig {
    /// A proxy's URL may hold a password: only whether there is one is shown.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientConfig")
            .field("connect_timeout", &self.connect_timeout)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("ca_pem", &self.ca_pem.as_ref().map(Vec::len))
            .field("proxy", &self.proxy.as_ref().map(|_| "[redacted]"))
            .field("user_agent", &self.user_agent)
            .field("pool_idle_timeout", &self.pool_idle_timeout)
            .field("pool_max_idle", &self.pool_max_idle)
            .field("http2_connections", &self.http2_connections)
            .finish()
    }
}

/// Why no client could be made. Nothing was sent or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A time-out is zero: no attempt could succeed.
    #[error("connect_timeout and attempt_timeout must be greater than zero")]
    ZeroTimeout,
    /// The certificates in PEM cannot be read, or there is none.
    #[error("the CA bundle holds no certificate that can be read")]
    CaBundle,
    /// The proxy's URL cannot be used. Not shown: it may hold a password.
    #[error("the proxy is not a URL such as http://proxy.example:3128")]
    Proxy,
    /// The user agent is no header value.
    #[error("the user agent must be visible ASCII")]
    UserAgent,
    /// TLS could not be set up.
    #[error("failed to set up TLS")]
    Tls {
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// The HTTP library refused what it was given.
    #[error("failed to set up the HTTP client")]
    Http {
        /// What it said.
        #[source]
        source: reqwest::Error,
    },
}

/// TLS 1.2 and 1.3 by ring, with HTTP/2 or HTTP/1.1 as the server likes; nothing global is installed.
pub(crate) fn tls(config: &ClientConfig) -> Result<rustls::ClientConfig, ConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(config.ca_pem.as_deref(), &provider)?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| ConfigError::Tls { source })?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// Trusts what the system trusts, and the given certificates besides.
fn verifier(
    ca_pem: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, ConfigError> {
    let mut extra = Vec::new();
    if let Some(pem) = ca_pem {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            extra.push(certificate.map_err(|_| ConfigError::CaBundle)?);
        }
        if extra.is_empty() {
            return Err(ConfigError::CaBundle);
        }
    }
    let is_private = !extra.is_empty();
    match rustls_platform_verifier::Verifier::new_with_extra_roots(extra, Arc::clone(provider)) {
        Ok(verifier) => Ok(Arc::new(verifier)),
        Err(source) if is_private => Err(ConfigError::Tls { source }),
        Err(_) => Ok(Arc::new(NoTrust(Arc::clone(provider)))),
    }
}

/// The verifier of a system without certificates, such as an empty image: plaintext to a loopback address works, TLS fails
/// at every attempt.
#[derive(Debug)]
struct NoTrust(Arc<CryptoProvider>);

fn no_authority() -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)
}

impl ServerCertVerifier for NoTrust {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Err(no_authority())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_authority())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_authority())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
