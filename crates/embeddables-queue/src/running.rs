//! Running time of the store: what earlier lives have added up to, and this one's share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{RunningClock, whole_millis};

/// Tells for how long the store has been open, over all restarts, in milliseconds.
#[derive(Debug)]
pub(crate) struct RunningTime {
    before: AtomicU64,
    opened_at: u64,
    clock: Arc<dyn RunningClock>,
}

impl RunningTime {
    /// Continues from what was persisted.
    pub(crate) fn resume(before_millis: u64, clock: Arc<dyn RunningClock>) -> Self {
        let opened_at = whole_millis(clock.elapsed());
        Self {
            before: AtomicU64::new(before_millis),
            opened_at,
            clock,
        }
    }

    /// Milliseconds now.
    pub(crate) fn now(&self) -> u64 {
        let since = whole_millis(self.clock.elapsed()).saturating_sub(self.opened_at);
        self.before.load(Ordering::Relaxed).saturating_add(since)
    }
}
