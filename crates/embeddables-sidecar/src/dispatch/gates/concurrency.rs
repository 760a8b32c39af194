//! Adaptive concurrency: how many attempts may be under way at once.
//!
//! TCP's congestion control applied to requests: slow start, additive increase and multiplicative decrease (RFC 5681 §3.1), with a
//! growth of the round trip as an early sign of congestion, as in TCP Vegas (Brakmo and Peterson, 1995).
//!
//! # Invariants
//! 1. The limit is at least 1 and at most `max_in_flight`.
//! 2. It shrinks at most once for the attempts of one round trip: those begun before the last decrease say nothing new.
//! 3. It grows only while it is used: an idle lane learns nothing.

use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::time::Instant;

/// What is left of the limit after congestion.
const DECREASE: f64 = 0.7;

/// What is left of it after a growth of the round trip, which may have other causes.
const GENTLE_DECREASE: f64 = 0.9;

/// A round trip this many times the usual one, and [`GROWTH_FLOOR`] beyond it, is a sign of congestion.
const GROWTH: f64 = 3.0;
const GROWTH_FLOOR: Duration = Duration::from_millis(50);

/// Weights of a new sample in the recent and in the usual round trip.
const RECENT_WEIGHT: f64 = 0.1;
const USUAL_WEIGHT: f64 = 0.01;

/// The limit of one lane.
#[derive(Clone, Debug)]
pub(super) struct Concurrency {
    max: f64,
    limit: f64,
    /// Up to here the limit grows by one a success; beyond it by one a round trip.
    threshold: f64,
    decreased: Instant,
    /// When the limit was last reached.
    reached: Option<Instant>,
    /// Recent and usual round trip in seconds; `None` before the first success.
    round_trip: Option<(f64, f64)>,
}

impl Concurrency {
    #[expect(clippy::cast_precision_loss, reason = "a limit has few digits")]
    pub(super) fn new(max: NonZeroUsize, now: Instant) -> Self {
        let max = max.get() as f64;
        Self {
            max,
            limit: 1.0,
            threshold: max,
            decreased: now,
            reached: None,
            round_trip: None,
        }
    }

    /// Most attempts under way.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and a configured count"
    )]
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Begins again with one, after the lane was closed.
    pub(super) fn restart(&mut self, now: Instant) {
        self.threshold = self.limit.max(self.threshold).max(2.0);
        self.limit = 1.0;
        self.decreased = now;
    }

    /// Notes that an attempt begins; `in_flight` counts it.
    pub(super) fn begun(&mut self, in_flight: usize, now: Instant) {
        if in_flight >= self.limit() {
            self.reached = Some(now);
        }
    }

    /// Notes an attempt that upstream served.
    pub(super) fn served(&mut self, begun: Instant, now: Instant) {
        let sample = now.saturating_duration_since(begun).as_secs_f64();
        let (recent, usual) = self.round_trip.map_or((sample, sample), |(recent, usual)| {
            (
                recent + (sample - recent) * RECENT_WEIGHT,
                usual + (sample - usual) * USUAL_WEIGHT,
            )
        });
        self.round_trip = Some((recent, usual));
        if recent > usual * GROWTH + GROWTH_FLOOR.as_secs_f64() {
            self.decrease(GENTLE_DECREASE, begun, now);
            return;
        }
        if self.reached.is_none_or(|reached| reached < begun) {
            return;
        }
        let step = if self.limit < self.threshold {
            1.0
        } else {
            1.0 / self.limit
        };
        self.limit = (self.limit + step).min(self.max);
    }

    /// Notes an attempt that upstream could not serve.
    pub(super) fn congested(&mut self, begun: Instant, now: Instant) {
        self.decrease(DECREASE, begun, now);
    }

    fn decrease(&mut self, factor: f64, begun: Instant, now: Instant) {
        if begun < self.decreased {
            return;
        }
        self.limit = (self.limit * factor).max(1.0);
        self.threshold = self.limit;
        self.decreased = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Duration = Duration::from_millis(20);

    /// One round trip of as many attempts as the limit allows.
    fn round(limit: &mut Concurrency, now: &mut Instant, trip: Duration) {
        let begun = *now;
        *now += trip;
        let count = limit.limit();
        limit.begun(count, begun);
        for _ in 0..count {
            limit.served(begun, *now);
        }
    }

    fn new(max: usize) -> (Concurrency, Instant) {
        let now = Instant::now();
        (
            Concurrency::new(NonZeroUsize::new(max).expect("not zero"), now),
            now,
        )
    }

    #[test]
    fn it_begins_with_one_and_doubles_each_round_trip_up_to_the_maximum() {
        let (mut limit, mut now) = new(256);
        let mut seen = vec![limit.limit()];
        for _ in 0..9 {
            round(&mut limit, &mut now, TRIP);
            seen.push(limit.limit());
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
    }

    #[test]
    fn congestion_shrinks_it_once_a_round_trip_and_it_grows_slowly_after() {
        let (mut limit, mut now) = new(256);
        for _ in 0..8 {
            round(&mut limit, &mut now, TRIP);
        }
        let begun = now;
        now += TRIP;
        for _ in 0..50 {
            limit.congested(begun, now);
        }
        assert_eq!(limit.limit(), 179, "0.7 of 256, once");
        round(&mut limit, &mut now, TRIP);
        assert_eq!(limit.limit(), 180, "one a round trip");
    }

    #[test]
    fn it_never_falls_below_one() {
        let (mut limit, mut now) = new(4);
        for _ in 0..20 {
            now += TRIP;
            limit.congested(now, now);
        }
        assert_eq!(limit.limit(), 1);
    }

    #[test]
    fn an_unused_limit_does_not_grow() {
        let (mut limit, mut now) = new(256);
        for _ in 0..3 {
            round(&mut limit, &mut now, TRIP);
        }
        for _ in 0..100 {
            limit.begun(1, now);
            now += TRIP;
            limit.served(now - TRIP, now);
        }
        assert_eq!(limit.limit(), 8);
    }

    #[test]
    fn a_round_trip_that_grows_suddenly_shrinks_it_and_a_slow_upstream_does_not() {
        let (mut limit, mut now) = new(64);
        for _ in 0..20 {
            round(&mut limit, &mut now, Duration::from_millis(400));
        }
        assert_eq!(limit.limit(), 64, "slow, but steady");
        round(&mut limit, &mut now, Duration::from_secs(4));
        assert!(limit.limit() < 60, "{}", limit.limit());
    }

    #[test]
    fn a_restart_begins_with_one_and_is_soon_back() {
        let (mut limit, mut now) = new(64);
        for _ in 0..7 {
            round(&mut limit, &mut now, TRIP);
        }
        limit.restart(now);
        assert_eq!(limit.limit(), 1);
        for _ in 0..6 {
            round(&mut limit, &mut now, TRIP);
        }
        assert_eq!(limit.limit(), 64);
    }
}
