//! The simulated store: the queue in memory behind commits that take time and can be cut by a crash, with the bugs that are planted
//! in it.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use embeddables_queue::memory::MemoryQueue;
use embeddables_queue::{
    Append, AppendError, Appended, Backlog, Books, Capacity, Claim, ClaimError, Claimed, DeadLetter,
    DeadLetters, Disposition, Durability, Entry, Gate, LaneName, LaneState, Lease, Ledger, Outcome, Queue,
    ReadError, Refused, Sequence, SettleError, Settlement, TakeAs, UnixMillis,
};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{Notify, watch};

use crate::oracle::Oracle;
use crate::plan::Refusal;
use crate::planted::Planted;

/// Far enough away that nothing of it happens within a simulation.
const NEVER: Duration = Duration::from_hours(24);

/// Why the store refuses a write.
const REFUSED: &str = "simulated";

/// A store of one life.
pub(crate) struct SimStore {
    inner: Arc<MemoryQueue>,
    oracle: Arc<Oracle>,
    planted: Option<Planted>,
    state: Mutex<State>,
}

struct State {
    random: SmallRng,
    /// Leased at a crash, in any life before this one.
    stuck: BTreeSet<Sequence>,
    /// Keys whose canary was given up, where nobody is to take its place.
    orphaned: BTreeSet<(LaneName, [u8; 16])>,
    leased: BTreeSet<Sequence>,
    repeats: u64,
    /// Appends that were answered and not committed.
    owed: Vec<Append>,
}

impl SimStore {
    pub(crate) fn new(
        seed: u64,
        inner: MemoryQueue,
        oracle: Arc<Oracle>,
        planted: Option<Planted>,
        former: Option<&Self>,
    ) -> Arc<Self> {
        let mut stuck = BTreeSet::new();
        let mut orphaned = BTreeSet::new();
        if let Some(former) = former {
            let former = former.state();
            stuck.extend(former.stuck.iter().chain(&former.leased).copied());
            orphaned.clone_from(&former.orphaned);
        }
        Arc::new(Self {
            inner: Arc::new(inner),
            oracle,
            planted,
            state: Mutex::new(State {
                random: SmallRng::seed_from_u64(seed),
                stuck,
                orphaned,
                leased: BTreeSet::new(),
                repeats: 0,
                owed: Vec::new(),
            }),
        })
    }

    pub(crate) fn inner(&self) -> &MemoryQueue {
        &self.inner
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("the store")
    }

    fn is(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }

    /// Time that passes before a commit, or after it before its answer.
    async fn pass(&self, most_micros: u64) {
        let micros = self.state().random.random_range(0..most_micros);
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }

    /// Whether a call of a kind is refused now.
    fn refuses(&self, is_kind: impl Fn(&Refusal) -> bool) -> bool {
        let probability = self.oracle.store_refuses(is_kind);
        probability.is_some_and(|probability| self.state().random.random_bool(probability))
    }

    /// Settles as it should not.
    async fn settle_wrongly(&self, settlement: &mut Settlement, key: Option<(LaneName, [u8; 16])>) {
        match (self.planted, &settlement.disposition, settlement.gate) {
            (Some(Planted::CanaryWakesOnlyItself), Disposition::Delivered { .. }, Gate::Open) => {
                settlement.gate = Gate::Pass;
            }
            (Some(Planted::OrderLostOnRetry), Disposition::Wait { .. }, Gate::Lead) => {
                settlement.gate = Gate::Pass
            }
            (Some(Planted::NoSuccessor), Disposition::DeadLetter { .. }, _) => {
                self.state().orphaned.extend(key);
            }
            (Some(Planted::ReceiptInAnotherTransaction), Disposition::Delivered { time, .. }, gate) => {
                let without = Settlement {
                    disposition: Disposition::Delivered {
                        time: *time,
                        note: Bytes::new(),
                    },
                    gate,
                    ..settlement.clone()
                };
                // Where the crash comes now, the receipt is lost.
                let crashes = self.oracle.crashes_within(Duration::from_secs(1));
                if crashes {
                    self.inner.settle(vec![without]).await.expect("open");
                }
            }
            _ => {}
        }
    }

    /// Takes leases away that a planted bug loses.
    async fn claim_wrongly(&self, lane: &LaneName, mut claimed: Claimed) -> Claimed {
        let mut kept = Vec::new();
        for mut lease in claimed.leases {
            if self.is(Planted::AmbiguityForgottenAtRestart) {
                lease.interrupted = false;
            }
            let is_stuck =
                self.is(Planted::LeaseKeptAtRestart) && self.state().stuck.contains(&lease.sequence);
            let is_orphan = self.state().orphaned.contains(&(lane.clone(), lease.order_key));
            if is_stuck {
                // Never handed out again: it stays leased in this life too.
                drop(lease);
            } else if is_orphan {
                self.inner.settle(vec![put_off(&lease)]).await.expect("open");
            } else {
                kept.push(lease);
            }
        }
        claimed.leases = kept;
        claimed
    }

    /// Whether another lane has work, so that this one gets none.
    fn is_starved(&self, lane: &LaneName) -> bool {
        let others = |(name, books): &(LaneName, embeddables_queue::LaneBooks)| {
            name != lane && books.ready + books.waiting > 0
        };
        self.is(Planted::LaneStarvesAnother)
            && lane.as_str() == "pr_0"
            && self.inner.books().lanes.iter().any(others)
    }

    /// A repeat that comes soon after its event is taken for a new one.
    fn forget_ids(&self, append: &mut Append) {
        for record in &mut append.records {
            if self
                .oracle
                .was_accepted_within(&record.lane, &record.id, Duration::from_secs(5))
            {
                self.state().repeats += 1;
                record.id = format!("{}~{}", record.id, self.state().repeats).into();
            }
        }
    }
}

fn put_off(lease: &Lease) -> Settlement {
    Settlement {
        sequence: lease.sequence,
        claim: lease.claim,
        disposition: Disposition::Wait {
            until: UnixMillis(i64::MAX / 2 - i64::try_from(NEVER.as_millis()).unwrap_or(0)),
            progress: lease.progress.clone(),
        },
        gate: Gate::Pass,
    }
}

#[async_trait]
impl Queue for SimStore {
    async fn append(&self, mut append: Append) -> Result<Vec<Result<Appended, Refused>>, AppendError> {
        if self.is(Planted::DedupeAfterAcceptance) {
            self.forget_ids(&mut append);
        }
        if self.is(Planted::AcknowledgeBeforeCommit) && self.oracle.crashes_within(Duration::from_millis(500))
        {
            let answers = append
                .records
                .iter()
                .map(|_| {
                    Ok(Appended {
                        sequence: Sequence(u64::MAX),
                        durability: Durability::Memory,
                        duplicate: false,
                    })
                })
                .collect();
            self.state().owed.push(append);
            return Ok(answers);
        }
        self.pass(3_000).await;
        if self.refuses(|refusal| refusal.appends) {
            // Nobody knows whether it was written.
            if self.state().random.random_bool(0.5) {
                self.oracle.written(&append);
                self.inner.append(append).await?;
            }
            return Err(AppendError::DurabilityUnknown(REFUSED.into()));
        }
        self.oracle.written(&append);
        let appended = self.inner.append(append).await?;
        self.pass(1_000).await;
        Ok(appended)
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, ClaimError> {
        self.pass(3_000).await;
        let lane = claim.lane.clone();
        if self.is_starved(&lane) {
            let next_due = Some(UnixMillis(claim.now.0 + 50));
            return Ok(Claimed {
                next_due,
                ..Claimed::default()
            });
        }
        if self.refuses(|refusal| refusal.claims) {
            return Err(ClaimError::Write(REFUSED.into()));
        }
        let claimed = self.inner.claim(claim).await?;
        let claimed = self.claim_wrongly(&lane, claimed).await;
        self.state()
            .leased
            .extend(claimed.leases.iter().map(|lease| lease.sequence));
        self.oracle.claimed(&lane, &claimed.leases);
        self.pass(1_000).await;
        Ok(claimed)
    }

    async fn claim_expired(
        &self,
        lane: &LaneName,
        max: NonZeroUsize,
        wall: UnixMillis,
    ) -> Result<Claimed, ClaimError> {
        self.pass(1_000).await;
        if self.refuses(|refusal| refusal.claims) {
            return Err(ClaimError::Write(REFUSED.into()));
        }
        let claimed = self.inner.claim_expired(lane, max, wall).await?;
        self.oracle.claimed(lane, &claimed.leases);
        Ok(claimed)
    }

    async fn settle(&self, mut settlements: Vec<Settlement>) -> Result<(), SettleError> {
        self.pass(3_000).await;
        let refused = self.refuses(|refusal| refusal.settlements);
        self.oracle.offered_settlements(&settlements, refused);
        if refused {
            return Err(SettleError::Write(REFUSED.into()));
        }
        for settlement in &mut settlements {
            let key = self.oracle.key_of(settlement.sequence);
            self.settle_wrongly(settlement, key).await;
        }
        for settlement in &settlements {
            self.state().leased.remove(&settlement.sequence);
        }
        self.inner.settle(settlements.clone()).await?;
        self.oracle.settled(&settlements, &self.inner).await;
        self.pass(1_000).await;
        Ok(())
    }

    async fn write_lane_state(&self, lane: &LaneName, mut state: LaneState) -> Result<(), SettleError> {
        self.pass(3_000).await;
        if self.is(Planted::AgeSpentWhileHeld) {
            state.ageing = true;
        }
        if self.refuses(|refusal| refusal.lane_states) {
            return Err(SettleError::Write(REFUSED.into()));
        }
        self.inner.write_lane_state(lane, state).await
    }

    fn lane_ready(&self, lane: &LaneName) -> Arc<Notify> {
        self.inner.lane_ready(lane)
    }

    async fn ping(&self) -> Result<(), ReadError> {
        self.inner.ping().await
    }

    fn durabilities(&self) -> &[Durability] {
        self.inner.durabilities()
    }

    fn capacity(&self) -> Capacity {
        self.inner.capacity()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[async_trait]
impl Ledger for SimStore {
    async fn find(&self, lane: &LaneName, id: &str) -> Result<Option<Entry>, ReadError> {
        self.inner.find(lane, id).await
    }

    async fn outcomes(&self, after: u64, limit: usize) -> Result<Vec<Outcome>, ReadError> {
        let mut outcomes = self.inner.outcomes(after, limit).await?;
        if self.is(Planted::CursorSkipsOne) && outcomes.len() > 3 {
            outcomes.remove(1);
        }
        Ok(outcomes)
    }

    fn books(&self) -> Books {
        self.inner.books()
    }

    fn lane_state(&self, lane: &LaneName) -> LaneState {
        self.inner.lane_state(lane)
    }

    fn newest_outcome(&self) -> watch::Receiver<u64> {
        self.inner.newest_outcome()
    }

    async fn backlog(&self, lane: &LaneName, up_to: Sequence) -> Result<Backlog, ReadError> {
        self.inner.backlog(lane, up_to).await
    }

    async fn oldest(&self) -> Result<Vec<(LaneName, UnixMillis)>, ReadError> {
        self.inner.oldest().await
    }

    fn secret(&self) -> [u8; 32] {
        self.inner.secret()
    }
}

#[async_trait]
impl DeadLetters for SimStore {
    async fn list(
        &self,
        lane: Option<&LaneName>,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ReadError> {
        self.inner.list(lane, after, limit).await
    }

    async fn take(&self, sequences: &[Sequence], take_as: TakeAs) -> Result<usize, SettleError> {
        self.inner.take(sequences, take_as).await
    }
}
