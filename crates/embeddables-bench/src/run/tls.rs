//! TLS of the pretended upstream: an authority that vouches for nothing else, made anew for each mock.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// Files of a server on the loopback, all PEM.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The authority: what a client has to trust.
    pub(crate) ca_file: PathBuf,
    cert_file: PathBuf,
    key_file: PathBuf,
}

impl Identity {
    /// Makes an authority and a certificate for `127.0.0.1`, and writes both into `dir`.
    pub(crate) fn make(dir: &Path) -> anyhow::Result<Self> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority
            .distinguished_name
            .push(DnType::CommonName, "embeddables-bench authority");
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
        let write = |name: &str, pem: String| {
            let path = dir.join(name);
            fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(path)
        };
        Ok(Self {
            ca_file: write("ca.pem", issuer.pem())?,
            cert_file: write("upstream.pem", certificate.pem())?,
            key_file: write("upstream.key", key.serialize_pem())?,
        })
    }

    /// What the mock is told.
    pub(crate) fn server_arguments(&self) -> anyhow::Result<[&str; 4]> {
        let [cert, key] = [&self.cert_file, &self.key_file].map(|path| path.to_str());
        let (cert, key) = cert.zip(key).context("a path that is not UTF-8")?;
        Ok(["--tls-cert", cert, "--tls-key", key])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::{ClientConnection, ServerConfig, ServerConnection};

    use super::*;
    use crate::http_client;

    fn server(identity: &Identity) -> ServerConnection {
        let chain = CertificateDer::from_pem_file(&identity.cert_file).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&identity.key_file).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![chain], key))
            .expect("they belong together");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        ServerConnection::new(Arc::new(config)).expect("a server")
    }

    /// Shakes hands in memory with a client that trusts `trusted`.
    fn shake_hands(identity: &Identity, trusted: &Identity) -> Result<ClientConnection, rustls::Error> {
        let config = http_client::tls(Some(&trusted.ca_file)).expect("an authority");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let mut client = ClientConnection::new(Arc::new(config), name)?;
        let mut server = server(identity);
        while client.is_handshaking() {
            let mut sent = Vec::new();
            client.write_tls(&mut sent).expect("written");
            server.read_tls(&mut &*sent).expect("read");
            server.process_new_packets()?;
            let mut answered = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answered).expect("written");
            }
            let mut answered = &*answered;
            while !answered.is_empty() {
                client.read_tls(&mut answered).expect("read");
                client.process_new_packets()?;
            }
        }
        Ok(client)
    }

    #[test]
    fn a_client_that_trusts_the_authority_comes_to_speak_http_2() {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = Identity::make(dir.path()).expect("made");
        let client = shake_hands(&identity, &identity).expect("trusted");
        assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    }

    #[test]
    fn the_authority_of_another_mock_is_not_trusted() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let [one, other] = [0, 1].map(|place: usize| Identity::make(dirs[place].path()).expect("made"));
        shake_hands(&one, &other).expect_err("not trusted");
    }
}
