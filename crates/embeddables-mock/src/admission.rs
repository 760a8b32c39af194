//! How many requests a second the mock takes of each project: a token bucket for each, monotonic time.
//!
//! # Invariants
//! 1. Within any `t` seconds a project is admitted at most `burst + t * per_second` requests, and one that asks so often
//!    that its bucket is never full is admitted no fewer than `t * per_second`, rounded down.
//! 2. A refused request takes no token; one project's requests take none of another's.
//! 3. Memory is bounded: of projects beyond 10,000 at once, the further ones share a bucket.
//! 4. The lock is held for map operations only.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Most projects with a bucket of their own; a full bucket is as good as none, and makes room.
const MAX_BUCKETS: usize = 10_000;
/// Tokens are counted in billionths, so that nanoseconds times tokens a second are exact.
const TOKEN: u64 = 1_000_000_000;
/// Name of the bucket that the projects beyond the bound share; no project id is empty.
const SHARED_BUCKET: &str = "";

/// Admits the requests of each project at a rate.
#[derive(Debug)]
pub(crate) struct Admission {
    per_second: u64,
    /// Tokens of a full bucket, in billionths.
    capacity: u64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// In billionths.
    tokens: u64,
    /// Up to when tokens were added.
    filled_at: Instant,
}

impl Admission {
    /// All buckets are full. `burst` is what a full one holds; without it a tenth of the rate, and at least 1.
    pub(crate) fn new(per_second: NonZeroU32, burst: Option<NonZeroU32>) -> Self {
        let burst = burst.map_or_else(|| (per_second.get() / 10).max(1), NonZeroU32::get);
        Self {
            per_second: per_second.get().into(),
            capacity: u64::from(burst) * TOKEN,
            buckets: Mutex::default(),
        }
    }

    /// Whether one more request of the project is taken now.
    pub(crate) fn admits(&self, project: &str, now: Instant) -> bool {
        // Each change is complete before the next call that could panic.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(project) {
            return bucket.take(self, now);
        }
        if buckets.len() >= MAX_BUCKETS {
            buckets.retain(|_, bucket| bucket.tokens_at(self, now) < self.capacity);
        }
        let name = if buckets.len() < MAX_BUCKETS {
            project
        } else {
            SHARED_BUCKET
        };
        let full = Bucket {
            tokens: self.capacity,
            filled_at: now,
        };
        buckets.entry(name.to_owned()).or_insert(full).take(self, now)
    }
}

impl Bucket {
    fn tokens_at(&self, admission: &Admission, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.filled_at).as_nanos();
        let added = u64::try_from(nanos)
            .unwrap_or(u64::MAX)
            .saturating_mul(admission.per_second);
        self.tokens.saturating_add(added).min(admission.capacity)
    }

    fn take(&mut self, admission: &Admission, now: Instant) -> bool {
        let tokens = self.tokens_at(admission, now);
        let left = tokens.checked_sub(TOKEN);
        self.tokens = left.unwrap_or(tokens);
        // Requests may overtake each other on their way here: time never runs back.
        self.filled_at = self.filled_at.max(now);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn admission(per_second: u32, burst: Option<u32>) -> Admission {
        let non_zero = |number| NonZeroU32::new(number).expect("not zero");
        Admission::new(non_zero(per_second), burst.map(non_zero))
    }

    /// Asks `times` times at an even pace, the first time after one step, and counts what is admitted.
    fn ask(admission: &Admission, project: &str, start: Instant, step: Duration, times: u32) -> u32 {
        (1..=times)
            .map(|time| u32::from(admission.admits(project, start + step * time)))
            .sum()
    }

    #[track_caller]
    fn check_burst(per_second: u32, burst: Option<u32>, expected: u32) {
        let admission = admission(per_second, burst);
        let now = Instant::now();
        assert_eq!(
            ask(&admission, "pr_1", now, Duration::ZERO, 1_000),
            expected,
            "{per_second} {burst:?}"
        );
    }

    #[test]
    fn a_full_bucket_holds_a_tenth_of_the_rate_unless_told_otherwise() {
        check_burst(200, None, 20);
        check_burst(9, None, 1);
        check_burst(1, None, 1);
        check_burst(200, Some(1), 1);
        check_burst(1, Some(300), 300);
    }

    #[test]
    fn an_eager_project_is_admitted_exactly_the_rate() {
        for (per_second, millis) in [(200, 1), (200, 3), (7, 1), (1_000, 1)] {
            let admission = admission(per_second, Some(2));
            let now = Instant::now();
            assert_eq!(ask(&admission, "pr_1", now, Duration::ZERO, 9), 2);
            let step = Duration::from_millis(millis);
            let times = u32::try_from(60_000 / millis).expect("small");
            let admitted = ask(&admission, "pr_1", now, step, times);
            assert_eq!(admitted, per_second * 60, "at {per_second}/s");
        }
    }

    #[test]
    fn a_slower_project_is_never_refused() {
        let admission = admission(200, Some(1));
        let now = Instant::now();
        assert_eq!(
            ask(&admission, "pr_1", now, Duration::from_millis(5), 2_000),
            2_000
        );
    }

    #[test]
    fn an_idle_bucket_fills_up_and_no_further() {
        let admission = admission(200, None);
        let now = Instant::now();
        assert_eq!(ask(&admission, "pr_1", now, Duration::ZERO, 100), 20);
        let later = now + Duration::from_millis(50);
        assert_eq!(ask(&admission, "pr_1", later, Duration::ZERO, 100), 10);
        let much_later = now + Duration::from_secs(86_400 * 365);
        assert_eq!(ask(&admission, "pr_1", much_later, Duration::ZERO, 100), 20);
        assert!(!admission.admits("pr_1", now), "an old time adds nothing");
    }

    #[test]
    fn projects_do_not_touch_each_other_until_there_are_too_many_to_tell_apart() {
        let admission = admission(1, Some(1));
        let now = Instant::now();
        let bound = MAX_BUCKETS;
        for number in 0..bound {
            assert!(admission.admits(&format!("pr_{number}"), now));
        }
        assert!(!admission.admits("pr_0", now));
        // One more bucket than the bound: the one that the others share.
        assert!(admission.admits("pr_a", now), "the shared bucket is full");
        assert!(!admission.admits("pr_b", now), "the shared bucket is empty");
        let later = now + Duration::from_secs(1);
        assert!(admission.admits("pr_b", later), "full buckets have made room");
        assert_eq!(admission.buckets.lock().expect("not poisoned").len(), 1);
    }
}
