//! TLS of the listener: ring, TLS 1.2 and 1.3, ALPN `h2` before `http/1.1`.

use std::sync::Arc;
use std::{fmt, io};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate chain and its private key, both as PEM.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The chain, leaf first.
    pub cert_pem: String,
    /// The key of the leaf.
    pub key_pem: String,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

/// A certificate for tests, and the authority that vouches for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SelfSigned {
    /// The authority, as PEM: what a client has to trust.
    pub ca_pem: String,
    /// The certificate for `localhost`, `127.0.0.1` and `::1`.
    pub identity: TlsIdentity,
}

/// Makes a new authority and a certificate for `localhost`, `127.0.0.1` and `::1`. For tests only.
///
/// # Errors
/// The random generator or the signature fails.
pub fn self_signed_tls() -> io::Result<SelfSigned> {
    let mut authority = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "embeddables-mock test authority");
    let authority_key = KeyPair::generate().map_err(io::Error::other)?;
    let issuer = CertifiedIssuer::self_signed(authority, authority_key).map_err(io::Error::other)?;
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = CertificateParams::new(names)
        .and_then(|params| params.signed_by(&key, &issuer))
        .map_err(io::Error::other)?;
    let identity = TlsIdentity {
        cert_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    };
    Ok(SelfSigned {
        ca_pem: issuer.pem(),
        identity,
    })
}

/// The server side of TLS with this identity.
///
/// # Errors
/// The PEM texts hold no certificate or key, or the two do not belong together.
pub(crate) fn server_config(identity: &TlsIdentity) -> io::Result<ServerConfig> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidInput, reason);
    let chain = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| invalid(format!("the certificate is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(invalid("the certificate file holds no certificate".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .map_err(|error| invalid(format!("the key is not PEM: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| invalid(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
