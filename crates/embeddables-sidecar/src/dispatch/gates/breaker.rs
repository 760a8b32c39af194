//! The breaker: after failures in a row nothing is sent but, from time to time, one event that finds out.
//!
//! # Invariants
//! 1. While half-open at most one attempt is under way that began since (`half_open_attempts`, which is 1).
//! 2. Only attempts begun after it last changed move it: what was under way before says nothing new.
//! 3. It opens for at most [`LONGEST`], where upstream cannot be reached for [`LONGEST_UNREACHED`]: an upstream that is back is
//!    noticed soon.

use std::time::Duration;

use rand::{Rng, RngExt as _};
use tokio::time::Instant;

/// Failures in a row that open it.
const FAILURES: u32 = 5;

/// First and longest time that it stays open; the time doubles, and is drawn between half of it and all of it.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);
/// The same where nothing of the request was sent: whoever cannot be reached is not burdened.
const LONGEST_UNREACHED: Duration = Duration::from_millis(400);

/// A failed attempt, as the breaker sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failure {
    /// It opens the breaker without others before it.
    pub(super) at_once: bool,
    /// Nothing of the request was sent.
    pub(super) unreached: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { begun: usize },
}

/// What the breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// Everything.
    All,
    /// So many, and no more until those have ended.
    Some(usize),
    /// Nothing before this time.
    NoneUntil(Instant),
    /// Nothing before the one under way has ended.
    None,
}

/// The breaker of one lane.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    state: State,
    changed: Instant,
    openings: u32,
    half_open_attempts: usize,
}

impl Breaker {
    pub(super) fn new(now: Instant, half_open_attempts: usize) -> Self {
        Self {
            state: State::Closed { failures: 0 },
            changed: now,
            openings: 0,
            half_open_attempts,
        }
    }

    /// Goes on half-open: an earlier life left it open.
    pub(super) fn half_open(&mut self, now: Instant) {
        self.change(State::HalfOpen { begun: 0 }, now);
    }

    pub(super) fn passage(&mut self, now: Instant) -> Passage {
        if let State::Open { until } = self.state
            && until <= now
        {
            self.change(State::HalfOpen { begun: 0 }, now);
        }
        match self.state {
            State::Closed { .. } => Passage::All,
            State::Open { until } => Passage::NoneUntil(until),
            State::HalfOpen { begun } if begun < self.half_open_attempts => {
                Passage::Some(self.half_open_attempts - begun)
            }
            State::HalfOpen { .. } => Passage::None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Notes that an attempt begins.
    pub(super) fn begun(&mut self) {
        if let State::HalfOpen { begun } = &mut self.state {
            *begun += 1;
        }
    }

    /// Notes an attempt that upstream served, whatever it said of the event; whether that closed the breaker.
    pub(super) fn served(&mut self, begun: Instant, now: Instant) -> bool {
        if begun < self.changed {
            return false;
        }
        let was_closed = self.is_closed();
        self.openings = 0;
        if was_closed {
            self.state = State::Closed { failures: 0 };
        } else {
            self.change(State::Closed { failures: 0 }, now);
        }
        !was_closed
    }

    /// Notes a failure; whether it opened.
    pub(super) fn failed(
        &mut self,
        begun: Instant,
        failure: Failure,
        now: Instant,
        random: &mut impl Rng,
    ) -> bool {
        if begun < self.changed {
            return false;
        }
        match self.state {
            State::Closed { failures } if !failure.at_once && failures + 1 < FAILURES => {
                self.state = State::Closed {
                    failures: failures + 1,
                };
                false
            }
            State::Open { .. } => false,
            State::Closed { .. } | State::HalfOpen { .. } => {
                self.trip(failure, now, random);
                true
            }
        }
    }

    fn trip(&mut self, failure: Failure, now: Instant, random: &mut impl Rng) {
        let longest = if failure.unreached {
            LONGEST_UNREACHED
        } else {
            LONGEST
        };
        let doubled = FIRST.saturating_mul(2_u32.saturating_pow(self.openings.min(16)));
        let open_for = doubled.min(longest).mul_f64(random.random_range(0.5..=1.0));
        self.openings = self.openings.saturating_add(1);
        self.change(
            State::Open {
                until: now + open_for,
            },
            now,
        );
    }

    fn change(&mut self, state: State, now: Instant) {
        self.state = state;
        self.changed = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    const FAILURE: Failure = Failure {
        at_once: false,
        unreached: false,
    };

    fn tripped() -> (Breaker, Instant, SmallRng) {
        let (now, mut random) = (Instant::now(), SmallRng::seed_from_u64(7));
        let mut breaker = Breaker::new(now, 1);
        for _ in 0..FAILURES {
            assert_eq!(breaker.passage(now), Passage::All);
            breaker.failed(now, FAILURE, now, &mut random);
        }
        (breaker, now, random)
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not_count() {
        let (mut breaker, now, mut random) = tripped();
        assert!(matches!(breaker.passage(now), Passage::NoneUntil(_)));
        let mut patient = Breaker::new(now, 1);
        for _ in 0..100 {
            for _ in 0..FAILURES - 1 {
                patient.failed(now, FAILURE, now, &mut random);
            }
            patient.served(now, now);
        }
        assert_eq!(patient.passage(now), Passage::All);
    }

    #[test]
    fn half_open_lets_one_through_and_its_success_closes_it() {
        let (mut breaker, now, _) = tripped();
        let later = now + LONGEST;
        assert_eq!(breaker.passage(later), Passage::Some(1));
        breaker.begun();
        assert_eq!(breaker.passage(later), Passage::None);
        assert!(breaker.served(later, later));
        assert_eq!(breaker.passage(later), Passage::All);
    }

    #[test]
    fn an_attempt_from_before_moves_nothing() {
        let (mut breaker, now, mut random) = tripped();
        let later = now + LONGEST;
        assert_eq!(breaker.passage(later), Passage::Some(1));
        breaker.begun();
        assert!(!breaker.served(now, later));
        assert!(!breaker.failed(now, FAILURE, later, &mut random));
        assert_eq!(breaker.passage(later), Passage::None);
    }

    #[track_caller]
    fn check_longest(failure: Failure, longest: Duration) {
        let (mut breaker, mut now, mut random) = tripped();
        for _ in 0..30 {
            let Passage::NoneUntil(until) = breaker.passage(now) else {
                panic!("not open: {breaker:?}");
            };
            assert!(until - now <= longest);
            now = until;
            assert_eq!(breaker.passage(now), Passage::Some(1));
            breaker.begun();
            assert!(breaker.failed(now, failure, now, &mut random));
        }
        let Passage::NoneUntil(until) = breaker.passage(now) else {
            panic!("not open: {breaker:?}");
        };
        assert!(until - now >= longest / 2, "jitter keeps at least half");
    }

    #[test]
    fn it_stays_open_longer_each_time_but_never_long() {
        check_longest(FAILURE, LONGEST);
        let unreached = Failure {
            unreached: true,
            ..FAILURE
        };
        check_longest(unreached, LONGEST_UNREACHED);
    }
}
