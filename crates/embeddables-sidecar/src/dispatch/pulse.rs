//! Sign of life of a lane's loop, for the liveness probe.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use embeddables_queue::UnixMillis;

use super::lane::MAX_SLEEP;

/// Longest silence of a loop that is well: it wakes at least every [`MAX_SLEEP`].
const LONGEST_SILENCE: Duration = MAX_SLEEP.saturating_mul(3);

/// When a lane's loop last went round, on the steady clock. Clones share it.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<AtomicI64>);

impl Pulse {
    /// A pulse that beats for the first time at `now`.
    pub fn new(now: UnixMillis) -> Self {
        Self(Arc::new(AtomicI64::new(now.0)))
    }

    /// The loop has gone round.
    pub fn beat(&self, now: UnixMillis) {
        self.0.store(now.0, Ordering::Relaxed);
    }

    /// Whether the loop has gone round lately.
    pub fn is_alive(&self, now: UnixMillis) -> bool {
        let silence = now.0.saturating_sub(self.0.load(Ordering::Relaxed));
        Duration::from_millis(u64::try_from(silence).unwrap_or(0)) <= LONGEST_SILENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stopped_is_noticed() {
        let pulse = Pulse::new(UnixMillis(1_000));
        pulse.beat(UnixMillis(5_000));
        assert!(pulse.is_alive(UnixMillis(95_000)));
        assert!(!pulse.is_alive(UnixMillis(95_001)));
    }
}
