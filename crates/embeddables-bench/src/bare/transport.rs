//! What the bare loop sends with: reqwest, as the sidecar does, or hyper's HTTP/2 connections with nothing around them.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{BareConfig, GRACE};
use crate::http_client;

const JSON: &str = "application/json";

/// The library that sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Library {
    /// A client that keeps connections and takes them up anew.
    #[default]
    Reqwest,
    /// One HTTP/2 connection over TLS, for as long as it lasts.
    Hyper,
}

impl Library {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reqwest => "reqwest",
            Self::Hyper => "hyper",
        }
    }
}

/// One client with its connection.
#[derive(Clone, Debug)]
pub(super) enum Transport {
    Reqwest(reqwest::Client),
    Hyper(SendRequest<Full<Bytes>>),
}

impl Transport {
    /// Makes one. Hyper connects at once, reqwest with its first request.
    pub(super) async fn open(config: &BareConfig) -> anyhow::Result<Self> {
        Ok(match config.library {
            Library::Reqwest => Self::Reqwest(
                http_client::builder(config.ca.as_deref())?
                    .pool_max_idle_per_host(config.in_flight as usize)
                    .timeout(GRACE)
                    .build()
                    .context("cannot make a client")?,
            ),
            Library::Hyper => Self::Hyper(timeout(GRACE, connect(config)).await??),
        })
    }

    /// Sends one body and reads the answer to its end.
    pub(super) async fn send(&self, config: &BareConfig, body: Bytes) -> anyhow::Result<StatusCode> {
        match self {
            Self::Reqwest(client) => {
                let request = client.post(&config.url).header("x-api-key", &config.key);
                let request = request.header(CONTENT_TYPE, JSON).header(ACCEPT, JSON);
                let response = request.body(body).send().await?;
                let status = response.status();
                response.bytes().await?;
                Ok(status)
            }
            Self::Hyper(connection) => {
                let request = http::Request::builder().method(Method::POST).uri(&config.url);
                let request = request.header("x-api-key", &config.key);
                let request = request.header(CONTENT_TYPE, JSON).header(ACCEPT, JSON);
                let request = request.body(Full::new(body))?;
                let mut connection = connection.clone();
                let exchange = async {
                    let response = connection.send_request(request).await?;
                    let status = response.status();
                    response.into_body().collect().await?;
                    anyhow::Ok(status)
                };
                timeout(GRACE, exchange).await?
            }
        }
    }
}

async fn connect(config: &BareConfig) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let uri: Uri = config.url.parse()?;
    ensure!(uri.scheme_str() == Some("https"), "hyper is for https:// alone");
    let host = uri.host().context("a URL without a host")?;
    let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
    tcp.set_nodelay(true)?;
    let mut tls = http_client::tls(config.ca.as_deref())?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // The requests that it carried tell of it, too.
        if let Err(error) = connection.await {
            eprintln!("a connection ended: {error}");
        }
    });
    Ok(sender)
}
