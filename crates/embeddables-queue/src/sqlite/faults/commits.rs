//! Commits that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use rusqlite::{Connection, ffi};

use super::{
    append, check_balance, claim, claim_of, claimed_ids, delivered, lane, open_store, open_with, paths,
    settlement, try_append,
};
use crate::sqlite::commit::{FaultHook, FaultPoint};
use crate::{AppendError, ClaimError, Ledger as _, Queue as _, SettleError};

/// Makes the next commits fail with a code; 0 lets them pass.
#[derive(Clone, Default)]
pub(super) struct Switch {
    code: Arc<AtomicI32>,
    failures: Arc<AtomicUsize>,
    after_commit: bool,
}

impl Switch {
    pub(super) fn fail_with(&self, code: i32) {
        self.code.store(code, Ordering::SeqCst);
    }

    pub(super) fn hook(&self) -> FaultHook {
        let switch = self.clone();
        Arc::new(move |point, connection: &Connection| {
            if point != FaultPoint::Commit {
                return Ok(());
            }
            let code = switch.code.load(Ordering::SeqCst);
            if code == 0 {
                return Ok(());
            }
            switch.failures.fetch_add(1, Ordering::SeqCst);
            if switch.after_commit {
                connection.execute_batch("COMMIT")?;
            }
            Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
        })
    }
}

#[tokio::test]
async fn after_a_failed_sync_everything_is_copied_before_the_next_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::default();
    let (queue, _) = open_with(dir.path(), Some(switch.hook()));
    append(&queue, &["before"]).await;
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(paths(dir.path()).db()).unwrap());
    let old = inode();
    switch.fail_with(ffi::SQLITE_IOERR_FSYNC);
    assert!(matches!(
        try_append(&queue, &["lost"]).await,
        Err(AppendError::DurabilityUnknown(_))
    ));
    switch.fail_with(0);
    append(&queue, &["after"]).await;
    assert_ne!(inode(), old, "another file took its place");
    assert!(!paths(dir.path()).suspect().exists());
    assert!(
        queue.find(&lane(), "lost").await.unwrap().is_none(),
        "readers see the new file"
    );
    check_balance(&queue);
    drop(queue);
    let (queue, report) = open_store(dir.path());
    assert!(!report.rebuilt && report.possible_loss.is_none());
    assert_eq!(claimed_ids(&queue).await, ["before", "after"]);
}

#[tokio::test]
async fn a_commit_that_failed_only_in_its_answer_is_not_doubled_by_a_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch {
        after_commit: true,
        ..Switch::default()
    };
    let (queue, _) = open_with(dir.path(), Some(switch.hook()));
    append(&queue, &["before"]).await;
    switch.fail_with(ffi::SQLITE_IOERR_FSYNC);
    assert!(matches!(
        try_append(&queue, &["unknown"]).await,
        Err(AppendError::DurabilityUnknown(_))
    ));
    switch.fail_with(0);
    append(&queue, &["unknown"]).await;
    append(&queue, &["after"]).await;
    assert_eq!(claimed_ids(&queue).await, ["before", "unknown", "after"]);
    check_balance(&queue);
}

#[tokio::test]
async fn leases_outlive_a_failed_settlement_which_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::default();
    let (queue, _) = open_with(dir.path(), Some(switch.hook()));
    append(&queue, &["one", "two"]).await;
    let claimed = claim(&queue, 1, 1).await;
    let settle = || queue.settle(vec![settlement(&claimed.leases[0], delivered())]);
    switch.fail_with(ffi::SQLITE_IOERR_FSYNC);
    assert!(matches!(settle().await, Err(SettleError::Write(_))));
    let failed = queue.claim(claim_of(1, 1)).await;
    assert!(
        matches!(failed, Err(ClaimError::Write(_))),
        "nothing is leased that could not be marked"
    );
    switch.fail_with(0);
    settle().await.unwrap();
    assert_eq!(claimed_ids(&queue).await, ["two"]);
    let books = &queue.books().lanes[0].1;
    assert_eq!((books.delivered, books.ready), (1, 1));
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_lets_settlements_pass() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open_with(dir.path(), Some(full_for_appends()));
    append(&queue, &["one"]).await;
    let claimed = claim(&queue, 1, 1).await;
    assert!(paths(dir.path()).reserve().exists());
    assert!(matches!(
        try_append(&queue, &["full"]).await,
        Err(AppendError::DiskFull)
    ));
    queue
        .settle(vec![settlement(&claimed.leases[0], delivered())])
        .await
        .unwrap();
    check_balance(&queue);
    // The volume has room in truth: the reserve comes back, and appends with it.
    queue.ping().await.unwrap();
    append(&queue, &["again"]).await;
    assert!(paths(dir.path()).reserve().exists());
}

/// A disk that has no room for a record called `full`.
fn full_for_appends() -> FaultHook {
    Arc::new(|_, connection| {
        let full: i64 =
            connection.query_row("SELECT count(*) FROM ids WHERE id = 'full'", [], |row| row.get(0))?;
        if full == 0 {
            Ok(())
        } else {
            Err(rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_FULL),
                None,
            ))
        }
    })
}

#[tokio::test]
async fn a_store_that_cannot_be_copied_refuses_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::default();
    let (queue, _) = open_with(dir.path(), Some(switch.hook()));
    append(&queue, &["one"]).await;
    // A directory in the way of the copy.
    std::fs::create_dir(paths(dir.path()).rebuild_tmp()).unwrap();
    switch.fail_with(ffi::SQLITE_IOERR_WRITE);
    assert!(matches!(
        try_append(&queue, &["lost"]).await,
        Err(AppendError::DurabilityUnknown(_))
    ));
    switch.fail_with(0);
    assert!(matches!(
        try_append(&queue, &["refused"]).await,
        Err(AppendError::Write(_))
    ));
    assert!(paths(dir.path()).suspect().exists());
    std::fs::remove_dir(paths(dir.path()).rebuild_tmp()).unwrap();
    while try_append(&queue, &["two"]).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(claimed_ids(&queue).await, ["one", "two"]);
}
