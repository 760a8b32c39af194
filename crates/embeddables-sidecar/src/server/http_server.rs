//! Serving an axum router with every bound set: header time, header size, streams, connections.

use std::io;
use std::time::Duration;

use axum::Router;
use futures_util::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connections::incoming;

/// Time for a request's head to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of a request's head.
const HEAD_MAX_BYTES: usize = 32 * 1024;

/// Most streams of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 256;

/// Time that open connections get to finish their requests once the server ends.
const GRACE: Duration = Duration::from_secs(2);

/// Serves HTTP/1.1 and HTTP/2 until `stop`, then lets requests under way finish.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(HEAD_MAX_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(Duration::from_secs(60)))
        .keep_alive_timeout(Duration::from_secs(20));
    let graceful = GracefulShutdown::new();
    let mut connections = std::pin::pin!(incoming(listener));
    loop {
        let io = tokio::select! {
            () = stop.cancelled() => break,
            next = connections.next() => match next {
                Some(io) => TokioIo::new(io?),
                None => break,
            },
        };
        let connection = builder
            .serve_connection(io, TowerToHyperService::new(router.clone()))
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection ended early");
            }
        });
    }
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::debug!("connections still open at the end of the grace were cut");
    }
    Ok(())
}
