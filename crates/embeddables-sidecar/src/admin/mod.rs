//! What an operator does: looks at lanes and dead letters, holds and resumes the ones, replays the others.
//!
//! # Invariants
//! 1. Every call says what it changed only once that is on disk.
//! 2. Identifiers and props are shown only to those who ask for one event and for them.
//! 3. A page, a step and a call have a bound; whatever is cut short can be called again.

mod dead_letters;
mod lanes;
mod replay;

use std::sync::Arc;

use embeddables_core::ProjectId;
use embeddables_proto::admin::v1 as proto;
use embeddables_queue::Store;
use tonic::{Code, Request, Response, Status};

use crate::dispatch::board::Board;
use crate::ingest::bad_call::BadCall;
use crate::ingest::refusal::{self, Refusal};
use crate::pipeline::Pipeline;

/// The service.
#[derive(Clone)]
pub struct AdminService {
    pipeline: Arc<Pipeline>,
    /// `delivery.enabled`: whether lanes run.
    delivering: bool,
}

impl AdminService {
    /// Serves a pipeline; `delivering` says whether its lanes run.
    pub fn new(pipeline: Arc<Pipeline>, delivering: bool) -> Self {
        Self { pipeline, delivering }
    }

    fn store(&self) -> &dyn Store {
        &**self.pipeline.store()
    }

    fn board(&self) -> &Board {
        self.pipeline.board()
    }

    /// The project of a call: the one that it names, or the default one.
    fn project(&self, named: &str) -> Result<ProjectId, Status> {
        let default = self.pipeline.default_project().map_or("", ProjectId::as_str);
        let named = if named.is_empty() { default } else { named };
        let projects = match named {
            // Several are configured: one of them must be meant.
            "" => Err(Refusal::ProjectNotConfigured),
            named => self.pipeline.projects(named),
        };
        projects
            .and_then(|projects| projects.into_iter().next().ok_or(Refusal::ProjectNotConfigured))
            .map_err(|refusal| refusal.to_status(""))
    }
}

#[tonic::async_trait]
impl proto::admin_service_server::AdminService for AdminService {
    async fn list_lanes(
        &self,
        _request: Request<proto::ListLanesRequest>,
    ) -> Result<Response<proto::ListLanesResponse>, Status> {
        let lanes = lanes::all(&self.store().books(), self.board(), self.delivering);
        Ok(Response::new(proto::ListLanesResponse { lanes }))
    }

    async fn hold_lane(
        &self,
        request: Request<proto::HoldLaneRequest>,
    ) -> Result<Response<proto::HoldLaneResponse>, Status> {
        let request = request.into_inner();
        let project = self.project(&request.project_id)?;
        if request.note.len() > lanes::NOTE_MAX_BYTES || request.note.contains(char::is_control) {
            return Err(bad(&NOTE_INVALID));
        }
        let view = self.board().hold(&project, request.note).await;
        let view = view.map_err(|_| not_running())?;
        tracing::info!(%project, "an operator holds the lane");
        Ok(Response::new(proto::HoldLaneResponse {
            lane: Some(lanes::one(&project, &view, &self.store().books())),
        }))
    }

    async fn resume_lane(
        &self,
        request: Request<proto::ResumeLaneRequest>,
    ) -> Result<Response<proto::ResumeLaneResponse>, Status> {
        let project = self.project(&request.into_inner().project_id)?;
        let view = self.board().resume(&project).await;
        let view = view.map_err(|_| not_running())?;
        tracing::info!(%project, "an operator resumes the lane");
        Ok(Response::new(proto::ResumeLaneResponse {
            lane: Some(lanes::one(&project, &view, &self.store().books())),
        }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<proto::ListDeadLettersRequest>,
    ) -> Result<Response<proto::ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let project = match request.project_id.as_str() {
            "" => None,
            named => Some(self.project(named)?),
        };
        dead_letters::list(self.store(), project.as_ref(), &request)
            .await
            .map(Response::new)
    }

    async fn get_dead_letter(
        &self,
        request: Request<proto::GetDeadLetterRequest>,
    ) -> Result<Response<proto::GetDeadLetterResponse>, Status> {
        let request = request.into_inner();
        let project = self.project(&request.project_id)?;
        let found =
            dead_letters::get(self.store(), &project, &request.event_id, request.include_event).await?;
        Ok(Response::new(proto::GetDeadLetterResponse {
            dead_letter: Some(found),
        }))
    }

    async fn replay_dead_letters(
        &self,
        request: Request<proto::ReplayDeadLettersRequest>,
    ) -> Result<Response<proto::ReplayDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let project = self.project(&request.project_id)?;
        let replayed = replay::replay(self.store(), &project, request).await?;
        tracing::info!(%project, events = replayed.replayed_count, "an operator replayed dead letters");
        Ok(Response::new(replayed))
    }
}

/// The operator's note on a hold is too long.
static NOTE_INVALID: BadCall = BadCall::new(
    "NOTE_INVALID",
    "note",
    "the note has at most 256 bytes and no control characters",
);
/// A page token is none, or of other filters.
static PAGE_TOKEN_MALFORMED: BadCall = BadCall::new(
    "PAGE_TOKEN_MALFORMED",
    "page_token",
    "the page token is none that this sidecar gave out: leave it empty for the first page",
);
/// A page of fewer than none.
static PAGE_SIZE_NEGATIVE: BadCall = BadCall::new(
    "PAGE_SIZE_NEGATIVE",
    "page_size",
    "a page has at least one dead letter: leave `page_size` at 0 for the default",
);
/// Neither or both of ids and all.
static SELECTION_UNCLEAR: BadCall = BadCall::new(
    "SELECTION_UNCLEAR",
    "event_ids",
    "say which dead letters: either 1 to 1000 `event_ids`, or `all`, then optionally with a `reason`",
);

fn bad(call: &'static BadCall) -> Status {
    Refusal::BadCall(call).to_status("")
}

fn not_running() -> Status {
    let message =
        "the project's lane does not run: delivery.enabled is false, or the sidecar is shutting down";
    refusal::status(Code::Unavailable, "LANE_NOT_RUNNING", message, [])
}

fn no_dead_letter() -> Status {
    let message =
        "no dead letter of this project has that id: it was replayed, or the event was never given up";
    refusal::status(Code::NotFound, "DEAD_LETTER_UNKNOWN", message, [])
}

#[cfg(test)]
mod tests;
