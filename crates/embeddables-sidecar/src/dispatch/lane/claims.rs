//! The lane's way in: what is claimed, and when.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use embeddables_queue::{Claim, ClaimError, Claimed};
use tokio::time::Instant;

use super::{Lane, Stop};
use crate::settle::{InFlight, rules};

/// Most records of one claim of passed deadlines.
const MAX_EXPIRED: NonZeroUsize = NonZeroUsize::new(128).unwrap();

/// Shortest time between two looks for passed deadlines for the sake of new records.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(1);

impl Lane {
    /// Claims what is due, as much as the gates allow. Returns when to try again; `None`: when something happens.
    pub(super) fn start_claiming(&mut self, now: Instant) -> Option<Instant> {
        if self.claiming.is_some() || self.stopping >= Stop::Finish {
            return None;
        }
        let look_at = self.look_at?;
        if look_at > now {
            return Some(look_at);
        }
        if self.unsettled {
            return None;
        }
        if now < self.health.ready_at() {
            return Some(self.health.ready_at());
        }
        let repeats = self.ready.iter().filter(|ready| ready.is_repeat()).count();
        let room = match self
            .gates
            .claim_room(self.in_flight.len(), self.ready.len(), repeats, now)
        {
            Ok(room) => room,
            Err(until) => return until,
        };
        let claim = Claim {
            lane: self.settings.name.clone(),
            max: room.max.min(self.settings.max_batch),
            max_waiting: room.max_repeats,
            live_percent: if self.settings.policy.ordered {
                0
            } else {
                self.settings.live_percent
            },
            now: self.clock.steady(),
        };
        let store = Arc::clone(&self.store);
        self.look_at = None;
        self.claiming = Some(Box::pin(async move { store.claim(claim).await }));
        None
    }

    pub(super) fn claimed(&mut self, result: Result<Claimed, ClaimError>) {
        self.claiming = None;
        let now = Instant::now();
        match result {
            Ok(claimed) => {
                self.store_answers();
                let steady = self.clock.steady();
                let next_look = match claimed.next_due {
                    _ if claimed.more => Some(now),
                    // Due already: the budget for repeats kept it back.
                    Some(due) if due <= steady => Some(self.gates.next_repeat(now)),
                    Some(due) => Some(now + Self::until(due, steady)),
                    None => None,
                };
                self.look_no_later_than(next_look);
                let mut leases = claimed.leases;
                if self.settings.policy.ordered {
                    leases.sort_by_key(|lease| lease.sequence);
                }
                for lease in leases {
                    self.receive(lease, now);
                }
                self.let_go_all();
            }
            Err(error) => {
                self.let_go_all();
                self.store_refuses("no lease could be written", &error);
                self.look_no_later_than(Some(self.health.ready_at()));
            }
        }
    }

    /// Looks for due records at that time, unless an earlier look is meant already.
    pub(super) fn look_no_later_than(&mut self, at: Option<Instant>) {
        self.look_at = [self.look_at, at].into_iter().flatten().min();
    }

    /// Records were added or woken.
    pub(super) fn notice_arrivals(&mut self) {
        let now = Instant::now();
        self.look_no_later_than(Some(now + self.settings.linger));
        let at = now + EXPIRE_INTERVAL;
        self.expire_at = Some(self.expire_at.map_or(at, |known| known.min(at)));
    }

    /// Claims records whose `deliver_before` has passed, whatever the gates say: they are not to be sent.
    pub(super) fn start_expiring(&mut self, now: Instant) {
        let due = self.expire_at.is_some_and(|at| at <= now);
        if self.expiring.is_some()
            || !due
            || self.stopping >= Stop::Finish
            || self.unsettled
            || now < self.health.ready_at()
        {
            return;
        }
        let (store, lane, wall) = (
            Arc::clone(&self.store),
            self.settings.name.clone(),
            self.clock.wall(),
        );
        self.expire_at = None;
        self.expiring = Some(Box::pin(async move {
            store.claim_expired(&lane, MAX_EXPIRED, wall).await
        }));
    }

    pub(super) fn expired(&mut self, result: Result<Claimed, ClaimError>) {
        self.expiring = None;
        let now = Instant::now();
        let next = match result {
            Ok(claimed) => {
                let next = match claimed.next_due {
                    _ if claimed.more => Some(now),
                    Some(due) => Some(now + Self::until(due, self.clock.wall())),
                    None => None,
                };
                for lease in claimed.leases {
                    let guard = InFlight::new(&lease, self.settings.lost.clone());
                    let mut progress = self.progress_of(&lease);
                    let facts = self.facts(lease.age, None);
                    let disposition = rules::deliver_before_passed(facts, &mut progress);
                    self.give_up(guard, lease.order_key, disposition, &progress);
                }
                next
            }
            Err(error) => {
                self.store_refuses("passed deadlines could not be looked for", &error);
                Some(self.health.ready_at())
            }
        };
        self.expire_at = [self.expire_at, next].into_iter().flatten().min();
    }
}
