//! Joins the rooms and decides nothing: ingest → validate → enqueue on the caller's side, one dispatch lane a project behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use embeddables_client::{Client, Endpoint, UpstreamRequest};
use embeddables_core::{Event, EventId, ProjectId};
use embeddables_proto::events::v1 as proto;
use embeddables_queue::{Durability, NewRecord, ReadError, Sequence, Store, UnixMillis};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::dispatch::board::Board;
use crate::enqueue::{Enqueuer, lane};
use crate::ingest::admission::Options;
use crate::ingest::flush::{self, Flushed};
use crate::ingest::refusal::{Refusal, unreadable};
use crate::ingest::status;
use crate::settle::Feed;
use crate::telemetry::metrics::IngestMetrics;
use crate::validate::Validator;

/// What the rooms before the queue are made of.
pub struct Rooms {
    /// Where events are kept.
    pub store: Arc<dyn Store>,
    /// Rules and defaults.
    pub validator: Validator,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Settlements, for callers that wait.
    pub feed: Arc<Feed>,
    /// Lanes as they are now.
    pub board: Board,
    /// Counters of refusals.
    pub metrics: IngestMetrics,
    /// Configured projects.
    pub endpoints: HashMap<ProjectId, Arc<Endpoint>>,
    /// Shows what would be sent.
    pub client: Client,
    /// Durability where a call asks for none.
    pub default_durability: Durability,
}

/// The rooms before the queue, as the servers see them.
pub struct Pipeline {
    rooms: Rooms,
    enqueuer: Enqueuer,
    draining: AtomicBool,
    drained: CancellationToken,
}

/// An event that was taken.
#[derive(Debug)]
pub struct Accepted {
    /// Where it is now.
    pub status: proto::EventStatus,
    project: ProjectId,
    sequence: Sequence,
}

impl Accepted {
    /// The answer to a publishing call, which leaves the attempts to `GetEvent`.
    pub fn into_answer(self) -> proto::EventStatus {
        proto::EventStatus {
            attempts: Vec::new(),
            ..self.status
        }
    }
}

/// What became of one event of a call.
pub type Verdict = Result<Accepted, Refusal>;

impl Pipeline {
    /// Joins the rooms.
    pub fn new(rooms: Rooms) -> Self {
        let enqueuer = Enqueuer::new(Arc::clone(&rooms.store));
        Self {
            rooms,
            enqueuer,
            draining: AtomicBool::new(false),
            drained: CancellationToken::new(),
        }
    }

    /// Project of events that name none.
    pub fn default_project(&self) -> Option<&ProjectId> {
        self.rooms.validator.default_project()
    }

    /// Durability where a call asks for none.
    pub fn default_durability(&self) -> Durability {
        self.rooms.default_durability
    }

    /// Where events are kept, for those that only look.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.rooms.store
    }

    /// Lanes as they are now, and the way to speak to them.
    pub fn board(&self) -> &Board {
        &self.rooms.board
    }

    /// The configured projects that a call is about: the one that it names, or all.
    ///
    /// # Errors
    /// On a project that is not configured.
    pub fn projects(&self, named: &str) -> Result<Vec<ProjectId>, Refusal> {
        let configured = self.rooms.endpoints.keys();
        let projects: Vec<_> = configured
            .filter(|project| named.is_empty() || project.as_str() == named)
            .cloned()
            .collect();
        if projects.is_empty() {
            return Err(Refusal::ProjectNotConfigured);
        }
        Ok(projects)
    }

    /// Durabilities on offer, weakest first.
    pub fn durabilities(&self) -> &[Durability] {
        self.rooms.store.durabilities()
    }

    /// Refuses new events from now on; what was accepted is not touched.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
        self.drained.cancel();
    }

    /// Whether new events are refused because the process ends.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns once draining has started.
    pub async fn draining(&self) {
        self.drained.cancelled().await;
    }

    /// Returns once the loop that writes has gone round.
    ///
    /// # Errors
    /// Where it has ended.
    pub async fn ping(&self) -> Result<(), ReadError> {
        self.rooms.store.ping().await
    }

    /// Counts an event, or a call without one, that was refused and is told so.
    pub fn count_refused(&self, refusal: &Refusal) {
        self.rooms.metrics.refused(refusal.reason());
    }

    /// Counts a request that was refused before an event could be read out of it.
    pub fn count_unread(&self, reason: &'static str) {
        self.rooms.metrics.refused(reason);
    }

    /// Takes events, each on its own merits unless `atomic`; one verdict an event, in order.
    ///
    /// # Errors
    /// Where the store or the process refused the call as a whole.
    ///
    /// # Cancel safety
    /// Dropping the future loses the answer, not the events.
    pub async fn publish(&self, events: &[(Event, Options)], atomic: bool) -> Result<Vec<Verdict>, Refusal> {
        if self.is_draining() {
            return Err(Refusal::Draining);
        }
        let now = self.rooms.clock.wall();
        // A group commit syncs for all of its events at once: the strongest wish of the call holds for all.
        let wishes = events.iter().filter_map(|(_, options)| options.durability);
        let on_offer = |durability: &Durability| self.durabilities().iter().any(|offer| offer >= durability);
        let durability = wishes
            .filter(on_offer)
            .max()
            .unwrap_or(self.rooms.default_durability);

        let mut records = Vec::with_capacity(events.len());
        let mut names = Vec::with_capacity(events.len());
        let mut verdicts: Vec<Result<usize, Refusal>> = Vec::with_capacity(events.len());
        for (event, options) in events {
            verdicts.push(self.admit(event, *options, now).map(|(record, name)| {
                records.push(record);
                names.push(name);
                records.len() - 1
            }));
        }
        if atomic && verdicts.iter().any(Result::is_err) {
            let refuse = |verdict: Result<usize, Refusal>| Err(verdict.err().unwrap_or(Refusal::NotAlone));
            return Ok(verdicts.into_iter().map(refuse).collect());
        }
        if records.is_empty() {
            return Ok(verdicts.into_iter().filter_map(Result::err).map(Err).collect());
        }
        let mut appended: Vec<_> = self
            .enqueuer
            .append(records, durability, atomic)
            .await?
            .into_iter()
            .map(Some)
            .collect();
        let mut answers = Vec::with_capacity(verdicts.len());
        for verdict in verdicts {
            answers.push(match verdict {
                Err(refusal) => Err(refusal),
                Ok(index) => match appended.get_mut(index).and_then(Option::take) {
                    Some(Ok(appended)) => {
                        let (project, id) = &names[index];
                        self.accepted(project.clone(), id.as_str(), appended, now).await
                    }
                    Some(Err(refusal)) => Err(refusal),
                    None => Err(Refusal::StorageRefused),
                },
            });
        }
        Ok(answers)
    }

    /// Checks one event and makes its record; gives it with its project and id.
    fn admit(
        &self,
        event: &Event,
        options: Options,
        now: UnixMillis,
    ) -> Result<(NewRecord, (ProjectId, EventId)), Refusal> {
        let checked = self.rooms.validator.check(event, now).map_err(Refusal::Invalid)?;
        let (project, id) = (
            checked.event.project_id().clone(),
            checked.event.event_id().clone(),
        );
        if !self.rooms.endpoints.contains_key(&project) {
            return Err(Refusal::ProjectNotConfigured);
        }
        if options
            .durability
            .is_some_and(|wish| self.durabilities().iter().all(|offer| *offer < wish))
        {
            return Err(Refusal::DurabilityNotOnOffer);
        }
        let record = self.enqueuer.record(checked, now, options.deliver_before);
        Ok((record, (project, id)))
    }

    /// The answer for an event that is safe now; of a duplicate it tells the present state.
    async fn accepted(
        &self,
        project: ProjectId,
        id: &str,
        appended: embeddables_queue::Appended,
        now: UnixMillis,
    ) -> Verdict {
        let fresh = status::accepted(&project, id, now, appended.durability);
        let status = if appended.duplicate {
            // The entry may just have been evicted; that it was a duplicate stays true.
            let present = self.find(&project, id).await?.unwrap_or(fresh);
            proto::EventStatus {
                duplicate: true,
                ..present
            }
        } else {
            fresh
        };
        Ok(Accepted {
            status,
            project,
            sequence: appended.sequence,
        })
    }

    /// Waits until an accepted event is settled for good, or until `limit` has passed; then tells where it is.
    ///
    /// # Cancel safety
    /// Cancel safe: the event is not touched.
    pub async fn wait_until_final(&self, accepted: &mut Accepted, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !status::is_final(accepted.status.state()) {
            let mut settled = self.rooms.feed.subscribe(accepted.sequence);
            // It may have been settled before the subscription.
            if !self.look_up(accepted).await || status::is_final(accepted.status.state()) {
                return;
            }
            if tokio::time::timeout_at(deadline, settled.settled())
                .await
                .is_err()
            {
                // Its lane may have been held since.
                self.look_up(accepted).await;
                return;
            }
        }
    }

    /// Tells where an accepted event is now. Where that is not known, what was told before stays true: the event is safe.
    async fn look_up(&self, accepted: &mut Accepted) -> bool {
        let found = self.find(&accepted.project, &accepted.status.event_id).await;
        let Ok(Some(status)) = found else {
            return false;
        };
        accepted.status = proto::EventStatus {
            duplicate: accepted.status.duplicate,
            ..status
        };
        true
    }

    /// Waits until what was accepted before has left the queue, or until `limit` has passed; then tells what became of it.
    ///
    /// # Errors
    /// On a project that is not configured, while shutting down, and where the store cannot be read.
    pub async fn flush(&self, project: &str, limit: Duration) -> Result<Flushed, Refusal> {
        if self.is_draining() {
            return Err(Refusal::Draining);
        }
        let projects = self.projects(project)?;
        let (store, board) = (&*self.rooms.store, &self.rooms.board);
        flush::flush(store, board, &projects, limit, self.draining())
            .await
            .map_err(|error| unreadable(&error))
    }

    /// All that is known of an event; `None` where its id is unknown.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn find(&self, project: &ProjectId, id: &str) -> Result<Option<proto::EventStatus>, Refusal> {
        let entry = self.rooms.store.find(&lane(project), id).await;
        let view = self.rooms.board.view(project);
        let status = entry
            .map_err(|error| unreadable(&error))?
            .map(|entry| status::of_entry(project, id, &entry, view.as_ref(), &*self.rooms.clock))
            .transpose();
        status.map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "what is noted of an event cannot be read"
            );
            Refusal::StorageUnreadable
        })
    }

    /// Checks an event as publishing would, keeps nothing, and shows the request that would be sent.
    ///
    /// # Errors
    /// With what publishing would refuse it for, as far as that does not depend on the queue.
    pub fn preview(&self, event: &Event) -> Result<UpstreamRequest, Refusal> {
        let checked = self
            .rooms
            .validator
            .check(event, self.rooms.clock.wall())
            .map_err(Refusal::Invalid)?;
        let endpoint = self
            .rooms
            .endpoints
            .get(checked.event.project_id())
            .ok_or(Refusal::ProjectNotConfigured)?;
        Ok(self.rooms.client.request(endpoint, &checked.event))
    }
}
