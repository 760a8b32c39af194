//! Fifth room: one attempt, one classified outcome.
//!
//! # Invariants
//! 1. An attempt always ends in an [`Attempt`], never in an error: every failure has a fate and a verdict.
//! 2. Nothing is retried here: retrying happens in *settle*, so that a waiting event holds no permit.
//! 3. Every attempt is counted by its outcome, and timed.

use std::convert::Infallible;
use std::sync::Arc;

use embeddables_client::{Client, Endpoint};
use embeddables_core::{Attempt, ValidEvent};
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, service_fn};

use crate::telemetry::metrics::DeliverMetrics;

/// An event on its way, and where to.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The event.
    pub event: Arc<ValidEvent>,
    /// Project, address and key of its lane.
    pub endpoint: Arc<Endpoint>,
}

/// Sends a parcel. Cheap to clone; a simulation puts its own service here.
pub type Deliver = BoxCloneSyncService<Parcel, Attempt, Infallible>;

/// The whole stack around the client, outermost first.
pub fn stack(client: Client, metrics: DeliverMetrics) -> Deliver {
    let send = service_fn(move |parcel: Parcel| {
        let client = client.clone();
        async move { Ok(client.send(&parcel.endpoint, &parcel.event).await) }
    });
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            // Outside of everything, so that what is timed is what the event waited for.
            .map_future(move |attempt| observe(attempt, metrics.clone()))
            .service(send),
    )
}

async fn observe(
    attempt: impl Future<Output = Result<Attempt, Infallible>>,
    metrics: DeliverMetrics,
) -> Result<Attempt, Infallible> {
    let start = Instant::now();
    attempt
        .inspect(|result| {
            let attempt = match result {
                Ok(attempt) => attempt,
                Err(never) => match *never {},
            };
            metrics.observe(attempt.fate, start.elapsed());
        })
        .await
}
