//! The gRPC service: one method a call of the contract, each a few lines over the pipeline.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use embeddables_core::ProjectId;
use embeddables_proto::events::v1 as proto;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::admission::{Options, flush_limit, grpc_timeout, wait_limit};
use super::bad_call::{BATCH_EMPTY, EVENT_ID_MISSING, EVENT_MISSING};
use super::refusal::{Refusal, proto_duration};
use super::{convert, refusal, status, streaming, watch};
use crate::pipeline::{Pipeline, Verdict};

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
        let limit = wait_limit(deadline(&request));
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
        let limit = wait_limit(deadline(&request));
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
            .map(|(index, verdict)| publish_result(verdict, format_args!("events[{index}]")))
            .collect();
        Ok(Response::new(proto::PublishEventsResponse { results }))
    }

    type StreamEventsStream = streaming::Answers;

    async fn stream_events(
        &self,
        request: Request<Streaming<proto::StreamEventsRequest>>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let limit = wait_limit(deadline(&request));
        let answers = streaming::answers(request.into_inner(), Arc::clone(&self.pipeline), limit);
        Ok(Response::new(answers))
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

    async fn watch_outcomes(
        &self,
        request: Request<proto::WatchOutcomesRequest>,
    ) -> Result<Response<Self::WatchOutcomesStream>, Status> {
        let outcomes = watch::outcomes(&self.pipeline, &request.into_inner())?;
        Ok(Response::new(outcomes.boxed()))
    }

    async fn flush(
        &self,
        request: Request<proto::FlushRequest>,
    ) -> Result<Response<proto::FlushResponse>, Status> {
        let limit = flush_limit(deadline(&request));
        let flushed = self.pipeline.flush(&request.into_inner().project_id, limit).await;
        let flushed = flushed.map_err(|refusal| refusal.to_status(""))?;
        Ok(Response::new(flushed.to_proto()))
    }

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
    let message = "no event of this id is known in this project, or its time of keeping is over";
    refusal::status(Code::NotFound, "EVENT_UNKNOWN", message, [])
}

/// The caller's deadline, as time from now.
fn deadline<T>(request: &Request<T>) -> Option<Duration> {
    let value = request.metadata().get("grpc-timeout")?;
    grpc_timeout(value.to_str().ok()?)
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

/// The result of one event of many; `path` is the event's, for example `events[3]`.
pub(super) fn publish_result(verdict: Verdict, path: fmt::Arguments<'_>) -> proto::PublishResult {
    use proto::publish_result::Result as Published;
    let result = match verdict {
        Ok(accepted) => Published::Status(accepted.into_answer()),
        Err(refusal) => Published::Refusal(refusal.to_proto(&path.to_string())),
    };
    proto::PublishResult { result: Some(result) }
}
