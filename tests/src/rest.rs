//! A small HTTP/1.1 client for the sidecar's HTTP and ops listeners: one request a connection.

use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::wait;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// Its body as JSON.
    ///
    /// # Panics
    /// Where it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// A header's value; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// Asks for `path` at `address`.
///
/// # Panics
/// Where no answer comes.
pub async fn get(address: &str, path: &str) -> Answer {
    send(
        address,
        request(Method::GET, path)
            .body(Full::default())
            .expect("a valid request"),
    )
    .await
}

/// Posts a JSON body to `path` at `address`, with more headers.
///
/// # Panics
/// Where no answer comes.
pub async fn post(address: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut request = request(Method::POST, path);
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
    {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(
        address,
        request.body(Full::new(body.into())).expect("a valid request"),
    )
    .await
}

fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "sidecar")
}

async fn send(address: &str, request: Request<Full<Bytes>>) -> Answer {
    let what = format!("the answer to {} {}", request.method(), request.uri());
    wait::within(what, wait::SOON, async {
        let stream = TcpStream::connect(address)
            .await
            .expect("the listener takes connections");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/1.1 is spoken");
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.expect("an answer comes");
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .expect("the body comes to its end")
            .to_bytes();
        connection.abort();
        let body = String::from_utf8_lossy(&body).into_owned();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    })
    .await
}
