//! What the gates show of themselves: to the lane, which keeps it, and to operators, who read it. Nothing is
//! opened or closed here but what time alone opens.

use std::time::Duration;

use embeddables_queue::UnixMillis;
use tokio::time::Instant;

use super::{Gates, Held, breaker, hold};
use crate::dispatch::board::{Condition, HoldReason};

impl Gates {
    /// Time that the lane was held in all, in this life.
    pub(in crate::dispatch) fn held_time(&self, now: Instant) -> Duration {
        self.hold.held_time(now)
    }

    /// The hold in force.
    pub(in crate::dispatch) fn held(&self) -> Option<&Held> {
        self.hold.held()
    }

    /// Time that upstream asked for and that is left.
    pub(in crate::dispatch) fn pause_left(&self, now: Instant) -> Duration {
        self.pause.left(now)
    }

    /// Whether the breaker is not closed.
    pub(in crate::dispatch) fn is_broken(&self) -> bool {
        !self.breaker.is_closed()
    }

    /// Attempts that may be under way at once.
    pub(in crate::dispatch) fn concurrency_limit(&self) -> usize {
        self.concurrency.limit()
    }

    /// What the lane does, and when it goes on where that is known.
    pub(in crate::dispatch) fn condition(&mut self, now: Instant) -> (Condition, Option<Instant>) {
        if self.hold.held().is_some() {
            let next = match self.hold.passage(now) {
                hold::Passage::None(next) => next,
                hold::Passage::Probe | hold::Passage::All => None,
            };
            let condition = if self.hold.is_probing() {
                Condition::Probing
            } else {
                Condition::Held
            };
            return (condition, next);
        }
        if self.pause.is_asked(now) {
            return (Condition::Paused, Some(now + self.pause.left(now)));
        }
        match self.breaker.passage(now) {
            breaker::Passage::All => (Condition::Open, None),
            breaker::Passage::NoneUntil(until) => (Condition::BreakerOpen, Some(until)),
            breaker::Passage::Some(_) | breaker::Passage::None => (Condition::BreakerHalfOpen, None),
        }
    }
}

/// A hold that begins now.
pub(in crate::dispatch) fn held(reason: HoldReason, note: &str, since: UnixMillis) -> Held {
    let message = match reason {
        HoldReason::KeyRejected => {
            "upstream does not accept the project's key (401): put a valid one into its key file; events are kept".to_owned()
        }
        HoldReason::Config => {
            "upstream, or something on the way, refuses the project or the route: check project id, base URL, proxy and the \
             key's rights; events are kept"
                .to_owned()
        }
        HoldReason::MassRejection => {
            "upstream rejects every event and has never taken one with this configuration: check project and callers; the \
             rejected events are among the dead letters"
                .to_owned()
        }
        HoldReason::Operator if note.is_empty() => "held by an operator".to_owned(),
        HoldReason::Operator => format!("held by an operator: {note}"),
    };
    Held {
        reason,
        message,
        since,
    }
}
