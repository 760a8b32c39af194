//! The hold: nothing is sent but a probe from time to time, because it would do no good or harm.
//!
//! # Invariants
//! 1. A 401 holds at once; [`REFUSALS`] refusals in a row of different identifiers hold; [`REJECTIONS`] rejections in a row hold
//!    where nothing was ever delivered with this configuration.
//! 2. At most one probe is under way, and two are at least one interval apart.
//! 3. A hold ends by the answer to a probe, by an operator, or, where the key was rejected, by another key. An operator's hold
//!    ends by an operator alone and sends no probe.

use std::time::Duration;

use embeddables_core::Verdict;
use embeddables_queue::{OrderKey, UnixMillis};
use rand::{Rng, RngExt as _};
use tokio::time::Instant;

use crate::dispatch::board::HoldReason;

/// Refusals in a row, of different identifiers, that hold.
const REFUSALS: usize = 5;

/// Rejections in a row that hold a lane without any success.
const REJECTIONS: u32 = 20;

/// Part of an interval that is added at most, so that many sidecars do not probe at once.
const JITTER: f64 = 0.1;

/// Time between probes; see the configuration keys `delivery.probe_min` and `delivery.probe_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeIntervals {
    /// Before the first probe; doubles with each.
    pub min: Duration,
    /// Longest.
    pub max: Duration,
}

/// A hold in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dispatch) struct Held {
    /// Why.
    pub(in crate::dispatch) reason: HoldReason,
    /// The same for a person.
    pub(in crate::dispatch) message: String,
    /// Wall time of its begin.
    pub(in crate::dispatch) since: UnixMillis,
}

#[derive(Clone, Debug)]
struct Probing {
    held: Held,
    /// Tells this hold from those before it.
    number: u64,
    /// When the lane came to be held.
    begun: Instant,
    step: u32,
    next: Instant,
    under_way: bool,
}

/// What the hold lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// Everything.
    All,
    /// One probe.
    Probe,
    /// Nothing before this time; `None`: before the probe under way has ended, or before an operator says so.
    None(Option<Instant>),
}

/// The hold of one lane.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    intervals: ProbeIntervals,
    held: Option<Probing>,
    /// Holds so far.
    count: u64,
    /// Time that the lane was held before the hold in force.
    held_before: Duration,
    /// Identifiers refused in a row.
    refused: Vec<OrderKey>,
    /// Rejections in a row.
    rejected: u32,
    /// Whether anything was delivered with this configuration.
    delivered: bool,
}

impl Hold {
    pub(super) fn new(intervals: ProbeIntervals) -> Self {
        Self {
            intervals,
            held: None,
            count: 0,
            held_before: Duration::ZERO,
            refused: Vec::new(),
            rejected: 0,
            delivered: false,
        }
    }

    /// The hold in force.
    pub(super) fn held(&self) -> Option<&Held> {
        self.held.as_ref().map(|probing| &probing.held)
    }

    /// Whether a probe is under way.
    pub(super) fn is_probing(&self) -> bool {
        self.held.as_ref().is_some_and(|probing| probing.under_way)
    }

    pub(super) fn passage(&self, now: Instant) -> Passage {
        match &self.held {
            None => Passage::All,
            Some(probing) if probing.held.reason == HoldReason::Operator || probing.under_way => {
                Passage::None(None)
            }
            Some(probing) if probing.next <= now => Passage::Probe,
            Some(probing) => Passage::None(Some(probing.next)),
        }
    }

    /// Holds the lane; an operator's hold gives way to another operator's alone.
    pub(super) fn begin(&mut self, held: Held, now: Instant, random: &mut impl Rng) {
        let by_operator = |held: &Held| held.reason == HoldReason::Operator;
        if self.held().is_some_and(by_operator) && !by_operator(&held) {
            return;
        }
        let begun = self.held.as_ref().map_or(now, |probing| probing.begun);
        self.count += 1;
        self.held = Some(Probing {
            held,
            number: self.count,
            begun,
            step: 0,
            next: now + self.interval(0, random),
            under_way: false,
        });
    }

    /// Time that the lane was held in all: what no event in flight has spent.
    pub(super) fn held_time(&self, now: Instant) -> Duration {
        let present = self.held.as_ref();
        self.held_before
            + present.map_or(Duration::ZERO, |probing| {
                now.saturating_duration_since(probing.begun)
            })
    }

    /// Lifts the hold; whether there was one.
    pub(super) fn lift(&mut self, now: Instant) -> bool {
        self.refused.clear();
        self.rejected = 0;
        self.held_before = self.held_time(now);
        self.held.take().is_some()
    }

    /// The lane has another key or address: what was seen with the former says nothing. Whether that lifted a hold.
    pub(super) fn reconfigured(&mut self, now: Instant) -> bool {
        self.refused.clear();
        self.rejected = 0;
        self.delivered = false;
        self.held()
            .is_some_and(|held| held.reason == HoldReason::KeyRejected)
            && self.lift(now)
    }

    /// Notes that a probe begins; gives the number of the hold that it is for.
    pub(super) fn probe_begun(&mut self) -> Option<u64> {
        let probing = self.held.as_mut()?;
        probing.under_way = true;
        Some(probing.number)
    }

    /// Notes how the probe of a hold ended; whether that lifted the hold. One of an earlier hold says nothing of this one.
    pub(super) fn probe_ended(
        &mut self,
        number: u64,
        verdict: &Verdict,
        now: Instant,
        random: &mut impl Rng,
    ) -> bool {
        let is_present = self.held.as_ref().is_some_and(|probing| probing.number == number);
        if is_present && matches!(verdict, Verdict::Delivered(_) | Verdict::EntryNotFound) {
            return self.lift(now);
        }
        self.probe_missed(number, now, random);
        false
    }

    /// Notes that the probe of a hold ended without an answer that counts.
    pub(super) fn probe_missed(&mut self, number: u64, now: Instant, random: &mut impl Rng) {
        let Some(mut probing) = self.held.take() else {
            return;
        };
        if probing.number == number {
            probing.under_way = false;
            probing.step = probing.step.saturating_add(1);
            probing.next = now + self.interval(probing.step, random);
        }
        self.held = Some(probing);
    }

    /// Notes an answer of upstream; the reason to hold the lane, where it is one.
    pub(super) fn answered(&mut self, verdict: &Verdict, key: OrderKey) -> Option<HoldReason> {
        match verdict {
            Verdict::Delivered(_) => {
                self.refused.clear();
                self.rejected = 0;
                self.delivered = true;
            }
            Verdict::EntryNotFound => {
                self.refused.clear();
                self.rejected = 0;
            }
            Verdict::KeyRejected => return Some(HoldReason::KeyRejected),
            Verdict::Refused => {
                self.rejected = 0;
                if !self.refused.contains(&key) {
                    self.refused.push(key);
                }
                if self.refused.len() >= REFUSALS {
                    return Some(HoldReason::Config);
                }
            }
            Verdict::Invalid => {
                self.refused.clear();
                self.rejected += 1;
                if !self.delivered && self.rejected >= REJECTIONS {
                    return Some(HoldReason::MassRejection);
                }
            }
            // Says nothing of key, route or event.
            Verdict::Unavailable { .. } => {}
        }
        None
    }

    fn interval(&self, step: u32, random: &mut impl Rng) -> Duration {
        let doubled = self
            .intervals
            .min
            .saturating_mul(2_u32.saturating_pow(step.min(31)));
        let interval = doubled.min(self.intervals.max);
        interval + interval.mul_f64(JITTER * random.random_range(0.0..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embeddables_core::Receipt;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    const INTERVALS: ProbeIntervals = ProbeIntervals {
        min: Duration::from_secs(5),
        max: Duration::from_secs(300),
    };

    fn held(reason: HoldReason) -> Held {
        Held {
            reason,
            message: String::new(),
            since: UnixMillis(0),
        }
    }

    fn delivered() -> Verdict {
        Verdict::Delivered(Receipt::default())
    }

    #[test]
    fn one_refused_key_holds_at_once() {
        let mut hold = Hold::new(INTERVALS);
        assert_eq!(
            hold.answered(&Verdict::KeyRejected, [1; 16]),
            Some(HoldReason::KeyRejected)
        );
    }

    #[test]
    fn refusals_hold_when_five_identifiers_in_a_row_meet_them() {
        let mut hold = Hold::new(INTERVALS);
        for _ in 0..100 {
            assert_eq!(
                hold.answered(&Verdict::Refused, [9; 16]),
                None,
                "one identifier is no pattern"
            );
        }
        for key in 0..3 {
            assert_eq!(hold.answered(&Verdict::Refused, [key; 16]), None);
        }
        assert_eq!(hold.answered(&delivered(), [7; 16]), None);
        for key in 0..4 {
            assert_eq!(
                hold.answered(&Verdict::Refused, [key; 16]),
                None,
                "a success began a new row"
            );
        }
        assert_eq!(
            hold.answered(&Verdict::Refused, [4; 16]),
            Some(HoldReason::Config)
        );
    }

    #[test]
    fn rejections_hold_only_a_lane_that_never_had_a_success() {
        let mut hold = Hold::new(INTERVALS);
        for _ in 1..REJECTIONS {
            assert_eq!(hold.answered(&Verdict::Invalid, [1; 16]), None);
        }
        assert_eq!(
            hold.answered(&Verdict::Invalid, [1; 16]),
            Some(HoldReason::MassRejection)
        );
        hold.answered(&delivered(), [1; 16]);
        for _ in 0..100 {
            assert_eq!(hold.answered(&Verdict::Invalid, [1; 16]), None);
        }
        hold.reconfigured(Instant::now());
        for _ in 1..REJECTIONS {
            assert_eq!(hold.answered(&Verdict::Invalid, [1; 16]), None);
        }
        assert_eq!(
            hold.answered(&Verdict::Invalid, [1; 16]),
            Some(HoldReason::MassRejection)
        );
    }

    #[test]
    fn probes_come_one_at_a_time_at_growing_intervals() {
        let (mut hold, mut now, mut random) =
            (Hold::new(INTERVALS), Instant::now(), SmallRng::seed_from_u64(7));
        hold.begin(held(HoldReason::Config), now, &mut random);
        for expected in [5, 10, 20, 40, 80, 160, 300, 300] {
            let Passage::None(Some(next)) = hold.passage(now) else {
                panic!("{:?}", hold.passage(now));
            };
            let (interval, expected) = (next - now, Duration::from_secs(expected));
            assert!(
                interval >= expected && interval <= expected.mul_f64(1.1),
                "{interval:?}"
            );
            now = next;
            assert_eq!(hold.passage(now), Passage::Probe);
            let number = hold.probe_begun().expect("a hold");
            assert_eq!(hold.passage(now), Passage::None(None));
            assert!(!hold.probe_ended(number, &Verdict::Refused, now, &mut random));
        }
        let number = hold.probe_begun().expect("a hold");
        let held_for = hold.held_time(now);
        assert!(hold.probe_ended(number, &delivered(), now, &mut random));
        assert_eq!(hold.passage(now), Passage::All);
        assert_eq!(
            hold.held_time(now + Duration::from_secs(60)),
            held_for,
            "it is over"
        );
    }

    #[test]
    fn another_key_lifts_only_what_the_key_was_held_for() {
        let (mut hold, now, mut random) = (Hold::new(INTERVALS), Instant::now(), SmallRng::seed_from_u64(7));
        hold.begin(held(HoldReason::KeyRejected), now, &mut random);
        assert!(hold.reconfigured(now));
        hold.begin(held(HoldReason::Config), now, &mut random);
        assert!(!hold.reconfigured(now));
        assert!(hold.held().is_some());
    }

    #[test]
    fn an_operators_hold_sends_no_probe_and_stands() {
        let (mut hold, now, mut random) = (Hold::new(INTERVALS), Instant::now(), SmallRng::seed_from_u64(7));
        hold.begin(held(HoldReason::Operator), now, &mut random);
        hold.begin(held(HoldReason::KeyRejected), now, &mut random);
        assert_eq!(
            hold.passage(now + Duration::from_secs(86_400)),
            Passage::None(None)
        );
        assert_eq!(hold.held().map(|held| held.reason), Some(HoldReason::Operator));
        assert!(hold.lift(now));
    }
}
