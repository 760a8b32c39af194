//! The configured rate (`delivery.rate`): a token bucket, kept by `governor` (GCRA) on tokio's clock, so that tests pause it.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::config;

/// Tokio's clock as `governor` reads it.
#[derive(Clone, Copy, Debug)]
struct Ticks(Instant);

impl Clock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

/// The rate of one lane. Tokens that were taken and not used are kept for the next call, at most a burst of them.
#[derive(Debug)]
pub(super) struct Rate {
    limiter: Option<RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Nanos>>>,
    clock: Ticks,
    burst: usize,
    /// Time from one token to the next.
    interval: Option<Duration>,
    in_hand: usize,
    next: Option<Instant>,
}

impl Rate {
    pub(super) fn new(limit: Option<config::Rate>, now: Instant) -> Self {
        let clock = Ticks(now);
        let quota = limit.map(quota);
        let burst = quota.map_or(0, |quota| quota.burst_size().get());
        Self {
            limiter: quota.map(|quota| RateLimiter::direct_with_clock(quota, clock)),
            burst: usize::try_from(burst).unwrap_or(usize::MAX),
            interval: limit.map(config::Rate::interval),
            clock,
            in_hand: 0,
            next: None,
        }
    }

    /// Requests that may begin now, at most `wanted`.
    pub(super) fn available(&mut self, wanted: usize) -> usize {
        let Some(limiter) = &self.limiter else {
            return wanted;
        };
        while self.in_hand < wanted.min(self.burst) {
            match limiter.check() {
                Ok(()) => self.in_hand += 1,
                Err(not_until) => {
                    let wait = not_until.wait_time_from(self.clock.now());
                    self.next = Some(Instant::now() + wait);
                    break;
                }
            }
        }
        self.in_hand.min(wanted)
    }

    /// Requests that the rate lets through in that time.
    pub(super) fn in_time(&self, time: Duration) -> usize {
        self.interval.map_or(usize::MAX, |interval| {
            let count = time.as_micros() / interval.as_micros().max(1);
            usize::try_from(count).unwrap_or(usize::MAX)
        })
    }

    /// When the next token comes, as of the last call that found too few.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Notes that a request begins.
    pub(super) fn spend(&mut self) {
        self.in_hand = self.in_hand.saturating_sub(1);
    }
}

/// A tenth of a second's worth may come at once, so that few wake-ups are needed.
fn quota(limit: config::Rate) -> Quota {
    let interval = limit.interval();
    let tenth = Duration::from_millis(100).as_nanos() / interval.as_nanos().max(1);
    let burst = u32::try_from(tenth).unwrap_or(u32::MAX);
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    #[expect(clippy::expect_used, reason = "the interval is at least a microsecond")]
    let quota = Quota::with_period(interval).expect("an interval above zero");
    quota.allow_burst(burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> config::Rate {
        text.parse().expect("a rate")
    }

    async fn begun_in(limit: config::Rate, time: Duration) -> u32 {
        let begin = Instant::now();
        let mut rate = Rate::new(Some(limit), begin);
        let mut begun = 0;
        while begin.elapsed() < time {
            match rate.available(64) {
                0 => tokio::time::sleep_until(rate.next().expect("it has run dry")).await,
                _ => {
                    rate.spend();
                    begun += 1;
                }
            }
        }
        begun
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_requests_begin_than_the_rate_and_a_tenth_of_a_second_allow() {
        for (text, a_minute) in [("50/s", 3_000), ("600/m", 600), ("3/s", 180), ("5000/s", 300_000)] {
            let begun = begun_in(rate(text), Duration::from_secs(60)).await;
            let burst = (a_minute / 600).max(1);
            assert!(
                begun >= a_minute - 1 && begun <= a_minute + burst + 1,
                "{text}: {begun} of {a_minute}"
            );
        }
    }

    #[test]
    fn tokens_in_hand_are_not_lost() {
        let mut rate = Rate::new(Some(rate("10/s")), Instant::now());
        assert_eq!(rate.available(5), 1);
        assert_eq!(rate.available(5), 1, "it was not spent");
        rate.spend();
        assert_eq!(rate.available(5), 0);
        assert!(rate.next().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_lane_saves_up_no_more_than_a_burst() {
        let mut rate = Rate::new(Some(rate("10/s")), Instant::now());
        for _ in 0..100 {
            assert_eq!(rate.available(64), 1);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    #[test]
    fn without_a_rate_everything_passes() {
        assert_eq!(Rate::new(None, Instant::now()).available(7), 7);
    }
}
