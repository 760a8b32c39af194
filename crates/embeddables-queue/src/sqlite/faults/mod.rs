//! Tests of bad days: failed commits, crashes between steps, damage, full disks, foreign formats.

mod checkpoints;
mod commits;
mod damage;
mod formats;
mod full_disk;
mod gates;
mod leftovers;
mod log;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::sqlite::volume::Paths;
use crate::sqlite::{OpenReport, SqliteConfig, SqliteQueue, open};
use crate::{
    Append, AppendError, Appended, Claim, Claimed, Disposition, Gate, LaneName, Lease, Ledger as _,
    NewRecord, OpenError, Queue as _, Refused, Settlement, UnixMillis,
};

fn lane() -> LaneName {
    LaneName::new("lane")
}

fn config(dir: &Path) -> SqliteConfig {
    SqliteConfig::new(dir, vec![lane()])
}

fn paths(dir: &Path) -> Paths {
    Paths { dir: dir.to_owned() }
}

/// Opens with a hook; waits for the lock where a dropped store has not let go of it yet.
fn open_with(dir: &Path, mut hook: Option<super::commit::FaultHook>) -> (Arc<SqliteQueue>, OpenReport) {
    loop {
        match open::open_with(config(dir), hook.take()) {
            Ok((queue, report)) => return (Arc::new(queue), report),
            Err(OpenError::InUse { .. }) => std::thread::yield_now(),
            Err(error) => panic!("cannot open: {error:?}"),
        }
    }
}

fn open_store(dir: &Path) -> (Arc<SqliteQueue>, OpenReport) {
    // Tried without a hook, so that it can be tried again.
    open_with(dir, None)
}

fn payload(id: &str) -> Bytes {
    Bytes::from(id.repeat(20))
}

fn record(id: &str) -> NewRecord {
    NewRecord {
        lane: lane(),
        id: id.into(),
        fingerprint: [1; 16],
        order_key: [2; 16],
        accept_time: UnixMillis(5),
        deadline: None,
        payload: payload(id),
    }
}

async fn try_append(
    queue: &SqliteQueue,
    ids: &[&str],
) -> Result<Vec<Result<Appended, Refused>>, AppendError> {
    let records = ids.iter().map(|id| record(id)).collect();
    let durability = *queue.durabilities.last().unwrap();
    queue
        .append(Append {
            records,
            durability,
            atomic: false,
        })
        .await
}

async fn append_records(queue: &SqliteQueue, records: Vec<NewRecord>) {
    let call = Append {
        records,
        durability: *queue.durabilities.last().unwrap(),
        atomic: false,
    };
    assert!(queue.append(call).await.unwrap().iter().all(Result::is_ok));
}

async fn append(queue: &SqliteQueue, ids: &[&str]) {
    assert!(try_append(queue, ids).await.unwrap().iter().all(Result::is_ok));
}

fn claim_of(max: usize, now: i64) -> Claim {
    Claim {
        lane: lane(),
        max: std::num::NonZeroUsize::new(max).unwrap(),
        max_waiting: max,
        live_percent: 0,
        now: UnixMillis(now),
    }
}

async fn claim(queue: &SqliteQueue, max: usize, now: i64) -> Claimed {
    queue.claim(claim_of(max, now)).await.unwrap()
}

async fn claimed_ids(queue: &SqliteQueue) -> Vec<String> {
    claim(queue, 1_000, i64::MAX)
        .await
        .leases
        .iter()
        .map(|lease| lease.id.to_string())
        .collect()
}

fn settlement(lease: &Lease, disposition: Disposition) -> Settlement {
    Settlement {
        sequence: lease.sequence,
        claim: lease.claim,
        disposition,
        gate: Gate::Pass,
    }
}

async fn settle_gate(queue: &SqliteQueue, lease: &Lease, disposition: Disposition, gate: Gate) {
    let settlement = Settlement {
        gate,
        ..settlement(lease, disposition)
    };
    queue.settle(vec![settlement]).await.unwrap();
}

fn delivered() -> Disposition {
    Disposition::Delivered {
        time: UnixMillis(9),
        note: Bytes::from_static(b"receipt"),
    }
}

#[track_caller]
fn check_balance(queue: &SqliteQueue) {
    for (lane, books) in queue.books().lanes {
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

/// Every file of a directory, by name.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

/// A directory with those files: what a crash at that moment would leave behind.
fn dir_of(files: &BTreeMap<String, Vec<u8>>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

/// A plain connection to a store that nobody has open; it writes back to the main file when closed.
fn connection_to(dir: &Path) -> rusqlite::Connection {
    loop {
        if let Some(lock) = super::volume::lock(&paths(dir).lock()).unwrap() {
            drop(lock);
            return rusqlite::Connection::open(paths(dir).db()).unwrap();
        }
        std::thread::yield_now();
    }
}
