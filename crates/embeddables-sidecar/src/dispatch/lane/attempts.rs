//! The lane's middle: a lease becomes an attempt, an attempt a decision.

use std::sync::Arc;
use std::time::Duration;

use embeddables_core::{Attempt, Verdict};
use embeddables_queue::{Disposition, Gate, Lease, OrderKey, Sequence, UnixMillis};
use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;
use tokio::time::Instant;
use tower::{Service as _, ServiceExt as _};

use super::{Lane, Stop};
use crate::deliver::Parcel;
use crate::dispatch::gates::{Passage, Ticket};
use crate::enqueue::codec::{self, Stored};
use crate::settle::InFlight;
use crate::settle::progress::Progress;
use crate::settle::rules::{self, Ambiguity, Decision, Facts};

/// An event that was claimed and not sent yet.
pub(super) struct Ready {
    pub(super) guard: InFlight,
    lease: Lease,
    progress: Progress,
    since: Instant,
}

impl Ready {
    /// Whether it is a try after one that failed.
    pub(super) fn is_repeat(&self) -> bool {
        self.progress.backoff_step > 0
    }
}

/// An event whose attempt is under way.
pub(super) struct Flight {
    pub(super) guard: InFlight,
    progress: Progress,
    key: OrderKey,
    ticket: Ticket,
    age_at_claim: Duration,
    /// Time that the lane had been held when the attempt began.
    held_before: Duration,
    deliver_before: Option<UnixMillis>,
    claimed: Instant,
    start: UnixMillis,
}

/// An attempt that has ended.
pub(super) struct Ended {
    sequence: Sequence,
    attempt: Attempt,
}

impl Lane {
    /// Takes in a lease: it waits for its turn, or goes back at once where it must not be tried.
    pub(super) fn receive(&mut self, lease: Lease, now: Instant) {
        let ready = Ready {
            guard: InFlight::new(&lease, self.settings.lost.clone()),
            progress: self.progress_of(&lease),
            lease,
            since: now,
        };
        let (key, sequence) = (ready.lease.order_key, ready.lease.sequence);
        let is_final = ready.lease.interrupted && self.settings.policy.ambiguity == Ambiguity::DeadLetter;
        if ready.lease.behind || is_final {
            self.identifiers.line_up(key, sequence);
            self.begin(ready, now);
        } else if self.identifiers.take_up(key, sequence).is_err() {
            // Not later: whether it is behind another is known now, and may not be known any more then.
            self.begin(ready, now);
        } else {
            self.ready.push_back(ready);
        }
    }

    /// Sends what is ready, as much as the gates allow; gives it back where one has closed. Returns when to try again; `None`: when
    /// something happens.
    pub(super) fn start_sending(&mut self, now: Instant) -> Option<Instant> {
        while !self.ready.is_empty() && !self.unsettled {
            if self.stopping >= Stop::Finish || matches!(self.gates.passage(now), Passage::Closed(_)) {
                self.give_back_all();
                return None;
            }
            let (room, until) = self.gates.send_room(self.in_flight.len(), now);
            if room == 0 {
                return until;
            }
            for _ in 0..room {
                if let Some(ready) = self.ready.pop_front() {
                    self.begin(ready, now);
                }
            }
        }
        None
    }

    fn give_back_all(&mut self) {
        for Ready {
            guard,
            lease,
            progress,
            ..
        } in std::mem::take(&mut self.ready)
        {
            let facts = self.facts(lease.age, None);
            let decision = rules::give_back(facts, &progress, &self.settings.policy);
            self.finish(guard, lease.order_key, decision);
        }
    }

    /// Starts the attempt of an event, or ends its lease where nothing may be sent.
    fn begin(&mut self, ready: Ready, now: Instant) {
        let Ready {
            guard,
            mut lease,
            mut progress,
            since,
        } = ready;
        lease.age += now.saturating_duration_since(since);
        let policy = Arc::clone(&self.settings.policy);
        let stored = match codec::decode(&lease.payload) {
            Ok(stored) => stored,
            Err(error) => {
                let disposition = rules::unreadable(&error, self.facts(lease.age, None), &mut progress);
                self.give_up(guard, lease.order_key, disposition, &progress);
                return;
            }
        };
        // An operator who replays an event means it to be sent.
        let deliver_before = stored.deliver_before.filter(|_| progress.replay_count == 0);
        let facts = self.facts(lease.age, deliver_before);
        let final_before_sent = if deliver_before.is_some_and(|limit| limit <= facts.wall) {
            Some(rules::deliver_before_passed(facts, &mut progress))
        } else if lease.interrupted {
            rules::interrupted(facts, &mut progress, &policy)
        } else {
            None
        };
        if let Some(disposition) = final_before_sent {
            self.give_up(guard, lease.order_key, disposition, &progress);
        } else if lease.behind {
            let decision = self.follow(None, lease.order_key, facts, &mut progress);
            self.finish(guard, lease.order_key, decision);
        } else if let Err(occupied) = self.identifiers.take_up(lease.order_key, lease.sequence) {
            let decision = self.follow(occupied.by, lease.order_key, facts, &mut progress);
            self.finish(guard, lease.order_key, decision);
        } else {
            self.send(&lease, stored, deliver_before, guard, progress, now);
        }
    }

    fn follow(
        &self,
        head: Option<Sequence>,
        key: OrderKey,
        facts: Facts,
        progress: &mut Progress,
    ) -> Decision {
        let is_unknown = self.identifiers.is_unknown(key);
        rules::follow(head, is_unknown, facts, progress, &self.settings.policy)
    }

    /// What is noted of a lease, with the attempt that a process cut when it ended.
    pub(super) fn progress_of(&self, lease: &Lease) -> Progress {
        let mut progress = Progress::decode_bytes(&lease.progress).unwrap_or_else(|error| {
            let (lane, sequence) = (self.settings.name.as_str(), lease.sequence.0);
            tracing::error!(lane, sequence, %error, "what is noted of an event cannot be read: it counts as never tried");
            Progress::default()
        });
        if lease.interrupted {
            progress.note_interruption(lease.accept_time);
        }
        progress
    }

    fn send(
        &mut self,
        lease: &Lease,
        stored: Stored,
        deliver_before: Option<UnixMillis>,
        guard: InFlight,
        progress: Progress,
        now: Instant,
    ) {
        let sequence = lease.sequence;
        let is_repeat = progress.backoff_step > 0;
        let flight = Flight {
            guard,
            key: lease.order_key,
            ticket: self.gates.begin(is_repeat, self.in_flight.len() + 1, now),
            progress,
            age_at_claim: lease.age,
            held_before: self.gates.held_time(now),
            deliver_before,
            claimed: now,
            start: self.clock.wall(),
        };
        let parcel = Parcel {
            event: Arc::new(stored.event),
            endpoint: Arc::clone(&self.standing.endpoint),
        };
        let mut deliver = self.deliver.clone();
        self.in_flight.insert(sequence, flight);
        self.attempts.push(Box::pin(async move {
            let ready = deliver.ready().await;
            let attempt = match ready {
                Ok(service) => service.call(parcel).await,
                Err(never) => match never {},
            };
            let Ok(attempt) = attempt;
            Ended { sequence, attempt }
        }));
    }

    /// Takes in an attempt that has ended, and all others that have.
    pub(super) fn conclude_all(&mut self, first: Ended) {
        self.conclude(first);
        while let Some(Some(ended)) = self.attempts.next().now_or_never() {
            self.conclude(ended);
        }
    }

    fn conclude(&mut self, Ended { sequence, attempt }: Ended) {
        let Some(mut flight) = self.in_flight.remove(&sequence) else {
            unreachable!("an attempt ended that was never begun");
        };
        let now = Instant::now();
        let duration = now.saturating_duration_since(flight.claimed);
        flight.progress.note_attempt(flight.start, duration, &attempt);
        // A hold that began meanwhile costs no age.
        let held = self.gates.held_time(now).saturating_sub(flight.held_before);
        let age = flight.age_at_claim + duration.saturating_sub(held);
        let facts = Facts {
            succeeds_unknown: self.identifiers.is_given_up(flight.key),
            ..self.facts(age, flight.deliver_before)
        };
        let policy = Arc::clone(&self.settings.policy);
        let decision = rules::decide(&attempt, facts, &mut flight.progress, &policy, &mut self.random);
        let changes = self
            .gates
            .end(flight.ticket, &attempt, flight.key, now, &mut self.random);
        self.stand(&changes, now);
        match attempt.verdict {
            Verdict::Delivered(_) => self.identifiers.learn(flight.key, true),
            Verdict::EntryNotFound => self.identifiers.learn(flight.key, false),
            _ => {}
        }
        if flight.progress.reason == rules::reason::ENTRY_NOT_FOUND
            && matches!(decision.disposition, Disposition::DeadLetter { .. })
        {
            self.identifiers.give_up(flight.key);
        }
        self.log(sequence, &decision.disposition, &flight.progress);
        self.finish(flight.guard, flight.key, decision);
    }

    /// Ends a lease that is given up without being sent.
    pub(super) fn give_up(
        &mut self,
        guard: InFlight,
        key: OrderKey,
        disposition: Disposition,
        progress: &Progress,
    ) {
        self.log(guard.sequence(), &disposition, progress);
        let decision = Decision {
            disposition,
            gate: Gate::Pass,
        };
        self.finish(guard, key, decision);
    }

    fn log(&self, sequence: Sequence, disposition: &Disposition, progress: &Progress) {
        let (lane, attempt, status) = (
            self.settings.name.as_str(),
            progress.attempt_count,
            progress.http_status,
        );
        let (sequence, reason) = (sequence.0, progress.reason.as_str());
        match disposition {
            Disposition::Delivered { .. } | Disposition::Release => {}
            Disposition::Wait { .. } => {
                tracing::debug!(lane, sequence, attempt, status, reason, "event waits")
            }
            Disposition::DeadLetter { .. } => {
                tracing::warn!(lane, sequence, attempt, status, reason, "event dead-lettered");
            }
        }
    }

    pub(super) fn facts(&self, age: Duration, deliver_before: Option<UnixMillis>) -> Facts {
        Facts {
            age,
            deliver_before,
            succeeds_unknown: false,
            wall: self.clock.wall(),
            steady: self.clock.steady(),
        }
    }
}
