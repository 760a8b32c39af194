//! `WatchOutcomes`: outcomes in the order of their commits, from a cursor on.
//!
//! # Invariants
//! 1. Each outcome after the cursor that passes the filter is told once, in order; where one was evicted before it was told,
//!    the stream ends with OUT_OF_RANGE instead.
//! 2. A cursor stands for all outcomes up to it, also those that the filter kept back.
//! 3. What is read and not told yet is at most [`PAGE`] outcomes.

use std::collections::VecDeque;
use std::sync::Arc;

use embeddables_proto::events::v1 as proto;
use embeddables_queue::{LaneName, Outcome, Store};
use futures_util::stream::{self, Stream};
use tokio::sync::watch;
use tonic::{Code, Status};

use super::bad_call::{CURSOR_MALFORMED, STATE_NOT_AN_OUTCOME};
use super::cursor::{Kind, PlaceError, Places};
use super::refusal::{self, Refusal, unreadable};
use super::status;
use crate::enqueue::lane;
use crate::pipeline::Pipeline;

/// Damaged rows in a row after which the store ends a page.
const UNREADABLE_AT_MOST: u64 = 256;

/// Outcomes read at once: a note may have 8 KiB.
const PAGE: usize = 64;

/// The cursor that stands before everything that is kept.
const EARLIEST: &str = "earliest";

/// Outcomes from the request's cursor on, until the caller goes, falls too far behind, or the sidecar shuts down.
pub(super) fn outcomes(
    pipeline: &Arc<Pipeline>,
    request: &proto::WatchOutcomesRequest,
) -> Result<impl Stream<Item = Result<proto::WatchOutcomesResponse, Status>> + Send + use<>, Status> {
    if pipeline.is_draining() {
        return Err(Refusal::Draining.to_status(""));
    }
    let mut watcher = Watcher::new(Arc::clone(pipeline.store()), request)?;
    if !request.project_id.is_empty() {
        let projects = pipeline.projects(&request.project_id);
        let projects = projects.map_err(|refusal| refusal.to_status(""))?;
        watcher.lane = projects.first().map(lane);
    }
    let pipeline = Arc::clone(pipeline);
    Ok(stream::unfold(Some(watcher), move |watcher| {
        let pipeline = Arc::clone(&pipeline);
        async move {
            let mut watcher = watcher?;
            let next = tokio::select! {
                biased;
                () = pipeline.draining() => Err(Refusal::Draining.to_status("")),
                next = watcher.next() => next,
            };
            // An error is the last word.
            let watcher = next.is_ok().then_some(watcher);
            Some((next, watcher))
        }
    }))
}

/// One caller's place among the outcomes.
struct Watcher {
    store: Arc<dyn Store>,
    places: Places,
    newest: watch::Receiver<u64>,
    lane: Option<LaneName>,
    states: Vec<proto::State>,
    /// Number of the newest outcome that was read.
    after: u64,
    read: VecDeque<proto::WatchOutcomesResponse>,
}

impl Watcher {
    fn new(store: Arc<dyn Store>, request: &proto::WatchOutcomesRequest) -> Result<Self, Status> {
        // Taken before the books, so that no commit between them goes unheard.
        let newest = store.newest_outcome();
        let mut watcher = Self {
            places: Places::new(&store.secret()),
            newest,
            lane: None,
            states: states(&request.states)?,
            after: 0,
            read: VecDeque::new(),
            store,
        };
        watcher.after = watcher.begin(&request.cursor)?;
        Ok(watcher)
    }

    /// Number of the outcome that a cursor stands after.
    fn begin(&self, cursor: &str) -> Result<u64, Status> {
        let kept = self.store.books().outcomes;
        match cursor {
            "" => return Ok(kept.newest),
            EARLIEST => return Ok(kept.oldest.saturating_sub(1)),
            _ => {}
        }
        match self.places.read(Kind::Outcome, cursor) {
            Ok(after) if after > kept.newest => Err(self.of_another_store()),
            Ok(after) if after + 1 < kept.oldest => Err(self.expired()),
            Ok(after) => Ok(after),
            Err(PlaceError::OtherStore) => Err(self.of_another_store()),
            Err(PlaceError::Malformed) => Err(Refusal::BadCall(&CURSOR_MALFORMED).to_status("")),
        }
    }

    /// The next message, as soon as there is one.
    async fn next(&mut self) -> Result<proto::WatchOutcomesResponse, Status> {
        loop {
            if let Some(message) = self.read.pop_front() {
                return Ok(message);
            }
            let newest = *self.newest.borrow_and_update();
            if newest > self.after {
                self.read_page(newest).await?;
            } else if self.newest.changed().await.is_err() {
                return Err(Refusal::Draining.to_status(""));
            }
        }
    }

    /// Reads on; `newest` is the number of an outcome that is there to be read.
    async fn read_page(&mut self, newest: u64) -> Result<(), Status> {
        let page = self.store.outcomes(self.after, PAGE).await;
        let page = page.map_err(|error| unreadable(&error).to_status(""))?;
        let is_next = page.first().is_some_and(|first| first.number == self.after + 1);
        // Numbers are dense: what is missing was evicted, or its row is damaged and nobody will ever read it.
        if !is_next && self.after + 1 < self.store.books().outcomes.oldest {
            return Err(self.expired());
        }
        // A page may end early, with nothing in it, at so many rows that cannot be read: no sound one is among these numbers.
        let unreadable = newest.min(self.after + UNREADABLE_AT_MOST);
        self.after = page.last().map_or(unreadable, |last| last.number);
        let told = page.iter().filter(|outcome| self.is_asked_for(outcome));
        let told: Vec<_> = told.map(|outcome| self.message(outcome)).collect();
        self.read.extend(told);
        Ok(())
    }

    fn is_asked_for(&self, outcome: &Outcome) -> bool {
        self.lane.as_ref().is_none_or(|lane| *lane == outcome.lane)
            && (self.states.is_empty() || self.states.contains(&status::state_of(outcome.kind)))
    }

    fn message(&self, outcome: &Outcome) -> proto::WatchOutcomesResponse {
        proto::WatchOutcomesResponse {
            cursor: self.places.write(Kind::Outcome, outcome.number),
            outcome_time: Some(status::timestamp(outcome.time)),
            status: Some(status::of_outcome(outcome)),
        }
    }

    fn expired(&self) -> Status {
        let message = "outcomes after this cursor are not kept any more (queue.dedupe_window, queue.dedupe_ids): \
                       go on at `oldest_cursor`, and look up with GetEvent what may have been missed";
        self.out_of_range("CURSOR_EXPIRED", message)
    }

    fn of_another_store(&self) -> Status {
        let message = "the cursor is of another store, or of a later state of this one that was lost: begin at `oldest_cursor`";
        self.out_of_range("CURSOR_OF_ANOTHER_STORE", message)
    }

    fn out_of_range(&self, reason: &str, message: &str) -> Status {
        let oldest = self.store.books().outcomes.oldest.saturating_sub(1);
        let oldest_cursor = self.places.write(Kind::Outcome, oldest);
        refusal::status(
            Code::OutOfRange,
            reason,
            message,
            [("oldest_cursor", oldest_cursor)],
        )
    }
}

/// The states asked for; none for all.
fn states(states: &[i32]) -> Result<Vec<proto::State>, Status> {
    let is_final = |state: &proto::State| status::is_final(*state);
    states
        .iter()
        .map(|state| proto::State::try_from(*state).ok().filter(is_final))
        .collect::<Option<_>>()
        .ok_or_else(|| Refusal::BadCall(&STATE_NOT_AN_OUTCOME).to_status(""))
}

#[cfg(test)]
mod tests;
