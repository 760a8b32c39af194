//! The gRPC service: one method a call of the contract, each a few lines over the pipeline.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use embeddables_core::{Event, ProjectId};
use embeddables_proto::events::v1 as proto;
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream, FuturesUnordered};
use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::admission::{Options, grpc_timeout, wait_limit};
use super::refusal::{BATCH_EMPTY, EVENT_ID_MISSING, EVENT_MISSING, Refusal, proto_duration};
use super::remap::remap;
use super::{convert, status};
use crate::pipeline::{Accepted, Pipeline, Verdict};

/// Most streamed events that are made safe as one group.
const STREAM_GROUP: usize = 256;

/// Most groups of one stream that are under way at once: the next is read while the last is synced.
const STREAM_GROUPS: usize = 4;

/// First and longest pause of a stream whose events find no room.
const STREAM_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What the service tells about itself, beyond what the pipeline knows.
#[derive(Clone, Debug)]
pub struct ServiceInfo {
    /// Largest message taken, in bytes.
    pub max_message_bytes: usize,
    /// Most events in one call.
    pub max_batch_events: usize,
    /// For how long a settled id is recognised.
    pub dedupe_window: Duration,
    /// Whether the volume goes with the pod.
    pub volume_ephemeral: bool,
}

/// The service.
#[derive(Clone)]
pub struct EventsService {
    pipeline: Arc<Pipeline>,
    info: Arc<ServiceInfo>,
}

impl EventsService {
    /// Serves a pipeline.
    pub fn new(pipeline: Arc<Pipeline>, info: ServiceInfo) -> Self {
        Self {
            pipeline,
            info: Arc::new(info),
        }
    }

    /// Counts a refusal that happened before any event was looked at.
    fn refuse(&self, refusal: &Refusal) -> Status {
        self.pipeline.count_refused(refusal);
        refusal.to_status("event")
    }

    /// The project of a look-up: given, or the configured one.
    fn project(&self, text: &str) -> Result<ProjectId, Status> {
        if text.is_empty() {
            let default = self.pipeline.default_project().cloned();
            return default.ok_or_else(|| Refusal::ProjectNotConfigured.to_status(""));
        }
        ProjectId::parse(text).map_err(|_| unknown_event())
    }

    fn check_size(&self, count: usize) -> Result<(), Status> {
        if count == 0 {
            return Err(self.refuse(&Refusal::BadCall(&BATCH_EMPTY)));
        }
        let limit = self.info.max_batch_events;
        if count > limit {
            return Err(self.refuse(&Refusal::BatchTooLarge { count, limit }));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl proto::events_service_server::EventsService for EventsService {
    async fn publish_event(
        &self,
        request: Request<proto::PublishEventRequest>,
    ) -> Result<Response<proto::PublishEventResponse>, Status> {
        let limit = deadline_limit(&request);
        let request = request.into_inner();
        let event = request
            .event
            .ok_or_else(|| self.refuse(&Refusal::BadCall(&EVENT_MISSING)))?;
        let options =
            Options::from_proto(request.options.as_ref()).map_err(|refusal| self.refuse(&refusal))?;
        let published = self
            .pipeline
            .publish(&[(convert::event(event), options)], false)
            .await;
        let verdict =
            published.and_then(|mut verdicts| verdicts.pop().unwrap_or(Err(Refusal::StorageRefused)));
        let mut accepted = verdict.map_err(|refusal| self.refuse(&refusal))?;
        if options.wait {
            self.pipeline.wait_until_final(&mut accepted, limit).await;
        }
        Ok(Response::new(proto::PublishEventResponse {
            status: Some(accepted.into_answer()),
        }))
    }

    async fn publish_events(
        &self,
        request: Request<proto::PublishEventsRequest>,
    ) -> Result<Response<proto::PublishEventsResponse>, Status> {
        let limit = deadline_limit(&request);
        let request = request.into_inner();
        self.check_size(request.events.len())?;
        let options =
            Options::from_proto(request.options.as_ref()).map_err(|refusal| self.refuse(&refusal))?;
        let events: Vec<_> = request
            .events
            .into_iter()
            .map(|event| (convert::event(event), options))
            .collect();
        let published = self.pipeline.publish(&events, request.all_or_nothing).await;
        let mut verdicts = published
            .unwrap_or_else(|refusal| events.iter().map(|_| Err(refusal.clone())).collect::<Vec<_>>());
        verdicts
            .iter()
            .filter_map(|verdict| verdict.as_ref().err())
            .for_each(|refusal| {
                self.pipeline.count_refused(refusal);
            });
        if let Some(status) = whole_call(&verdicts, request.all_or_nothing) {
            return Err(status);
        }
        if options.wait {
            let accepted = verdicts.iter_mut().filter_map(|verdict| verdict.as_mut().ok());
            join_all(accepted.map(|accepted| self.pipeline.wait_until_final(accepted, limit))).await;
        }
        let results = verdicts
            .into_iter()
            .enumerate()
            .map(|(index, verdict)| publish_result(verdict, &format!("events[{index}]")))
            .collect();
        Ok(Response::new(proto::PublishEventsResponse { results }))
    }

    type StreamEventsStream = BoxStream<'static, Result<proto::StreamEventsResponse, Status>>;

    async fn stream_events(
        &self,
        request: Request<Streaming<proto::StreamEventsRequest>>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let limit = deadline_limit(&request);
        let pipeline = Arc::clone(&self.pipeline);
        let end = Arc::new(OnceLock::new());
        let answers = until_error(request.into_inner(), Arc::clone(&pipeline), Arc::clone(&end))
            .ready_chunks(STREAM_GROUP)
            .map(move |group| answer_group(Arc::clone(&pipeline), group, limit))
            .flatten_unordered(STREAM_GROUPS)
            .map(|results| Ok(proto::StreamEventsResponse { results }));
        // Why it ended comes last, after every acknowledgement.
        let end =
            stream::once(async move { end.get().cloned() }).filter_map(|status| async { status.map(Err) });
        Ok(Response::new(answers.chain(end).boxed()))
    }

    async fn validate_events(
        &self,
        request: Request<proto::ValidateEventsRequest>,
    ) -> Result<Response<proto::ValidateEventsResponse>, Status> {
        let events = request.into_inner().events;
        self.check_size(events.len())?;
        let results = events.into_iter().enumerate().map(|(index, event)| {
            use proto::validate_result::Result as Validated;
            let result = match self.pipeline.preview(&convert::event(event)) {
                Ok(request) => Validated::Request(proto::UpstreamRequest {
                    method: request.method.to_owned(),
                    url: request.url,
                    headers: request
                        .headers
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                    body: request.body,
                }),
                Err(refusal) => Validated::Refusal(refusal.to_proto(&format!("events[{index}]"))),
            };
            proto::ValidateResult { result: Some(result) }
        });
        Ok(Response::new(proto::ValidateEventsResponse {
            results: results.collect(),
        }))
    }

    async fn get_event(
        &self,
        request: Request<proto::GetEventRequest>,
    ) -> Result<Response<proto::GetEventResponse>, Status> {
        let request = request.into_inner();
        if request.event_id.is_empty() {
            return Err(Refusal::BadCall(&EVENT_ID_MISSING).to_status(""));
        }
        let project = self.project(&request.project_id)?;
        let found = self.pipeline.find(&project, &request.event_id).await;
        let status = found
            .map_err(|refusal| refusal.to_status(""))?
            .ok_or_else(unknown_event)?;
        Ok(Response::new(proto::GetEventResponse { status: Some(status) }))
    }

    type WatchOutcomesStream = BoxStream<'static, Result<proto::WatchOutcomesResponse, Status>>;
    async fn watch_outcomes(&self, _: Request<proto::WatchOutcomesRequest>) -> Result<Response<Self::WatchOutcomesStream>, Status> { Err(Status::unimplemented("TEMP")) }
    async fn flush(&self, _: Request<proto::FlushRequest>) -> Result<Response<proto::FlushResponse>, Status> { Err(Status::unimplemented("TEMP")) }

    async fn get_server_info(
        &self,
        _request: Request<proto::GetServerInfoRequest>,
    ) -> Result<Response<proto::GetServerInfoResponse>, Status> {
        use embeddables_core::limits;
        let pipeline = &self.pipeline;
        let durabilities = pipeline.durabilities().iter();
        Ok(Response::new(proto::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            default_project_id: pipeline
                .default_project()
                .map(ToString::to_string)
                .unwrap_or_default(),
            default_durability: status::durability_to_proto(pipeline.default_durability()).into(),
            durabilities: durabilities
                .map(|offer| status::durability_to_proto(*offer).into())
                .collect(),
            limits: Some(proto::Limits {
                message_size_bytes: i64::try_from(self.info.max_message_bytes).unwrap_or(i64::MAX),
                batch_event_count: i32::try_from(self.info.max_batch_events).unwrap_or(i32::MAX),
                props_size_bytes: i64::try_from(limits::PROPS_MAX_BYTES).unwrap_or(i64::MAX),
                props_depth: i32::try_from(limits::PROPS_JSON_MAX_DEPTH).unwrap_or(i32::MAX),
                dedupe_window: Some(proto_duration(self.info.dedupe_window)),
            }),
            volume_ephemeral: self.info.volume_ephemeral,
        }))
    }
}

fn unknown_event() -> Status {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let details = ErrorDetails::with_error_info("EVENT_UNKNOWN", super::refusal::ERROR_DOMAIN, []);
    let message = "no event of this id is known in this project, or its time of keeping is over";
    Status::with_error_details(tonic::Code::NotFound, message, details)
}

fn deadline_limit<T>(request: &Request<T>) -> Duration {
    let value = request
        .metadata()
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok());
    wait_limit(value.and_then(grpc_timeout))
}

/// Why a batch fails as a call: all or nothing with something refused, or one reason for all that only waiting cures.
fn whole_call(verdicts: &[Verdict], all_or_nothing: bool) -> Option<Status> {
    let refusals = || {
        verdicts
            .iter()
            .enumerate()
            .filter_map(|(index, verdict)| Some((index, verdict.as_ref().err()?)))
    };
    let (_, first) = refusals().find(|(_, refusal)| **refusal != Refusal::NotAlone)?;
    if all_or_nothing {
        let violations: Vec<_> = refusals()
            .flat_map(|(index, refusal)| refusal.violations(&format!("events[{index}]")))
            .collect();
        return Some(first.to_status_with(&violations));
    }
    let same = verdicts.iter().all(|verdict| {
        verdict
            .as_ref()
            .err()
            .is_some_and(|refusal| refusal.reason() == first.reason())
    });
    (same && first.is_retryable()).then(|| first.to_status("events"))
}

fn publish_result(verdict: Verdict, path: &str) -> proto::PublishResult {
    use proto::publish_result::Result as Published;
    let result = match verdict {
        Ok(accepted) => Published::Status(accepted.into_answer()),
        Err(refusal) => Published::Refusal(refusal.to_proto(path)),
    };
    proto::PublishResult { result: Some(result) }
}

/// Messages until the caller closes its side, an error, or the end of the process; why it ended goes into `end`.
fn until_error(
    messages: Streaming<proto::StreamEventsRequest>,
    pipeline: Arc<Pipeline>,
    end: Arc<OnceLock<Status>>,
) -> impl Stream<Item = proto::StreamEventsRequest> + Send {
    stream::unfold(
        (messages, pipeline, end),
        |(mut messages, pipeline, end)| async move {
            let message = tokio::select! {
                biased;
                () = pipeline.draining() => Err(Refusal::Draining.to_status("event")),
                message = messages.message() => message.map_err(remap),
            };
            match message {
                Ok(Some(message)) => Some((message, (messages, pipeline, end))),
                Ok(None) => None,
                Err(status) => {
                    // Set once: the stream ends here.
                    end.get_or_init(|| status);
                    None
                }
            }
        },
    )
}

/// Answers a group: what is safe as soon as it is, then each event that waits for its delivery.
fn answer_group(
    pipeline: Arc<Pipeline>,
    group: Vec<proto::StreamEventsRequest>,
    limit: Duration,
) -> BoxStream<'static, Vec<proto::StreamResult>> {
    let group = Group {
        pipeline: Arc::clone(&pipeline),
        messages: group,
        events: Vec::new(),
        pause: STREAM_PAUSE.0,
    };
    stream::unfold(group, Group::answer)
        .flat_map_unordered(None, move |(now, waiting)| {
            let pipeline = Arc::clone(&pipeline);
            let waits = waiting.into_iter().map(move |(sequence, mut accepted)| {
                let pipeline = Arc::clone(&pipeline);
                async move {
                    pipeline.wait_until_final(&mut accepted, limit).await;
                    vec![stream_result(sequence, Ok(accepted))]
                }
            });
            let now = (!now.is_empty()).then_some(now);
            stream::iter(now)
                .chain(waits.collect::<FuturesUnordered<_>>())
                .boxed()
        })
        .boxed()
}

/// Messages of a stream that are made safe together, and those of them that have found no room yet.
struct Group {
    pipeline: Arc<Pipeline>,
    messages: Vec<proto::StreamEventsRequest>,
    events: Vec<(i64, (Event, Options))>,
    pause: Duration,
}

/// Answers that can be given now, and events that are safe and whose caller waits for their delivery.
type Answers = (Vec<proto::StreamResult>, Vec<(i64, Accepted)>);

impl Group {
    /// Publishes what is left; waits for room, so that a full queue stops the reading and not the stream.
    async fn answer(mut self) -> Option<(Answers, Self)> {
        let mut answers = self.read();
        if self.events.is_empty() {
            return (!answers.is_empty()).then_some(((answers, Vec::new()), self));
        }
        let (sequences, events): (Vec<_>, Vec<_>) = std::mem::take(&mut self.events).into_iter().unzip();
        let published = self.pipeline.publish(&events, false).await;
        let verdicts =
            published.unwrap_or_else(|refusal| events.iter().map(|_| Err(refusal.clone())).collect());
        let mut waiting = Vec::new();
        for ((sequence, event), verdict) in sequences.into_iter().zip(events).zip(verdicts) {
            match verdict {
                Err(Refusal::QueueFull | Refusal::DiskFull | Refusal::Busy)
                    if !self.pipeline.is_draining() =>
                {
                    self.events.push((sequence, event));
                }
                Ok(accepted) if event.1.wait => waiting.push((sequence, accepted)),
                Ok(accepted) => answers.push(stream_result(sequence, Ok(accepted))),
                Err(refusal) => answers.push(self.refused(sequence, refusal)),
            }
        }
        if !self.events.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(self.pause) => {}
                () = self.pipeline.draining() => {}
            }
            self.pause = (self.pause * 2).min(STREAM_PAUSE.1);
        }
        Some(((answers, waiting), self))
    }

    /// Turns messages into events; answers those that are none.
    fn read(&mut self) -> Vec<proto::StreamResult> {
        let mut answers = Vec::with_capacity(self.messages.len());
        for message in std::mem::take(&mut self.messages) {
            let options = Options::from_proto(message.options.as_ref());
            let event = message.event.ok_or(Refusal::BadCall(&EVENT_MISSING));
            match event.and_then(|event| Ok((convert::event(event), options?))) {
                Ok(event) => self.events.push((message.sequence, event)),
                Err(refusal) => answers.push(self.refused(message.sequence, refusal)),
            }
        }
        answers
    }

    fn refused(&self, sequence: i64, refusal: Refusal) -> proto::StreamResult {
        self.pipeline.count_refused(&refusal);
        stream_result(sequence, Err(refusal))
    }
}

fn stream_result(sequence: i64, verdict: Verdict) -> proto::StreamResult {
    proto::StreamResult {
        sequence,
        result: Some(publish_result(verdict, "event")),
    }
}
