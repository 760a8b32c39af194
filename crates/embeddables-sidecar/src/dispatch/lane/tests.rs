//! A lane against the queue in memory, a scripted upstream and tokio's paused clock.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use embeddables_client::{ApiKey, BaseUrl};
use embeddables_core::{
    Defaults, Event, EventId, Fate, Identifier, IdentifierValue, ProjectId, Receipt, Rules, Timestamp,
    Verdict,
};
use embeddables_queue::memory::{MemoryConfig, MemoryQueue};
use embeddables_queue::{Append, Durability, EntryState, LaneBooks, Ledger as _, NewRecord, Queue as _};
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use super::*;

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
    next_id: AtomicUsize,
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
            next_id: AtomicUsize::new(0),
        }
    }

    /// The upstream: answers by the script, and with 200 once that is used up.
    fn upstream(&self) -> Deliver {
        let (script, peak, calls) = (
            Arc::clone(&self.script),
            Arc::clone(&self.peak),
            Arc::clone(&self.calls),
        );
        let under_way = Arc::new(AtomicUsize::new(0));
        BoxCloneSyncService::new(service_fn(move |_: Parcel| {
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
        let endpoint = Endpoint::new(
            BaseUrl::parse("http://127.0.0.1:1").expect("a URL"),
            ProjectId::parse(PROJECT).expect("a project"),
            ApiKey::parse("rk_test_0123456789").expect("a key"),
        );
        let settings = LaneSettings {
            name: LaneName::new(PROJECT),
            endpoint: Arc::new(endpoint),
            max_in_flight: NonZeroUsize::new(max_in_flight).expect("not zero"),
            schedule: Arc::new(Schedule {
                retry_min: Duration::from_millis(500),
                retry_max: Duration::from_secs(300),
                max_age: Duration::from_secs(3_600),
                entry_schedule: [10, 60].map(Duration::from_secs).to_vec(),
            }),
            pulse: Pulse::new(self.clock.steady()),
            lost: Counter::default(),
        };
        let store: Arc<dyn Store> = Arc::clone(&self.store) as Arc<dyn Store>;
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Lane::new(settings, store, self.upstream(), clock, Arc::default(), 7)
    }

    /// Appends an event and returns its id.
    async fn publish(&self, deliver_before: Option<UnixMillis>) -> String {
        let id = format!("id-{}", self.next_id.fetch_add(1, Ordering::SeqCst));
        let project = ProjectId::parse(PROJECT).expect("a project");
        let event = Event {
            embeddable_id: "flow_1".to_owned(),
            name: "visit".to_owned(),
            identifier: Some(Identifier {
                key: "email".to_owned(),
                value: Some(IdentifierValue::String("a@b.co".to_owned())),
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
            order_key: [0; 16],
            deadline: None,
            accept_time: self.clock.wall(),
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
    let failures = (0..5).map(|_| (Duration::from_millis(100), unavailable()));
    let world = World::new(failures);
    for _ in 0..50 {
        world.publish(None).await;
    }
    run_until(world.lane(5), async || world.books().delivered == 50).await;
    assert_eq!(world.peak.load(Ordering::SeqCst), 5);
    assert_eq!(world.calls.load(Ordering::SeqCst), 55);
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
