//! The gates together: their order, and every way back to sending.

use embeddables_core::{Attempt, Fate, Receipt, Verdict};
use embeddables_queue::{OrderKey, UnixMillis};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;
use crate::dispatch::board::{Condition, HoldReason};

const KEY: OrderKey = [1; 16];
const TRIP: Duration = Duration::from_millis(10);

struct World {
    gates: Gates,
    now: Instant,
    random: SmallRng,
}

impl World {
    fn new(change: impl FnOnce(&mut GateSettings)) -> Self {
        let now = Instant::now();
        let mut settings = GateSettings {
            max_in_flight: NonZeroUsize::new(8).expect("not zero"),
            rate: None,
            probes: ProbeIntervals {
                min: Duration::from_secs(5),
                max: Duration::from_secs(300),
            },
            ambiguous_is_final: false,
            half_open_attempts: 1,
        };
        change(&mut settings);
        Self {
            gates: Gates::new(settings, now),
            now,
            random: SmallRng::seed_from_u64(7),
        }
    }

    fn max(&mut self) -> usize {
        self.gates.send_room(0, self.now).0
    }

    /// One attempt after the other that ends like this.
    fn attempt(&mut self, attempt: &Attempt) -> Vec<Change> {
        let ticket = self.gates.begin(false, 1, self.now);
        self.now += TRIP;
        self.gates.end(ticket, attempt, KEY, self.now, &mut self.random)
    }

    /// Waits as long as the gates say.
    fn wait(&mut self) {
        while let (0, Some(until)) = self.gates.send_room(0, self.now) {
            assert!(until > self.now, "a time that has come must let something pass");
            self.now = until;
        }
    }
}

fn answer(http_status: u16, verdict: Verdict) -> Attempt {
    Attempt {
        fate: Fate::of_status(http_status),
        verdict,
        http_status: Some(http_status),
        detail: String::new(),
        excerpt: None,
    }
}

fn delivered() -> Attempt {
    answer(200, Verdict::Delivered(Receipt::default()))
}

fn unavailable(http_status: u16) -> Attempt {
    answer(http_status, Verdict::Unavailable { retry_after: None })
}

#[test]
fn a_lane_begins_with_one_attempt_and_grows_with_what_upstream_serves() {
    let mut world = World::new(|_| {});
    assert_eq!(world.max(), 1);
    for _ in 0..3 {
        world.attempt(&delivered());
    }
    assert!(world.max() > 1);
}

#[test]
fn a_rejected_key_closes_the_lane_and_only_a_probe_passes() {
    let mut world = World::new(|_| {});
    assert_eq!(
        world.attempt(&answer(401, Verdict::KeyRejected)),
        [Change::Held(HoldReason::KeyRejected)]
    );
    let held = held(HoldReason::KeyRejected, "", UnixMillis(0));
    let now = world.now;
    world.gates.hold(held, now, &mut world.random);
    assert!(matches!(world.gates.passage(world.now), Passage::Closed(_)));
    world.wait();
    assert_eq!(world.gates.passage(world.now), Passage::Probe);
    assert_eq!(world.attempt(&answer(401, Verdict::KeyRejected)), []);
    world.wait();
    assert_eq!(world.attempt(&delivered()), [Change::Lifted]);
    world.wait();
    assert_eq!(world.max(), 1, "a resume begins with one");
}

#[test]
fn an_answer_to_an_old_key_says_nothing_of_the_new_one() {
    let mut world = World::new(|_| {});
    let ticket = world.gates.begin(false, 1, world.now);
    let now = world.now;
    world.gates.rekeyed(now, &mut world.random);
    let changes = world.gates.end(
        ticket,
        &answer(401, Verdict::KeyRejected),
        KEY,
        now,
        &mut world.random,
    );
    assert_eq!(changes, []);
    assert!(world.gates.held().is_none());
}

#[test]
fn a_probe_with_an_old_key_is_followed_by_another_one() {
    let mut world = World::new(|_| {});
    let (now, held) = (world.now, held(HoldReason::Config, "", UnixMillis(0)));
    world.gates.hold(held, now, &mut world.random);
    world.wait();
    let ticket = world.gates.begin(false, 1, world.now);
    let now = world.now;
    world.gates.rekeyed(now, &mut world.random);
    world.gates.end(ticket, &delivered(), KEY, now, &mut world.random);
    assert!(
        world.gates.held().is_some(),
        "the old key's success does not count"
    );
    world.wait();
    assert_eq!(world.gates.passage(world.now), Passage::Probe);
}

#[test]
fn nothing_passes_while_upstream_asked_for_time() {
    let mut world = World::new(|_| {});
    for _ in 0..5 {
        world.attempt(&delivered());
    }
    let asked = answer(
        429,
        Verdict::Unavailable {
            retry_after: Some(Duration::from_secs(60)),
        },
    );
    assert!(world.attempt(&asked).contains(&Change::Paused));
    let begin = world.now;
    assert!(matches!(world.gates.passage(world.now), Passage::Closed(_)));
    world.wait();
    assert!(world.now >= begin + Duration::from_secs(60));
    assert_eq!(world.max(), 1);
}

#[test]
fn failures_in_a_row_leave_one_attempt_that_finds_out() {
    let mut world = World::new(|_| {});
    for _ in 0..4 {
        assert_eq!(world.attempt(&unavailable(500)), []);
    }
    assert_eq!(world.attempt(&unavailable(500)), [Change::Opened]);
    world.wait();
    assert_eq!(world.max(), 1);
    let ticket = world.gates.begin(false, 1, world.now);
    assert_eq!(
        world.gates.send_room(1, world.now),
        (0, None),
        "no second one before its end"
    );
    let now = world.now;
    let changes = world.gates.end(ticket, &delivered(), KEY, now, &mut world.random);
    assert_eq!(changes, [Change::Closed]);
}

#[test]
fn where_nothing_may_go_twice_the_first_unknown_fate_opens_the_breaker() {
    let mut world = World::new(|settings| settings.ambiguous_is_final = true);
    assert_eq!(world.attempt(&unavailable(502)), [Change::Opened]);
    let mut patient = World::new(|_| {});
    assert_eq!(patient.attempt(&unavailable(502)), []);
}

#[test]
fn the_configured_rate_is_kept_however_much_upstream_serves() {
    let mut world = World::new(|settings| {
        settings.rate = Some("10/s".parse().expect("a rate"));
    });
    assert_eq!(world.max(), 1);
    world.attempt(&delivered());
    assert!(matches!(world.gates.send_room(0, world.now), (0, Some(_))));
}

#[test]
fn what_an_earlier_life_left_is_gone_on_with() {
    let mut world = World::new(|_| {});
    let now = world.now;
    world
        .gates
        .restore(Duration::from_secs(30), true, now, &mut world.random);
    assert!(world.gates.pause_left(now) >= Duration::from_secs(30));
    world.wait();
    assert!(world.now >= now + Duration::from_secs(30));
    assert_eq!(world.gates.condition(world.now).0, Condition::BreakerHalfOpen);
    assert_eq!(world.max(), 1);
}

#[test]
fn an_operator_opens_everything() {
    let mut world = World::new(|_| {});
    for _ in 0..5 {
        world.attempt(&unavailable(500));
    }
    let (now, held) = (world.now, held(HoldReason::Operator, "", UnixMillis(0)));
    world.gates.hold(held, now, &mut world.random);
    world.gates.open(now, &mut world.random);
    world.wait();
    assert!(world.now <= now + Duration::from_millis(200));
    assert_eq!(world.max(), 1);
}

#[test]
fn a_little_more_is_claimed_than_can_be_sent_but_where_a_crash_would_give_it_up() {
    for (ambiguous_is_final, expected) in [(false, 10), (true, 8)] {
        let mut world = World::new(|settings| settings.ambiguous_is_final = ambiguous_is_final);
        for _ in 0..40 {
            let ticket = world.gates.begin(false, 8, world.now);
            world.now += TRIP;
            let now = world.now;
            world.gates.end(ticket, &delivered(), KEY, now, &mut world.random);
        }
        assert_eq!(world.max(), 8);
        let room = world.gates.claim_room(0, 0, 0, world.now).expect("room");
        assert_eq!(room.max.get(), expected);
        assert_eq!(world.gates.claim_room(8, 2, 0, world.now), Err(None));
    }
}

fn operator() -> Held {
    held(HoldReason::Operator, "", UnixMillis(5))
}

#[test]
fn a_probe_under_way_does_not_lift_an_operators_hold() {
    let mut world = World::new(|_| {});
    world.attempt(&answer(401, Verdict::KeyRejected));
    // The lane holds on that change.
    let key_held = held(HoldReason::KeyRejected, "", UnixMillis(1));
    world.gates.hold(key_held, world.now, &mut world.random);
    world.now += Duration::from_secs(6);
    let probe = world.gates.begin(false, 1, world.now);
    world.gates.hold(operator(), world.now, &mut world.random);
    world.now += TRIP;
    let success = answer(200, Verdict::Delivered(Receipt::default()));
    let changes = world
        .gates
        .end(probe, &success, KEY, world.now, &mut world.random);
    assert_eq!(
        world.gates.held().map(|held| held.reason),
        Some(HoldReason::Operator),
        "{changes:?}"
    );
}

#[test]
fn an_old_probe_does_not_let_a_second_one_through() {
    let mut world = World::new(|_| {});
    let hold_now = |world: &mut World| {
        let key_held = held(HoldReason::KeyRejected, "", UnixMillis(1));
        world.gates.hold(key_held, world.now, &mut world.random);
        world.now += Duration::from_secs(6);
    };
    hold_now(&mut world);
    let old = world.gates.begin(false, 1, world.now);
    // An operator (or another key) opens the lane while the probe hangs; it is held again.
    world.gates.open(world.now, &mut world.random);
    hold_now(&mut world);
    let _new = world.gates.begin(false, 2, world.now);
    assert_eq!(world.max(), 0, "a probe is under way");
    let hung = Attempt {
        fate: Fate::Ambiguous,
        ..answer(500, Verdict::Unavailable { retry_after: None })
    };
    world.gates.end(old, &hung, KEY, world.now, &mut world.random);
    world.now += Duration::from_secs(700);
    assert_eq!(world.max(), 0, "the new probe is still under way");
}

#[test]
fn what_is_claimed_ahead_does_not_outrun_the_budget_for_repeats() {
    let mut world = World::new(|settings| settings.max_in_flight = NonZeroUsize::new(256).expect("not zero"));
    let success = answer(200, Verdict::Delivered(Receipt::default()));
    // Up to the full limit.
    for _ in 0..9 {
        let limit = world.gates.concurrency_limit();
        let tickets: Vec<_> = (1..=limit)
            .map(|count| world.gates.begin(false, count, world.now))
            .collect();
        world.now += TRIP;
        for ticket in tickets {
            world
                .gates
                .end(ticket, &success, KEY, world.now, &mut world.random);
        }
    }
    assert_eq!(world.gates.concurrency_limit(), 256);
    // The budget is used up but for one.
    for _ in 0..255 {
        world.gates.begin(true, 1, world.now);
    }
    // Everything is under way: what is claimed waits in `ready`.
    let mut ready = 0;
    let mut repeats = 0;
    while let Ok(room) = world.gates.claim_room(256, ready, repeats, world.now) {
        let taken = room.max.get().min(room.max_repeats);
        if taken == 0 {
            break;
        }
        ready += taken;
        repeats += taken;
    }
    assert!(repeats <= 1, "{repeats} repeats claimed on one token");
}
