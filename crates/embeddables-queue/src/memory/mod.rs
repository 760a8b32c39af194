//! The backend in memory: the same promises as the embedded one but for durability. For tests and simulations: it does no I/O,
//! spawns nothing, and does the same for the same calls.

mod model;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use self::model::Model;
use crate::clock::{MonotonicClock, RunningClock};
use crate::{
    Append, AppendError, Appended, Books, Capacity, ClaimError, Claimed, DeadLetter, DeadLetters, Durability,
    Entry, LaneName, Ledger, Outcome, Queue, ReadError, Refused, Sequence, SettleError, Settlement, TakeAs,
    UnixMillis,
};

/// How to make a queue in memory.
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    /// The closed set of lanes.
    pub lanes: Vec<LaneName>,
    /// Most bytes of records and dead letters, each with [`RECORD_OVERHEAD_BYTES`](crate::RECORD_OVERHEAD_BYTES). Default: 1 GiB.
    pub max_bytes: u64,
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
    ready: HashMap<LaneName, Arc<Notify>>,
    no_lane: Arc<Notify>,
    max_bytes: u64,
    secret: [u8; 32],
}

impl MemoryQueue {
    /// An empty queue.
    pub fn new(config: MemoryConfig) -> Self {
        let ready = config
            .lanes
            .iter()
            .map(|lane| (lane.clone(), Arc::new(Notify::new())))
            .collect();
        Self {
            ready,
            no_lane: Arc::new(Notify::new()),
            max_bytes: config.max_bytes,
            secret: config.secret,
            model: Mutex::new(Model::new(config)),
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model, unless closed.
    fn open_model(&self) -> Option<MutexGuard<'_, Model>> {
        Some(self.model()).filter(|model| !model.closed)
    }

    fn wake(&self, mut model: MutexGuard<'_, Model>) {
        let woken = std::mem::take(&mut model.woken);
        drop(model);
        for lane in woken {
            if let Some(ready) = self.ready.get(&lane) {
                ready.notify_one();
            }
        }
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
        self.wake(model);
        Ok(results)
    }

    async fn claim(
        &self,
        lane: &LaneName,
        max: NonZeroUsize,
        now: UnixMillis,
    ) -> Result<Claimed, ClaimError> {
        Ok(self
            .open_model()
            .ok_or(ClaimError::Closed)?
            .claim(lane, max.get(), now))
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), SettleError> {
        let mut model = self.open_model().ok_or(SettleError::Closed)?;
        for settlement in settlements {
            model.settle(settlement);
        }
        model.evict();
        self.wake(model);
        Ok(())
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
        self.model().closed = true;
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
        let taken = sequences
            .iter()
            .filter(|sequence| model.take(**sequence, &take_as))
            .count();
        model.evict();
        self.wake(model);
        Ok(taken)
    }
}
