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

/// Running time of a lane: that of the store without the spans in which the lane did not age. In milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneClock {
    /// Length of all finished spans.
    pub(crate) stopped_total: u64,
    /// Running time of the store at which it was stopped; `None` while it goes.
    pub(crate) stopped_since: Option<u64>,
}

impl LaneClock {
    /// What it shows when the store's running time is `running`.
    pub(crate) fn at(&self, running: u64) -> u64 {
        self.stopped_since
            .map_or(running, |since| since.min(running))
            .saturating_sub(self.stopped_total)
    }

    /// Stops it or lets it go on from `running`.
    pub(crate) fn set_ageing(&mut self, ageing: bool, running: u64) {
        match (ageing, self.stopped_since) {
            (true, Some(since)) => {
                self.stopped_total += running.saturating_sub(since);
                self.stopped_since = None;
            }
            (false, None) => self.stopped_since = Some(running),
            (true, None) | (false, Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_clock_stands_while_stopped_and_goes_on_from_there() {
        let mut clock = LaneClock::default();
        assert_eq!(
            clock.at(50),
            50,
            "of a lane that was never stopped it is the store's"
        );
        clock.set_ageing(false, 100);
        clock.set_ageing(false, 120);
        assert_eq!(clock.at(170), 100);
        clock.set_ageing(true, 180);
        clock.set_ageing(true, 190);
        assert_eq!(clock.at(200), 120);
        clock.set_ageing(false, 300);
        assert_eq!((clock.at(300), clock.at(1_000)), (220, 220));
    }
}
