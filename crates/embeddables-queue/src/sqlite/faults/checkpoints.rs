//! Checkpoints that ended halfway: pages of the main file are old, new or torn in any mixture, and the log beside it is whole.
//!
//! A kill leaves the first pages new and the rest old, a power cut any mixture. `PROPTEST_CASES` sets how many mixtures are
//! drawn; a failing run prints its seed and the smallest one that fails.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner, contextualize_config};
use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;
use tempfile::TempDir;

use super::{append, check_balance, claim, config, dir_of, files, open_store, paths, payload};
use crate::OpenError;
use crate::sqlite::SqliteQueue;
use crate::sqlite::connection;
use crate::sqlite::format::Format;

type Files = BTreeMap<String, Vec<u8>>;

const PAGE_BYTES: usize = 4_096;
const SECTOR_BYTES: usize = 512;

/// What a checkpoint that ended halfway made of a page.
#[derive(Clone, Copy, Debug)]
enum Page {
    /// It was not written yet.
    Old,
    /// It was written.
    New,
    /// So many of its sectors were written.
    Torn(usize),
}

/// A store before a checkpoint, and its main file after it.
struct Checkpoint {
    /// With the log, which stays as it is.
    before: Files,
    /// The main file.
    after: Vec<u8>,
    /// Pages that the checkpoint writes, rising.
    written: Vec<usize>,
    /// Records that are in the store, oldest first.
    ids: Vec<String>,
}

impl Checkpoint {
    /// Of those files, which nobody has open.
    fn of(mut before: Files, ids: Vec<String>) -> Self {
        // The reserve is large and says nothing; the index of the log is made anew.
        before.remove("queue.reserve");
        before.remove("queue.db-shm");
        let dir = dir_of(&before);
        let store = writer(&dir);
        let (in_log, done) = store
            .wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE)
            .unwrap();
        assert_eq!(in_log, done, "all of the log was written back");
        drop(store);
        let after = std::fs::read(paths(dir.path()).db()).unwrap();
        let page = |file: &[u8], number: usize| file.chunks(PAGE_BYTES).nth(number).map(<[u8]>::to_vec);
        let written = (0..after.len() / PAGE_BYTES)
            .filter(|number| page(&after, *number) != page(&before["queue.db"], *number))
            .collect();
        Self {
            before,
            after,
            written,
            ids,
        }
    }

    /// The files where so much has become of the pages that it writes; those not told are old. `truncated` is the step after the
    /// last page: a file that shrinks has lost its end.
    fn cut(&self, pages: &[Page], truncated: bool) -> Files {
        let mut files = self.before.clone();
        let main = files.entry("queue.db".to_owned()).or_default();
        for (number, page) in self.written.iter().zip(pages) {
            let len_bytes = match page {
                Page::Old => continue,
                Page::New => PAGE_BYTES,
                Page::Torn(sectors) => sectors * SECTOR_BYTES,
            };
            let start = number * PAGE_BYTES;
            main.resize(main.len().max(start + PAGE_BYTES), 0);
            main[start..start + len_bytes].copy_from_slice(&self.after[start..start + len_bytes]);
        }
        // Changes nothing where the file grows.
        if truncated {
            main.truncate(self.after.len());
        }
        files
    }

    /// Opens what such a cut leaves, and looks for every record.
    async fn check(&self, pages: &[Page], truncated: bool) {
        let what = format!("{pages:?}, truncated: {truncated}");
        let dir = dir_of(&self.cut(pages, truncated));
        let (queue, report) = open_store(dir.path());
        assert!(
            report.salvaged.is_none() && report.possible_loss.is_none() && !report.rebuilt,
            "{what}: {report:?}"
        );
        let claimed = claim(&queue, 1_000, i64::MAX).await;
        let ids: Vec<&str> = claimed.leases.iter().map(|lease| &*lease.id).collect();
        assert_eq!(ids, self.ids, "{what}");
        for lease in &claimed.leases {
            assert_eq!(lease.payload, payload(&lease.id), "{what}");
        }
        check_balance(&queue);
    }
}

fn writer(dir: &TempDir) -> Connection {
    connection::open_writer(&paths(dir.path()).db()).unwrap()
}

fn ids(from: usize, to: usize) -> Vec<String> {
    // Payloads are twenty times as long.
    (from..to).map(|number| format!("{number:040}")).collect()
}

async fn append_all(queue: &SqliteQueue, ids: &[String]) {
    append(queue, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// The main file grows.
async fn growing() -> Checkpoint {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open_store(dir.path());
    append_all(&queue, &ids(0, 20)).await;
    crate::Queue::close(&*queue).await;
    drop(queue);
    let (queue, _) = open_store(dir.path());
    append_all(&queue, &ids(20, 60)).await;
    let checkpoint = Checkpoint::of(files(dir.path()), ids(0, 60));
    assert!(checkpoint.after.len() > checkpoint.before["queue.db"].len());
    checkpoint
}

/// The main file shrinks, and pages from its end move to the front.
async fn shrinking() -> Checkpoint {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open_store(dir.path());
    crate::Queue::close(&*queue).await;
    drop(queue);
    let store = super::connection_to(dir.path());
    store
        .execute_batch("CREATE TABLE filler (bytes); INSERT INTO filler VALUES (zeroblob(200000))")
        .unwrap();
    drop(store);
    let (queue, _) = open_store(dir.path());
    append_all(&queue, &ids(0, 40)).await;
    let dir = dir_of(&files(dir.path()));
    let store = writer(&dir);
    store.execute_batch("DROP TABLE filler").unwrap();
    let mut statement = store.prepare("PRAGMA incremental_vacuum").unwrap();
    let mut freed = statement.query([]).unwrap();
    // Each step frees one page.
    while freed.next().unwrap().is_some() {}
    drop(freed);
    drop(statement);
    drop(store);
    let checkpoint = Checkpoint::of(files(dir.path()), ids(0, 40));
    assert!(checkpoint.after.len() < checkpoint.before["queue.db"].len());
    checkpoint
}

#[tokio::test]
async fn a_kill_after_any_page_of_a_checkpoint_costs_nothing() {
    for checkpoint in [growing().await, shrinking().await] {
        let count = checkpoint.written.len();
        assert!(
            count > 10 && checkpoint.written[0] == 0,
            "{:?}",
            checkpoint.written
        );
        for done in 0..=count {
            checkpoint.check(&vec![Page::New; done], false).await;
        }
        checkpoint.check(&vec![Page::New; count], true).await;
    }
}

#[test]
fn a_power_cut_in_a_checkpoint_costs_nothing() {
    let page = prop_oneof![
        4 => Just(Page::Old),
        4 => Just(Page::New),
        1 => (1..PAGE_BYTES / SECTOR_BYTES).prop_map(Page::Torn),
    ];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let checkpoints = runtime.block_on(async { [growing().await, shrinking().await] });
    let most = checkpoints.iter().map(|one| one.written.len()).max().unwrap();
    let cuts = (
        0..checkpoints.len(),
        proptest::collection::vec(page, most),
        any::<bool>(),
    );
    let config = Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(contextualize_config(config))
        .run(&cuts, |(which, pages, truncated)| {
            runtime.block_on(checkpoints[which].check(&pages, truncated));
            Ok(())
        })
        .unwrap();
}

/// A newer format in the log, at any page of its way into the main file, and whatever a failed write has left behind.
#[tokio::test]
async fn a_newer_format_is_refused_unwritten_also_where_only_the_log_has_it() {
    let newer = Format { major: 2, minor: 3 };
    let dir = dir_of(&growing().await.before);
    let store = writer(&dir);
    newer.write(&store).unwrap();
    drop(store);
    let checkpoint = Checkpoint::of(files(dir.path()), Vec::new());
    for done in 0..=checkpoint.written.len() {
        for suspect in [false, true] {
            let mut before = checkpoint.cut(&vec![Page::New; done], false);
            if suspect {
                before.insert("queue.suspect".to_owned(), Vec::new());
            }
            let dir = dir_of(&before);
            let error = SqliteQueue::open(config(dir.path())).map(|_| ()).unwrap_err();
            assert!(
                matches!(&error, OpenError::Newer { found, .. } if *found == newer.to_string()),
                "{done} pages: {error:?}"
            );
            let mut after = files(dir.path());
            // Says nothing of its own: whoever opens first makes it anew.
            after.remove("queue.db-shm");
            after.remove("queue.lock");
            before.remove("queue.lock");
            assert!(after == before, "{done} pages: files were written");
        }
    }
}
