//! From a checked configuration to a running sidecar, and back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use embeddables_client::{Client, ClientConfig};
use embeddables_core::DoubleEncoding;
use embeddables_queue::{Durability, OpenError, Store};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::listeners::{Addresses, BindError, Listeners};
use super::lanes::{self, Lanes};
use super::{grpc, http_server, ops};
use crate::clock::{Clock, SystemClock};
use crate::config::{AcceptedStatus, Loaded, Volume};
use crate::dispatch::Stop;
use crate::dispatch::board::Board;
use crate::ingest::events_service::{EventsService, ServiceInfo};
use crate::ingest::http::{self, DropIn};
use crate::pipeline::{Pipeline, Rooms};
use crate::settle::Feed;
use crate::telemetry::books::BooksCollector;
use crate::telemetry::metrics::{AttemptMetrics, IngestMetrics};
use crate::validate::Validator;

/// Time that abandoned lanes and listeners get to end.
const END_GRACE: Duration = Duration::from_secs(5);

/// Why the sidecar did not start. Nothing was accepted.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The queue could not be opened.
    #[error(transparent)]
    Queue(#[from] OpenError),
    /// The certificates of `upstream.ca_file` could not be read.
    #[error("cannot read `{}` (upstream.ca_file)", .path.display())]
    CaFile {
        /// As configured.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTP client could not be made, for example of what is in `upstream.ca_file`.
    #[error("cannot make the client of the events API")]
    Client(#[from] embeddables_client::ConfigError),
    /// The gRPC services could not be put together.
    #[error("cannot serve gRPC reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl StartError {
    /// Exit code of the process: 78 where the operator has to change something first, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Queue(OpenError::Store { .. }) | Self::Bind(_) | Self::Reflection(_) => 1,
            Self::Queue(_) | Self::CaFile { .. } | Self::Client(_) => 78,
        }
    }
}

/// The sidecar, not started yet.
#[derive(Debug)]
pub struct Sidecar;

/// A sidecar that takes events.
pub struct Running {
    addresses: Addresses,
    pipeline: Arc<Pipeline>,
    store: Arc<dyn Store>,
    health: HealthReporter,
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

impl Sidecar {
    /// Starts everything; returns once the sidecar is ready.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(loaded: Loaded) -> Result<Running, StartError> {
        let config = &loaded.config;
        let listeners = Listeners::bind(&config.listen).await?;
        let addresses = listeners.addresses();
        let client = client(&loaded)?;
        let mut registry = Registry::with_prefix("embeddables");
        let store = super::store::open(&loaded, &mut registry)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let feed = Arc::new(Feed::default());
        let endpoints = lanes::endpoints(&loaded);

        let pipeline = Arc::new(Pipeline::new(Rooms {
            store: Arc::clone(&store),
            validator: Validator::new(
                loaded.default_project.clone(),
                double_encoding(config.validation.double_encoding),
            ),
            clock: Arc::clone(&clock),
            feed: Arc::clone(&feed),
            metrics: IngestMetrics::register(&mut registry),
            endpoints: endpoints.clone(),
            client: client.clone(),
            default_durability: default_durability(&loaded, &*store),
        }));
        let books = Arc::new(BooksCollector::new(Arc::clone(&store), Arc::clone(&clock)));
        registry.register_collector(Box::new(Arc::clone(&books)));

        let attempts = AttemptMetrics::register(&mut registry);
        let lost = Counter::default();
        registry.register(
            "events_lost",
            "Events dropped between rooms: a bug where it is not zero",
            lost.clone(),
        );
        let (_board, mut posts) = Board::new(loaded.projects.iter().map(|project| project.id.clone()));
        if !config.delivery.enabled {
            posts.clear();
        }
        let shared = lanes::Shared {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            feed,
            client,
            attempts,
            lost,
        };
        let lanes = lanes::start(&loaded, &shared, &endpoints, posts);
        let ops = ops::Ops {
            pipeline: Arc::clone(&pipeline),
            registry: Arc::new(registry),
            books,
            pulses: lanes.pulses.clone(),
            clock,
        };
        let mut running = Running {
            addresses,
            health: HealthReporter::new(),
            pipeline,
            store,
            lanes,
            servers: JoinSet::new(),
            stop_servers: CancellationToken::new(),
            drain_timeout: config.shutdown.drain_timeout,
            volume: config.queue.volume,
        };
        running.serve(listeners, &loaded, ops).await?;
        Ok(running)
    }
}

impl Running {
    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    async fn serve(
        &mut self,
        listeners: Listeners,
        loaded: &Loaded,
        ops: ops::Ops,
    ) -> Result<(), StartError> {
        let config = &loaded.config;
        let max_message_bytes = usize::try_from(config.grpc.max_message_size.as_u64()).unwrap_or(usize::MAX);
        let service = EventsService::new(
            Arc::clone(&self.pipeline),
            ServiceInfo {
                max_message_bytes,
                max_batch_events: usize::try_from(config.grpc.max_batch_events.get()).unwrap_or(usize::MAX),
                dedupe_window: config.queue.dedupe_window,
                volume_ephemeral: config.queue.volume == Volume::Ephemeral,
            },
        );
        let (routes, health) = grpc::routes(service, max_message_bytes)?;
        health.set_service_status("", ServingStatus::Serving).await;
        health
            .set_service_status(EVENTS_SERVICE, ServingStatus::Serving)
            .await;
        self.health = health;
        let drop_in = DropIn {
            pipeline: Arc::clone(&self.pipeline),
            accepted_status: accepted_status(config.http.accepted_status),
            max_body_bytes: max_message_bytes,
        };
        if let Some(listener) = listeners.grpc {
            let served = grpc::serve(
                listener,
                routes.clone(),
                Arc::clone(&self.pipeline),
                self.stop_servers.clone(),
            );
            self.spawn("grpc", served);
        }
        if let Some((listener, _)) = listeners.grpc_unix {
            let served = grpc::serve(
                listener,
                routes,
                Arc::clone(&self.pipeline),
                self.stop_servers.clone(),
            );
            self.spawn("grpc_unix", served);
        }
        if let Some(listener) = listeners.http {
            self.spawn(
                "http",
                http_server::serve(listener, http::router(drop_in), self.stop_servers.clone()),
            );
        }
        if let Some(listener) = listeners.ops {
            self.spawn(
                "ops",
                http_server::serve(listener, ops::router(ops), self.stop_servers.clone()),
            );
        }
        Ok(())
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

    /// Ends in order: refuses new events, lets deliveries in flight finish within `shutdown.drain_timeout`, syncs and closes
    /// the store. On an ephemeral volume it goes on delivering for that time.
    pub async fn shutdown(mut self) -> ShutdownReport {
        self.pipeline.start_draining();
        self.health
            .set_service_status("", ServingStatus::NotServing)
            .await;
        self.health
            .set_service_status(EVENTS_SERVICE, ServingStatus::NotServing)
            .await;
        let stop = if self.volume == Volume::Ephemeral {
            Stop::Drain
        } else {
            Stop::Finish
        };
        self.lanes.stop.send_replace(stop);
        let mut cut_attempts = 0;
        if tokio::time::timeout(self.drain_timeout, join(&mut self.lanes.running, &mut cut_attempts))
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
        self.store.close().await;
        let books = self.store.books();
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
        if let Some(path) = &self.addresses.grpc_unix
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, "the Unix socket could not be removed");
        }
        ShutdownReport {
            cut_attempts,
            events_left,
        }
    }
}

/// Full name of the gRPC service, for health checks.
const EVENTS_SERVICE: &str = "embeddables.events.v1.EventsService";

async fn join(lanes: &mut JoinSet<usize>, cut_attempts: &mut usize) {
    while let Some(ended) = lanes.join_next().await {
        match ended {
            Ok(cut) => *cut_attempts += cut,
            Err(error) => tracing::error!(%error, "a lane failed"),
        }
    }
}

/// The HTTP client of all lanes.
fn client(loaded: &Loaded) -> Result<Client, StartError> {
    let (delivery, upstream) = (&loaded.config.delivery, &loaded.config.upstream);
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| StartError::CaFile {
            path: path.clone(),
            source,
        })
    };
    // An unused connection is worth keeping as long as its lane may want all of them at once again.
    let most_at_once = loaded
        .projects
        .iter()
        .map(|project| project.max_in_flight.get())
        .max()
        .unwrap_or(1);
    Ok(Client::new(ClientConfig {
        connect_timeout: delivery.connect_timeout,
        attempt_timeout: delivery.attempt_timeout,
        ca_pem: upstream.ca_file.as_ref().map(read).transpose()?,
        proxy: upstream.proxy.as_ref().map(|proxy| proxy.expose().to_owned()),
        user_agent: concat!("embeddables-sidecar/", env!("CARGO_PKG_VERSION")).to_owned(),
        pool_max_idle: usize::try_from(most_at_once).unwrap_or(usize::MAX),
        ..ClientConfig::default()
    })?)
}

fn accepted_status(status: AcceptedStatus) -> StatusCode {
    match status {
        AcceptedStatus::Ok => StatusCode::OK,
        AcceptedStatus::Accepted => StatusCode::ACCEPTED,
    }
}

fn double_encoding(rule: crate::config::DoubleEncoding) -> DoubleEncoding {
    match rule {
        crate::config::DoubleEncoding::Refuse => DoubleEncoding::Refuse,
        crate::config::DoubleEncoding::Unwrap => DoubleEncoding::Unwrap,
        crate::config::DoubleEncoding::Allow => DoubleEncoding::Allow,
    }
}

/// What an event gets where its call asks for nothing: the configured durability, or the strongest on offer.
fn default_durability(loaded: &Loaded, store: &dyn Store) -> Durability {
    let strongest = store.durabilities().last().copied().unwrap_or(Durability::Memory);
    loaded.config.queue.durability.map_or(strongest, Into::into)
}
