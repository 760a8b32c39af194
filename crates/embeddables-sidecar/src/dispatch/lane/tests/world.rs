//! What a lane runs in here: the queue in memory, an upstream that answers by a script, and clocks that the tests pause.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embeddables_client::{ApiKey, BaseUrl, Endpoint};
use embeddables_core::{
    Attempt, Defaults, Event, EventId, Fate, Identifier, IdentifierValue, ProjectId, Receipt, Rules,
    Timestamp, Verdict,
};
use embeddables_queue::memory::{MemoryConfig, MemoryQueue};
use embeddables_queue::{
    Append, Durability, EntryState, LaneBooks, LaneName, Ledger as _, NewRecord, Queue as _, Store,
    UnixMillis,
};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use crate::clock::Clock;
use crate::deliver::{Deliver, Parcel};
use crate::dispatch::Pulse;
use crate::dispatch::board::{Board, LaneView};
use crate::dispatch::gates::{GateSettings, ProbeIntervals};
use crate::dispatch::lane::{Lane, LaneParts, LaneSettings, Stop};
use crate::dispatch::schedule::Schedule;
use crate::enqueue::codec;
use crate::settle::progress::Progress;
use crate::settle::rules::{Ambiguity, Policy};

pub(super) const PROJECT: &str = "pr_1";

/// Steady and wall time are tokio's, which the tests pause.
pub(super) struct TestClock(Instant);

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
pub(super) struct Running(pub(super) Instant);

impl embeddables_queue::RunningClock for Running {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// One scripted answer: how long it takes and what it is.
type Scripted = (Duration, Attempt);

pub(super) struct World {
    pub(super) store: Arc<MemoryQueue>,
    pub(super) clock: Arc<TestClock>,
    pub(super) script: Arc<Mutex<VecDeque<Scripted>>>,
    /// Attempts under way at once, at most.
    pub(super) peak: Arc<AtomicUsize>,
    pub(super) calls: Arc<AtomicUsize>,
    /// Ids in the order in which they were sent.
    pub(super) sent: Arc<Mutex<Vec<String>>>,
    pub(super) next_id: AtomicUsize,
    pub(super) endpoint: watch::Sender<Arc<Endpoint>>,
    pub(super) board: Mutex<Board>,
}

impl World {
    pub(super) fn new(script: impl IntoIterator<Item = Scripted>) -> Self {
        let now = Instant::now();
        let config = MemoryConfig {
            clock: Arc::new(Running(now)),
            ..MemoryConfig::new(vec![lane_name()])
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

    pub(super) fn lane(&self, max_in_flight: usize) -> Lane {
        self.lane_with(max_in_flight, |_| {})
    }

    pub(super) fn lane_with(&self, max_in_flight: usize, change: impl FnOnce(&mut Policy)) -> Lane {
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
            name: lane_name(),
            gates: GateSettings {
                max_in_flight: NonZeroUsize::new(max_in_flight).expect("not zero"),
                rate: None,
                probes: ProbeIntervals {
                    min: Duration::from_secs(5),
                    max: Duration::from_secs(300),
                },
                ambiguous_is_final: false,
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

    pub(super) fn view(&self) -> LaneView {
        let board = self.board.lock().expect("the board").clone();
        board.view(&project()).expect("the lane")
    }

    pub(super) async fn publish(&self, deliver_before: Option<UnixMillis>) -> String {
        let user = format!("user-{}", self.next_id.load(Ordering::SeqCst));
        self.publish_for(&user, deliver_before).await
    }

    /// Appends an event of a user and returns its id.
    pub(super) async fn publish_for(&self, user: &str, deliver_before: Option<UnixMillis>) -> String {
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
            lane: lane_name(),
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

    pub(super) async fn state(&self, id: &str) -> (EntryState, Progress) {
        let entry = self
            .store
            .find(&lane_name(), id)
            .await
            .expect("readable")
            .expect("known");
        (
            entry.state,
            Progress::decode_bytes(&entry.progress).expect("decodes"),
        )
    }

    pub(super) fn books(&self) -> LaneBooks {
        self.store.books().lanes.remove(0).1
    }
}

pub(super) fn project() -> ProjectId {
    ProjectId::parse(PROJECT).expect("a project")
}

pub(super) fn lane_name() -> LaneName {
    LaneName::new(PROJECT)
}

pub(super) fn endpoint(key: &str) -> Arc<Endpoint> {
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

pub(super) fn answer(http_status: u16, verdict: Verdict) -> Attempt {
    Attempt {
        fate: Fate::of_status(http_status),
        verdict,
        http_status: Some(http_status),
        detail: http_status.to_string(),
        excerpt: None,
    }
}

pub(super) fn delivered() -> Attempt {
    answer(200, Verdict::Delivered(Receipt::default()))
}

pub(super) fn unavailable() -> Attempt {
    answer(503, Verdict::Unavailable { retry_after: None })
}

/// Runs a lane until the condition holds, at most for a simulated day.
pub(super) async fn run_until(lane: Lane, condition: impl AsyncFn() -> bool) {
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
