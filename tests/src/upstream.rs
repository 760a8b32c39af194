//! The mock events API, in the test's own process, and what it received.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use embeddables_mock::{
    Counts, FaultScript, Mock, MockConfig, ReceivedRequest, SelfSigned, Settings, Step, TlsIdentity,
    self_signed_tls,
};
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::event::{id_of, normalised};
use crate::settings::{API_KEY, PROJECT};

/// A mock that takes the tests' key for the tests' project, and knows every user.
#[derive(Debug)]
pub struct Upstream {
    mock: Mock,
    url: String,
    ca_pem: Option<String>,
    front: Option<JoinHandle<()>>,
    seen: Mutex<Seen>,
}

/// What was read of the mock's record so far; the mock itself keeps the newest requests only.
#[derive(Debug, Default)]
struct Seen {
    last: u64,
    created: Created,
}

/// Bodies of created events by the id of their test event, oldest first.
pub type Created = BTreeMap<String, Vec<Value>>;

impl Upstream {
    /// Starts one that speaks plain HTTP.
    ///
    /// # Panics
    /// Where it cannot start.
    pub async fn start() -> Self {
        Self::around(start_mock(MockConfig::default()).await, None)
    }

    /// Starts one behind TLS that offers HTTP/2 before HTTP/1.1.
    ///
    /// # Panics
    /// Where it cannot start.
    pub async fn start_tls() -> Self {
        let SelfSigned { ca_pem, identity, .. } = self_signed_tls().expect("a certificate can be made");
        let config = MockConfig {
            tls: Some(identity),
            ..MockConfig::default()
        };
        Self::around(start_mock(config).await, Some(ca_pem))
    }

    /// Starts one behind TLS that offers HTTP/1.1 alone.
    ///
    /// # Panics
    /// Where it cannot start.
    pub async fn start_tls_http1() -> Self {
        let certificate = self_signed_tls().expect("a certificate can be made");
        let mut upstream = Self::around(
            start_mock(MockConfig::default()).await,
            Some(certificate.ca_pem.clone()),
        );
        let (port, front) = start_front(&certificate, upstream.mock.addr()).await;
        upstream.url = format!("https://127.0.0.1:{port}");
        upstream.front = Some(front);
        upstream
    }

    /// Starts one behind TLS with this identity, whoever vouches for it.
    ///
    /// # Panics
    /// Where it cannot start.
    pub async fn start_with(identity: TlsIdentity) -> Self {
        let config = MockConfig {
            tls: Some(identity),
            ..MockConfig::default()
        };
        Self::around(start_mock(config).await, None)
    }

    /// Where it listens, `host:port`.
    ///
    /// # Panics
    /// Never: every base URL names one.
    pub fn address(&self) -> String {
        let (_, address) = self.url.split_once("://").expect("a URL has a scheme");
        address.to_owned()
    }

    /// Base URL.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Writes the authority that vouches for its certificate into a file below `directory`.
    ///
    /// # Panics
    /// Where it speaks no TLS, or the file cannot be written.
    pub fn write_ca_file(&self, directory: &Path) -> PathBuf {
        let file = directory.join("upstream-ca.pem");
        std::fs::write(&file, self.ca_pem.as_ref().expect("an upstream with TLS"))
            .expect("the file can be written");
        file
    }

    /// From now on and until [`Upstream::recover`], every request is answered 503.
    pub fn go_down(&self) {
        self.push(FaultScript::forever([Step::status(503)]));
    }

    /// Ends all faults.
    pub fn recover(&self) {
        self.mock.clear_faults();
    }

    /// The next requests meet these, one each.
    pub fn fail_next(&self, steps: impl IntoIterator<Item = Step>) {
        self.push(FaultScript::once(steps));
    }

    /// Adds a script of faults.
    ///
    /// # Panics
    /// Where it cannot be carried out.
    pub fn push(&self, script: FaultScript) {
        self.mock
            .push_faults(script)
            .expect("faults that can be carried out");
    }

    /// Replaces what it knows: keys and users.
    ///
    /// # Panics
    /// Where that could never work.
    pub fn configure(&self, settings: Settings) {
        self.mock.configure(settings).expect("settings that can work");
    }

    /// The mock's counts of requests.
    pub fn counts(&self) -> Counts {
        self.mock.counts()
    }

    /// How many requests it has received.
    pub fn request_count(&self) -> usize {
        usize::try_from(self.mock.counts().requests).expect("few requests")
    }

    /// How many different bodies it has created an event of.
    pub fn created_count(&self) -> usize {
        usize::try_from(self.mock.counts().distinct_created).expect("few events")
    }

    /// Every request, oldest first.
    ///
    /// # Panics
    /// Where it had to drop some.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        let requests = self.mock.requests_since(0);
        assert_eq!(
            requests.dropped, 0,
            "the mock dropped requests that the test asks for"
        );
        requests.requests
    }

    /// Looks at the events that it has created so far.
    ///
    /// # Panics
    /// Where the mock dropped requests between two looks.
    pub fn look<T>(&self, at: impl FnOnce(&Created) -> T) -> T {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = self.mock.requests_since(seen.last);
        assert_eq!(
            requests.dropped, 0,
            "the mock dropped requests that the test has not looked at"
        );
        seen.last = requests.last;
        for request in requests.requests.iter().filter(|request| request.created) {
            let body = body_of(request);
            let id = id_of(&body)
                .unwrap_or_else(|| panic!("a test event's body: {body}"))
                .to_owned();
            seen.created.entry(id).or_default().push(body);
        }
        at(&seen.created)
    }

    fn around(mock: Mock, ca_pem: Option<String>) -> Self {
        let url = mock.url();
        Self {
            mock,
            url,
            ca_pem,
            front: None,
            seen: Mutex::default(),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(front) = &self.front {
            front.abort();
        }
    }
}

/// Normalised body of a request.
///
/// # Panics
/// Where it is not JSON.
#[track_caller]
pub fn body_of(request: &ReceivedRequest) -> Value {
    match serde_json::from_str(&request.body) {
        Ok(body) => normalised(body),
        Err(error) => panic!("a body that is not JSON ({error}): {}", request.body),
    }
}

/// What the tests' upstream knows: one key for one project, and every user.
pub fn usual_settings() -> Settings {
    Settings {
        keys: [(PROJECT.to_owned(), vec![API_KEY.to_owned()])].into(),
        ..Settings::default()
    }
}

async fn start_mock(config: MockConfig) -> Mock {
    let mock = Mock::start(config).await.expect("the mock can start");
    mock.configure(usual_settings()).expect("settings that can work");
    mock
}

/// Ends TLS, with HTTP/1.1 alone on offer, and forwards the plain bytes to `target`; returns its port.
async fn start_front(certificate: &SelfSigned, target: std::net::SocketAddr) -> (u16, JoinHandle<()>) {
    let chain = CertificateDer::pem_slice_iter(certificate.identity.cert_pem.as_bytes());
    let chain = chain
        .collect::<Result<Vec<_>, _>>()
        .expect("a certificate in PEM");
    let key = PrivateKeyDer::from_pem_slice(certificate.identity.key_pem.as_bytes()).expect("a key in PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.expect("certificate and key belong together");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener
        .local_addr()
        .expect("a bound listener has an address")
        .port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let mut mock = TcpStream::connect(target).await?;
                copy_bidirectional(&mut stream, &mut mock).await
            });
        }
    });
    (port, task)
}
