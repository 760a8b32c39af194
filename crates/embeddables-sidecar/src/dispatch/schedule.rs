//! When an event is tried again: pure functions of what has happened and of randomness that is handed in.
//!
//! # Invariants
//! 1. A delay of `backoff` lies between zero and a ceiling that doubles from `retry_min` to `retry_max` with each failure in
//!    a row ("full jitter", AWS Architecture Blog, *Exponential Backoff And Jitter*, 2015).
//! 2. No delay is shorter than the time that upstream asked for: the floor comes after the jitter.
//! 3. The entry schedule counts from the moment of parking, so that a late try does not push the later ones back.

use std::time::Duration;

use rand::Rng;
use rand::RngExt as _;

/// Rules for waiting; see the configuration section `delivery`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Ceiling of the first delay.
    pub retry_min: Duration,
    /// Largest ceiling.
    pub retry_max: Duration,
    /// Age at which an event is given up after a failure that may pass.
    pub max_age: Duration,
    /// Tries of an event whose user is unknown, counted from the first such answer. The last is final.
    pub entry_schedule: Vec<Duration>,
}

impl Schedule {
    /// Delay after the `step`-th failure in a row, `step` from 0.
    pub fn backoff(&self, step: u32, retry_after: Option<Duration>, random: &mut impl Rng) -> Duration {
        let doubled = self.retry_min.saturating_mul(2_u32.saturating_pow(step.min(31)));
        let ceiling = doubled.min(self.retry_max);
        let jittered = ceiling.mul_f64(random.random_range(0.0..=1.0));
        jittered.max(retry_after.unwrap_or_default())
    }

    /// Delay until the try with number `step` (from 0) of an event that was parked `parked_for` ago; `None` after the last.
    pub fn entry_delay(&self, step: u32, parked_for: Duration) -> Option<Duration> {
        let at = self.entry_schedule.get(usize::try_from(step).ok()?)?;
        Some(at.saturating_sub(parked_for))
    }

    /// Number of the try after the one that was to have the number `step`. One that came before its time, because the event was
    /// woken, takes the place of none.
    pub fn after_entry_try(&self, step: u32, parked_for: Duration) -> u32 {
        let at = usize::try_from(step)
            .ok()
            .and_then(|step| self.entry_schedule.get(step));
        let tolerance = |at: Duration| (at / 10).min(Duration::from_secs(1));
        let came_early = at.is_some_and(|at| parked_for + tolerance(*at) < *at);
        if came_early { step } else { step.saturating_add(1) }
    }

    /// Number of the first try that is still to come for an event that was parked `parked_for` ago behind another one; beyond the
    /// last where all their times have passed.
    pub fn entry_step(&self, parked_for: Duration) -> u32 {
        let passed = self.entry_schedule.iter().take_while(|at| **at <= parked_for);
        u32::try_from(passed.count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    fn schedule() -> Schedule {
        Schedule {
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(300),
            max_age: Duration::from_secs(7 * 86_400),
            entry_schedule: [10, 60, 300].map(Duration::from_secs).to_vec(),
        }
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let mut random = SmallRng::seed_from_u64(7);
        let mut longest = |step| {
            let delays = (0..2_000).map(|_| schedule().backoff(step, None, &mut random));
            delays.max().expect("2,000 delays")
        };
        for (step, ceiling_ms) in [
            (0, 500),
            (1, 1_000),
            (4, 8_000),
            (10, 300_000),
            (4_000_000_000, 300_000),
        ] {
            let (longest, ceiling) = (longest(step), Duration::from_millis(ceiling_ms));
            assert!(longest <= ceiling, "step {step}: {longest:?} above {ceiling:?}");
            assert!(
                longest >= ceiling.mul_f64(0.95),
                "step {step}: {longest:?} far below {ceiling:?}"
            );
        }
    }

    #[test]
    fn upstreams_wish_is_a_floor() {
        let mut random = SmallRng::seed_from_u64(7);
        let asked = Duration::from_secs(3_600);
        assert_eq!(schedule().backoff(0, Some(asked), &mut random), asked);
    }

    #[test]
    fn the_entry_schedule_counts_from_parking_and_ends() {
        let delay = |step, parked_s| schedule().entry_delay(step, Duration::from_secs(parked_s));
        assert_eq!(delay(0, 0), Some(Duration::from_secs(10)));
        assert_eq!(delay(1, 12), Some(Duration::from_secs(48)), "a late first try");
        assert_eq!(delay(2, 400), Some(Duration::ZERO), "overdue: at once");
        assert_eq!(delay(3, 301), None);
    }

    #[test]
    fn a_try_before_its_time_takes_the_place_of_none() {
        let after = |step, parked_ms| schedule().after_entry_try(step, Duration::from_millis(parked_ms));
        assert_eq!([after(1, 60_050), after(1, 59_990)], [2, 2], "about in time");
        assert_eq!(after(1, 58_000), 1, "woken");
        assert_eq!(after(3, 0), 4, "there is none of that number");
    }

    #[test]
    fn what_waited_behind_another_goes_on_where_the_schedule_is_by_now() {
        let step = |parked_s| schedule().entry_step(Duration::from_secs(parked_s));
        assert_eq!(
            [step(0), step(10), step(59), step(60), step(300)],
            [0, 1, 1, 2, 3]
        );
    }
}
