//! Stores of other formats, and the golden one.

use std::sync::Arc;

use super::{append, check_balance, claim, config, files, open_store, paths};
use crate::sqlite::SqliteQueue;
use crate::sqlite::connection;
use crate::sqlite::format::Format;
use crate::{
    DeadLetters as _, Disposition, EntryState, Gate, LaneState, Lease, Ledger as _, NewRecord, OpenError,
    Queue as _, TakeAs, UnixMillis,
};

/// A closed store with a record, whose format was changed.
async fn store_of(format: Format) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open_store(dir.path());
    append(&queue, &["one"]).await;
    queue.close().await;
    drop(queue);
    let store = connection::open_writer(&paths(dir.path()).db()).unwrap();
    format.write(&store).unwrap();
    store.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    dir
}

#[tokio::test]
async fn a_newer_major_is_refused_and_nothing_is_written() {
    let dir = store_of(Format { major: 2, minor: 3 }).await;
    std::fs::remove_file(paths(dir.path()).wal()).unwrap();
    std::fs::remove_file(paths(dir.path()).shm()).unwrap();
    let before = files(dir.path());
    let error = SqliteQueue::open(config(dir.path())).map(|_| ()).unwrap_err();
    let OpenError::Newer { found, supported, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!((&*found, &*supported), ("2.3", "1.1"));
    assert_eq!(files(dir.path()), before);
}

#[tokio::test]
async fn a_newer_minor_opens_and_keeps_its_number() {
    let dir = store_of(Format { major: 1, minor: 7 }).await;
    let (queue, report) = open_store(dir.path());
    assert_eq!(report.format, "1.7");
    assert_eq!(claim(&queue, 1, 1).await.leases.len(), 1);
}

#[tokio::test]
async fn a_flipped_format_number_is_repaired() {
    for change in [
        "PRAGMA user_version = 9000",
        "UPDATE meta SET value = x'322e30' WHERE name = 'format'",
    ] {
        let dir = store_of(Format::CURRENT).await;
        let store = connection::open_writer(&paths(dir.path()).db()).unwrap();
        store.execute_batch(change).unwrap();
        store.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        drop(store);
        let (queue, report) = open_store(dir.path());
        assert_eq!(report.format, "1.1", "{change}");
        assert!(report.salvaged.is_none());
        queue.close().await;
        let found = crate::sqlite::format::peek(&paths(dir.path()).db());
        let expected = crate::sqlite::format::Found::Is {
            format: Format::CURRENT,
            repair: false,
        };
        assert_eq!(found, expected, "{change}");
    }
}

/// Written by the release of their time, kept for ever; see `the_golden_store_is_written`.
const GOLDEN_1_0: &[u8] = include_bytes!("../../../tests/golden/format-1.0.db");
const GOLDEN_1_1: &[u8] = include_bytes!("../../../tests/golden/format-1.1.db");

/// Opens a golden store and checks what every format holds.
async fn golden(store: &[u8]) -> (tempfile::TempDir, Arc<SqliteQueue>, Vec<Lease>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(paths(dir.path()).db(), store).unwrap();
    let (queue, report) = open_store(dir.path());
    assert!(!report.created && report.salvaged.is_none(), "{report:?}");
    assert_eq!(report.format, "1.1");
    check_balance(&queue);
    let state = async |id: &str| queue.find(&super::lane(), id).await.unwrap().unwrap().state;
    assert_eq!(state("ready").await, EntryState::Ready);
    assert!(matches!(state("waiting").await, EntryState::Waiting { .. }));
    assert!(matches!(state("delivered").await, EntryState::Delivered { .. }));
    assert!(matches!(state("dead").await, EntryState::DeadLettered { .. }));
    assert!(matches!(state("discarded").await, EntryState::Discarded { .. }));
    let leased = queue.find(&super::lane(), "leased").await.unwrap().unwrap();
    assert!(leased.interrupted);
    // The dead letter's payload, its progress and its overhead.
    assert_eq!(queue.books().lanes[0].1.dead_letter_bytes, 80 + 1 + 256);
    let claimed = claim(&queue, 10, i64::MAX).await;
    for lease in &claimed.leases {
        assert_eq!(lease.payload, super::payload(&lease.id));
    }
    (dir, queue, claimed.leases)
}

#[tokio::test]
async fn the_golden_store_of_format_1_0_opens_and_becomes_one_of_1_1() {
    let (dir, queue, leases) = golden(GOLDEN_1_0).await;
    assert_eq!(leases.len(), 3);
    let wait = Disposition::Wait {
        until: UnixMillis(1_000),
        progress: "p".into(),
    };
    super::settle_gate(&queue, &leases[0], wait, Gate::Lead).await;
    queue.close().await;
    drop(queue);
    let (queue, report) = open_store(dir.path());
    assert_eq!(report.format, "1.1");
    append(&queue, &["new"]).await;
    assert!(
        claim(&queue, 10, 10)
            .await
            .leases
            .iter()
            .any(|lease| lease.behind)
    );
}

#[tokio::test]
async fn the_golden_store_of_format_1_1_opens() {
    let (_dir, queue, leases) = golden(GOLDEN_1_1).await;
    let behind: Vec<&str> = leases
        .iter()
        .filter(|lease| lease.behind)
        .map(|lease| &*lease.id)
        .collect();
    assert_eq!((leases.len(), behind), (6, vec!["follower"]));
    let state = queue.lane_state(&super::lane());
    assert_eq!((state.ageing, &state.note[..]), (false, &b"note"[..]));
    for lease in leases {
        super::settle_gate(&queue, &lease, Disposition::Release, Gate::Pass).await;
    }
    let most = std::num::NonZeroUsize::new(9).unwrap();
    let late = queue
        .claim_expired(&super::lane(), most, UnixMillis(77))
        .await
        .unwrap();
    assert_eq!((late.leases.len(), &*late.leases[0].id), (1, "timed"));
}

#[tokio::test]
#[ignore = "writes the golden store; run by hand when the format changes, under a new name"]
async fn the_golden_store_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open_store(dir.path());
    append(&queue, &["delivered", "waiting", "dead", "discarded"]).await;
    let claimed = claim(&queue, 4, 1).await;
    let dead = || Disposition::DeadLetter {
        time: UnixMillis(3),
        reason: "REASON".into(),
        progress: "p".into(),
    };
    let wait = || Disposition::Wait {
        until: UnixMillis(9),
        progress: "p".into(),
    };
    let dispositions = [super::delivered(), wait(), dead(), dead()];
    for (lease, disposition) in claimed.leases.iter().zip(dispositions) {
        super::settle_gate(&queue, lease, disposition, Gate::Pass).await;
    }
    let discard = TakeAs::Discard { time: UnixMillis(4) };
    queue.take(&[claimed.leases[3].sequence], discard).await.unwrap();
    let gated = ["head", "follower"].map(|id| NewRecord {
        order_key: [3; 16],
        ..super::record(id)
    });
    super::append_records(&queue, gated.to_vec()).await;
    let claimed = claim(&queue, 2, 1).await;
    let gates = [Gate::Lead, Gate::Follow { head: None }];
    for (lease, gate) in claimed.leases.iter().zip(gates) {
        super::settle_gate(&queue, lease, wait(), gate).await;
    }
    append(&queue, &["leased", "ready"]).await;
    let timed = NewRecord {
        deadline: Some(UnixMillis(77)),
        ..super::record("timed")
    };
    super::append_records(&queue, vec![timed]).await;
    let state = LaneState {
        ageing: false,
        note: "note".into(),
    };
    queue.write_lane_state(&super::lane(), state).await.unwrap();
    assert_eq!(claim(&queue, 1, 1).await.leases.len(), 1);
    queue.close().await;
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/format-1.1.db");
    std::fs::copy(paths(dir.path()).db(), target).unwrap();
}
