//! The log of a store under load, and passes of its keeper that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::mpsc;

use bytes::Bytes;
use rusqlite::ffi;

use super::{append, append_records, check_balance, open_store, open_with, paths, record};
use crate::sqlite::SqliteQueue;
use crate::sqlite::commit::{FaultHook, FaultPoint};
use crate::{Ledger as _, NewRecord, Queue as _};

const PAYLOAD_BYTES: usize = 64 << 10;
/// The limit on a volume of 512 MiB and more.
const MOST_LIMIT_BYTES: u64 = 4 << 20;

/// A commit of half a mebibyte.
async fn append_much(queue: &SqliteQueue, number: usize) {
    let records = (0..8).map(|part| NewRecord {
        payload: Bytes::from(vec![7; PAYLOAD_BYTES]),
        ..record(&format!("id{number}-{part}"))
    });
    append_records(queue, records.collect()).await;
}

/// Runs before each pass of the keeper.
fn before_passes(run: impl Fn() -> rusqlite::Result<()> + Send + Sync + 'static) -> FaultHook {
    Arc::new(move |point, _| match point {
        FaultPoint::Commit => Ok(()),
        FaultPoint::WriteBack => run(),
    })
}

#[tokio::test]
async fn under_steady_load_the_log_starts_anew_and_stays_below_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let passes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&passes);
    let hook = before_passes(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let (queue, _) = open_with(dir.path(), Some(hook));
    for number in 0..200 {
        append_much(&queue, number).await;
    }
    // A log never shrinks while it is in use: its length is the most that it ever held.
    let log_bytes = std::fs::metadata(paths(dir.path()).wal()).unwrap().len();
    let most_bytes = u64::from(super::super::log_keeper::BOUND.unsigned_abs()) * MOST_LIMIT_BYTES + (1 << 20);
    assert!(log_bytes < most_bytes, "the log grew to {log_bytes} bytes");
    assert!(passes.load(Ordering::SeqCst) > 2, "the keeper did the work");
    check_balance(&queue);
    queue.close().await;
    assert_eq!(std::fs::metadata(paths(dir.path()).wal()).unwrap().len(), 0);
}

#[tokio::test]
async fn commits_go_on_while_a_pass_is_under_way_and_closing_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let (tell, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let hook = before_passes(move || {
        tell.send(()).unwrap();
        // An error once the test lets all passes go on.
        may_go_on.lock().unwrap().recv().unwrap_or_default();
        Ok(())
    });
    let (queue, _) = open_with(dir.path(), Some(hook));
    let mut number = 0;
    while begun.try_recv().is_err() {
        append_much(&queue, number).await;
        number += 1;
    }
    append_much(&queue, number).await;
    let closing = {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move { queue.close().await })
    };
    while queue.ping().await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!closing.is_finished(), "a pass is under way");
    drop(go_on);
    closing.await.unwrap();
    assert_eq!(std::fs::metadata(paths(dir.path()).wal()).unwrap().len(), 0);
    let (queue, report) = open_store(dir.path());
    assert!(!report.rebuilt && report.salvaged.is_none() && report.possible_loss.is_none());
    check_balance(&queue);
}

#[tokio::test]
async fn after_a_failed_sync_of_the_keeper_everything_is_copied_to_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let code = Arc::new(AtomicI32::new(ffi::SQLITE_IOERR_FSYNC));
    let hook = before_passes(move || match code.swap(0, Ordering::SeqCst) {
        0 => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
    });
    let (queue, _) = open_with(dir.path(), Some(hook));
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(paths(dir.path()).db()).unwrap());
    let old = inode();
    let mut number = 0;
    while inode() == old {
        append_much(&queue, number).await;
        number += 1;
    }
    append(&queue, &["after"]).await;
    assert!(!paths(dir.path()).suspect().exists());
    // The keeper has the new file open from now on, and not the old one.
    for number in number..number + 40 {
        append_much(&queue, number).await;
    }
    queue.close().await;
    drop(queue);
    let (queue, report) = open_store(dir.path());
    assert!(!report.rebuilt && report.salvaged.is_none() && report.possible_loss.is_none());
    check_balance(&queue);
    assert_eq!(queue.books().newest_sequence.0, (number as u64 + 40) * 8 + 1);
}
