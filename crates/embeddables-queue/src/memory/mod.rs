//! The backend in memory: the same promises as the embedded one but for durability. For tests and simulations: it does no I/O,
//! spawns nothing, and does the same for the same calls.
//!
//! # Invariants
//! Those of the crate, and:
//! 1. Each call is one commit, in the order of the calls.
//! 2. [`MemoryQueue::reopened`] knows what a store opened again after a kill would know: no more and no less.
//! 3. No result depends on the order of a hash map.

mod claim;
mod gates;
mod model;
mod settle;
mod view;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use self::model::Model;
use crate::clock::{MonotonicClock, RunningClock};
use crate::{
    Append, AppendError, Appended, Backlog, Books, Capacity, Claim, ClaimError, Claimed, DeadLetter,
    DeadLetters, Durability, Entry, LaneName, LaneState, Ledger, Outcome, Queue, ReadError, Refused,
    Sequence, SettleError, Settlement, TakeAs, UnixMillis,
};

/// How to make a queue in memory.
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    /// The closed set of lanes. Lanes of a queue opened again that are not among them keep their records and take no part.
    pub lanes: Vec<LaneName>,
    /// Most bytes of records and dead letters, each with [`RECORD_OVERHEAD_BYTES`](crate::RECORD_OVERHEAD_BYTES). Default: 1 GiB.
    pub max_bytes: u64,
    /// Most bytes of one lane's records and dead letters, counted like `max_bytes`. Default: no bound but `max_bytes`.
    pub lane_share_bytes: u64,
    /// Bytes of one lane's dead letters from which on it takes nothing new. Default: no bound but `max_bytes`.
    pub dead_letter_share_bytes: u64,
    /// How long the id of a settled record is remembered, in running time. Default: 24 h.
    pub dedupe_window: Duration,
    /// How many outcomes are remembered at most. Default: 1,000,000.
    pub dedupe_ids: u64,
    /// Key for fingerprints. Default: zeros, so that runs can be repeated.
    pub secret: [u8; 32],
    /// Source of running time. Default: the machine's monotonic clock.
    pub clock: Arc<dyn RunningClock>,
}

impl MemoryConfig {
    /// A configuration with every default.
    pub fn new(lanes: Vec<LaneName>) -> Self {
        Self {
            lanes,
            max_bytes: 1 << 30,
            lane_share_bytes: u64::MAX,
            dead_letter_share_bytes: u64::MAX,
            dedupe_window: Duration::from_hours(24),
            dedupe_ids: 1_000_000,
            secret: [0; 32],
            clock: Arc::new(MonotonicClock::start()),
        }
    }
}

/// A queue in memory: gone with the process.
#[derive(Debug)]
pub struct MemoryQueue {
    model: Mutex<Model>,
    ready: BTreeMap<LaneName, Arc<Notify>>,
    no_lane: Arc<Notify>,
    newest_outcome: watch::Sender<u64>,
    max_bytes: u64,
    secret: [u8; 32],
}

impl MemoryQueue {
    /// An empty queue.
    pub fn new(config: MemoryConfig) -> Self {
        Self::of(Model::new(config))
    }

    /// Ends it as a kill would: from now on every call is answered `Closed`, and its running time stands.
    pub fn kill(&self) {
        self.model().close();
    }

    /// A new queue with everything that was committed, as a store opened again after a kill has it: leases that had a mark on
    /// disk are interrupted, other leases never were. Running time goes on by the clock of `config` from where it stood when this
    /// one was killed or closed, which happens now where it had not been before. The secret stays.
    pub fn reopened(&self, config: MemoryConfig) -> Self {
        let mut model = self.model();
        model.close();
        let config = MemoryConfig {
            secret: self.secret,
            ..config
        };
        Self::of(model.reopened(config))
    }

    fn of(model: Model) -> Self {
        Self {
            ready: model
                .lane_names()
                .map(|lane| (lane.clone(), Arc::new(Notify::new())))
                .collect(),
            no_lane: Arc::new(Notify::new()),
            newest_outcome: watch::Sender::new(model.newest_outcome()),
            max_bytes: model.config.max_bytes,
            secret: model.config.secret,
            model: Mutex::new(model),
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model, unless closed.
    fn open_model(&self) -> Option<MutexGuard<'_, Model>> {
        Some(self.model()).filter(|model| !model.is_closed())
    }

    /// Ends a call that may have changed something: forgets old ids and tells whoever waits.
    fn commit(&self, mut model: MutexGuard<'_, Model>) {
        model.evict();
        let woken = std::mem::take(&mut model.woken);
        let newest = model.newest_outcome();
        drop(model);
        for lane in woken {
            if let Some(ready) = self.ready.get(&lane) {
                ready.notify_one();
            }
        }
        self.newest_outcome.send_if_modified(|known| {
            let is_newer = newest > *known;
            *known = newest.max(*known);
            is_newer
        });
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn append(&self, append: Append) -> Result<Vec<Result<Appended, Refused>>, AppendError> {
        if append.durability > Durability::Memory {
            return Err(AppendError::DurabilityNotOnOffer);
        }
        let mut model = self.open_model().ok_or(AppendError::Closed)?;
        let results = model.append(&append);
        self.commit(model);
        Ok(results)
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, ClaimError> {
        Ok(self.open_model().ok_or(ClaimError::Closed)?.claim(&claim))
    }

    async fn claim_expired(
        &self,
        lane: &LaneName,
        max: NonZeroUsize,
        wall: UnixMillis,
    ) -> Result<Claimed, ClaimError> {
        Ok(self
            .open_model()
            .ok_or(ClaimError::Closed)?
            .claim_expired(lane, max.get(), wall))
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), SettleError> {
        let mut model = self.open_model().ok_or(SettleError::Closed)?;
        for settlement in settlements {
            model.settle(settlement);
        }
        self.commit(model);
        Ok(())
    }

    async fn write_lane_state(&self, lane: &LaneName, state: LaneState) -> Result<(), SettleError> {
        let mut model = self.open_model().ok_or(SettleError::Closed)?;
        if model.write_lane_state(lane, state) {
            Ok(())
        } else {
            Err(SettleError::Write("no such lane".into()))
        }
    }

    fn lane_ready(&self, lane: &LaneName) -> Arc<Notify> {
        Arc::clone(self.ready.get(lane).unwrap_or(&self.no_lane))
    }

    async fn ping(&self) -> Result<(), ReadError> {
        self.open_model().map(|_| ()).ok_or(ReadError::Closed)
    }

    fn durabilities(&self) -> &[Durability] {
        &[Durability::Memory]
    }

    fn capacity(&self) -> Capacity {
        Capacity {
            used_bytes: self.model().used_bytes(),
            max_bytes: self.max_bytes,
        }
    }

    async fn close(&self) {
        self.model().close();
    }
}

#[async_trait]
impl Ledger for MemoryQueue {
    async fn find(&self, lane: &LaneName, id: &str) -> Result<Option<Entry>, ReadError> {
        Ok(self.open_model().ok_or(ReadError::Closed)?.find(lane, id))
    }

    async fn outcomes(&self, after: u64, limit: usize) -> Result<Vec<Outcome>, ReadError> {
        Ok(self.open_model().ok_or(ReadError::Closed)?.outcomes(after, limit))
    }

    fn books(&self) -> Books {
        self.model().books()
    }

    fn lane_state(&self, lane: &LaneName) -> LaneState {
        self.model().lane_state(lane)
    }

    fn newest_outcome(&self) -> watch::Receiver<u64> {
        self.newest_outcome.subscribe()
    }

    async fn backlog(&self, lane: &LaneName, up_to: Sequence) -> Result<Backlog, ReadError> {
        Ok(self.open_model().ok_or(ReadError::Closed)?.backlog(lane, up_to))
    }

    async fn oldest(&self) -> Result<Vec<(LaneName, UnixMillis)>, ReadError> {
        Ok(self.open_model().ok_or(ReadError::Closed)?.oldest())
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }
}

#[async_trait]
impl DeadLetters for MemoryQueue {
    async fn list(
        &self,
        lane: Option<&LaneName>,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ReadError> {
        Ok(self
            .open_model()
            .ok_or(ReadError::Closed)?
            .dead_letters(lane, after, limit))
    }

    async fn take(&self, sequences: &[Sequence], take_as: TakeAs) -> Result<usize, SettleError> {
        let mut model = self.open_model().ok_or(SettleError::Closed)?;
        let distinct: std::collections::BTreeSet<Sequence> = sequences.iter().copied().collect();
        let taken = distinct
            .into_iter()
            .filter(|sequence| model.take(*sequence, &take_as))
            .count();
        self.commit(model);
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_defaults_are_the_real_ones() {
        let config = MemoryConfig::new(Vec::new());
        assert_eq!(config.max_bytes, 1024 * 1024 * 1024);
        assert_eq!(
            (config.lane_share_bytes, config.dead_letter_share_bytes),
            (u64::MAX, u64::MAX)
        );
        assert_eq!(config.dedupe_window, Duration::from_secs(86_400));
        assert_eq!(config.dedupe_ids, 1_000_000);
    }
}
