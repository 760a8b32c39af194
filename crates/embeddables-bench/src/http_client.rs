//! The HTTP client of the bare loop and of a run's own requests: reqwest as the sidecar has it, trusting one authority at most.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// A client that follows nothing, repeats nothing and asks no proxy. Over TLS it trusts the authority in `ca_file` alone and
/// speaks HTTP/2 where the server does; without one it trusts nobody.
///
/// # Errors
/// Where the file cannot be read or holds no certificate.
pub(crate) fn builder(ca_file: Option<&Path>) -> anyhow::Result<reqwest::ClientBuilder> {
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls(ca_file)?)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .tcp_nodelay(true))
}

/// The client's side of TLS.
///
/// # Errors
/// As [`builder`].
pub(crate) fn tls(ca_file: Option<&Path>) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = ca_file {
        let authority = CertificateDer::from_pem_file(path)
            .with_context(|| format!("no certificate in {}", path.display()))?;
        roots.add(authority)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = tls(Some(file.path())).expect_err("refused");
        assert!(error.to_string().contains("no certificate"), "{error:#}");
    }
}
