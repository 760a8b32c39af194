//! A lane against the queue in memory, a scripted upstream and tokio's paused clock.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use embeddables_client::{ApiKey, BaseUrl};
use embeddables_core::{
    Attempt, Defaults, Event, EventId, Fate, Identifier, IdentifierValue, ProjectId, Receipt, Rules,
    Timestamp, Verdict,
};
use embeddables_queue::memory::{MemoryConfig, MemoryQueue};
use embeddables_queue::{Append, Durability, EntryState, LaneBooks, Ledger as _, NewRecord, Queue as _};
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use super::*;
use crate::deliver::Parcel;
use crate::dispatch::board::{Board, Condition, HoldReason};
use crate::dispatch::gates::ProbeIntervals;
use crate::dispatch::schedule::Schedule;
use crate::enqueue::codec;
use crate::settle::progress::Progress;
use crate::settle::rules::Ambiguity;

const PROJECT: &str = "pr_1";

/// Steady and wall time are tokio's, which the tests pause.
struct TestClock(Instant);

impl Clock for TestClock {
    fn wall(&self) -> UnixMillis {
        self.steady()
    }

    fn steady(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000 + i64::try_from(self.0.elapsed().as_millis()).expect("a short test"))
    }
}

/// Running time of the queue on tokio's clock.
#[derive(Debug)]
struct Running(Instant);

impl embeddables_queue::RunningClock for Running {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// One scripted answer: how long it takes and what it is.
type Scripted = (Duration, Attempt);

struct World {
    store: Arc<MemoryQueue>,
    clock: Arc<TestClock>,
    script: Arc<Mutex<VecDeque<Scripted>>>,
    /// Attempts under way at once, at most.
    peak: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    /// Ids in the order in which they were sent.
    sent: Arc<Mutex<Vec<String>>>,
    next_id: AtomicUsize,
    endpoint: watch::Sender<Arc<Endpoint>>,
    board: Mutex<Board>,
}

fn project() -> ProjectId {
    ProjectId::parse(PROJECT).expect("a project")
}

fn endpoint(key: &str) -> Arc<Endpoint> {
    let url = BaseUrl::parse("http://127.0.0.1:1").expect("a URL");
    Arc::new(Endpoint::new(url, project(), ApiKey::parse(key).expect("a key")))
}

fn order_key(user: &str) -> [u8; 16] {
    let mut key = [0; 16];
    for (place, byte) in user.bytes().take(16).enumerate() {
        key[place] = byte;
    }
    key
}

impl World {
    fn new(script: impl IntoIterator<Item = Scripted>) -> Self {
        let now = Instant::now();
        let config = MemoryConfig {
            clock: Arc::new(Running(now)),
            ..MemoryConfig::new(vec![LaneName::new(PROJECT)])
        };
        Self {
            store: Arc::new(MemoryQueue::new(config)),
            clock: Arc::new(TestClock(now)),
            script: Arc::new(Mutex::new(script.into_iter().collect())),
            peak: Arc::default(),
            calls: Arc::default(),
            sent: Arc::default(),
            next_id: AtomicUsize::new(0),
            endpoint: watch::Sender::new(endpoint("rk_test_0123456789")),
            board: Mutex::default(),
        }
    }

    /// The upstream: answers by the script, and with 200 once that is used up.
    fn upstream(&self) -> Deliver {
        let (script, peak, calls, sent) = (
            Arc::clone(&self.script),
            Arc::clone(&self.peak),
            Arc::clone(&self.calls),
            Arc::clone(&self.sent),
        );
        let under_way = Arc::new(AtomicUsize::new(0));
        BoxCloneSyncService::new(service_fn(move |parcel: Parcel| {
            let id = parcel.event.event_id().as_str().to_owned();
            sent.lock().expect("the list").push(id);
            let scripted = script.lock().expect("the script").pop_front();
            let (delay, attempt) = scripted.unwrap_or((Duration::from_millis(10), delivered()));
            let (peak, under_way) = (Arc::clone(&peak), Arc::clone(&under_way));
            calls.fetch_add(1, Ordering::SeqCst);
            async move {
                peak.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(delay).await;
                under_way.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Infallible>(attempt)
            }
        }))
    }

    fn lane(&self, max_in_flight: usize) -> Lane {
        self.lane_with(max_in_flight, |_| {})
    }

    fn lane_with(&self, max_in_flight: usize, change: impl FnOnce(&mut Policy)) -> Lane {
        let mut policy = Policy {
            schedule: Schedule {
                retry_min: Duration::from_millis(500),
                retry_max: Duration::from_secs(300),
                max_age: Duration::from_secs(3_600),
                entry_schedule: [10, 60].map(Duration::from_secs).to_vec(),
            },
            ambiguity: Ambiguity::Retry,
            ordered: false,
        };
        change(&mut policy);
        let settings = LaneSettings {
            name: LaneName::new(PROJECT),
            gates: GateSettings {
                max_in_flight: NonZeroUsize::new(max_in_flight).expect("not zero"),
                rate: None,
                probes: ProbeIntervals {
                    min: Duration::from_secs(5),
                    max: Duration::from_secs(300),
                },
                trip_at_ambiguous: false,
                half_open_attempts: 1,
            },
            policy: Arc::new(policy),
            max_batch: NonZeroUsize::new(128).expect("not zero"),
            linger: Duration::ZERO,
            live_percent: 20,
            pulse: Pulse::new(self.clock.steady()),
            lost: Counter::default(),
        };
        let (board, mut posts) = Board::new([project()]);
        *self.board.lock().expect("the board") = board;
        let parts = LaneParts {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            deliver: self.upstream(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            feed: Arc::default(),
            endpoint: self.endpoint.subscribe(),
            post: posts.remove(&project()).expect("its post"),
            seed: 7,
        };
        Lane::new(settings, parts)
    }

    fn view(&self) -> crate::dispatch::board::LaneView {
        let board = self.board.lock().expect("the board").clone();
        board.view(&project()).expect("the lane")
    }

    async fn publish(&self, deliver_before: Option<UnixMillis>) -> String {
        let user = format!("user-{}", self.next_id.load(Ordering::SeqCst));
        self.publish_for(&user, deliver_before).await
    }

    /// Appends an event of a user and returns its id.
    async fn publish_for(&self, user: &str, deliver_before: Option<UnixMillis>) -> String {
        let id = format!("id-{}", self.next_id.fetch_add(1, Ordering::SeqCst));
        let project = project();
        let event = Event {
            embeddable_id: "flow_1".to_owned(),
            name: "visit".to_owned(),
            identifier: Some(Identifier {
                key: "email".to_owned(),
                value: Some(IdentifierValue::String(user.to_owned())),
            }),
            ..Event::default()
        };
        let defaults = Defaults {
            project_id: Some(&project),
            event_id: EventId::parse(&id).expect("an id"),
            now: Timestamp::from_unix(0, 0).expect("a time"),
        };
        let event = event
            .validate(&defaults, &Rules::default())
            .expect("a valid event");
        let record = NewRecord {
            lane: LaneName::new(PROJECT),
            id: id.as_str().into(),
            fingerprint: [0; 16],
            order_key: order_key(user),
            accept_time: self.clock.wall(),
            deadline: deliver_before,
            payload: codec::encode(event, deliver_before),
        };
        let append = Append {
            records: vec![record],
            durability: Durability::Memory,
            atomic: false,
        };
        let results = self.store.append(append).await.expect("appended");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        id
    }

    async fn state(&self, id: &str) -> (EntryState, Progress) {
        let entry = self
            .store
            .find(&LaneName::new(PROJECT), id)
            .await
            .expect("readable")
            .expect("known");
        (
            entry.state,
            Progress::decode_bytes(&entry.progress).expect("decodes"),
        )
    }

    fn books(&self) -> LaneBooks {
        self.store.books().lanes.remove(0).1
    }
}

fn answer(http_status: u16, verdict: Verdict) -> Attempt {
    Attempt {
        fate: Fate::of_status(http_status),
        verdict,
        http_status: Some(http_status),
        detail: http_status.to_string(),
        excerpt: None,
    }
}

fn delivered() -> Attempt {
    answer(200, Verdict::Delivered(Receipt::default()))
}

fn unavailable() -> Attempt {
    answer(503, Verdict::Unavailable { retry_after: None })
}

/// Runs a lane until the condition holds, at most for a simulated day.
async fn run_until(lane: Lane, condition: impl AsyncFn() -> bool) {
    let (stop, stopped) = watch::channel(Stop::Run);
    let run = tokio::spawn(lane.run(stopped));
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(86_400), met)
        .await
        .expect("the condition holds within a day");
    stop.send_replace(Stop::Finish);
    assert_eq!(run.await.expect("the lane ends"), 0, "leases left open");
}

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
            assert!(
                !world.store.lane_state(&LaneName::new(PROJECT)).ageing,
                "no age is spent"
            );
            world.endpoint.send_replace(endpoint("rk_test_another"));
            rekeyed.set(true);
        }
        world.books().delivered == 10
    })
    .await;
    assert!(rekeyed.get());
    assert_eq!(world.view().condition, Condition::Open);
    assert!(world.store.lane_state(&LaneName::new(PROJECT)).ageing);
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
