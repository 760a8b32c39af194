//! The null server: the same proto and tonic on the same kind of runtime, doing nothing but answering.
//!
//! It is the bound of what a server behind this contract can reach: it decodes what comes, since tonic does, and answers with
//! the messages that the sidecar answers with, field by field of the same size, each time the same.

use std::future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;

use anyhow::Context as _;
use embeddables_proto::events::v1::events_service_server::{EventsService, EventsServiceServer};
use embeddables_proto::events::v1::publish_result::Result as Outcome;
use embeddables_proto::events::v1::{
    Durability, EventStatus, FlushRequest, FlushResponse, GetEventRequest, GetEventResponse,
    GetServerInfoRequest, GetServerInfoResponse, PublishEventRequest, PublishEventResponse,
    PublishEventsRequest, PublishEventsResponse, PublishResult, State, StreamEventsRequest,
    StreamEventsResponse, StreamResult, ValidateEventsRequest, ValidateEventsResponse, WatchOutcomesRequest,
    WatchOutcomesResponse,
};
use futures_util::Stream;
use prost_types::Timestamp;
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::event::{ID_PLACEHOLDER, PROJECT};

/// The time that every answer tells: 2026-11-23T10:00:00.123Z.
const ACCEPT_TIME: Timestamp = Timestamp {
    seconds: 1_795_428_000,
    nanos: 123_000_000,
};

/// Where the null server listens.
#[derive(Clone, Debug, clap::Args)]
pub struct NullConfig {
    /// TCP address; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Path of a Unix socket to serve too.
    #[arg(long, value_name = "FILE")]
    pub unix: Option<PathBuf>,
    /// File that is written once the server listens, in the shape of the sidecar's.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT. Prints one JSON line with its addresses.
///
/// # Errors
/// Where an address cannot be bound or the ready file not written.
pub async fn serve(config: NullConfig) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let tcp = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let unix = match &config.unix {
        None => None,
        Some(path) => {
            Some(UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?)
        }
    };
    announce(&config, tcp.local_addr()?)?;
    let service = EventsServiceServer::new(NullService);
    let over_tcp = Server::builder()
        .add_service(service.clone())
        .serve_with_incoming(TcpIncoming::from(tcp).with_nodelay(Some(true)));
    let over_unix = async {
        match unix {
            None => future::pending().await,
            Some(unix) => {
                Server::builder()
                    .add_service(service)
                    .serve_with_incoming(UnixListenerStream::new(unix))
                    .await
            }
        }
    };
    tokio::select! {
        served = over_tcp => served.context("the TCP server failed"),
        served = over_unix => served.context("the Unix socket's server failed"),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn announce(config: &NullConfig, tcp: SocketAddr) -> anyhow::Result<()> {
    let ready = json!({
        "grpc": tcp.to_string(),
        "grpc_unix": config.unix,
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
    });
    println!("{ready}");
    let Some(path) = &config.ready_file else {
        return Ok(());
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    std::fs::write(&temporary, format!("{ready}\n"))
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Answers and does nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NullService;

fn queued() -> EventStatus {
    EventStatus {
        event_id: ID_PLACEHOLDER.to_owned(),
        project_id: PROJECT.to_owned(),
        state: State::Queued.into(),
        durability: Durability::Fsynced.into(),
        accept_time: Some(ACCEPT_TIME),
        ..EventStatus::default()
    }
}

fn taken() -> PublishResult {
    PublishResult {
        result: Some(Outcome::Status(queued())),
    }
}

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the null server only publishes"))
}

#[tonic::async_trait]
impl EventsService for NullService {
    type StreamEventsStream = Pin<Box<dyn Stream<Item = Result<StreamEventsResponse, Status>> + Send>>;

    async fn publish_event(
        &self,
        _request: Request<PublishEventRequest>,
    ) -> Result<Response<PublishEventResponse>, Status> {
        Ok(Response::new(PublishEventResponse {
            status: Some(queued()),
        }))
    }

    async fn publish_events(
        &self,
        request: Request<PublishEventsRequest>,
    ) -> Result<Response<PublishEventsResponse>, Status> {
        let results = request.get_ref().events.iter().map(|_| taken()).collect();
        Ok(Response::new(PublishEventsResponse { results }))
    }

    async fn stream_events(
        &self,
        request: Request<Streaming<StreamEventsRequest>>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let answers = request.into_inner().map(|message| {
            let result = StreamResult {
                sequence: message?.sequence,
                result: Some(taken()),
            };
            Ok(StreamEventsResponse {
                results: vec![result],
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn validate_events(
        &self,
        _request: Request<ValidateEventsRequest>,
    ) -> Result<Response<ValidateEventsResponse>, Status> {
        absent()
    }

    async fn get_event(
        &self,
        _request: Request<GetEventRequest>,
    ) -> Result<Response<GetEventResponse>, Status> {
        absent()
    }

    type WatchOutcomesStream = Pin<Box<dyn Stream<Item = Result<WatchOutcomesResponse, Status>> + Send>>;

    async fn watch_outcomes(
        &self,
        _request: Request<WatchOutcomesRequest>,
    ) -> Result<Response<Self::WatchOutcomesStream>, Status> {
        absent()
    }

    async fn flush(&self, _request: Request<FlushRequest>) -> Result<Response<FlushResponse>, Status> {
        absent()
    }

    async fn get_server_info(
        &self,
        _request: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        absent()
    }
}
