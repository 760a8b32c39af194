//! A client that shows what really went over the wire.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use embeddables_mock::{Counts, Mock, MockConfig};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Path of the events of the project that tests use.
pub(crate) const EVENTS: &str = "/projects/pr_1/events";
/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

pub(crate) const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// An answer; the body may have been cut.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Result<Bytes, hyper::Error>,
}

impl Reply {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(self.body.as_ref().expect("a whole body")).expect("a JSON body")
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .expect("the header")
            .to_str()
            .expect("ASCII")
    }
}

/// One connection, on which requests can be sent one after the other.
pub(crate) enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub(crate) async fn connect(mock: &Mock, protocol: Protocol) -> Self {
        let stream = TcpStream::connect(mock.addr()).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Self::over(stream, protocol).await
    }

    pub(crate) async fn over<I>(io: I, protocol: Protocol) -> Self
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(io);
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.expect("a handshake");
                tokio::spawn(connection);
                Self::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                    .await
                    .expect("a handshake");
                tokio::spawn(connection);
                Self::Http2(sender)
            }
        }
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, hyper::Error> {
        let response: Response<_> = match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await.map(|collected| collected.to_bytes());
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}

pub(crate) async fn start() -> Mock {
    Mock::start(MockConfig::default()).await.expect("a mock")
}

/// A request with any body.
pub(crate) fn request(
    method: &str,
    addr: SocketAddr,
    path: &str,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://{addr}{path}"))
        .header("host", addr.to_string())
        .body(Full::new(body.into()))
        .expect("a request")
}

/// A request to create an event, with key and content type.
pub(crate) fn event_request(addr: SocketAddr, path: &str, body: &Value) -> Request<Full<Bytes>> {
    let mut request = request("POST", addr, path, body.to_string());
    let headers = request.headers_mut();
    headers.insert("x-api-key", "rk_test".parse().expect("a value"));
    headers.insert("content-type", "application/json".parse().expect("a value"));
    request
}

pub(crate) fn good_event() -> Value {
    json!({
        "embeddable_id": "flow_1",
        "timestamp": "2022-01-01T00:00:00.000Z",
        "custom_event_name": "my_event",
        "custom_event_props": "{}",
        "identifiers": [{ "key": "email", "value": "\"a@b.co\"" }],
    })
}

/// Sends a good event on a connection of its own.
pub(crate) async fn send_event(mock: &Mock, protocol: Protocol) -> Result<Reply, hyper::Error> {
    Client::connect(mock, protocol)
        .await
        .send(event_request(mock.addr(), EVENTS, &good_event()))
        .await
}

/// Sends a control request.
pub(crate) async fn control(mock: &Mock, method: &str, path: &str, body: &str) -> Reply {
    let request = request(method, mock.addr(), path, body.to_owned());
    Client::connect(mock, Protocol::Http1)
        .await
        .send(request)
        .await
        .expect("an answer")
}

/// Waits until the counts are as wanted.
#[track_caller]
pub(crate) fn until(mock: &Mock, wanted: impl Fn(&Counts) -> bool) -> impl Future<Output = Counts> {
    let waited = tokio::time::timeout(PATIENCE, async move {
        loop {
            let counts = mock.counts();
            if wanted(&counts) {
                return counts;
            }
            tokio::task::yield_now().await;
        }
    });
    async { waited.await.expect("the counts never came to what was wanted") }
}

/// The HTTP/2 reason of a failed request.
pub(crate) fn http2_reason(error: &hyper::Error) -> Option<h2::Reason> {
    error.source()?.downcast_ref::<h2::Error>()?.reason()
}

/// A TLS connector that trusts one authority and offers one protocol.
pub(crate) async fn connect_tls(
    addr: SocketAddr,
    ca_pem: &str,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("PEM"))
        .expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}
