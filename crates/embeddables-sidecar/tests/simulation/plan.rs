//! A scenario, drawn from a seed: lanes, users, events, and everything that goes wrong.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt as _, SeedableRng as _};

/// Until then things go wrong.
pub(crate) const FAULTS_END: Duration = Duration::from_mins(20);

/// Until then every event must have come to its end: the longest schedule, a probe, a retry and a pause later, and some.
pub(crate) const END: Duration = Duration::from_mins(50);

/// Tries of an event whose user is unknown.
pub(crate) const ENTRY_SCHEDULE: [Duration; 4] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(600),
];

/// Longest `Retry-After` that upstream sends.
const LONGEST_PAUSE_S: u64 = 120;

/// All that happens.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) lanes: Vec<LanePlan>,
    /// Crashes: when, and how long until the next start.
    pub(crate) crashes: Vec<(Duration, Duration)>,
    /// Jumps of the wall clock, in milliseconds.
    pub(crate) jumps: Vec<(Duration, i64)>,
    /// Times in which the store refuses writes.
    pub(crate) refusals: Vec<Refusal>,
}

/// A time in which the store refuses writes of some kinds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) appends: bool,
    pub(crate) claims: bool,
    pub(crate) settlements: bool,
    pub(crate) lane_states: bool,
    /// Of each call.
    pub(crate) probability: f64,
}

/// One project.
#[derive(Clone, Debug)]
pub(crate) struct LanePlan {
    pub(crate) ordered: bool,
    pub(crate) ambiguous_is_final: bool,
    pub(crate) max_in_flight: usize,
    pub(crate) rate_per_second: Option<u32>,
    pub(crate) max_age: Duration,
    /// Nothing goes wrong in it: what happens elsewhere must not be felt.
    pub(crate) clean: bool,
    pub(crate) users: Vec<User>,
    pub(crate) events: Vec<EventPlan>,
    pub(crate) windows: Vec<Window>,
    /// The key changes: upstream at the first time, the key file at the second.
    pub(crate) rotation: Option<(Duration, Duration)>,
    /// An operator holds the lane: from, until.
    pub(crate) operator: Option<(Duration, Duration)>,
    /// An operator resumes the lane, whatever it does.
    pub(crate) resumes: Vec<Duration>,
    /// An operator replays all of its dead letters.
    pub(crate) replays: Vec<Duration>,
}

/// A user of a project.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// When upstream knows the user; `None`: never.
    pub(crate) appears: Option<Duration>,
}

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct EventPlan {
    pub(crate) id: String,
    pub(crate) user: usize,
    pub(crate) at: Duration,
    /// Upstream rejects it as it is.
    pub(crate) bad: bool,
    /// Time that the caller gives it.
    pub(crate) deliver_within: Option<Duration>,
    /// The caller sends it again after this time, although it was acknowledged.
    pub(crate) repeat_after: Option<Duration>,
}

/// A time in which upstream of a lane misbehaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) trouble: Trouble,
}

/// How upstream misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// No connection.
    Refused,
    /// 503, perhaps with a time to wait.
    Overloaded { retry_after: Option<Duration> },
    /// No answer within the attempt's time.
    Hangs,
    /// 502: it may have been carried out.
    Gateway,
    /// 403 from something on the way.
    Forbidden,
    /// More than so many a second are answered 429.
    Throttled {
        per_second: u32,
        retry_after: Option<Duration>,
    },
    /// Every other request fails, some after they were carried out.
    Flaky,
    /// It answers as it should, after up to this time.
    Slow { most: Duration },
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let count = random.random_range(1..=3);
        let lanes: Vec<_> = (0..count).map(|lane| LanePlan::draw(lane, &mut random)).collect();
        let crashes = times(&mut random, 3)
            .into_iter()
            .map(|at| (at, seconds(&mut random, 0..=60)))
            .collect();
        let jumps = times(&mut random, 2)
            .into_iter()
            .map(|at| (at, random.random_range(-10..=10) * 31_536_000_000))
            .collect();
        let refusals = Refusal::draw(&lanes, &mut random);
        Self {
            lanes,
            crashes,
            jumps,
            refusals,
        }
    }

    /// With which probability the store refuses a call of a kind at this time.
    pub(crate) fn refuses(&self, at: Duration, is_kind: impl Fn(&Refusal) -> bool) -> Option<f64> {
        let is_now = |refusal: &&Refusal| refusal.from <= at && at < refusal.until && is_kind(refusal);
        self.refusals
            .iter()
            .find(is_now)
            .map(|refusal| refusal.probability)
    }
}

impl Refusal {
    /// The lanes share a store: where one of them is clean it refuses nothing.
    fn draw(lanes: &[LanePlan], random: &mut SmallRng) -> Vec<Self> {
        if lanes.iter().any(|lane| lane.clean) {
            return Vec::new();
        }
        let begins = times(random, 2);
        let refusal = |from| Self {
            from,
            until: from + seconds(random, 1..=100),
            appends: random.random_bool(0.5),
            claims: random.random_bool(0.7),
            settlements: random.random_bool(0.7),
            lane_states: random.random_bool(0.7),
            probability: [0.5, 1.0][random.random_range(0..2)],
        };
        begins.into_iter().map(refusal).collect()
    }
}

impl LanePlan {
    fn draw(lane: usize, random: &mut SmallRng) -> Self {
        let clean = lane == 0 && random.random_bool(0.5);
        let ordered = !clean && random.random_bool(0.35);
        let users: Vec<User> = (0..random.random_range(1..=5))
            .map(|_| User::draw(clean, random))
            .collect();
        let mut events = events(lane, users.len(), clean, random);
        let windows = if clean { Vec::new() } else { windows(random) };
        let rotation = (!clean && random.random_bool(0.3)).then(|| {
            let at = seconds(random, 60..=1_000);
            if random.random_bool(0.5) {
                // While requests with the old key are under way.
                add_burst(lane, at, users.len(), &mut events, random);
                return (at, at + Duration::from_millis(random.random_range(5..80)));
            }
            (
                at,
                (at + seconds(random, 0..=300)).saturating_sub(Duration::from_secs(60)),
            )
        });
        events.sort_by_key(|event| event.at);
        let operator = (!clean && random.random_bool(0.2)).then(|| {
            let from = seconds(random, 1..=1_000);
            (from, from + seconds(random, 1..=190))
        });
        let (resumes, replays) = match clean {
            true => (Vec::new(), Vec::new()),
            false => (times(random, 2), times(random, 3)),
        };
        let max_age = if clean {
            604_800
        } else {
            [120, 900, 604_800][random.random_range(0..3)]
        };
        Self {
            ordered,
            ambiguous_is_final: !clean && random.random_bool(0.25),
            max_in_flight: if clean { 16 } else { random.random_range(1..=16) },
            rate_per_second: (!clean && random.random_bool(0.2)).then(|| random.random_range(2..=20)),
            max_age: Duration::from_secs(max_age),
            clean,
            users,
            events,
            windows,
            rotation,
            operator,
            resumes,
            replays,
        }
    }

    /// What upstream does at this time besides answering.
    pub(crate) fn trouble(&self, at: Duration) -> Option<Trouble> {
        let window = self
            .windows
            .iter()
            .find(|window| window.from <= at && at < window.until)?;
        Some(window.trouble)
    }
}

impl User {
    fn draw(clean: bool, random: &mut SmallRng) -> Self {
        let appears = match random.random_range(0..10) {
            _ if clean => Some(Duration::ZERO),
            0 | 1 => Some(seconds(random, 1..=1_200)),
            2 => None,
            _ => Some(Duration::ZERO),
        };
        Self { appears }
    }
}

fn events(lane: usize, users: usize, clean: bool, random: &mut SmallRng) -> Vec<EventPlan> {
    let mut events = Vec::new();
    for _ in 0..random.random_range(3..=12) {
        let at = Duration::from_millis(random.random_range(0..1_200_000));
        let user = random.random_range(0..users);
        let burst = if random.random_bool(0.3) {
            random.random_range(2..=15)
        } else {
            1
        };
        let same_user = random.random_bool(0.5);
        for _ in 0..burst {
            let id = format!("e{lane}-{}", events.len());
            events.push(EventPlan {
                id,
                user: if same_user {
                    user
                } else {
                    random.random_range(0..users)
                },
                at,
                bad: !clean && random.random_bool(0.05),
                deliver_within: (!clean && random.random_bool(0.1)).then(|| seconds(random, 1..=600)),
                repeat_after: random
                    .random_bool(0.2)
                    .then(|| Duration::from_millis(random.random_range(1..30_000))),
            });
        }
    }
    events
}

/// Good events at one moment.
fn add_burst(lane: usize, at: Duration, users: usize, events: &mut Vec<EventPlan>, random: &mut SmallRng) {
    for _ in 0..5 {
        events.push(EventPlan {
            id: format!("e{lane}-{}", events.len()),
            user: random.random_range(0..users),
            at,
            bad: false,
            deliver_within: None,
            repeat_after: None,
        });
    }
}

fn windows(random: &mut SmallRng) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for from in times(random, 3) {
        let until = (from + seconds(random, 1..=400)).min(FAULTS_END);
        let retry_after = random
            .random_bool(0.5)
            .then(|| seconds(random, 1..=LONGEST_PAUSE_S));
        let trouble = match random.random_range(0..8) {
            0 => Trouble::Refused,
            1 => Trouble::Overloaded { retry_after },
            2 => Trouble::Hangs,
            3 => Trouble::Gateway,
            4 => Trouble::Forbidden,
            5 => Trouble::Flaky,
            6 => Trouble::Slow {
                most: seconds(random, 1..=25),
            },
            _ => Trouble::Throttled {
                per_second: random.random_range(1..=20),
                retry_after,
            },
        };
        windows.push(Window { from, until, trouble });
    }
    windows
}

/// Up to `most` times before the faults end, in order.
fn times(random: &mut SmallRng, most: usize) -> Vec<Duration> {
    let count = random.random_range(0..=most);
    let mut times: Vec<_> = (0..count).map(|_| seconds(random, 1..=1_190)).collect();
    times.sort();
    times
}

fn seconds(random: &mut impl Rng, range: std::ops::RangeInclusive<u64>) -> Duration {
    let (from, until) = range.into_inner();
    Duration::from_millis(random.random_range(from * 1_000..=until * 1_000))
}
