//! What a crash between two steps leaves behind. Each state is built from files and must open with nothing lost.

use std::collections::BTreeMap;

use super::{append, check_balance, claimed_ids, dir_of, files, open_store, paths};
use crate::OpenError;
use crate::sqlite::SqliteQueue;
use crate::sqlite::{connection, rebuild};

type Files = BTreeMap<String, Vec<u8>>;

/// Files of a store as a kill leaves them, with two records, one of them only in the log.
async fn killed() -> Files {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open_store(dir.path());
    append(&queue, &["one"]).await;
    append(&queue, &["two"]).await;
    let files = files(dir.path());
    assert!(!files["queue.db-wal"].is_empty());
    files
}

/// The copy that a rebuild makes of those files.
fn copy_of(files: &Files) -> Vec<u8> {
    let dir = dir_of(files);
    let paths = paths(dir.path());
    let source = connection::open_writer(&paths.db()).unwrap();
    rebuild::copy(&source, &paths).unwrap();
    std::fs::read(paths.rebuilt()).unwrap()
}

async fn check(name: &str, files: &Files, rebuilt: bool) {
    let dir = dir_of(files);
    let (queue, report) = open_store(dir.path());
    assert_eq!(report.rebuilt, rebuilt, "{name}");
    assert!(
        report.salvaged.is_none() && report.possible_loss.is_none(),
        "{name}: {report:?}"
    );
    append(&queue, &["three"]).await;
    check_balance(&queue);
    assert_eq!(claimed_ids(&queue).await, ["one", "two", "three"], "{name}");
    for leftover in [
        paths(dir.path()).suspect(),
        paths(dir.path()).rebuilt(),
        paths(dir.path()).rebuild_tmp(),
    ] {
        assert!(!leftover.exists(), "{name}: {}", leftover.display());
    }
    drop(queue);
    let (queue, report) = open_store(dir.path());
    assert!(!report.rebuilt, "{name}");
    assert_eq!(claimed_ids(&queue).await.len(), 3, "{name}");
}

#[tokio::test]
async fn every_crash_point_of_a_rebuild_opens_with_nothing_lost() {
    let killed = killed().await;
    let copy = copy_of(&killed);
    let with = |added: &[(&str, &[u8])], removed: &[&str]| {
        let mut files = killed.clone();
        for (name, content) in added {
            files.insert((*name).to_owned(), content.to_vec());
        }
        for name in removed {
            files.remove(*name);
        }
        files
    };
    let suspect: (&str, &[u8]) = ("queue.suspect", b"");
    let rebuilt: (&str, &[u8]) = ("queue.db.rebuilt", &copy);
    let half: (&str, &[u8]) = ("queue.db.rebuild-tmp", &copy[..copy.len() / 2]);
    check("killed", &killed, false).await;
    check("marked suspect", &with(&[suspect], &[]), true).await;
    check("half copied", &with(&[suspect, half], &[]), true).await;
    check("half copied, marker lost", &with(&[half], &[]), false).await;
    check("copied", &with(&[suspect, rebuilt], &[]), true).await;
    check("copied, marker lost", &with(&[rebuilt], &[]), true).await;
    check("log removed", &with(&[suspect, rebuilt], &["queue.db-wal"]), true).await;
    check(
        "log and index removed",
        &with(&[suspect, rebuilt], &["queue.db-wal", "queue.db-shm"]),
        true,
    )
    .await;
    let mut renamed = with(&[suspect], &["queue.db-wal", "queue.db-shm"]);
    renamed.insert("queue.db".into(), copy.clone());
    check("renamed", &renamed, true).await;
    renamed.remove("queue.suspect");
    check("marker removed", &renamed, false).await;
}

#[tokio::test]
async fn a_failed_commit_in_the_old_log_does_not_follow_the_copy() {
    let killed = killed().await;
    let copy = copy_of(&killed);
    // More came into the old log after the copy was made: as if a failed commit came back from the page cache.
    let dir = dir_of(&killed);
    let (queue, _) = open_store(dir.path());
    append(&queue, &["came back"]).await;
    let mut late = files(dir.path());
    late.insert("queue.db.rebuilt".into(), copy);
    late.remove("queue.mark");
    check("old log with more", &late, true).await;
}

#[tokio::test]
async fn a_store_half_made_is_made_again() {
    for content in [&b""[..], &b"half"[..]] {
        let files = Files::from([("queue.db.rebuild-tmp".to_owned(), content.to_vec())]);
        let dir = dir_of(&files);
        let (queue, report) = open_store(dir.path());
        assert!(report.created);
        append(&queue, &["one"]).await;
    }
    let files = Files::from([
        ("queue.db".to_owned(), Vec::new()),
        ("queue.suspect".to_owned(), Vec::new()),
    ]);
    let (_, report) = open_store(dir_of(&files).path());
    assert!(report.created);
}

#[tokio::test]
async fn a_second_process_is_refused_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open_store(dir.path());
    append(&queue, &["one"]).await;
    let error = SqliteQueue::open(super::config(dir.path()))
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    append(&queue, &["two"]).await;
    assert_eq!(claimed_ids(&queue).await, ["one", "two"]);
}

#[tokio::test]
async fn a_copied_directory_counts_every_record_as_possibly_tried() {
    let dir = dir_of(&killed().await);
    let (queue, report) = open_store(dir.path());
    assert!(report.copied);
    let claimed = super::claim(&queue, 10, 1).await;
    assert!(claimed.leases.len() == 2 && claimed.leases.iter().all(|lease| lease.interrupted));
    append(&queue, &["three"]).await;
    assert!(
        !super::claim(&queue, 10, 1).await.leases[0].interrupted,
        "what is new here was not tried elsewhere"
    );
}

#[tokio::test]
async fn a_store_that_ends_below_its_mark_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open_store(dir.path());
    append(&queue, &["one"]).await;
    let mut early = files(dir.path());
    append(&queue, &["two"]).await;
    crate::Queue::close(&*queue).await;
    early.insert("queue.mark".into(), files(dir.path())["queue.mark"].clone());
    let dir = dir_of(&early);
    let (queue, report) = open_store(dir.path());
    let loss = report.possible_loss.unwrap();
    assert!(loss.store_commit < loss.mark_commit);
    assert_eq!(crate::Ledger::books(&*queue).possible_losses, 1);
    assert_eq!(claimed_ids(&queue).await, ["one"]);
    append(&queue, &["three"]).await;
    let sequence = crate::Ledger::find(&*queue, &super::lane(), "three")
        .await
        .unwrap()
        .unwrap()
        .sequence;
    assert_eq!(sequence.0, 3, "the lost number is not given out again");
    drop(queue);
    let (queue, report) = open_store(dir.path());
    assert!(report.possible_loss.is_none(), "it is reported once");
    assert_eq!(crate::Ledger::books(&*queue).possible_losses, 1);
}
