//! A lane against the queue in memory, a scripted upstream and tokio's paused clock: what is promised of it, case by case.

mod steps;
mod world;

use std::sync::atomic::Ordering;

use embeddables_core::Verdict;
use embeddables_queue::{EntryState, Ledger as _};

use self::world::{World, answer, delivered, endpoint, lane_name, project, run_until, unavailable};
use super::*;
use crate::dispatch::board::{Condition, HoldReason};

#[tokio::test(start_paused = true)]
async fn what_is_appended_is_delivered_also_while_the_lane_sleeps() {
    let world = World::new([]);
    world.publish(None).await;
    run_until(world.lane(4), async || {
        if world.books().delivered == 1 {
            world.publish(None).await;
        }
        world.books().delivered >= 2
    })
    .await;
    assert_eq!(world.books().accepted, world.books().delivered);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_retried_with_backoff() {
    let moment = Duration::from_millis(1);
    let world = World::new([
        (moment, unavailable()),
        (moment, unavailable()),
        (moment, unavailable()),
    ]);
    let id = world.publish(None).await;
    run_until(world.lane(4), async || world.books().delivered == 1).await;
    let (state, progress) = world.state(&id).await;
    assert!(matches!(state, EntryState::Delivered { .. }), "{state:?}");
    assert_eq!(progress.attempt_count, 4);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_user_is_tried_by_the_schedule_and_given_up_after_it() {
    let unknown = || (Duration::from_millis(1), answer(404, Verdict::EntryNotFound));
    let world = World::new([unknown(), unknown(), unknown()]);
    let id = world.publish(None).await;
    let begin = Instant::now();
    run_until(world.lane(4), async || world.books().dead_lettered == 1).await;
    let elapsed = begin.elapsed();
    assert!(
        (60..=62).contains(&elapsed.as_secs()),
        "given up after {elapsed:?}"
    );
    let (state, progress) = world.state(&id).await;
    assert!(matches!(state, EntryState::DeadLettered { ref reason, .. } if &**reason == "ENTRY_NOT_FOUND"));
    assert_eq!(progress.attempt_count, 3);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_max_in_flight_are_under_way_and_a_waiting_event_counts_for_none() {
    let mut script = vec![(Duration::from_millis(100), delivered()); 30];
    script.extend(vec![(Duration::from_millis(100), unavailable()); 4]);
    let world = World::new(script);
    for _ in 0..50 {
        world.publish(None).await;
    }
    run_until(world.lane(5), async || world.books().delivered == 50).await;
    assert_eq!(world.peak.load(Ordering::SeqCst), 5);
    assert_eq!(world.calls.load(Ordering::SeqCst), 54);
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_limit_has_passed_is_not_sent() {
    let world = World::new([]);
    let id = world.publish(Some(world.clock.wall())).await;
    run_until(world.lane(4), async || world.books().dead_lettered == 1).await;
    assert_eq!(world.calls.load(Ordering::SeqCst), 0);
    let (state, _) = world.state(&id).await;
    assert!(
        matches!(state, EntryState::DeadLettered { ref reason, .. } if &**reason == "DELIVER_BEFORE_PASSED")
    );
}

#[tokio::test(start_paused = true)]
async fn finishing_waits_for_what_is_in_flight_and_claims_nothing_more() {
    let world = World::new([(Duration::from_secs(5), delivered())]);
    world.publish(None).await;
    let (stop, stopped) = watch::channel(Stop::Run);
    let run = tokio::spawn(world.lane(1).run(stopped));
    while world.calls.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.publish(None).await;
    stop.send_replace(Stop::Finish);
    assert_eq!(run.await.expect("the lane ends"), 0);
    assert_eq!((world.books().delivered, world.books().ready), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn draining_delivers_all_that_is_due() {
    let world = World::new([]);
    for _ in 0..20 {
        world.publish(None).await;
    }
    let (stop, stopped) = watch::channel(Stop::Drain);
    assert_eq!(world.lane(2).run(stopped).await, 0);
    assert_eq!(world.books().delivered, 20);
    drop(stop);
}

#[tokio::test(start_paused = true)]
async fn abandoning_leaves_the_lease_open() {
    let world = World::new([(Duration::from_secs(3_600), delivered())]);
    world.publish(None).await;
    let (stop, stopped) = watch::channel(Stop::Run);
    let run = tokio::spawn(world.lane(1).run(stopped));
    while world.calls.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop.send_replace(Stop::Abandon);
    assert_eq!(run.await.expect("the lane ends"), 1);
    assert_eq!(world.books().delivered, 0);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_key_holds_the_lane_and_another_key_opens_it() {
    let rejected = || (Duration::from_millis(1), answer(401, Verdict::KeyRejected));
    let world = World::new([rejected(), rejected()]);
    for _ in 0..10 {
        world.publish(None).await;
    }
    let rekeyed = std::cell::Cell::new(false);
    run_until(world.lane(4), async || {
        // One that found it out, and one probe.
        if world.calls.load(Ordering::SeqCst) == 2 && !rekeyed.get() {
            let view = world.view();
            assert_eq!(view.hold.map(|hold| hold.reason), Some(HoldReason::KeyRejected));
            assert!(!world.store.lane_state(&lane_name()).ageing, "no age is spent");
            world.endpoint.send_replace(endpoint("rk_test_another"));
            rekeyed.set(true);
        }
        world.books().delivered == 10
    })
    .await;
    assert!(rekeyed.get());
    assert_eq!(world.view().condition, Condition::Open);
    assert!(world.store.lane_state(&lane_name()).ageing);
    let sent = world.sent.lock().expect("the list").clone();
    assert_ne!(sent[0], sent[1], "each probe is another event");
    assert_eq!(world.books().dead_lettered, 0);
}

#[tokio::test(start_paused = true)]
async fn of_an_unknown_user_only_one_event_is_tried_and_all_follow_its_success() {
    let unknown = || (Duration::from_millis(1), answer(404, Verdict::EntryNotFound));
    let world = World::new([unknown(), unknown()]);
    let begin = Instant::now();
    for _ in 0..20 {
        world.publish_for("late", None).await;
    }
    run_until(world.lane(8), async || world.books().delivered == 20).await;
    assert_eq!(
        world.calls.load(Ordering::SeqCst),
        22,
        "two in vain, and each once"
    );
    let sent = world.sent.lock().expect("the list").clone();
    assert_eq!(sent[..3], ["id-0", "id-0", "id-0"], "the canary");
    assert!(
        (60..62).contains(&begin.elapsed().as_secs()),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn in_an_ordered_lane_events_of_a_user_go_out_one_by_one_in_order() {
    let script = vec![
        (Duration::from_millis(5), delivered()),
        (Duration::from_millis(5), unavailable()),
        (Duration::from_millis(50), answer(400, Verdict::Invalid)),
    ];
    let world = World::new(script);
    for _ in 0..6 {
        world.publish_for("one", None).await;
    }
    let lane = world.lane_with(8, |policy| policy.ordered = true);
    run_until(lane, async || world.books().delivered == 5).await;
    let sent = world.sent.lock().expect("the list").clone();
    assert_eq!(sent, ["id-0", "id-1", "id-1", "id-2", "id-3", "id-4", "id-5"]);
    assert_eq!(world.peak.load(Ordering::SeqCst), 1);
    assert_eq!(world.books().dead_lettered, 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_passes_also_while_the_lane_is_held() {
    let world = World::new([(Duration::from_millis(1), answer(401, Verdict::KeyRejected))]);
    world.publish(None).await;
    let limit = UnixMillis(world.clock.wall().0 + 2_000);
    let lane = world.lane(4);
    let (stop, stopped) = watch::channel(Stop::Run);
    let run = tokio::spawn(lane.run(stopped));
    while world.view().condition != Condition::Held {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let id = world.publish(Some(limit)).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (state, _) = world.state(&id).await;
    assert!(
        matches!(state, EntryState::DeadLettered { ref reason, .. } if &**reason == "DELIVER_BEFORE_PASSED"),
        "{state:?}"
    );
    assert_eq!(world.calls.load(Ordering::SeqCst), 1);
    stop.send_replace(Stop::Finish);
    assert_eq!(run.await.expect("the lane ends"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_operator_holds_and_resumes_and_the_hold_outlives_the_lane() {
    let world = World::new([]);
    let (stop, stopped) = watch::channel(Stop::Run);
    let run = tokio::spawn(world.lane(4).run(stopped));
    let board = world.board.lock().expect("the board").clone();
    let view = board
        .hold(&project(), "moving house".to_owned())
        .await
        .expect("it runs");
    assert!(
        view.hold
            .is_some_and(|hold| hold.message.contains("moving house"))
    );
    world.publish(None).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    stop.send_replace(Stop::Finish);
    assert_eq!(run.await.expect("the lane ends"), 0);
    assert_eq!(world.calls.load(Ordering::SeqCst), 0);

    let lane = world.lane(4);
    assert_eq!(world.view().condition, Condition::Held, "known before it runs");
    let (stop, stopped) = watch::channel(Stop::Run);
    let run = tokio::spawn(lane.run(stopped));
    let board = world.board.lock().expect("the board").clone();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.calls.load(Ordering::SeqCst), 0);
    board.resume(&project()).await.expect("it runs");
    while world.books().delivered == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.send_replace(Stop::Finish);
    assert_eq!(run.await.expect("the lane ends"), 0);
}
