//! From a checked configuration to a running sidecar.

use std::path::PathBuf;
use std::sync::Arc;

use embeddables_client::{Client, ClientConfig, STREAMS_PER_CONNECTION};
use embeddables_core::{DoubleEncoding, Rules};
use embeddables_queue::{Durability, LaneName, OpenError, Store};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use super::lanes;
use super::listeners::{BindError, Listeners};
use super::ops;
use super::running::Running;
use crate::admin::AdminService;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, Loaded};
use crate::dispatch::board::Board;
use crate::dispatch::latest_steady;
use crate::enqueue::lane;
use crate::pipeline::{Pipeline, Rooms};
use crate::settle::Feed;
use crate::telemetry::books::BooksCollector;
use crate::telemetry::lanes::LanesCollector;
use crate::telemetry::metrics::{AttemptMetrics, IngestMetrics};
use crate::validate::Validator;

/// Bounds what the pools of connections take where there are very many lanes.
const MAX_HTTP2_CONNECTIONS: usize = 64;

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

impl Sidecar {
    /// Starts everything; returns once the sidecar is ready. Lanes run on the runtime of `delivery`, all else on that of the
    /// caller.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(loaded: Loaded, delivery: &Handle) -> Result<Running, StartError> {
        let config = &loaded.config;
        let listeners = Listeners::bind(&config.listen).await?;
        let addresses = listeners.addresses();
        let client = client(&loaded)?;
        let mut registry = Registry::with_prefix("embeddables");
        let store = super::store::open(&loaded, &mut registry)?;
        let clock: Arc<dyn Clock> =
            Arc::new(SystemClock::start(latest_steady(&*store, &lane_names(&loaded))));
        let feed = Arc::new(Feed::default());
        let endpoints = lanes::endpoints(&loaded);
        let (board, mut posts) = Board::new(loaded.projects.iter().map(|project| project.id.clone()));

        let pipeline = Arc::new(Pipeline::new(Rooms {
            store: Arc::clone(&store),
            validator: Validator::new(loaded.default_project.clone(), rules(config)),
            clock: Arc::clone(&clock),
            feed: Arc::clone(&feed),
            board: board.clone(),
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
        if config.delivery.enabled {
            registry.register_collector(Box::new(LanesCollector::new(board)));
        } else {
            // Nobody may wait for an answer of a lane that does not run.
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
        let lanes = lanes::start(&loaded, &shared, &endpoints, posts, delivery);
        let ops = ops::Ops {
            pipeline: Arc::clone(&pipeline),
            registry: Arc::new(registry),
            books,
            pulses: lanes.pulses.clone(),
            clock,
        };
        let admin = AdminService::new(Arc::clone(&pipeline), config.delivery.enabled);
        let mut running = Running::new(addresses, pipeline, lanes, config);
        running.serve(listeners, config, ops, admin).await?;
        Ok(running)
    }
}

fn lane_names(loaded: &Loaded) -> Vec<LaneName> {
    loaded.projects.iter().map(|project| lane(&project.id)).collect()
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
    let max_in_flight = || {
        loaded
            .projects
            .iter()
            .map(|project| project.max_in_flight.get() as usize)
    };
    // An unused connection is worth keeping as long as its lane may want all of them at once again.
    let most_at_once = max_in_flight().max().unwrap_or(1);
    // A lane whose requests hang must not take the streams of the others.
    let http2_connections = max_in_flight().sum::<usize>().div_ceil(STREAMS_PER_CONNECTION);
    Ok(Client::new(ClientConfig {
        connect_timeout: delivery.connect_timeout,
        attempt_timeout: delivery.attempt_timeout,
        ca_pem: upstream.ca_file.as_ref().map(read).transpose()?,
        proxy: upstream.proxy.as_ref().map(|proxy| proxy.expose().to_owned()),
        user_agent: concat!("embeddables-sidecar/", env!("CARGO_PKG_VERSION")).to_owned(),
        pool_max_idle: most_at_once,
        http2_connections: http2_connections.min(MAX_HTTP2_CONNECTIONS),
        ..ClientConfig::default()
    })?)
}

/// What is checked of events, and what is stamped into them.
fn rules(config: &Config) -> Rules {
    Rules {
        double_encoding: match config.validation.double_encoding {
            config::DoubleEncoding::Refuse => DoubleEncoding::Refuse,
            config::DoubleEncoding::Unwrap => DoubleEncoding::Unwrap,
            config::DoubleEncoding::Allow => DoubleEncoding::Allow,
        },
        stamp_event_id: config.delivery.stamp_event_id.clone(),
    }
}

/// What an event gets where its call asks for nothing: the configured durability, or the strongest on offer.
fn default_durability(loaded: &Loaded, store: &dyn Store) -> Durability {
    let strongest = store.durabilities().last().copied().unwrap_or(Durability::Memory);
    loaded.config.queue.durability.map_or(strongest, Into::into)
}
