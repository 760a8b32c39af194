//! One lane's loop: claim, try, decide, settle; all four at once, none waiting for another.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use embeddables_client::Endpoint;
use embeddables_core::Attempt;
use embeddables_queue::{
    ClaimError, Claimed, Disposition, LaneName, Lease, Sequence, SettleError, Settlement, Store, UnixMillis,
};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use prometheus_client::metrics::counter::Counter;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::{Service as _, ServiceExt as _};

use super::Pulse;
use super::schedule::Schedule;
use crate::clock::Clock;
use crate::deliver::{Deliver, Parcel};
use crate::enqueue::codec::{self, Stored};
use crate::settle::progress::Progress;
use crate::settle::rules::{self, Facts};
use crate::settle::{Feed, InFlight};

/// Most records of one claim: small enough that one lane does not hold the writer for long.
const MAX_CLAIM: usize = 128;

/// Longest sleep until a due time: after it the lane looks again, so that no mistake of a clock can stall it for longer.
pub const MAX_SLEEP: Duration = Duration::from_secs(30);

/// First and longest pause after the store refused a claim or a settlement.
const STORE_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How a lane is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Go on.
    Run,
    /// Claim all that is due, then finish: on a volume that goes with the pod.
    Drain,
    /// Claim nothing more; finish what is in flight.
    Finish,
    /// End now; leases stay open on disk.
    Abandon,
}

/// What a lane is made of.
#[derive(Clone, Debug)]
pub struct LaneSettings {
    /// Its name in the queue.
    pub name: LaneName,
    /// Where it sends to.
    pub endpoint: Arc<Endpoint>,
    /// Most attempts under way at once.
    pub max_in_flight: NonZeroUsize,
    /// When events are tried again.
    pub schedule: Arc<Schedule>,
    /// Its sign of life.
    pub pulse: Pulse,
    /// `events_lost_total`: events dropped between rooms, which must stay zero.
    pub lost: Counter,
}

/// One lane. [`Lane::run`] is its life.
pub struct Lane {
    settings: LaneSettings,
    store: Arc<dyn Store>,
    deliver: Deliver,
    clock: Arc<dyn Clock>,
    feed: Arc<Feed>,
    random: SmallRng,
    attempts: FuturesUnordered<BoxFuture<'static, Ended>>,
    in_flight: HashMap<Sequence, Flight>,
    concluded: Vec<Settlement>,
    settling: Option<BoxFuture<'static, Settled>>,
    claiming: Option<BoxFuture<'static, Result<Claimed, ClaimError>>>,
    /// When to look for due records again; `None`: when some are added.
    look_at: Option<Instant>,
    store_retry: Option<Duration>,
    store_ready_at: Instant,
}

/// An event whose attempt is under way.
struct Flight {
    guard: InFlight,
    progress: Progress,
    age_at_claim: Duration,
    deliver_before: Option<UnixMillis>,
    claimed: Instant,
    start: UnixMillis,
}

/// Settlements that were offered to the store, and what it said.
type Settled = (Vec<Settlement>, Result<(), SettleError>);

/// An attempt that has ended.
struct Ended {
    sequence: Sequence,
    attempt: Attempt,
}

impl Lane {
    /// Makes a lane; `seed` decides its jitter.
    pub fn new(
        settings: LaneSettings,
        store: Arc<dyn Store>,
        deliver: Deliver,
        clock: Arc<dyn Clock>,
        feed: Arc<Feed>,
        seed: u64,
    ) -> Self {
        let now = Instant::now();
        Self {
            settings,
            store,
            deliver,
            clock,
            feed,
            random: SmallRng::seed_from_u64(seed),
            attempts: FuturesUnordered::new(),
            in_flight: HashMap::new(),
            concluded: Vec::new(),
            settling: None,
            claiming: None,
            look_at: Some(now),
            store_retry: None,
            store_ready_at: now,
        }
    }

    /// Runs until stopped. Returns how many leases it had to leave open.
    ///
    /// # Cancel safety
    /// Dropping the future leaves leases open, as a kill would; use [`Stop::Abandon`].
    pub async fn run(mut self, mut stop: watch::Receiver<Stop>) -> usize {
        let lane_ready = self.store.lane_ready(&self.settings.name);
        loop {
            self.settings.pulse.beat(self.clock.steady());
            let stopping = *stop.borrow_and_update();
            if stopping == Stop::Abandon {
                return self.abandon();
            }
            self.start_settling();
            self.start_claiming(stopping);
            if stopping >= Stop::Drain && self.is_done(stopping) {
                return 0;
            }
            let wake_at = self.wake_at();
            tokio::select! {
                Some(ended) = self.attempts.next(), if !self.attempts.is_empty() => self.conclude(ended),
                Some((batch, result)) = OptionFuture::from(self.settling.as_mut()) => self.settled(batch, result),
                Some(result) = OptionFuture::from(self.claiming.as_mut()) => self.claimed(result),
                () = lane_ready.notified() => self.look_at = Some(Instant::now()),
                () = tokio::time::sleep_until(wake_at), if self.claiming.is_none() => {}
                changed = stop.changed() => if changed.is_err() {
                    // Nobody is left who could ask for an orderly end.
                    return self.abandon();
                },
            }
        }
    }

    fn start_settling(&mut self) {
        if self.settling.is_some() || self.concluded.is_empty() || Instant::now() < self.store_ready_at {
            return;
        }
        let batch = std::mem::take(&mut self.concluded);
        let store = Arc::clone(&self.store);
        self.settling = Some(Box::pin(async move {
            let result = store.settle(batch.clone()).await;
            (batch, result)
        }));
    }

    fn start_claiming(&mut self, stopping: Stop) {
        let now = Instant::now();
        let due = self.look_at.is_some_and(|at| at <= now);
        let store_refuses =
            self.store_retry.is_some() && (now < self.store_ready_at || !self.concluded.is_empty());
        if self.claiming.is_some() || !due || stopping >= Stop::Finish || store_refuses {
            return;
        }
        let free = self
            .settings
            .max_in_flight
            .get()
            .saturating_sub(self.in_flight.len());
        let Some(max) = NonZeroUsize::new(free.min(MAX_CLAIM)) else {
            return;
        };
        let (store, lane, now) = (
            Arc::clone(&self.store),
            self.settings.name.clone(),
            self.clock.steady(),
        );
        self.look_at = None;
        let claim = embeddables_queue::Claim {
            lane,
            max,
            max_waiting: max.get(),
            live_percent: 0,
            now,
        };
        self.claiming = Some(Box::pin(async move { store.claim(claim).await }));
    }

    /// Whether an orderly stop has nothing left to do.
    fn is_done(&self, stopping: Stop) -> bool {
        let idle = self.in_flight.is_empty()
            && self.concluded.is_empty()
            && self.settling.is_none()
            && self.claiming.is_none();
        idle && (stopping == Stop::Finish || self.look_at.is_none_or(|at| at > Instant::now()))
    }

    /// When to go round the loop although nothing happened.
    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let latest = now + MAX_SLEEP;
        if !self.concluded.is_empty() && self.settling.is_none() {
            return self.store_ready_at.min(latest);
        }
        let can_claim = self.in_flight.len() < self.settings.max_in_flight.get();
        match self.look_at {
            Some(at) if can_claim => at.max(self.store_ready_at).min(latest),
            _ => latest,
        }
    }

    fn claimed(&mut self, result: Result<Claimed, ClaimError>) {
        self.claiming = None;
        match result {
            Ok(claimed) => {
                self.store_answers();
                let look_at = if claimed.more {
                    Some(Instant::now())
                } else {
                    claimed.next_due.map(|due| Instant::now() + self.until(due))
                };
                // A notification during the claim asks for an earlier look.
                self.look_at = [self.look_at, look_at].into_iter().flatten().min();
                for lease in claimed.leases {
                    self.begin(lease);
                }
            }
            Err(error) => {
                self.store_refuses("no lease could be written", &error);
                self.look_at = Some(self.store_ready_at);
            }
        }
    }

    /// Time until a due time, at most [`MAX_SLEEP`].
    fn until(&self, due: UnixMillis) -> Duration {
        let millis = due.0.saturating_sub(self.clock.steady().0);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0)).min(MAX_SLEEP)
    }

    /// Starts the attempt of a lease, or ends it where nothing may be sent.
    fn begin(&mut self, lease: Lease) {
        let guard = InFlight::new(&lease, self.settings.lost.clone());
        let mut progress = Progress::default();
        let decoded = Progress::decode_bytes(&lease.progress)
            .map(|decoded| progress = decoded)
            .map_err(|error| Box::new(error) as Box<dyn std::error::Error>)
            .and_then(|()| Ok(codec::decode(&lease.payload)?));
        if lease.interrupted {
            progress.note_interruption(lease.accept_time);
        }
        let facts = self.facts(
            lease.age,
            decoded.as_ref().ok().and_then(|stored| stored.deliver_before),
        );
        let stored = match decoded {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(sequence = lease.sequence.0, %error, "a stored event cannot be read: dead-lettered");
                let disposition = rules::unreadable(&*error, facts, &mut progress);
                self.concluded.push(guard.conclude(disposition));
                return;
            }
        };
        if facts.deliver_before.is_some_and(|limit| limit <= facts.wall) {
            let disposition = rules::deliver_before_passed(facts, &mut progress);
            self.concluded.push(guard.conclude(disposition));
            return;
        }
        self.send(&lease, stored, guard, progress);
    }

    fn send(&mut self, lease: &Lease, stored: Stored, guard: InFlight, progress: Progress) {
        let sequence = lease.sequence;
        let flight = Flight {
            guard,
            progress,
            age_at_claim: lease.age,
            deliver_before: stored.deliver_before,
            claimed: Instant::now(),
            start: self.clock.wall(),
        };
        let parcel = Parcel {
            event: Arc::new(stored.event),
            endpoint: Arc::clone(&self.settings.endpoint),
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

    fn conclude(&mut self, Ended { sequence, attempt }: Ended) {
        let Some(mut flight) = self.in_flight.remove(&sequence) else {
            unreachable!("an attempt ended that was never begun");
        };
        let duration = flight.claimed.elapsed();
        flight.progress.note_attempt(flight.start, duration, &attempt);
        let facts = self.facts(flight.age_at_claim + duration, flight.deliver_before);
        let disposition = rules::decide(
            &attempt,
            facts,
            &mut flight.progress,
            &self.settings.schedule,
            &mut self.random,
        );
        self.log(sequence, &disposition, &flight.progress);
        self.concluded.push(flight.guard.conclude(disposition));
    }

    fn log(&self, sequence: Sequence, disposition: &Disposition, progress: &Progress) {
        let (lane, attempt, status) = (
            self.settings.name.as_str(),
            progress.attempt_count,
            progress.http_status,
        );
        match disposition {
            Disposition::Delivered { .. } | Disposition::Release => {}
            Disposition::Wait { .. } => {
                tracing::debug!(
                    lane,
                    sequence = sequence.0,
                    attempt,
                    status,
                    reason = progress.reason,
                    "event waits"
                );
            }
            Disposition::DeadLetter { .. } => {
                let reason = &progress.reason;
                tracing::warn!(
                    lane,
                    sequence = sequence.0,
                    attempt,
                    status,
                    reason,
                    "event dead-lettered"
                );
            }
        }
    }

    fn facts(&self, age: Duration, deliver_before: Option<UnixMillis>) -> Facts {
        Facts {
            age,
            deliver_before,
            wall: self.clock.wall(),
            steady: self.clock.steady(),
        }
    }

    fn settled(&mut self, batch: Vec<Settlement>, result: Result<(), SettleError>) {
        self.settling = None;
        match result {
            Ok(()) => {
                self.store_answers();
                self.note_waits(&batch);
                self.feed
                    .announce(batch.iter().map(|settlement| settlement.sequence));
            }
            Err(error) => {
                // The leases are still open: the same settlements go first in the next call.
                self.store_refuses("outcomes could not be written", &error);
                let newer = std::mem::replace(&mut self.concluded, batch);
                self.concluded.extend(newer);
            }
        }
    }

    /// Looks again when the earliest of what now waits is due.
    fn note_waits(&mut self, batch: &[Settlement]) {
        let waits = batch
            .iter()
            .filter_map(|settlement| match settlement.disposition {
                Disposition::Wait { until, .. } => Some(until),
                _ => None,
            });
        if let Some(earliest) = waits.min() {
            let at = Instant::now() + self.until(earliest);
            self.look_at = Some(self.look_at.map_or(at, |look_at| look_at.min(at)));
        }
    }

    fn store_answers(&mut self) {
        if self.store_retry.take().is_some() {
            tracing::info!(lane = self.settings.name.as_str(), "the store takes writes again");
        }
    }

    fn store_refuses(&mut self, what: &str, error: &(dyn std::error::Error + 'static)) {
        let (first, longest) = STORE_RETRY;
        if self.store_retry.is_none() {
            let lane = self.settings.name.as_str();
            tracing::error!(
                lane,
                error,
                "{what}: deliveries pause until the store takes writes"
            );
        }
        let pause = self.store_retry.map_or(first, |pause| (pause * 2).min(longest));
        self.store_retry = Some(pause);
        self.store_ready_at = Instant::now() + pause;
    }

    fn abandon(self) -> usize {
        let count = self.in_flight.len() + self.concluded.len();
        for flight in self.in_flight.into_values() {
            flight.guard.leave_open();
        }
        count
    }
}

#[cfg(test)]
mod tests;
