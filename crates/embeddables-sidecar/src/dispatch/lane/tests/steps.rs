//! A lane taken by the hand, step by step: what must hold whatever comes between two of them.

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use embeddables_core::Verdict;
use embeddables_queue::Queue as _;
use embeddables_queue::memory::MemoryConfig;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use super::world::{PROJECT, Running, World, answer, endpoint, project, run_until, unavailable};
use crate::deliver::Parcel;
use crate::dispatch::lane::*;
use crate::settle::rules::Ambiguity;

fn claim_of(max: usize) -> embeddables_queue::Claim {
    embeddables_queue::Claim {
        lane: LaneName::new(PROJECT),
        max: NonZeroUsize::new(max).expect("not zero"),
        max_waiting: max,
        live_percent: 0,
        now: UnixMillis(i64::MAX / 2),
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_told_after_a_later_settlement_keeps_the_order() {
    let world = World::new([(Duration::from_millis(1), unavailable())]);
    let x = world.publish_for("same", None).await;
    let z = world.publish_for("same", None).await;
    let mut lane = world.lane_with(4, |policy| policy.ordered = true);
    let first = world.store.claim(claim_of(1)).await;
    lane.claimed(first);
    lane.start_sending(Instant::now());
    // Committed before the settlement of `x`, told after it.
    let second = world.store.claim(claim_of(1)).await;
    lane.claiming = Some(Box::pin(std::future::pending()));
    let ended = lane.attempts.next().await.expect("under way");
    lane.conclude_all(ended);
    lane.start_settling(Instant::now());
    let (batch, result) = lane.settling.as_mut().expect("settling").await;
    lane.settled(batch, result);
    tokio::time::sleep(Duration::from_secs(1)).await;
    lane.claimed(second);
    lane.start_sending(Instant::now());
    while let Some(ended) = lane.attempts.next().await {
        lane.conclude_all(ended);
    }
    let sent = world.sent.lock().expect("the list").clone();
    lane.abandon();
    assert_eq!(sent, [x], "{z} overtakes an earlier event that waits");
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_cut_is_not_sent_again_where_that_is_forbidden_also_if_it_was_given_back() {
    let world = World::new([]);
    world.publish(None).await;
    let lease = world.store.claim(claim_of(1)).await.expect("claimed").leases;
    assert_eq!(lease.len(), 1);
    drop(lease);
    let config = MemoryConfig {
        clock: Arc::new(Running(Instant::now())),
        ..MemoryConfig::new(vec![LaneName::new(PROJECT)])
    };
    let world = World {
        store: Arc::new(world.store.reopened(config)),
        ..world
    };
    let mut lane = world.lane_with(4, |policy| {
        policy.ordered = true;
        policy.ambiguity = Ambiguity::DeadLetter;
    });
    let claimed = world.store.claim(claim_of(1)).await;
    assert!(claimed.as_ref().expect("claimed").leases[0].interrupted);
    lane.claimed(claimed);
    // A gate closes before its turn.
    let (reply, _answer) = tokio::sync::oneshot::channel();
    lane.obey(crate::dispatch::board::Command::Hold {
        note: String::new(),
        reply,
    });
    lane.start_sending(Instant::now());
    lane.start_settling(Instant::now());
    let (batch, result) = lane.settling.as_mut().expect("settling").await;
    lane.settled(batch, result);
    let (reply, _answer) = tokio::sync::oneshot::channel();
    lane.obey(crate::dispatch::board::Command::Resume { reply });
    run_until(lane, async || {
        world.books().delivered + world.books().dead_lettered == 1
    })
    .await;
    let sent = world.sent.lock().expect("the list").clone();
    assert!(
        sent.is_empty(),
        "sent again although its fate is unknown: {sent:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_a_new_record_is_noticed_soon_although_another_one_is_far_off() {
    let world = World::new([]);
    let wall = |seconds: i64| UnixMillis(world.clock.wall().0 + seconds * 1_000);
    let lane = world.lane(4);
    let board = world.board.lock().expect("the board").clone();
    let hold = tokio::spawn(async move { board.hold(&project(), String::new()).await });
    world.publish(Some(wall(3_600))).await;
    let begin = Instant::now();
    run_until(lane, async || {
        if begin.elapsed() >= Duration::from_secs(2) && world.next_id.load(Ordering::SeqCst) == 1 {
            world.publish(Some(wall(2))).await;
        }
        world.books().dead_lettered == 1
    })
    .await;
    hold.await.expect("the hold ends").expect("it runs");
    assert!(begin.elapsed() < Duration::from_secs(7), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_outage_counts_for_nothing_in_the_entry_schedule() {
    // 503 for five minutes, then upstream says that the user is unknown.
    let world = World::new([]);
    let begin = Instant::now();
    let first_unknown: Arc<Mutex<Option<Instant>>> = Arc::default();
    let mut lane = world.lane(4);
    let (sent, noted) = (Arc::clone(&world.sent), Arc::clone(&first_unknown));
    lane.deliver = BoxCloneSyncService::new(service_fn(move |parcel: Parcel| {
        sent.lock()
            .expect("the list")
            .push(parcel.event.event_id().as_str().to_owned());
        let noted = Arc::clone(&noted);
        async move {
            tokio::time::sleep(Duration::from_millis(400)).await;
            if begin.elapsed() < Duration::from_secs(300) {
                return Ok::<_, Infallible>(unavailable());
            }
            noted.lock().expect("the time").get_or_insert_with(Instant::now);
            Ok(answer(404, Verdict::EntryNotFound))
        }
    }));
    for _ in 0..3 {
        world.publish_for("same", None).await;
    }
    run_until(lane, async || world.books().dead_lettered >= 1).await;
    let waited = first_unknown.lock().expect("the time").expect("told").elapsed();
    let sent = world.sent.lock().expect("the list").len();
    assert!(
        waited >= Duration::from_secs(60),
        "given up {waited:?} after upstream first said that it does not know the user; {sent} sent"
    );
}

#[tokio::test(start_paused = true)]
async fn the_view_shows_the_end_of_a_pause_that_was_made_longer() {
    let world = World::new([]);
    let mut lane = world.lane(4);
    let now = Instant::now();
    let tickets = [lane.gates.begin(false, 1, now), lane.gates.begin(false, 2, now)];
    for (ticket, seconds) in tickets.into_iter().zip([5, 60]) {
        let wish = Verdict::Unavailable {
            retry_after: Some(Duration::from_secs(seconds)),
        };
        lane.gates
            .end(ticket, &answer(429, wish), [1; 16], now, &mut lane.random);
        lane.show(now);
    }
    let shown = world.view().next_try.expect("known").0 - world.clock.wall().0;
    assert!(shown >= 60_000, "goes on in {shown} ms");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_counts_for_the_key_that_it_was_made_with() {
    let world = World::new([]);
    world.publish(None).await;
    let mut lane = world.lane(4);
    let used: Arc<Mutex<Vec<String>>> = Arc::default();
    let keys = Arc::clone(&used);
    lane.deliver = BoxCloneSyncService::new(service_fn(move |parcel: Parcel| {
        let key = parcel.endpoint.api_key().fingerprint();
        keys.lock().expect("the list").push(key);
        async { Ok::<_, Infallible>(answer(401, Verdict::KeyRejected)) }
    }));
    let former = lane.standing.endpoint.api_key().fingerprint();
    lane.claimed(world.store.claim(claim_of(1)).await);
    // The key file changes; the loop has not come to it.
    world.endpoint.send_replace(endpoint("rk_test_another_one"));
    lane.start_sending(Instant::now());
    lane.rekey();
    let ended = lane.attempts.next().await.expect("under way");
    lane.conclude_all(ended);
    assert_eq!(*used.lock().expect("the list"), [former]);
    assert!(lane.gates.held().is_none(), "the new key was not asked");
    lane.abandon();
}
