//! The stores under test: how they are opened, called, and compared with each other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use embeddables_queue::memory::MemoryConfig;
use embeddables_queue::sqlite::{SqliteConfig, SqliteQueue};
use embeddables_queue::{
    Append, Appended, Claimed, Durability, LaneName, Lease, NewRecord, OpenError, Refused, RunningClock,
    Store,
};

use crate::step::LANES;

/// A clock that stands until it is moved.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestClock(pub(crate) Arc<AtomicU64>);

impl RunningClock for TestClock {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) fn lane(number: u8) -> LaneName {
    LaneName::new(format!("lane{number}"))
}

pub(crate) fn lanes() -> Vec<LaneName> {
    (0..LANES).map(lane).collect()
}

pub(crate) fn id(number: u8) -> String {
    format!("id{number}")
}

pub(crate) fn payload(known: (u8, u8, u8)) -> Bytes {
    Bytes::from(format!("{known:?}").repeat(30))
}

pub(crate) fn open(dir: &Path, clock: &TestClock) -> SqliteQueue {
    loop {
        let config = SqliteConfig {
            clock: Arc::new(clock.clone()),
            ..SqliteConfig::new(dir, lanes())
        };
        match SqliteQueue::open(config) {
            Ok((queue, report)) => {
                assert!(
                    report.salvaged.is_none() && report.possible_loss.is_none() && !report.rebuilt,
                    "{report:?}"
                );
                return queue;
            }
            Err(OpenError::InUse { .. }) => std::thread::yield_now(),
            Err(error) => panic!("cannot open: {error:?}"),
        }
    }
}

pub(crate) fn in_memory(clock: &TestClock) -> MemoryConfig {
    MemoryConfig {
        clock: Arc::new(clock.clone()),
        ..MemoryConfig::new(lanes())
    }
}

pub(crate) async fn append_one(store: &impl Store, record: NewRecord) -> Result<Appended, Refused> {
    let call = Append {
        records: vec![record],
        durability: Durability::Memory,
        atomic: false,
    };
    store.append(call).await.unwrap()[0]
}

/// What matters of a lease.
fn told(lease: &Lease) -> String {
    let Lease {
        claim: _,
        ref payload,
        ..
    } = *lease;
    format!(
        "{:?} {} {:?} {:?} {:?} {} {}",
        lease.sequence, lease.id, lease.age, lease.progress, payload, lease.interrupted, lease.behind
    )
}

pub(crate) fn check_same(left: &Claimed, right: &Claimed) {
    let all = |claimed: &Claimed| claimed.leases.iter().map(told).collect::<Vec<_>>();
    assert_eq!(all(left), all(right), "the backends differ");
    assert_eq!(
        (left.more, left.next_due),
        (right.more, right.next_due),
        "the backends differ"
    );
}
