//! The pause: upstream asked for time (`Retry-After` of 429 or 503, RFC 9110 §10.2.3), or the lane has just been opened again.
//!
//! # Invariants
//! 1. A pause is only ever made longer, never shorter, but by its end.
//! 2. Its end is jittered, so that many sidecars do not come back at once.

use std::time::Duration;

use rand::{Rng, RngExt as _};
use tokio::time::Instant;

/// Part of a pause that is added at most, and the longest addition.
const JITTER: f64 = 0.1;
const LONGEST_JITTER: Duration = Duration::from_secs(5);

/// Longest jitter of a lane that opens again without a time that upstream asked for.
const RESUME_JITTER: Duration = Duration::from_millis(200);

/// The pause of one lane.
#[derive(Clone, Debug, Default)]
pub(super) struct Pause {
    until: Option<Instant>,
    asked: bool,
}

impl Pause {
    /// End of the pause; `None` where there is none. The second value tells that a pause has just ended.
    pub(super) fn check(&mut self, now: Instant) -> (Option<Instant>, bool) {
        match self.until {
            Some(until) if until > now => (Some(until), false),
            Some(_) => {
                self.until = None;
                (None, std::mem::take(&mut self.asked))
            }
            None => (None, false),
        }
    }

    /// Time left of any pause.
    pub(super) fn left_of_any(&self, now: Instant) -> Duration {
        self.until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Time left of a pause that upstream asked for.
    pub(super) fn left(&self, now: Instant) -> Duration {
        match self.until {
            Some(until) if self.asked => until.saturating_duration_since(now),
            _ => Duration::ZERO,
        }
    }

    /// Whether upstream asked for it.
    pub(super) fn is_asked(&self, now: Instant) -> bool {
        self.asked && self.until.is_some_and(|until| until > now)
    }

    /// Upstream asked for time.
    pub(super) fn asked_for(&mut self, time: Duration, now: Instant, random: &mut impl Rng) {
        let jitter = time.mul_f64(JITTER).min(LONGEST_JITTER);
        self.extend(now + time + jitter.mul_f64(random.random_range(0.0..=1.0)));
        self.asked = true;
    }

    /// The lane is open again: a moment, drawn by lot.
    pub(super) fn before_resume(&mut self, now: Instant, random: &mut impl Rng) {
        self.extend(now + RESUME_JITTER.mul_f64(random.random_range(0.0..=1.0)));
    }

    fn extend(&mut self, until: Instant) {
        self.until = Some(self.until.map_or(until, |known| known.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    #[test]
    fn nothing_passes_before_the_time_asked_for_and_not_much_after_it() {
        let mut random = SmallRng::seed_from_u64(7);
        for seconds in [1, 60, 3_600] {
            let (mut pause, now, asked) = (Pause::default(), Instant::now(), Duration::from_secs(seconds));
            pause.asked_for(asked, now, &mut random);
            let (Some(until), _) = pause.check(now) else {
                panic!("no pause");
            };
            assert!(
                until >= now + asked
                    && until <= now + asked.mul_f64(1.1)
                    && until <= now + asked + LONGEST_JITTER
            );
            assert_eq!(pause.check(until), (None, true));
            assert_eq!(pause.check(until), (None, false), "its end is told once");
        }
    }

    #[test]
    fn a_shorter_wish_does_not_shorten_it() {
        let mut random = SmallRng::seed_from_u64(7);
        let (mut pause, now) = (Pause::default(), Instant::now());
        pause.asked_for(Duration::from_secs(60), now, &mut random);
        pause.asked_for(Duration::from_secs(1), now, &mut random);
        assert!(
            pause
                .check(now)
                .0
                .is_some_and(|until| until >= now + Duration::from_secs(60))
        );
    }
}
