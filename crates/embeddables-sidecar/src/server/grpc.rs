//! The gRPC servers, for callers and for operators, over TCP and Unix sockets: every bound of them is set here.

use std::time::Duration;

use embeddables_proto::FILE_DESCRIPTOR_SET;
use embeddables_proto::admin::v1::admin_service_server::AdminServiceServer;
use embeddables_proto::events::v1::events_service_server::EventsServiceServer;
use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tower::ServiceBuilder;

use super::connections::{Accept, incoming};
use crate::admin::AdminService;
use crate::ingest::events_service::EventsService;
use crate::ingest::remap::{reason_of, remap_response};

/// Most calls of one connection at once; tonic advertises no limit by itself.
const MAX_STREAMS: u32 = 1_024;

/// Most bytes of a call's headers.
const HEADERS_MAX_BYTES: u32 = 16 * 1024;

/// Streams that a caller may open and reset before they were looked at (rapid reset, CVE-2023-44487), and streams reset for
/// the caller's errors (CVE-2025-8671), before the connection is closed.
const MAX_RESETS: usize = 64;

/// Flow-control windows: a stream's is a few large messages, so that one cannot fill the connection's.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// A silent connection is asked for a sign of life after the first, and closed after the second.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// A service's routes, with health and reflection beside it, and where its health is told.
type Served = (Routes, HealthReporter);

/// All services of the listeners for callers.
///
/// # Errors
/// Where the descriptor set is not one; it is made by the build.
pub fn events_routes(
    service: EventsService,
    max_message_bytes: usize,
) -> Result<Served, tonic_reflection::server::Error> {
    let events = EventsServiceServer::new(service).max_decoding_message_size(max_message_bytes);
    let mut routes = Routes::builder();
    routes.add_service(events);
    with_companions::<EventsServiceServer<EventsService>>(routes)
}

/// All services of the listeners for operators.
///
/// # Errors
/// As [`events_routes`].
pub fn admin_routes(service: AdminService) -> Result<Served, tonic_reflection::server::Error> {
    let mut routes = Routes::builder();
    routes.add_service(AdminServiceServer::new(service));
    with_companions::<AdminServiceServer<AdminService>>(routes)
}

/// Adds health and reflection, which shows the service `S` and no other.
fn with_companions<S: NamedService>(
    mut routes: RoutesBuilder,
) -> Result<Served, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(S::NAME)
            .with_service_name("grpc.health.v1.Health")
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    // Older tools ask for reflection by its first name.
    routes.add_service(health).add_service(
        reflection()
            .with_service_name("grpc.reflection.v1.ServerReflection")
            .build_v1()?,
    );
    routes.add_service(
        reflection()
            .with_service_name("grpc.reflection.v1alpha.ServerReflection")
            .build_v1alpha()?,
    );
    Ok((routes.routes(), reporter))
}

/// Serves a listener until `stop`, then lets calls under way finish. `on_unread` hears the reason of each call that was refused
/// before its message could be read.
///
/// # Errors
/// Where the transport cannot go on.
pub async fn serve<L: Accept>(
    listener: L,
    routes: Routes,
    on_unread: impl Fn(&'static str) + Clone + Send + Sync + 'static,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error>
where
    <L::Io as tonic::transport::server::Connected>::ConnectInfo: Clone + Send + Sync + 'static,
{
    let remap = ServiceBuilder::new().map_response(move |response| {
        let response = remap_response(response);
        if let Some(reason) = reason_of(&response) {
            on_unread(reason);
        }
        response
    });
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(HEADERS_MAX_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_RESETS))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .layer(remap.into_inner())
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming(listener), stop.cancelled_owned().map(drop))
        .await
}
