//! What a flush waits for, and how it counts.

use std::future::pending;

use embeddables_queue::Disposition;

use super::*;
use crate::testing::{Bench, NOW, project};

const LIMIT: Duration = Duration::from_secs(30);

async fn flush_all(bench: &Bench, limit: Duration) -> Flushed {
    let projects = ["pr_a", "pr_b"].map(project);
    flush(&*bench.store, &bench.board, &projects, limit, pending())
        .await
        .expect("the store answers")
}

/// Flushes while `meanwhile` goes on; what became of it, and how long it took.
async fn while_flushing(bench: &Bench, meanwhile: impl Future<Output = ()>) -> (Flushed, Duration) {
    let begin = Instant::now();
    let flush = async { (flush_all(bench, LIMIT).await, begin.elapsed()) };
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        meanwhile.await;
    };
    tokio::join!(flush, meanwhile).0
}

#[tokio::test(start_paused = true)]
async fn with_nothing_there_it_returns_at_once() {
    let bench = Bench::new();
    bench.publish("pr_a", "before").await;
    bench.deliver("pr_a", 1).await;
    let begin = Instant::now();
    assert_eq!(flush_all(&bench, LIMIT).await, Flushed::default());
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn it_returns_once_all_that_was_there_is_settled_whatever_came_after() {
    let bench = Bench::new();
    for id in ["a1", "a2", "a3"] {
        bench.publish("pr_a", id).await;
    }
    bench.publish("pr_b", "b1").await;
    let (flushed, elapsed) = while_flushing(&bench, async {
        bench.publish("pr_a", "newer").await;
        bench.deliver("pr_a", 2).await;
        bench.deliver("pr_b", 1).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        bench.give_up("pr_a", 1, "MAX_AGE").await;
    })
    .await;
    let expected = Flushed {
        delivered: 3,
        dead_lettered: 1,
        ..Flushed::default()
    };
    assert_eq!(flushed, expected);
    assert_eq!(elapsed, Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_it_tells_what_is_left_by_its_state() {
    let bench = Bench::new();
    for id in ["a1", "a2", "a3"] {
        bench.publish("pr_a", id).await;
    }
    bench.publish("pr_b", "b1").await;
    bench.show_held("pr_b");
    let (flushed, elapsed) = while_flushing(&bench, async {
        bench.deliver("pr_a", 1).await;
        let wait = Disposition::Wait {
            until: embeddables_queue::UnixMillis(NOW.0 + 1_000_000),
            progress: bytes::Bytes::new(),
        };
        bench.settle("pr_a", 1, &wait).await;
        bench.publish("pr_b", "newer").await;
    })
    .await;
    let expected = Flushed {
        delivered: 1,
        dead_lettered: 0,
        queued: 1,
        waiting: 1,
        held: 1,
    };
    assert_eq!(flushed, expected);
    assert_eq!(elapsed, LIMIT);
    assert_eq!(flushed.to_proto().held_count, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_of_before_that_is_replayed_or_discarded_is_not_mistaken_for_an_event() {
    let bench = Bench::new();
    bench.publish("pr_a", "dead").await;
    bench.give_up("pr_a", 1, "MAX_AGE").await;
    bench.publish("pr_a", "here").await;
    let (flushed, elapsed) = while_flushing(&bench, async {
        let discard = embeddables_queue::TakeAs::Discard { time: NOW };
        let taken = bench.store.take(&[Sequence(1)], discard).await;
        assert_eq!(taken.expect("discards"), 1);
        tokio::time::sleep(Duration::from_secs(5)).await;
        bench.deliver("pr_a", 1).await;
    })
    .await;
    assert_eq!((flushed.delivered, flushed.queued), (1, 0));
    assert_eq!(elapsed, Duration::from_millis(5_100));
}

#[tokio::test(start_paused = true)]
async fn where_outcomes_are_evicted_meanwhile_it_still_ends_and_counts() {
    let bench = Bench::with(|config| config.dedupe_ids = 0);
    for id in ["a1", "a2", "a3"] {
        bench.publish("pr_a", id).await;
    }
    let (flushed, elapsed) = while_flushing(&bench, async {
        bench.deliver("pr_a", 2).await;
        bench.give_up("pr_a", 1, "MAX_AGE").await;
        bench.publish("pr_a", "newer").await;
    })
    .await;
    assert_eq!((flushed.delivered, flushed.dead_lettered), (2, 1));
    assert_eq!((flushed.queued, flushed.waiting, flushed.held), (0, 0, 0));
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_sidecar_and_of_one_project_counts_no_other() {
    let bench = Bench::new();
    bench.publish("pr_a", "a1").await;
    bench.publish("pr_b", "b1").await;
    let end = tokio::time::sleep(Duration::from_secs(2));
    let flushed = flush(&*bench.store, &bench.board, &[project("pr_a")], LIMIT, end).await;
    assert_eq!(flushed.expect("the store answers").queued, 1);
    let refused = bench.pipeline.flush("pr_unknown", LIMIT).await;
    assert_eq!(
        refused,
        Err(crate::ingest::refusal::Refusal::ProjectNotConfigured)
    );
}

#[tokio::test(start_paused = true)]
async fn lanes_are_told_not_to_linger() {
    let mut bench = Bench::new();
    bench.publish("pr_a", "a1").await;
    flush_all(&bench, Duration::from_millis(10)).await;
    let post = bench.posts.get_mut(&project("pr_a")).expect("a post");
    assert!(matches!(
        post.commands.try_recv(),
        Ok(crate::dispatch::board::Command::Hurry)
    ));
}
