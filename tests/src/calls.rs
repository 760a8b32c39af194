//! Calls of a service to the sidecar, over TCP and over its Unix socket.

use std::path::PathBuf;
use std::time::Duration;

use embeddables_proto::events::v1::events_service_client::EventsServiceClient;
use embeddables_proto::events::v1::publish_result::Result as Taken;
use embeddables_proto::events::v1::{
    Event, EventStatus, GetEventRequest, PublishEventRequest, PublishEventsRequest, PublishOptions,
    PublishResult, Refusal, State,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::sidecar::Sidecar;
use crate::wait;

/// What a service holds to call the sidecar.
pub type Client = EventsServiceClient<Channel>;

/// Bound of one call, on a busy machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Connects over TCP to `address`, `host:port`, at the first call.
///
/// # Panics
/// Where `address` is none.
pub fn tcp(address: &str) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address and a port");
    EventsServiceClient::new(endpoint.timeout(CALL_TIMEOUT).connect_lazy())
        .max_decoding_message_size(usize::MAX)
}

/// Connects over the Unix socket at `path`, at the first call.
pub fn unix(path: impl Into<PathBuf>) -> Client {
    let path = path.into();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://sidecar").timeout(CALL_TIMEOUT);
    EventsServiceClient::new(endpoint.connect_with_connector_lazy(connector))
}

/// Connects to a sidecar over TCP.
pub fn client(sidecar: &Sidecar) -> Client {
    tcp(sidecar.ready("grpc"))
}

/// Publishes one event.
///
/// # Errors
/// As the call does.
pub async fn publish(client: &Client, event: Event) -> Result<EventStatus, Status> {
    let request = PublishEventRequest {
        event: Some(event),
        options: None,
    };
    let response = client.clone().publish_event(request).await?.into_inner();
    Ok(response.status.expect("an answer holds the event's status"))
}

/// Publishes one event with options.
///
/// # Errors
/// As the call does.
pub async fn publish_with(
    client: &Client,
    event: Event,
    options: PublishOptions,
) -> Result<EventStatus, Status> {
    let request = PublishEventRequest {
        event: Some(event),
        options: Some(options),
    };
    let response = client.clone().publish_event(request).await?.into_inner();
    Ok(response.status.expect("an answer holds the event's status"))
}

/// Publishes many events; one result each, in order.
///
/// # Errors
/// As the call does.
pub async fn publish_batch(client: &Client, events: Vec<Event>) -> Result<Vec<PublishResult>, Status> {
    let request = PublishEventsRequest {
        events,
        options: None,
        all_or_nothing: false,
    };
    Ok(client.clone().publish_events(request).await?.into_inner().results)
}

/// Tells all about one event of the default project.
///
/// # Errors
/// As the call does.
pub async fn get(client: &Client, event_id: &str) -> Result<EventStatus, Status> {
    get_in(client, "", event_id).await
}

/// Tells all about one event of a project.
///
/// # Errors
/// As the call does.
pub async fn get_in(client: &Client, project: &str, event_id: &str) -> Result<EventStatus, Status> {
    let request = GetEventRequest {
        event_id: event_id.to_owned(),
        project_id: project.to_owned(),
    };
    let response = client.clone().get_event(request).await?.into_inner();
    Ok(response.status.expect("an answer holds the event's status"))
}

/// Waits until the event of the default project is in `state`.
///
/// # Panics
/// Where that takes longer than `bound`.
pub async fn await_state(client: &Client, event_id: &str, state: State, bound: Duration) -> EventStatus {
    await_status(client, "", event_id, state.as_str_name(), bound, |status| {
        status.state() == state
    })
    .await
}

/// Waits until what is told of an event is as wanted; `what` says how that is.
///
/// # Panics
/// Where that takes longer than `bound`; shows what was told last.
pub async fn await_status(
    client: &Client,
    project: &str,
    event_id: &str,
    what: &str,
    bound: Duration,
    wanted: impl Fn(&EventStatus) -> bool,
) -> EventStatus {
    let (mut last, mut found) = (None, None);
    wait::holds_within(bound, async || {
        match get_in(client, project, event_id).await {
            Ok(status) if wanted(&status) => found = Some(status),
            Ok(status) => last = Some(status),
            Err(status) if status.code() == Code::NotFound => {
                panic!("event {event_id} is unknown: {status}")
            }
            Err(_) => {}
        }
        found.is_some().then_some(())
    })
    .await;
    found.unwrap_or_else(|| {
        panic!("waited {bound:?} in vain for event {event_id} to be {what}; it is {last:#?}")
    })
}

/// Status of an event that was taken.
///
/// # Panics
/// Where it was not.
#[track_caller]
pub fn taken(result: PublishResult) -> EventStatus {
    match result.result {
        Some(Taken::Status(status)) => status,
        other => panic!("expected an event that was taken, got {other:?}"),
    }
}

/// Refusal of an event that was not taken.
///
/// # Panics
/// Where it was.
#[track_caller]
pub fn refused(result: PublishResult) -> Refusal {
    match result.result {
        Some(Taken::Refusal(refusal)) => refusal,
        other => panic!("expected an event that was refused, got {other:?}"),
    }
}
