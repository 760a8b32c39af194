//! A disk that is really full: a small file system in memory. Needs the right to mount.

use std::path::Path;
use std::process::Command;

use super::{check_balance, claim, open_store, settlement};
use crate::sqlite::SqliteQueue;
use crate::{Append, AppendError, Durability, NewRecord, Queue as _};

/// A mounted file system of 4 MiB; `None` without the right to mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(dir.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        eprintln!("SKIPPED: a small file system cannot be mounted here; the test of a full disk did not run");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn record(number: usize) -> NewRecord {
    let id = format!("id{number:06}");
    NewRecord {
        payload: vec![u8::try_from(number % 256).expect("less than 256"); 1_000].into(),
        ..super::record(&id)
    }
}

async fn append_one(queue: &SqliteQueue, number: usize) -> Result<(), AppendError> {
    let call = Append {
        records: vec![record(number)],
        durability: Durability::Memory,
        atomic: false,
    };
    queue
        .append(call)
        .await
        .map(|results| assert!(results[0].is_ok()))
}

/// Appends until the disk is full; how many fitted.
async fn fill(queue: &SqliteQueue, next: &mut usize) -> usize {
    let begin = *next;
    let refused = loop {
        match append_one(queue, *next).await {
            Ok(()) => *next += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::DiskFull), "{refused:?}");
    *next - begin
}

/// Delivers everything that is ready; how many that were.
async fn deliver_all(queue: &SqliteQueue) -> usize {
    let mut delivered = 0;
    loop {
        let claimed = claim(queue, 32, 1).await;
        delivered += claimed.leases.len();
        for lease in &claimed.leases {
            assert_eq!(lease.payload.len(), 1_000);
        }
        let settlements = claimed
            .leases
            .iter()
            .map(|lease| settlement(lease, super::delivered()));
        queue.settle(settlements.collect()).await.unwrap();
        if !claimed.more {
            return delivered;
        }
    }
}

#[tokio::test]
async fn on_a_full_disk_deliveries_go_on_and_make_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (queue, report) = open_store(disk.path());
    assert_eq!(
        report.durabilities,
        [Durability::Memory],
        "a volume of memory keeps nothing"
    );
    let mut next = 0;
    for round in 0..3 {
        let accepted = fill(&queue, &mut next).await;
        assert!(accepted > 500, "round {round}: only {accepted} fitted");
        let state = crate::LaneState {
            ageing: round % 2 == 1,
            note: "held".into(),
        };
        queue.write_lane_state(&super::lane(), state).await.unwrap();
        check_balance(&queue);
        let delivered = deliver_all(&queue).await;
        assert_eq!(
            delivered, accepted,
            "round {round}: everything accepted is delivered"
        );
        check_balance(&queue);
        // Room comes back step by step, with each call that is served.
        while append_one(&queue, next).await.is_err() {
            queue.ping().await.unwrap();
        }
        next += 1;
        deliver_all(&queue).await;
    }
    queue.close().await;
    drop(queue);
    let (queue, report) = open_store(disk.path());
    assert!(report.salvaged.is_none() && report.possible_loss.is_none());
    let claimed = claim(&queue, 1, 1).await;
    assert!(claimed.leases.is_empty());
    check_balance(&queue);
}
