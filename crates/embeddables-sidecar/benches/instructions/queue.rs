//! The queue on disk: records go in and are settled, with every commit synced. Its writer thread is counted too.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use embeddables_queue::sqlite::{SqliteConfig, SqliteQueue};
use embeddables_queue::{
    Append, Claim, Disposition, Durability, Gate, Lease, NewRecord, Queue as _, Settlement, UnixMillis,
};
use futures_util::future::join_all;
use tempfile::TempDir;

use crate::events::{lane_name, records, runtime};

/// As long as what is noted of an event that was delivered at once.
const NOTE: Bytes = Bytes::from_static(&[7; 64]);

/// Wall time of claims and settlements; the records are older.
const NOW: UnixMillis = UnixMillis(1_795_773_700_000);

/// Appends records, `size` a call, by so many callers at once; the next calls begin when all are answered. Where there are several,
/// the commit waits for all of them, so that no accident of timing divides them.
pub(crate) fn enqueue(count: usize, callers: usize, size: usize) {
    let mut calls = batches(records(), size).into_iter();
    runtime().block_on(async {
        let (queue, _dir) = open(|config| match callers {
            1 => config,
            _ => SqliteConfig {
                max_batch: NonZeroUsize::new(callers * size).expect("at least one"),
                linger: Duration::from_secs(60),
                ..config
            },
        });
        for _ in 0..count / (callers * size) {
            let round = calls.by_ref().take(callers);
            join_all(round.map(|call| append(&queue, call))).await;
        }
        queue.close().await;
    });
}

/// Claims and settles records as delivered, `size` at once, of a queue that holds them all.
pub(crate) fn settle(count: usize, size: usize) {
    let size = NonZeroUsize::new(size).expect("at least one");
    runtime().block_on(async {
        let (queue, _dir) = open(|config| config);
        for call in batches(records(), size.get()) {
            append(&queue, call).await;
        }
        for _ in 0..count / size {
            let claim = Claim {
                lane: lane_name(),
                max: size,
                max_waiting: size.get(),
                live_percent: 20,
                now: NOW,
            };
            let leases = queue.claim(claim).await.expect("claims").leases;
            assert_eq!(leases.len(), size.get());
            let settlements = leases.iter().map(delivered).collect();
            queue.settle(settlements).await.expect("settles");
        }
        queue.close().await;
    });
}

/// An empty queue in the build directory: a temporary one may lie in memory, where nothing is synced.
fn open(change: impl FnOnce(SqliteConfig) -> SqliteConfig) -> (SqliteQueue, TempDir) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let config = SqliteConfig::new(dir.path(), vec![lane_name()]);
    let (queue, report) = SqliteQueue::open(change(config)).expect("opens");
    let strongest = report.durabilities.last();
    assert_eq!(
        strongest,
        Some(&Durability::Fsynced),
        "the build directory is on a disk"
    );
    (queue, dir)
}

fn batches(records: Vec<NewRecord>, size: usize) -> Vec<Vec<NewRecord>> {
    records.chunks(size).map(<[_]>::to_vec).collect()
}

async fn append(queue: &SqliteQueue, records: Vec<NewRecord>) {
    let call = Append {
        records,
        durability: Durability::Fsynced,
        atomic: false,
    };
    for appended in queue.append(call).await.expect("appends") {
        assert!(!appended.expect("is taken").duplicate);
    }
}

fn delivered(lease: &Lease) -> Settlement {
    Settlement {
        sequence: lease.sequence,
        claim: lease.claim,
        disposition: Disposition::Delivered {
            time: NOW,
            note: NOTE,
        },
        gate: Gate::Pass,
    }
}
