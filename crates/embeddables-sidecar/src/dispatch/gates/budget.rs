//! The retry budget: how many repeats may be on the way at the cost of an upstream that fails. It delays and never fails an event.
//!
//! A repeat takes a token, and gives it back unless it fails; tokens come back by themselves too. So repeats that succeed cost
//! nothing, and a failing upstream sees few of them (Google SRE book, chapter 22: per-client retry budget).
//!
//! # Invariants
//! 1. While every repeat fails, at most [`PER_SECOND`] of them a second are made, after a burst of [`MOST`].

use std::time::Duration;

use tokio::time::Instant;

/// Tokens that come back in a second.
const PER_SECOND: f64 = 10.0;

/// Most tokens.
const MOST: f64 = 256.0;

/// The budget of one lane.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    tokens: f64,
    refilled: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tokens: MOST,
            refilled: now,
        }
    }

    /// Repeats that may begin now.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and `MOST`"
    )]
    pub(super) fn available(&mut self, now: Instant) -> usize {
        let elapsed = now.saturating_duration_since(self.refilled);
        self.refilled = now;
        self.tokens = (self.tokens + elapsed.as_secs_f64() * PER_SECOND).min(MOST);
        self.tokens.max(0.0) as usize
    }

    /// Time until there is a token; zero where there is one.
    pub(super) fn wait(&self) -> Duration {
        Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / PER_SECOND)
    }

    /// Notes that a repeat begins.
    pub(super) fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    /// Notes that a repeat did not fail.
    pub(super) fn refund(&mut self) {
        self.tokens = (self.tokens + 1.0).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_that_succeed_cost_nothing() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        for _ in 0..10_000 {
            assert!(budget.available(now) > 0);
            budget.spend();
            budget.refund();
        }
    }

    #[test]
    fn repeats_that_fail_are_few_once_the_burst_is_over() {
        let mut now = Instant::now();
        let mut budget = Budget::new(now);
        let mut made = 0;
        for _ in 0..60_000 {
            now += Duration::from_millis(1);
            if budget.available(now) > 0 {
                budget.spend();
                made += 1;
            }
        }
        assert!((855..=857).contains(&made), "{made} in 60 s");
        assert!(budget.wait() <= Duration::from_millis(100));
    }
}
