//! Where the lane stands: held or open, kept over restarts, shown to others, changed by commands, keys and answers.

use std::sync::Arc;
use std::time::Duration;

use embeddables_client::Endpoint;
use embeddables_queue::{LaneState, SettleError, UnixMillis};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Lane;
use crate::dispatch::board::{Command, Condition, HoldReason, HoldView, LaneView};
use crate::dispatch::gates::{Change, held};
use crate::dispatch::note::LaneNote;

/// Longest pause that is taken over from an earlier life: what upstream may ask for at most.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Time after which what the steady clock shows is noted again, where events wait by it.
const NOTE_TIME_AFTER: Duration = Duration::from_mins(1);

/// What the lane has to write down and to tell.
#[derive(Debug)]
pub(super) struct Standing {
    /// Address and key in use: those that the gates count answers for.
    pub(super) endpoint: Arc<Endpoint>,
    /// The same as a fingerprint.
    configuration: String,
    /// Whether the state on disk is not the present one.
    dirty: bool,
    /// When it was last written in this life.
    saved_at: Option<Instant>,
    /// Operators who wait until it is.
    replies: Vec<oneshot::Sender<LaneView>>,
    /// What was last logged.
    logged: Mood,
}

/// Conditions between which a change is worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Open,
    Paused,
    Held(HoldReason),
    Broken,
}

impl Standing {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            configuration: configuration(&endpoint),
            endpoint,
            dirty: false,
            saved_at: None,
            replies: Vec::new(),
            logged: Mood::Open,
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }
}

fn configuration(endpoint: &Endpoint) -> String {
    format!("{} {}", endpoint.events_url(), endpoint.api_key().fingerprint())
}

impl Lane {
    /// Goes on as the former life left the lane.
    pub(super) fn restore(&mut self, now: Instant) {
        let state = self.store.lane_state(&self.settings.name);
        let note = LaneNote::decode_bytes(&state.note);
        let pause = note.pause_until().0.saturating_sub(self.clock.steady().0).max(0);
        let pause = Duration::from_millis(pause.unsigned_abs()).min(LONGEST_PAUSE);
        self.gates
            .restore(pause, note.breaker_open(), now, &mut self.random);
        if let Some(held) = note.hold(&self.standing.configuration) {
            self.gates.hold(held, now, &mut self.random);
        }
        self.standing.dirty = state.ageing != self.gates.held().is_none();
    }

    /// Does what somebody asked for.
    pub(super) fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Hold { note, reply } => {
                let held = held(HoldReason::Operator, &note, self.clock.wall());
                self.gates.hold(held, now, &mut self.random);
                self.standing.dirty = true;
                self.standing.replies.push(reply);
            }
            Command::Resume { reply } => {
                self.gates.open(now, &mut self.random);
                self.standing.dirty = true;
                self.standing.replies.push(reply);
            }
            Command::Hurry => {
                // What lingers is looked at now; what waits is not due for that.
                if self.look_at.is_some_and(|at| at <= now + self.settings.linger) {
                    self.look_at = Some(now);
                }
            }
        }
    }

    /// The key file, or the address, has changed.
    pub(super) fn rekey(&mut self) {
        self.standing.endpoint = Arc::clone(&self.endpoint.borrow_and_update());
        let configuration = configuration(&self.standing.endpoint);
        if configuration == self.standing.configuration {
            return;
        }
        self.standing.configuration = configuration;
        self.standing.dirty = true;
        self.gates.rekeyed(Instant::now(), &mut self.random);
        tracing::info!(lane = self.settings.name.as_str(), "the lane has another key");
    }

    /// Takes in what an answer changed.
    pub(super) fn stand(&mut self, changes: &[Change], now: Instant) {
        for change in changes {
            self.standing.dirty = true;
            if let Change::Held(reason) = change {
                let held = held(*reason, "", self.clock.wall());
                self.gates.hold(held, now, &mut self.random);
            }
        }
    }

    /// Events wait by the steady clock: what it shows is noted from time to time, for the next life to go on from.
    pub(super) fn note_time(&mut self, now: Instant) {
        let saved_lately = |at: Instant| now.saturating_duration_since(at) < NOTE_TIME_AFTER;
        self.standing.dirty |= !self.standing.saved_at.is_some_and(saved_lately);
    }

    pub(super) fn start_saving(&mut self, now: Instant) {
        if self.saving.is_some() || !self.standing.dirty || now < self.health.ready_at() {
            return;
        }
        let pause = self.gates.pause_left(now);
        let pause_until = (!pause.is_zero()).then(|| later(self.clock.steady(), pause));
        let note = LaneNote::new(
            self.gates.held(),
            &self.standing.configuration,
            pause_until,
            self.gates.is_broken(),
            self.clock.steady(),
        );
        let state = LaneState {
            ageing: self.gates.held().is_none(),
            note: note.encode_bytes(),
        };
        self.standing.dirty = false;
        self.standing.saved_at = Some(now);
        let (store, lane) = (Arc::clone(&self.store), self.settings.name.clone());
        self.saving = Some(Box::pin(
            async move { store.write_lane_state(&lane, state).await },
        ));
    }

    pub(super) fn saved(&mut self, result: Result<(), SettleError>) {
        self.saving = None;
        match result {
            Ok(()) => {
                self.store_answers();
                if self.standing.dirty {
                    return;
                }
                self.show(Instant::now());
                let view = self.post.view.borrow().clone();
                for reply in self.standing.replies.drain(..) {
                    if reply.send(view.clone()).is_err() {
                        tracing::debug!("an operator did not wait for the answer");
                    }
                }
            }
            Err(error) => {
                self.standing.dirty = true;
                self.store_refuses("the state of the lane could not be written", &error);
            }
        }
    }

    /// Shows the lane as it is; logs a line where its mood has changed.
    pub(super) fn show(&mut self, now: Instant) {
        let (condition, next) = self.gates.condition(now);
        let next_try = next.map(|at| self.wall_at(at, now));
        let (in_flight, limit) = (self.in_flight.len(), self.gates.concurrency_limit());
        let held = self.gates.held();
        self.post.view.send_if_modified(|view| {
            view.in_flight = in_flight;
            view.concurrency_limit = limit;
            let same_hold = match (&view.hold, held) {
                (None, None) => true,
                (Some(shown), Some(held)) => shown.reason == held.reason && shown.since == held.since,
                _ => false,
            };
            let changed = view.condition != condition || !same_hold;
            view.condition = condition;
            view.next_try = next_try;
            if !same_hold {
                view.hold = held.map(|held| HoldView {
                    reason: held.reason,
                    message: held.message.clone(),
                    since: held.since,
                });
            }
            changed
        });
        self.log_mood(condition);
    }

    fn log_mood(&mut self, condition: Condition) {
        let held = self.gates.held();
        let mood = match (held, condition) {
            (Some(held), _) => Mood::Held(held.reason),
            (None, Condition::Paused) => Mood::Paused,
            (None, Condition::BreakerOpen | Condition::BreakerHalfOpen) => Mood::Broken,
            (None, _) => Mood::Open,
        };
        if mood == self.standing.logged {
            return;
        }
        self.standing.logged = mood;
        let lane = self.settings.name.as_str();
        match mood {
            Mood::Open => tracing::info!(lane, "the lane is open"),
            Mood::Paused => tracing::warn!(lane, "the lane is paused: upstream asked for time"),
            Mood::Held(reason) => {
                let message = held.map_or("", |held| held.message.as_str());
                tracing::warn!(lane, reason = reason.as_str(), message, "the lane is held");
            }
            Mood::Broken => tracing::warn!(
                lane,
                "attempts fail in a row: the lane sends one at a time until one succeeds"
            ),
        }
    }

    /// What the wall clock will show at a moment of the steady one.
    fn wall_at(&self, at: Instant, now: Instant) -> UnixMillis {
        later(self.clock.wall(), at.saturating_duration_since(now))
    }
}

fn later(time: UnixMillis, by: Duration) -> UnixMillis {
    UnixMillis(
        time.0
            .saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
    )
}
