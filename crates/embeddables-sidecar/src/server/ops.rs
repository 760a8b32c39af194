//! Probes and metrics: `/livez`, `/readyz`, `/metrics` and nothing else. No event passes here.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::{StatusCode, header};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::clock::Clock;
use crate::dispatch::Pulse;
use crate::pipeline::Pipeline;
use crate::telemetry::books::BooksCollector;

/// Media type of the OpenMetrics text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Time within which the loops must answer the liveness probe: well above a slow disk's sync.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(10);

/// What the probes look at.
#[derive(Clone)]
pub struct Ops {
    /// The rooms.
    pub pipeline: Arc<Pipeline>,
    /// All metrics.
    pub registry: Arc<Registry>,
    /// Those that come from the disk.
    pub books: Arc<BooksCollector>,
    /// Signs of life of the lanes.
    pub pulses: Vec<Pulse>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// The routes.
pub fn router(ops: Ops) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(ops)
}

/// The loops that write and dispatch go round.
async fn livez(State(ops): State<Ops>) -> (StatusCode, &'static str) {
    match tokio::time::timeout(LIVENESS_TIMEOUT, ops.pipeline.ping()).await {
        Ok(Ok(())) if ops.pulses.iter().all(|pulse| pulse.is_alive(ops.clock.steady())) => {
            (StatusCode::OK, "ok\n")
        }
        Ok(Ok(())) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "a lane's loop does not go round\n",
        ),
        Ok(Err(error)) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "liveness: the queue's writer has ended"
            );
            (StatusCode::SERVICE_UNAVAILABLE, "the queue's writer has ended\n")
        }
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the queue's writer does not answer\n",
        ),
    }
}

/// Started, the store open, not shutting down. Never fullness, never upstream.
async fn readyz(State(ops): State<Ops>) -> (StatusCode, &'static str) {
    if ops.pipeline.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
    }
    (StatusCode::OK, "ok\n")
}

async fn metrics(
    State(ops): State<Ops>,
) -> Result<([(header::HeaderName, &'static str); 1], String), StatusCode> {
    if let Err(error) = ops.books.refresh().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the age of the oldest event could not be read"
        );
    }
    let mut text = String::new();
    encode(&mut text, &ops.registry).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text))
}
