//! The pace: what an upstream that answers 429 is found to admit, kept to until it is worth asking for more.
//!
//! Concurrency alone cannot keep a rate: with answers in a millisecond even one request at a time is too much for an upstream that
//! admits 200 a second. So each round of 429 measures what was served meanwhile, and the pace goes on along the curve of CUBIC (RFC
//! 9438 §4.2): just below that measure, level with it after [`LEVEL_AFTER`], and above it ever faster from then on.
//!
//! # Invariants
//! 1. Without a 429 there is no pace. One that was not met again for [`FORGET_AFTER`] is forgotten.
//! 2. The pace changes at most once in [`STEADY`]: what is measured in less is blurred by requests that were under way.
//! 3. It never falls below [`SLOWEST`].

use std::time::Duration;

use tokio::time::Instant;

/// Slice of time in which is counted what upstream serves.
const SAMPLE: Duration = Duration::from_millis(100);

/// Shortest time between two changes of the pace.
const STEADY: Duration = Duration::from_secs(1);

/// Whole slices over which is measured at least.
const FEWEST_SLICES: usize = 5;

/// Slices of [`SAMPLE`] over which is measured at most.
const SLICES: usize = 20;

/// Requests that tell what upstream admits; and what is left of a pace after a 429 among fewer.
const ENOUGH: u32 = 10;
const FEW: f64 = 0.9;

/// Time that is reckoned with at least: what came in less says little.
const SHORTEST: Duration = Duration::from_millis(10);

/// Part of the measured rate that the pace begins with.
const BEGIN: f64 = 0.98;

/// Time after which it is level with what was measured.
const LEVEL_AFTER: Duration = Duration::from_secs(10);

/// Time without a 429 after which there is no pace any more.
const FORGET_AFTER: Duration = Duration::from_secs(300);

/// Fewest requests a second.
const SLOWEST: f64 = 1.0;

/// Longest time whose requests may begin at once.
const BURST: Duration = Duration::from_millis(50);

/// What was served in one slice of time.
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    number: u64,
    served: u32,
    throttled: u32,
}

/// The pace of one lane.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    slices: [Slice; SLICES],
    /// Numbers of the slice in which the count began and of the newest one, counted from `origin`.
    first: u64,
    newest: u64,
    origin: Instant,
    /// Measured rate a second and when it was measured.
    measured: Option<(f64, Instant)>,
    tokens: f64,
    refilled: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            slices: [Slice::default(); SLICES],
            first: 0,
            newest: 0,
            origin: now,
            measured: None,
            tokens: 0.0,
            refilled: now,
        }
    }

    /// Requests that may begin now, at most `wanted`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a burst"
    )]
    pub(super) fn available(&mut self, wanted: usize, now: Instant) -> usize {
        let Some(rate) = self.rate(now) else {
            return wanted;
        };
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.tokens = (self.tokens + elapsed * rate).min((rate * BURST.as_secs_f64()).max(1.0));
        wanted.min(self.tokens as usize)
    }

    /// Requests that it lets through in that time.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "neither negative nor very large; beyond that it saturates"
    )]
    pub(super) fn in_time(&self, time: Duration, now: Instant) -> usize {
        self.rate(now)
            .map_or(usize::MAX, |rate| (rate * time.as_secs_f64()) as usize)
    }

    /// When the next request may begin; `None` where there is no pace.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let rate = self.rate(now)?;
        let missing = (1.0 - self.tokens).max(0.0);
        // A little later, so that the token is there then whatever is lost to rounding.
        Some(self.refilled + Duration::from_secs_f64(missing / rate) + Duration::from_micros(50))
    }

    /// Notes that a request begins.
    pub(super) fn spend(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }

    /// Notes a request that upstream did not turn away for its rate.
    pub(super) fn served(&mut self, now: Instant) {
        let slice = self.slice(now);
        slice.served += 1;
        if self
            .measured
            .is_some_and(|(_, at)| now.saturating_duration_since(at) >= FORGET_AFTER)
        {
            self.measured = None;
        }
    }

    /// Notes a 429; whether it says something new.
    pub(super) fn throttled(&mut self, now: Instant) -> bool {
        self.slice(now).throttled += 1;
        if self
            .measured
            .is_some_and(|(_, at)| now.saturating_duration_since(at) < STEADY)
        {
            return false;
        }
        let requests: u32 = self
            .slices
            .iter()
            .map(|slice| slice.served + slice.throttled)
            .sum();
        let rate = if requests >= ENOUGH {
            Some(self.served_a_second(now))
        } else {
            // Too few to tell what upstream admits: a lane that hardly sends is not slowed, one that is slow already is a little.
            self.rate(now).map(|rate| rate * FEW)
        };
        let Some(rate) = rate else {
            return true;
        };
        self.measured = Some((rate.max(SLOWEST), now));
        self.tokens = 0.0;
        self.refilled = now;
        // What comes next is measured by itself: it was sent at another pace.
        self.slices = [Slice::default(); SLICES];
        self.first = self.newest;
        true
    }

    /// What was served lately, as a rate: over whole slices in which something was sent, or over those of them in which something was
    /// turned away, whichever is more: in the others another gate may have kept the lane back. Where there are too few of them, twice
    /// what was served so far: too much is found out soon, too little is not.
    #[expect(clippy::cast_precision_loss, reason = "at most 20 slices")]
    fn served_a_second(&self, now: Instant) -> f64 {
        let is_active = |slice: &&Slice| slice.served + slice.throttled > 0;
        let is_whole = |slice: &&Slice| slice.number > self.first && slice.number < self.newest;
        let active: Vec<&Slice> = self.slices.iter().filter(is_active).collect();
        let whole: Vec<&Slice> = active.iter().copied().filter(is_whole).collect();
        if whole.len() >= FEWEST_SLICES {
            let full: Vec<&Slice> = whole
                .iter()
                .copied()
                .filter(|slice| slice.throttled > 0)
                .collect();
            return served_in(&whole).max(served_in(&full)) / SAMPLE.as_secs_f64();
        }
        let time = active.len() as f64 * SAMPLE.as_secs_f64();
        let since = now.saturating_duration_since(self.measured.map_or(self.origin, |(_, at)| at));
        let served = served_in(&active) * active.len() as f64;
        2.0 * served / time.min(since.as_secs_f64()).max(SHORTEST.as_secs_f64())
    }

    /// Requests a second; `None` where there is no pace.
    fn rate(&self, now: Instant) -> Option<f64> {
        let (measured, at) = self.measured?;
        let level = LEVEL_AFTER.as_secs_f64();
        let since = now.saturating_duration_since(at).as_secs_f64();
        // (1 - BEGIN) below at first, level after `level` seconds, as far above after twice that.
        let curve = ((since - level) / level).powi(3);
        Some((measured * (1.0 + (1.0 - BEGIN) * curve)).max(SLOWEST))
    }

    /// The slice of time that `now` falls into; older ones than are kept are cleared.
    fn slice(&mut self, now: Instant) -> &mut Slice {
        let since = now.saturating_duration_since(self.origin).as_millis();
        let number = u64::try_from(since / SAMPLE.as_millis()).unwrap_or(u64::MAX);
        let kept = SLICES as u64;
        for old in self.newest + 1..=number.min(self.newest + kept) {
            self.slices[place(old)] = Slice::default();
        }
        self.newest = self.newest.max(number);
        let slice = &mut self.slices[place(number)];
        slice.number = number;
        slice
    }
}

/// Served in a slice on average; 0 where there is none.
#[expect(clippy::cast_precision_loss, reason = "at most 20 slices")]
fn served_in(slices: &[&Slice]) -> f64 {
    let served: u32 = slices.iter().map(|slice| slice.served).sum();
    f64::from(served) / slices.len().max(1) as f64
}

#[expect(clippy::cast_possible_truncation, reason = "below the number of slices")]
fn place(number: u64) -> usize {
    (number % SLICES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An upstream that admits so many a second, so many of them at once.
    struct Bucket {
        rate: f64,
        burst: f64,
        tokens: f64,
    }

    impl Bucket {
        fn new(rate: f64, burst: f64) -> Self {
            Self {
                rate,
                burst,
                tokens: burst,
            }
        }

        fn admits(&mut self) -> bool {
            let admits = self.tokens >= 1.0;
            if admits {
                self.tokens -= 1.0;
            }
            admits
        }
    }

    const STEP: Duration = Duration::from_millis(1);

    /// Sends as much as the pace allows, at most 8 a millisecond, and hears of it 20 ms later; gives what was admitted and refused
    /// after `settle`.
    fn send(bucket: &mut Bucket, settle: Duration, time: Duration) -> (u32, u32) {
        let (begin, mut now) = (Instant::now(), Instant::now());
        let mut pace = Pace::new(now);
        let (mut admitted, mut refused) = (0, 0);
        let mut under_way = std::collections::VecDeque::new();
        while now < begin + settle + time {
            now += STEP;
            bucket.tokens = (bucket.tokens + bucket.rate * STEP.as_secs_f64()).min(bucket.burst);
            for _ in 0..pace.available(8, now) {
                pace.spend();
                under_way.push_back((now + Duration::from_millis(20), bucket.admits()));
            }
            while let Some((_, is_admitted)) = under_way.pop_front_if(|(end, _)| *end <= now) {
                let counts = now > begin + settle;
                if is_admitted {
                    pace.served(now);
                    admitted += u32::from(counts);
                } else {
                    pace.throttled(now);
                    refused += u32::from(counts);
                }
            }
        }
        (admitted, refused)
    }

    #[test]
    fn what_upstream_admits_is_reached_and_hardly_exceeded() {
        for (rate, burst) in [
            (200.0, 20.0),
            (200.0, 3.0),
            (200.0, 200.0),
            (1_500.0, 150.0),
            (20.0, 5.0),
        ] {
            let time = Duration::from_secs(120);
            let (admitted, refused) = send(&mut Bucket::new(rate, burst), Duration::from_secs(10), time);
            let reached = f64::from(admitted) / (rate * time.as_secs_f64());
            let share = f64::from(refused) / f64::from(admitted + refused);
            assert!(reached >= 0.95, "{rate}/s, burst {burst}: {reached:.3} reached");
            assert!(share <= 0.03, "{rate}/s, burst {burst}: {share:.3} refused");
        }
    }

    #[test]
    fn more_room_upstream_is_found_out() {
        let (mut bucket, mut now) = (Bucket::new(100.0, 10.0), Instant::now());
        let mut pace = Pace::new(now);
        let begin = now;
        let mut last_second = 0;
        while now < begin + Duration::from_secs(200) {
            now += STEP;
            let elapsed = now - begin;
            bucket.rate = if elapsed < Duration::from_secs(60) {
                100.0
            } else {
                2_000.0
            };
            bucket.tokens = (bucket.tokens + bucket.rate * STEP.as_secs_f64()).min(bucket.burst);
            for _ in 0..pace.available(8, now) {
                pace.spend();
                if bucket.admits() {
                    pace.served(now);
                    last_second += u32::from(elapsed >= Duration::from_secs(199));
                } else {
                    pace.throttled(now);
                }
            }
        }
        assert!(last_second >= 1_800, "{last_second} in the last second");
    }

    #[test]
    fn without_a_429_nothing_is_kept_back() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.served(now);
        assert_eq!(pace.available(256, now), 256);
        assert_eq!(pace.next(now), None);
    }

    #[test]
    fn one_429_in_a_quiet_lane_slows_nothing() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.served(now);
        pace.throttled(now);
        assert_eq!(pace.available(256, now), 256);
    }

    #[test]
    fn the_pace_never_comes_to_a_stop() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..ENOUGH {
            pace.throttled(now);
        }
        let next = pace.next(now).expect("a pace");
        assert!(next <= now + Duration::from_millis(1_050));
        assert_eq!(pace.available(5, next), 1);
    }
}
