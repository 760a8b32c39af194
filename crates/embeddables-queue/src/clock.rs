//! Running time: for how long a store has been open. The only clock that this crate reads.

use std::fmt::Debug;
use std::time::Duration;

/// Tells monotonic time since some fixed moment in the life of the process.
pub trait RunningClock: Debug + Send + Sync + 'static {
    /// Time since that moment; never falls.
    fn elapsed(&self) -> Duration;
}

/// The machine's monotonic clock, counted from when the value was made.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    start: std::time::Instant,
}

impl MonotonicClock {
    /// Starts to count.
    #[expect(
        clippy::disallowed_methods,
        reason = "read by a thread outside of any runtime; tests inject another clock instead of pausing this one"
    )]
    pub fn start() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }
}

impl RunningClock for MonotonicClock {
    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Milliseconds of a duration, saturating.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
