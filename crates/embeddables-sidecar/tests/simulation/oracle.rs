//! Knows what is true, hears of every request, answer and settlement, and says what must not have happened.
//!
//! # What it checks
//! 1. I1, I2: an acknowledged event is known after every restart and comes to one legitimate end, with its bytes as they were.
//! 2. I3: a lane in which nothing goes wrong delivers within seconds; one stuck user holds nobody else up.
//! 3. I7: once nothing goes wrong any more everything comes to its end.
//! 4. I8: an attempt of unknown fate that is followed by another is flagged, or final where so configured.
//! 5. Holds, pauses, breaker, rate, concurrency, canaries and order, at the begin of every request.
//! 6. Age: nothing is given up for its age before it has spent it while its lane was not held.

mod ends;
mod requests;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use embeddables_core::{Attempt, Fate, ProjectId, Verdict};
use embeddables_queue::{LaneName, OrderKey, Sequence, UnixMillis};
use embeddables_sidecar::dispatch::board::{Board, HoldReason};
use tokio::time::Instant;

use crate::clock::Wall;
use crate::plan::{EventPlan, LanePlan, Plan};

/// What was answered to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) fate: Fate,
    /// Upstream answered for itself, whatever it said of the event.
    served: bool,
    delivered: bool,
    not_found: bool,
    key_rejected: bool,
    retry_after: Option<Duration>,
}

impl Answered {
    pub(crate) fn of(attempt: &Attempt) -> Self {
        let retry_after = match attempt.verdict {
            Verdict::Unavailable { retry_after } => retry_after,
            _ => None,
        };
        Self {
            fate: attempt.fate,
            served: !matches!(attempt.verdict, Verdict::Unavailable { .. }),
            delivered: matches!(attempt.verdict, Verdict::Delivered(_)),
            not_found: attempt.verdict == Verdict::EntryNotFound,
            key_rejected: attempt.verdict == Verdict::KeyRejected,
            retry_after,
        }
    }
}

/// One request of an event.
#[derive(Clone, Debug)]
struct Request {
    number: u64,
    began: Instant,
    created: bool,
    /// `None` while under way, and for ever where a crash cut it.
    answered: Option<Answered>,
}

/// What is true of an event.
#[derive(Debug, Default)]
struct EventTruth {
    sequence: Option<Sequence>,
    order_key: OrderKey,
    /// When it was first acknowledged.
    acknowledged: Option<Instant>,
    /// When it was written, whatever its caller was told.
    written: Option<Instant>,
    /// When its record was made, by the wall clock.
    deadline: Option<UnixMillis>,
    requests: Vec<Request>,
    /// Its end is committed.
    ended: bool,
    /// How often that was so.
    ends: usize,
    /// When it was last replayed, and how many requests it had had by then.
    replayed: Option<(Instant, usize)>,
    /// Somebody gave it up before it was sent.
    reason: Option<String>,
}

/// A request under way.
#[derive(Clone, Debug)]
struct InFlight {
    id: String,
    user: usize,
    key: usize,
    began: Instant,
}

/// What is true of a lane.
#[derive(Debug)]
struct LaneTruth {
    key_upstream: usize,
    events: BTreeMap<String, EventTruth>,
    in_flight: BTreeMap<u64, InFlight>,
    /// When upstream asked to wait, and until when.
    paused: Option<(Instant, Instant)>,
    /// Failures in a row of attempts begun since upstream last served one, and when there were enough of them.
    failures: u32,
    broken_since: Option<Instant>,
    served_at: Instant,
    /// Since when its settlements are refused.
    unsettled_since: Option<Instant>,
    /// Key in the key file.
    key_in_file: usize,
    /// Keys that upstream has refused.
    refused_keys: BTreeSet<usize>,
    /// A key that was answered 401, and when.
    rejected: Option<(usize, Instant)>,
    newest_request: Option<Instant>,
    /// Users that upstream was seen to know in this life.
    known: BTreeSet<usize>,
    /// When upstream first said that it does not know a user.
    unknown_since: BTreeMap<usize, Instant>,
    begun: Vec<Instant>,
    operator: Option<(Instant, Instant)>,
}

#[derive(Debug)]
struct Inner {
    violation: Option<String>,
    trace: Vec<String>,
    next_request: u64,
    board: Option<Board>,
    crashed_at: Vec<(Instant, Instant)>,
    lanes: Vec<LaneTruth>,
    by_sequence: BTreeMap<Sequence, (usize, String)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Oracle {
    plan: Arc<Plan>,
    wall: Arc<Wall>,
    begin: Instant,
    inner: Mutex<Inner>,
}

impl Oracle {
    pub(crate) fn new(plan: Arc<Plan>, wall: Arc<Wall>) -> Arc<Self> {
        let begin = Instant::now();
        let lane = |_: &LanePlan| LaneTruth {
            key_upstream: 0,
            unsettled_since: None,
            key_in_file: 0,
            refused_keys: BTreeSet::new(),
            events: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            paused: None,
            failures: 0,
            broken_since: None,
            served_at: begin,
            rejected: None,
            newest_request: None,
            known: BTreeSet::new(),
            unknown_since: BTreeMap::new(),
            begun: Vec::new(),
            operator: None,
        };
        Arc::new(Self {
            inner: Mutex::new(Inner {
                violation: None,
                trace: Vec::new(),
                next_request: 0,
                board: None,
                crashed_at: Vec::new(),
                lanes: plan.lanes.iter().map(lane).collect(),
                by_sequence: BTreeMap::new(),
            }),
            plan,
            wall,
            begin,
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("the oracle")
    }

    /// The first violation.
    pub(crate) fn violation(&self) -> Option<String> {
        self.inner().violation.clone()
    }

    /// All that happened, a line each.
    pub(crate) fn trace(&self) -> Vec<String> {
        self.inner().trace.clone()
    }

    pub(crate) fn fail(&self, message: String) {
        self.fail_in(&mut self.inner(), message);
    }

    fn fail_in(&self, inner: &mut Inner, message: String) {
        let at = self.begin.elapsed();
        inner.violation.get_or_insert(format!("after {at:?}: {message}"));
    }

    fn note(&self, inner: &mut Inner, line: String) {
        let at = self.begin.elapsed();
        inner.trace.push(format!("{at:?} {line}"));
    }

    /// The plan of an event. Where a planted bug gave it another id, that of the event that it repeats.
    pub(crate) fn event(&self, lane: usize, id: &str) -> EventPlan {
        let id = id.split('~').next().unwrap_or(id);
        let events = &self.plan.lanes[lane].events;
        let found = events.iter().find(|event| event.id == id);
        found.expect("an event of the plan").clone()
    }

    /// Key that upstream takes now.
    pub(crate) fn key_upstream(&self, lane: usize) -> usize {
        self.inner().lanes[lane].key_upstream
    }

    /// Upstream takes another key from now on.
    pub(crate) fn rekeyed_upstream(&self, lane: usize) {
        self.inner().lanes[lane].key_upstream = 1;
    }

    /// Another key is in the key file from now on.
    pub(crate) fn rekeyed(&self, lane: usize) {
        self.inner().lanes[lane].key_in_file = 1;
    }

    /// Where the lanes of this life show themselves.
    pub(crate) fn watch(&self, board: Board) {
        self.inner().board = Some(board);
    }

    /// A lane must not be held for its key while upstream has never refused the one in its key file.
    fn check_hold(&self, lane: usize) {
        let mut inner = self.inner();
        let project = ProjectId::parse(&format!("pr_{lane}")).expect("a project");
        let view = inner.board.as_ref().and_then(|board| board.view(&project));
        let hold = view.and_then(|view| view.hold).map(|hold| hold.reason);
        let truth = &inner.lanes[lane];
        if hold == Some(HoldReason::KeyRejected) && !truth.refused_keys.contains(&truth.key_in_file) {
            self.fail_in(
                &mut inner,
                format!("lane {lane} is held for a key that upstream never refused"),
            );
        }
    }

    /// Requests of a lane under way.
    pub(crate) fn in_flight(&self, lane: usize) -> usize {
        self.inner().lanes[lane].in_flight.len()
    }

    /// Whether a crash comes within that time.
    pub(crate) fn crashes_within(&self, time: Duration) -> bool {
        let now = self.begin.elapsed();
        self.plan
            .crashes
            .iter()
            .any(|(at, _)| *at > now && *at <= now + time)
    }

    /// Whether an event was accepted, not longer ago than that.
    pub(crate) fn was_accepted_within(&self, lane: &LaneName, id: &str, time: Duration) -> bool {
        let inner = self.inner();
        let event = lane_index(lane).and_then(|lane| inner.lanes[lane].events.get(id));
        let acknowledged = event.and_then(|event| event.acknowledged);
        acknowledged.is_some_and(|at| at.elapsed() <= time)
    }

    /// Lane and order key of a record.
    pub(crate) fn key_of(&self, sequence: Sequence) -> Option<(LaneName, OrderKey)> {
        let inner = self.inner();
        let (lane, id) = inner.by_sequence.get(&sequence)?;
        let event = inner.lanes[*lane].events.get(id)?;
        Some((LaneName::new(format!("pr_{lane}")), event.order_key))
    }

    /// Time between two moments in which the sidecar ran.
    fn time_up(inner: &Inner, from: Instant, until: Instant) -> Duration {
        let down: Duration = inner
            .crashed_at
            .iter()
            .map(|(down, up)| (*up).min(until).saturating_duration_since((*down).max(from)))
            .sum();
        until.saturating_duration_since(from).saturating_sub(down)
    }

    fn wall_now(&self) -> UnixMillis {
        self.wall.now()
    }
}

/// Number of a lane by its name in the queue.
fn lane_index(lane: &LaneName) -> Option<usize> {
    lane.as_str().strip_prefix("pr_")?.parse().ok()
}
