//! One lane's loop: claim, try, decide, settle; all at once, none waiting for another.
//!
//! # Invariants
//! 1. An event is sent only while every gate is open. What was claimed ahead is given back untouched when one closes.
//! 2. Every lease ends in one settlement, or is left open on purpose when the process ends.
//! 3. While settlements cannot be written nothing is claimed and nothing sent.
//! 4. A lane's state is changed here alone; what others are told of it is on disk.

mod attempts;
mod claims;
mod settlements;
mod standing;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use embeddables_client::Endpoint;
use embeddables_queue::{ClaimError, Claimed, LaneName, OrderKey, Sequence, SettleError, Store, UnixMillis};
use foldhash::HashMap;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use prometheus_client::metrics::counter::Counter;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tokio::time::Instant;

use self::attempts::{Ended, Flight, Ready};
use self::settlements::{Concluded, Settled, StoreHealth};
use self::standing::Standing;
use super::Pulse;
use super::board::LanePost;
use super::gates::{GateSettings, Gates};
use super::identifiers::Identifiers;
use crate::clock::Clock;
use crate::deliver::Deliver;
use crate::settle::rules::Policy;
use crate::settle::{Feed, InFlight};

/// Longest sleep until a due time: after it the lane looks again, so that no mistake of a clock can stall it for longer.
pub const MAX_SLEEP: Duration = Duration::from_secs(30);

/// How a lane is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Go on.
    Run,
    /// Go on until nothing is left: on a volume that goes with the pod.
    Drain,
    /// Claim nothing more; finish what is in flight.
    Finish,
    /// End now; leases stay open on disk.
    Abandon,
}

/// What a lane is set to.
#[derive(Clone, Debug)]
pub struct LaneSettings {
    /// Its name in the queue.
    pub name: LaneName,
    /// What its gates are set to.
    pub gates: GateSettings,
    /// What becomes of its events.
    pub policy: Arc<Policy>,
    /// Most events of one claim.
    pub max_batch: NonZeroUsize,
    /// Longest wait of a due event for others to share its claim.
    pub linger: Duration,
    /// Percent of the lane that newly accepted events get while there is a backlog.
    pub live_percent: u8,
    /// Its sign of life.
    pub pulse: Pulse,
    /// `events_lost_total`: events dropped between rooms, which must stay zero.
    pub lost: Counter,
}

/// What a lane works with.
pub struct LaneParts {
    /// Where its events are kept.
    pub store: Arc<dyn Store>,
    /// Makes attempts.
    pub deliver: Deliver,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Told of settlements.
    pub feed: Arc<Feed>,
    /// Address and key, also as they change.
    pub endpoint: watch::Receiver<Arc<Endpoint>>,
    /// Its end of the board.
    pub post: LanePost,
    /// Decides its jitter.
    pub seed: u64,
}

/// One lane. [`Lane::run`] is its life.
pub struct Lane {
    settings: LaneSettings,
    store: Arc<dyn Store>,
    deliver: Deliver,
    clock: Arc<dyn Clock>,
    feed: Arc<Feed>,
    endpoint: watch::Receiver<Arc<Endpoint>>,
    post: LanePost,
    random: SmallRng,
    stopping: Stop,

    gates: Gates,
    identifiers: Identifiers,
    standing: Standing,

    /// Claimed ahead, in the order in which they are sent.
    ready: VecDeque<Ready>,
    attempts: FuturesUnordered<BoxFuture<'static, Ended>>,
    in_flight: HashMap<Sequence, Flight>,

    claiming: Option<BoxFuture<'static, Result<Claimed, ClaimError>>>,
    /// When to look for due records again; `None`: when some are added.
    look_at: Option<Instant>,
    expiring: Option<BoxFuture<'static, Result<Claimed, ClaimError>>>,
    /// When to look for passed deadlines again; `None`: when some records are added.
    expire_at: Option<Instant>,

    concluded: Vec<Concluded>,
    settling: Option<BoxFuture<'static, Settled>>,
    /// Whether the last settlements were refused: nothing is claimed and nothing sent until they are on disk.
    unsettled: bool,
    /// Ends that are on disk while a claim is under way that may not know of them.
    let_go_later: Vec<(OrderKey, Sequence)>,
    saving: Option<BoxFuture<'static, Result<(), SettleError>>>,
    health: StoreHealth,
}

impl Lane {
    /// Makes a lane that goes on as its former life left it.
    pub fn new(settings: LaneSettings, parts: LaneParts) -> Self {
        let now = Instant::now();
        let standing = Standing::new(Arc::clone(&parts.endpoint.borrow()));
        let mut lane = Self {
            gates: Gates::new(settings.gates, now),
            identifiers: Identifiers::new(settings.policy.ordered),
            standing,
            store: parts.store,
            deliver: parts.deliver,
            clock: parts.clock,
            feed: parts.feed,
            endpoint: parts.endpoint,
            post: parts.post,
            random: SmallRng::seed_from_u64(parts.seed),
            stopping: Stop::Run,
            ready: VecDeque::new(),
            attempts: FuturesUnordered::new(),
            in_flight: HashMap::default(),
            claiming: None,
            look_at: Some(now),
            expiring: None,
            expire_at: Some(now),
            concluded: Vec::new(),
            settling: None,
            unsettled: false,
            let_go_later: Vec::new(),
            saving: None,
            health: StoreHealth::new(now),
            settings,
        };
        lane.restore(now);
        lane.show(now);
        lane
    }

    /// Runs until stopped. Returns how many leases it had to leave open.
    ///
    /// # Cancel safety
    /// Dropping the future leaves leases open, as a kill would; use [`Stop::Abandon`].
    pub async fn run(mut self, mut stop: watch::Receiver<Stop>) -> usize {
        let lane_ready = self.store.lane_ready(&self.settings.name);
        loop {
            self.settings.pulse.beat(self.clock.steady());
            self.stopping = *stop.borrow_and_update();
            if self.stopping == Stop::Abandon {
                return self.abandon();
            }
            let now = Instant::now();
            let send_at = self.start_sending(now);
            self.start_settling(now);
            self.start_saving(now);
            self.start_expiring(now);
            let claim_at = self.start_claiming(now);
            self.show(now);
            if self.is_done() {
                return 0;
            }
            let wake_at = self.wake_at([claim_at, send_at], now);
            // In this order, so that a simulation does the same each time; none of the first ones can be ready for ever.
            tokio::select! {
                biased;
                changed = stop.changed() => if changed.is_err() {
                    // Nobody is left who could ask for an orderly end.
                    return self.abandon();
                },
                Some(command) = self.post.commands.recv() => self.obey(command),
                Ok(()) = self.endpoint.changed() => self.rekey(),
                Some((batch, result)) = OptionFuture::from(self.settling.as_mut()) => self.settled(batch, result),
                Some(result) = OptionFuture::from(self.saving.as_mut()) => self.saved(result),
                Some(result) = OptionFuture::from(self.expiring.as_mut()) => self.expired(result),
                Some(result) = OptionFuture::from(self.claiming.as_mut()) => self.claimed(result),
                () = lane_ready.notified() => self.notice_arrivals(),
                Some(ended) = self.attempts.next(), if !self.attempts.is_empty() => self.conclude_all(ended),
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Whether an orderly stop has nothing left to do.
    fn is_done(&self) -> bool {
        let idle = self.in_flight.is_empty()
            && self.ready.is_empty()
            && self.concluded.is_empty()
            && self.settling.is_none()
            && self.saving.is_none()
            && !self.standing.is_dirty()
            && self.claiming.is_none()
            && self.expiring.is_none();
        match self.stopping {
            Stop::Run | Stop::Abandon => false,
            // What waits may become due within the grace.
            Stop::Drain => idle && self.look_at.is_none(),
            Stop::Finish => idle,
        }
    }

    /// When to go round the loop although nothing happened.
    fn wake_at(&self, work_at: [Option<Instant>; 2], now: Instant) -> Instant {
        let settle_at = self.owes_writes().then(|| self.health.ready_at());
        let expire_at = self
            .expire_at
            .filter(|_| self.expiring.is_none() && self.stopping < Stop::Finish && !self.unsettled)
            .map(|at| at.max(self.health.ready_at()));
        work_at
            .into_iter()
            .chain([settle_at, expire_at])
            .flatten()
            .fold(now + MAX_SLEEP, Instant::min)
    }

    /// Time until a moment of one of the wall's or the steady clock, at most [`MAX_SLEEP`].
    fn until(moment: UnixMillis, clock: UnixMillis) -> Duration {
        let millis = moment.0.saturating_sub(clock.0);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0)).min(MAX_SLEEP)
    }

    fn abandon(self) -> usize {
        let count = self.in_flight.len() + self.ready.len() + self.concluded.len();
        let in_flight = self.in_flight.into_values().map(|flight| flight.guard);
        let ready = self.ready.into_iter().map(|ready| ready.guard);
        in_flight.chain(ready).for_each(InFlight::leave_open);
        count
    }
}

#[cfg(test)]
mod tests;
