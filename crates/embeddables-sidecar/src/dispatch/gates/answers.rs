//! What the end of an attempt does to the gates.
//!
//! # Invariants
//! 1. An end is judged by what its attempt was begun with ([`Ticket`]), not by what a later one was.
//! 2. An answer moves the hold only where it was asked with the present key ([`Ticket::key`]).

use embeddables_core::{Attempt, Fate, Verdict};
use embeddables_queue::OrderKey;
use rand::Rng;
use tokio::time::Instant;

use super::Gates;
use super::breaker::Failure;
use crate::dispatch::board::HoldReason;

/// What an attempt was begun with; goes back with its end.
#[derive(Clone, Copy, Debug)]
pub(in crate::dispatch) struct Ticket {
    pub(super) begun: Instant,
    pub(super) key: u64,
    pub(super) repeat: bool,
    /// Number of the hold that it is a probe for.
    pub(super) probe: Option<u64>,
}

/// What an answer changed; the lane logs and keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatch) enum Change {
    /// The lane is held.
    Held(HoldReason),
    /// A hold was lifted.
    Lifted,
    /// The breaker opened.
    Opened,
    /// The breaker closed.
    Closed,
    /// Upstream asked for time.
    Paused,
}

impl Gates {
    /// Notes how an attempt ended.
    pub(in crate::dispatch) fn end(
        &mut self,
        ticket: Ticket,
        attempt: &Attempt,
        key: OrderKey,
        now: Instant,
        random: &mut impl Rng,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Verdict::Unavailable { retry_after } = attempt.verdict {
            self.failed(ticket, attempt, now, random, &mut changes);
            if let Some(time) = retry_after {
                self.pause.asked_for(time, now, random);
                changes.push(Change::Paused);
            }
        } else {
            self.pace.served(now);
            self.concurrency.served(ticket.begun, now);
            if ticket.repeat {
                self.budget.refund();
            }
            if self.breaker.served(ticket.begun, now) {
                self.resume(now, random);
                changes.push(Change::Closed);
            }
        }
        if ticket.key == self.key {
            changes.extend(self.judge(ticket, &attempt.verdict, key, now, random));
        } else if let Some(number) = ticket.probe {
            // Asked with a key that is not in force any more: it says nothing of the present one.
            self.hold.probe_missed(number, now, random);
        }
        changes
    }

    fn failed(
        &mut self,
        ticket: Ticket,
        attempt: &Attempt,
        now: Instant,
        random: &mut impl Rng,
        changes: &mut Vec<Change>,
    ) {
        // While the pace is being found, one 429 after the other says the same.
        if attempt.http_status != Some(429) || self.pace.throttled(now) {
            self.concurrency.congested(ticket.begun, now);
        }
        let failure = Failure {
            at_once: self.settings.ambiguous_is_final && attempt.fate == Fate::Ambiguous,
            unreached: attempt.fate == Fate::NotSent,
        };
        let opened = self.breaker.failed(ticket.begun, failure, now, random);
        if opened {
            changes.push(Change::Opened);
        }
    }

    /// What an answer asked with the present key says of the lane.
    fn judge(
        &mut self,
        ticket: Ticket,
        verdict: &Verdict,
        key: OrderKey,
        now: Instant,
        random: &mut impl Rng,
    ) -> Option<Change> {
        let reason = self.hold.answered(verdict, key);
        if self.hold.held().is_none() {
            return reason.map(Change::Held);
        }
        let lifts = |number| self.hold.probe_ended(number, verdict, now, random);
        if ticket.probe.is_some_and(lifts) {
            self.resume(now, random);
            return Some(Change::Lifted);
        }
        None
    }
}
