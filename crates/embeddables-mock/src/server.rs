//! The listener: accepts connections until it is told to stop, plain or with TLS, HTTP/1.1 or HTTP/2.
//!
//! # Invariants
//! 1. The accept loop outlives every failed accept and handshake.
//! 2. After [`Mock::shutdown`] no task and no socket of the mock is left.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::connection::{Connection, Socket};
use crate::control;
use crate::counts::Counts;
use crate::faults::{FaultError, FaultScript};
use crate::handler::{self, Shared};
use crate::record::{ReceivedRequest, Requests};
use crate::settings::{Settings, SettingsError};
use crate::tls::{self, TlsIdentity};

/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long requests in flight may take when the mock is shut down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Where and how the mock listens.
#[derive(Clone, Debug)]
pub struct MockConfig {
    /// Address to listen on. Default: `127.0.0.1:0`, a free port of the loopback.
    pub listen: SocketAddr,
    /// Certificate and key; without, the mock speaks plain text. Default: none.
    pub tls: Option<TlsIdentity>,
}

impl Default for MockConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
        }
    }
}

/// A running mock. Dropped, it stops at once; [`Mock::shutdown`] lets answers under way end.
#[derive(Debug)]
pub struct Mock {
    addr: SocketAddr,
    is_tls: bool,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Mock {
    /// Starts a mock in the current Tokio runtime; it listens when this returns.
    ///
    /// # Errors
    /// The address cannot be bound, or (kind `InvalidInput`) certificate and key are no good.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn start(config: MockConfig) -> io::Result<Self> {
        let tls = match &config.tls {
            Some(identity) => Some(TlsAcceptor::from(Arc::new(tls::server_config(identity)?))),
            None => None,
        };
        let listener = TcpListener::bind(config.listen).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new().map_err(io::Error::other)?);
        let (stop, stopped) = watch::channel(false);
        let is_tls = tls.is_some();
        let acceptor = Acceptor {
            listener,
            tls,
            shared: Arc::clone(&shared),
            stopped,
        };
        let accepting = tokio::spawn(acceptor.run());
        Ok(Self {
            addr,
            is_tls,
            shared,
            stop,
            accepting,
        })
    }

    /// The address it listens on, with the port it was given.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL for clients on this machine, without a trailing slash.
    pub fn url(&self) -> String {
        let mut addr = self.addr;
        if addr.ip().is_unspecified() {
            addr.set_ip(if addr.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            });
        }
        format!("{}://{addr}", if self.is_tls { "https" } else { "http" })
    }

    /// Every request that is kept, oldest first.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests_since(0).requests
    }

    /// The requests with a number above `since` that are kept, and how many are not.
    pub fn requests_since(&self, since: u64) -> Requests {
        self.shared.received.requests(since)
    }

    /// The numbers so far.
    pub fn counts(&self) -> Counts {
        control::counts(&self.shared)
    }

    /// Replaces the settings as a whole.
    ///
    /// # Errors
    /// Settings that could never work; the old ones stay in force.
    pub fn configure(&self, settings: Settings) -> Result<(), SettingsError> {
        self.shared.configure(settings)
    }

    /// Adds a script of faults behind those that are not used up; one without steps ends them.
    ///
    /// # Errors
    /// A step that cannot be carried out, or too many of them; nothing was added.
    pub fn push_faults(&self, script: FaultScript) -> Result<(), FaultError> {
        self.shared.faults.push(script)
    }

    /// Forgets every fault that is not consumed yet.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// Puts everything back to the state of a start, except that the numbers of requests go on.
    ///
    /// # Errors
    /// None in practice: the default settings are good.
    pub fn reset(&self) -> Result<(), SettingsError> {
        self.shared.reset()
    }

    /// Stops accepting, lets requests in flight end for at most a second, closes all connections.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.accepting).await {
            tracing::error!(%error, "mock listener failed");
        }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The accept loop.
struct Acceptor {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    stopped: watch::Receiver<bool>,
}

impl Acceptor {
    async fn run(self) {
        let mut connections = JoinSet::new();
        let mut stopped = self.stopped.clone();
        let mut stop = pin!(until_stopped(&mut stopped));
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(self.serve(stream));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }

    /// Serves one connection to its end.
    fn serve(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        let (tls, shared, stopped) = (self.tls.clone(), Arc::clone(&self.shared), self.stopped.clone());
        async move {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "connection is gone already");
            }
            let open = OpenConnection::new(shared);
            let socket = Socket::new(stream, Arc::clone(&open.connection));
            match tls {
                None => serve_http(socket, &open, stopped).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(socket)).await {
                    Ok(Ok(socket)) => serve_http(socket, &open, stopped).await,
                    Ok(Err(error)) => tracing::debug!(%error, "tls handshake failed"),
                    Err(_) => tracing::debug!("tls handshake took too long"),
                },
            }
        }
    }
}

/// Counts a connection for as long as it lives.
struct OpenConnection {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl OpenConnection {
    fn new(shared: Arc<Shared>) -> Self {
        let connection = Arc::new(Connection::new(shared.received.connection_opened()));
        Self { shared, connection }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.shared.received.connection_closed();
    }
}

async fn serve_http<I>(io: I, open: &OpenConnection, mut stopped: watch::Receiver<bool>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        handler::handle(Arc::clone(&open.shared), Arc::clone(&open.connection), request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let max_streams = open.shared.rules().settings().max_streams;
    builder.http2().max_concurrent_streams(max_streams.get());
    let mut serving = pin!(builder.serve_connection(TokioIo::new(io), service));
    let served = tokio::select! {
        served = serving.as_mut() => Some(served),
        () = until_stopped(&mut stopped) => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(SHUTDOWN_GRACE, serving).await.ok()
        }
    };
    match served {
        Some(Ok(())) => {}
        // A connection that breaks off is what faults are about, and what clients do.
        Some(Err(error)) => tracing::debug!(error, connection = open.connection.number, "connection ended"),
        None => tracing::debug!(connection = open.connection.number, "connection cut at shutdown"),
    }
}

/// Ends when the mock is told to stop, or is gone.
async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        tracing::debug!("mock dropped without a shutdown");
    }
}
