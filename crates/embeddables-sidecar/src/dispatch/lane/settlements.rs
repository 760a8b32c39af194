//! The lane's way out: decisions are written together, and what could not be written is kept until it can.

use std::sync::Arc;
use std::time::Duration;

use embeddables_queue::{Disposition, OrderKey, SettleError, Settlement};
use tokio::time::Instant;

use super::Lane;
use crate::settle::InFlight;
use crate::settle::rules::Decision;

/// First and longest pause after the store refused a claim or a settlement.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// A lease that has ended, and whom it was about.
#[derive(Clone, Debug)]
pub(super) struct Concluded {
    settlement: Settlement,
    key: OrderKey,
}

/// Settlements that were offered to the store, and what it said.
pub(super) type Settled = (Vec<Concluded>, Result<(), SettleError>);

/// Whether the store takes writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreHealth {
    /// Pause before the next try; `None` while the store takes writes.
    pause: Option<Duration>,
    ready_at: Instant,
}

impl StoreHealth {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            pause: None,
            ready_at: now,
        }
    }

    /// Whether its last answer was a refusal.
    pub(super) fn is_bad(&self) -> bool {
        self.pause.is_some()
    }

    /// When the next write may be tried.
    pub(super) fn ready_at(&self) -> Instant {
        self.ready_at
    }
}

impl Lane {
    /// Ends a lease with a decision.
    pub(super) fn finish(&mut self, guard: InFlight, key: OrderKey, decision: Decision) {
        self.concluded.push(Concluded {
            settlement: guard.conclude(decision),
            key,
        });
    }

    /// Whether something is to be written that the store has not been offered.
    pub(super) fn owes_writes(&self) -> bool {
        (!self.concluded.is_empty() && self.settling.is_none())
            || (self.standing.is_dirty() && self.saving.is_none())
    }

    pub(super) fn start_settling(&mut self, now: Instant) {
        if self.settling.is_some() || self.concluded.is_empty() || now < self.health.ready_at() {
            return;
        }
        let batch = std::mem::take(&mut self.concluded);
        let settlements = batch
            .iter()
            .map(|concluded| concluded.settlement.clone())
            .collect();
        let store = Arc::clone(&self.store);
        self.settling = Some(Box::pin(async move {
            let result = store.settle(settlements).await;
            (batch, result)
        }));
    }

    pub(super) fn settled(&mut self, batch: Vec<Concluded>, result: Result<(), SettleError>) {
        self.settling = None;
        match result {
            Ok(()) => {
                self.store_answers();
                self.note_waits(&batch);
                self.unsettled = false;
                let ends = batch
                    .iter()
                    .map(|concluded| (concluded.key, concluded.settlement.sequence));
                self.let_go_later.extend(ends);
                if self.claiming.is_none() {
                    self.let_go_all();
                }
                self.feed
                    .announce(batch.iter().map(|concluded| concluded.settlement.sequence));
            }
            Err(error) => {
                // The leases are still open: the same settlements go first in the next call.
                self.store_refuses("outcomes could not be written", &error);
                self.unsettled = true;
                let newer = std::mem::replace(&mut self.concluded, batch);
                self.concluded.extend(newer);
            }
        }
    }

    /// Lets identifiers go whose ends are on disk. Not while a claim is under way: it may have been written before them.
    pub(super) fn let_go_all(&mut self) {
        for (key, sequence) in self.let_go_later.drain(..) {
            self.identifiers.let_go(key, sequence);
        }
    }

    /// Looks again when the earliest of what now waits is due.
    fn note_waits(&mut self, batch: &[Concluded]) {
        let waits = batch
            .iter()
            .filter_map(|concluded| match concluded.settlement.disposition {
                Disposition::Wait { until, .. } => Some(until),
                _ => None,
            });
        if let Some(earliest) = waits.min() {
            let now = Instant::now();
            self.look_no_later_than(Some(now + Self::until(earliest, self.clock.steady())));
            self.note_time(now);
        }
    }

    pub(super) fn store_answers(&mut self) {
        if self.health.pause.take().is_some() {
            tracing::info!(lane = self.settings.name.as_str(), "the store takes writes again");
        }
    }

    pub(super) fn store_refuses(&mut self, what: &str, error: &(dyn std::error::Error + 'static)) {
        let (first, longest) = RETRY;
        if !self.health.is_bad() {
            let lane = self.settings.name.as_str();
            tracing::error!(
                lane,
                error,
                "{what}: deliveries pause until the store takes writes"
            );
        }
        let pause = self.health.pause.map_or(first, |pause| (pause * 2).min(longest));
        self.health = StoreHealth {
            pause: Some(pause),
            ready_at: Instant::now() + pause,
        };
    }
}
