//! Backends under test, and a few words in which the cases are written.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use embeddables_queue::memory::{MemoryConfig, MemoryQueue};
use embeddables_queue::sqlite::{SqliteConfig, SqliteQueue};
use embeddables_queue::{
    Append, Appended, Books, Claim, Claimed, Disposition, Durability, Gate, LaneName, Lease, NewRecord,
    Refused, RunningClock, Settlement, Store, UnixMillis,
};

/// A clock that stands until it is moved.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0
            .fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl RunningClock for TestClock {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// What cases may set.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) lanes: Vec<LaneName>,
    pub(crate) max_bytes: u64,
    pub(crate) lane_share_bytes: u64,
    pub(crate) dead_letter_share_bytes: u64,
    pub(crate) dedupe_window: Duration,
    pub(crate) dedupe_ids: u64,
    pub(crate) clock: TestClock,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lanes: vec![lane("a"), lane("b")],
            max_bytes: 1 << 20,
            lane_share_bytes: u64::MAX,
            dead_letter_share_bytes: u64::MAX,
            dedupe_window: Duration::from_secs(3_600),
            dedupe_ids: 1_000,
            clock: TestClock::default(),
        }
    }
}

/// Makes stores of one kind.
pub(crate) trait Backend: Default {
    type Made: Store;
    /// Whether a store opened again knows what it knew.
    const PERSISTS: bool;

    fn settings(&mut self) -> &mut Settings;
    fn open(&self) -> Arc<Self::Made>;
    /// Ends a store without closing it, as a kill would.
    fn kill(&self, store: Arc<Self::Made>);
}

pub(crate) struct Sqlite {
    dir: tempfile::TempDir,
    settings: Settings,
}

impl Default for Sqlite {
    fn default() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            settings: Settings::default(),
        }
    }
}

/// No case damages a store: one that was set aside tells of a contradiction that healed itself.
impl Drop for Sqlite {
    fn drop(&mut self) {
        let mut files = std::fs::read_dir(self.dir.path()).unwrap();
        let is_damaged = files.any(|file| file.unwrap().file_name().to_string_lossy().contains("damaged"));
        assert!(!is_damaged || std::thread::panicking(), "the store was salvaged");
    }
}

impl Backend for Sqlite {
    type Made = SqliteQueue;
    const PERSISTS: bool = true;

    fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    fn open(&self) -> Arc<SqliteQueue> {
        let Settings {
            lanes,
            max_bytes,
            lane_share_bytes,
            dead_letter_share_bytes,
            dedupe_window,
            dedupe_ids,
            clock,
        } = self.settings.clone();
        let config = SqliteConfig {
            max_bytes,
            lane_share_bytes,
            dead_letter_share_bytes,
            dedupe_window,
            dedupe_ids,
            clock: Arc::new(clock),
            ..SqliteConfig::new(self.dir.path(), lanes)
        };
        // The writer of a dropped store lets go of the lock when it notices; there is no event to wait for.
        loop {
            match SqliteQueue::open(config.clone()) {
                Ok((store, _)) => return Arc::new(store),
                Err(embeddables_queue::OpenError::InUse { .. }) => std::thread::yield_now(),
                Err(error) => panic!("cannot open: {error:?}"),
            }
        }
    }

    fn kill(&self, store: Arc<SqliteQueue>) {
        drop(store);
    }
}

#[derive(Default)]
pub(crate) struct Memory {
    settings: Settings,
    /// The queue that the next one goes on from.
    last: std::cell::RefCell<Option<Arc<MemoryQueue>>>,
}

impl Backend for Memory {
    type Made = MemoryQueue;
    const PERSISTS: bool = true;

    fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    fn open(&self) -> Arc<MemoryQueue> {
        let Settings {
            lanes,
            max_bytes,
            lane_share_bytes,
            dead_letter_share_bytes,
            dedupe_window,
            dedupe_ids,
            clock,
        } = self.settings.clone();
        let config = MemoryConfig {
            max_bytes,
            lane_share_bytes,
            dead_letter_share_bytes,
            dedupe_window,
            dedupe_ids,
            secret: [9; 32],
            clock: Arc::new(clock),
            ..MemoryConfig::new(lanes)
        };
        let mut last = self.last.borrow_mut();
        let queue = match &*last {
            Some(last) => last.reopened(config),
            None => MemoryQueue::new(config),
        };
        Arc::clone(last.insert(Arc::new(queue)))
    }

    fn kill(&self, store: Arc<MemoryQueue>) {
        store.kill();
    }
}

pub(crate) fn lane(name: &str) -> LaneName {
    LaneName::new(name)
}

/// A record whose fingerprint and payload follow from its content.
pub(crate) fn record(lane_name: &str, id: &str, content: &str) -> NewRecord {
    let mut fingerprint = [0; 16];
    for (place, byte) in content.bytes().enumerate() {
        fingerprint[place % 16] ^= byte;
    }
    NewRecord {
        lane: lane(lane_name),
        id: id.into(),
        fingerprint,
        order_key: [7; 16],
        accept_time: UnixMillis(1_000),
        deadline: None,
        payload: Bytes::from(content.to_owned()),
    }
}

pub(crate) async fn try_append(
    store: &impl Store,
    records: Vec<NewRecord>,
) -> Vec<Result<Appended, Refused>> {
    let durability = *store.durabilities().last().unwrap();
    store
        .append(Append {
            records,
            durability,
            atomic: false,
        })
        .await
        .unwrap()
}

/// Appends records of lane `a` that must be new, each with its id for content.
pub(crate) async fn append(store: &impl Store, ids: &[&str]) -> Vec<Appended> {
    let records = ids.iter().map(|id| record("a", id, id)).collect();
    try_append(store, records)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect()
}

/// A claim without bounds but `max`, in order of sequence.
pub(crate) fn claim_of(lane_name: &str, max: usize, now: i64) -> Claim {
    Claim {
        lane: lane(lane_name),
        max: NonZeroUsize::new(max).unwrap(),
        max_waiting: max,
        live_percent: 0,
        now: UnixMillis(now),
    }
}

pub(crate) async fn claim(store: &impl Store, max: usize, now: i64) -> Claimed {
    store.claim(claim_of("a", max, now)).await.unwrap()
}

pub(crate) fn ids(leases: &[Lease]) -> Vec<&str> {
    leases.iter().map(|lease| &*lease.id).collect()
}

pub(crate) fn settlement(lease: &Lease, disposition: Disposition, gate: Gate) -> Settlement {
    Settlement {
        sequence: lease.sequence,
        claim: lease.claim,
        disposition,
        gate,
    }
}

pub(crate) async fn settle(store: &impl Store, lease: &Lease, disposition: Disposition) {
    settle_gate(store, lease, disposition, Gate::Pass).await;
}

pub(crate) async fn settle_gate(store: &impl Store, lease: &Lease, disposition: Disposition, gate: Gate) {
    store
        .settle(vec![settlement(lease, disposition, gate)])
        .await
        .unwrap();
}

pub(crate) fn delivered(time: i64) -> Disposition {
    Disposition::Delivered {
        time: UnixMillis(time),
        note: Bytes::from_static(b"receipt"),
    }
}

pub(crate) fn wait(until: i64) -> Disposition {
    Disposition::Wait {
        until: UnixMillis(until),
        progress: Bytes::from_static(b"progress"),
    }
}

pub(crate) fn dead(reason: &str) -> Disposition {
    Disposition::DeadLetter {
        time: UnixMillis(5),
        reason: reason.into(),
        progress: Bytes::from_static(b"why"),
    }
}

/// Invariant 7, for every lane.
#[track_caller]
pub(crate) fn check_balance(books: &Books) {
    for (lane, books) in &books.lanes {
        let known = books.delivered
            + books.dead_lettered
            + books.discarded
            + books.erased
            + books.quarantined
            + books.ready
            + books.waiting;
        assert_eq!(books.accepted, known, "lane {lane}: {books:?}");
    }
}

pub(crate) const MEMORY: Durability = Durability::Memory;
