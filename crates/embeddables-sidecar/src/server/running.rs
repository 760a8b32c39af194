//! A sidecar that takes events: its listeners, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::connections::Accept;
use super::lanes::Lanes;
use super::listeners::{Addresses, Listeners};
use super::start::StartError;
use super::{grpc, http_server, ops};
use crate::admin::AdminService;
use crate::config::{AcceptedStatus, Config, Volume};
use crate::dispatch::Stop;
use crate::ingest::events_service::{EventsService, ServiceInfo};
use crate::ingest::http::{self, DropIn};
use crate::pipeline::Pipeline;

/// Time that abandoned lanes and listeners get to end.
const END_GRACE: Duration = Duration::from_secs(5);

/// Full names of the gRPC services, for health checks.
const EVENTS_SERVICE: &str =
    embeddables_proto::events::v1::events_service_server::EventsServiceServer::<EventsService>::NAME;
const ADMIN_SERVICE: &str =
    embeddables_proto::admin::v1::admin_service_server::AdminServiceServer::<AdminService>::NAME;

/// A sidecar that takes events.
pub struct Running {
    addresses: Addresses,
    pipeline: Arc<Pipeline>,
    /// Where the health of each service is told.
    health: Vec<(&'static str, HealthReporter)>,
    lanes: Lanes,
    servers: JoinSet<()>,
    stop_servers: CancellationToken,
    drain_timeout: Duration,
    volume: Volume,
}

/// What was left at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Attempts that were cut: their leases are open on disk, so that the next start knows that their fate is unknown.
    pub cut_attempts: usize,
    /// Events still to be delivered, on disk.
    pub events_left: u64,
}

impl Running {
    /// A sidecar whose lanes run and whose listeners are bound, not served yet.
    pub(super) fn new(addresses: Addresses, pipeline: Arc<Pipeline>, lanes: Lanes, config: &Config) -> Self {
        Self {
            addresses,
            pipeline,
            health: Vec::new(),
            lanes,
            servers: JoinSet::new(),
            stop_servers: CancellationToken::new(),
            drain_timeout: config.shutdown.drain_timeout,
            volume: config.queue.volume,
        }
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves every listener.
    pub(super) async fn serve(
        &mut self,
        listeners: Listeners,
        config: &Config,
        ops: ops::Ops,
        admin: AdminService,
    ) -> Result<(), StartError> {
        let info = service_info(config);
        let drop_in = DropIn {
            pipeline: Arc::clone(&self.pipeline),
            accepted_status: accepted_status(config.http.accepted_status),
            max_body_bytes: info.max_message_bytes,
        };
        let max_message_bytes = info.max_message_bytes;
        let service = EventsService::new(Arc::clone(&self.pipeline), info);
        let (events, health) = grpc::events_routes(service, max_message_bytes)?;
        self.health.push((EVENTS_SERVICE, health));
        let (admin, health) = grpc::admin_routes(admin)?;
        self.health.push((ADMIN_SERVICE, health));
        self.tell_health(ServingStatus::Serving).await;

        let pipeline = Arc::clone(&self.pipeline);
        let count = move |reason| pipeline.count_unread(reason);
        self.serve_grpc("grpc", listeners.grpc, &events, count.clone());
        self.serve_grpc("grpc_unix", listeners.grpc_unix, &events, count);
        // What an operator mistypes is no event that was not taken.
        self.serve_grpc("admin", listeners.admin, &admin, |_| {});
        self.serve_grpc("admin_unix", listeners.admin_unix, &admin, |_| {});
        for (name, listener, router) in [
            ("http", listeners.http, http::router(drop_in)),
            ("ops", listeners.ops, ops::router(ops)),
        ] {
            if let Some(listener) = listener {
                let served = http_server::serve(listener, router, self.stop_servers.clone());
                self.spawn(name, served);
            }
        }
        Ok(())
    }

    fn serve_grpc<L: Accept>(
        &mut self,
        name: &'static str,
        listener: Option<L>,
        routes: &tonic::service::Routes,
        on_unread: impl Fn(&'static str) + Clone + Send + Sync + 'static,
    ) where
        <L::Io as tonic::transport::server::Connected>::ConnectInfo: Clone + Send + Sync + 'static,
    {
        if let Some(listener) = listener {
            let served = grpc::serve(listener, routes.clone(), on_unread, self.stop_servers.clone());
            self.spawn(name, served);
        }
    }

    fn spawn<E>(&mut self, name: &'static str, served: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: std::error::Error + 'static,
    {
        self.servers.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(
                    listener = name,
                    error = &error as &dyn std::error::Error,
                    "a listener ended"
                );
            }
        });
    }

    async fn tell_health(&self, status: ServingStatus) {
        for (service, health) in &self.health {
            health.set_service_status("", status).await;
            health.set_service_status(*service, status).await;
        }
    }

    /// Ends in order: refuses new events, lets deliveries in flight finish within `shutdown.drain_timeout`, syncs and closes
    /// the store. On an ephemeral volume it goes on delivering for that time.
    pub async fn shutdown(mut self) -> ShutdownReport {
        self.pipeline.start_draining();
        self.tell_health(ServingStatus::NotServing).await;
        let stop = if self.volume == Volume::Ephemeral {
            Stop::Drain
        } else {
            Stop::Finish
        };
        self.lanes.stop.send_replace(stop);
        let mut cut_attempts = 0;
        if tokio::time::timeout(
            self.drain_timeout,
            join(&mut self.lanes.running, &mut cut_attempts),
        )
        .await
        .is_err()
        {
            self.lanes.stop.send_replace(Stop::Abandon);
            if tokio::time::timeout(END_GRACE, join(&mut self.lanes.running, &mut cut_attempts))
                .await
                .is_err()
            {
                tracing::error!("a lane did not end: its leases stay open on disk");
            }
        }
        let store = self.pipeline.store();
        store.close().await;
        let books = store.books();
        let events_left = books
            .lanes
            .iter()
            .map(|(_, lane)| lane.ready + lane.waiting)
            .sum();
        self.stop_servers.cancel();
        let servers = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(END_GRACE, servers).await.is_err() {
            tracing::debug!("connections still open were cut");
        }
        for path in self.addresses.sockets() {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::debug!(%error, path = %path.display(), "a Unix socket could not be removed");
            }
        }
        ShutdownReport {
            cut_attempts,
            events_left,
        }
    }
}

async fn join(lanes: &mut JoinSet<usize>, cut_attempts: &mut usize) {
    while let Some(ended) = lanes.join_next().await {
        match ended {
            Ok(cut) => *cut_attempts += cut,
            Err(error) => tracing::error!(%error, "a lane failed"),
        }
    }
}

fn service_info(config: &Config) -> ServiceInfo {
    ServiceInfo {
        max_message_bytes: usize::try_from(config.grpc.max_message_size.as_u64()).unwrap_or(usize::MAX),
        max_batch_events: usize::try_from(config.grpc.max_batch_events.get()).unwrap_or(usize::MAX),
        dedupe_window: config.queue.dedupe_window,
        volume_ephemeral: config.queue.volume == Volume::Ephemeral,
    }
}

fn accepted_status(status: AcceptedStatus) -> StatusCode {
    match status {
        AcceptedStatus::Ok => StatusCode::OK,
        AcceptedStatus::Accepted => StatusCode::ACCEPTED,
    }
}
