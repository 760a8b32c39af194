//! Time as the rooms see it: handed in, so that tests and simulations decide what it is.
//!
//! # Invariants
//! 1. [`Clock::steady`] never goes back and never jumps while the process runs, whatever is done to the wall clock: retry
//!    times are kept on it.
//! 2. [`Clock::wall`] is for what people read and for the time of an event that came without one; nothing waits on it.

use embeddables_queue::UnixMillis;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Where a room gets the time from.
pub trait Clock: Send + Sync + 'static {
    /// What the wall clock shows now.
    fn wall(&self) -> UnixMillis;

    /// What the wall clock showed at start, or what this clock showed in the last life where that is later, plus the time that
    /// has passed since.
    fn steady(&self) -> UnixMillis;
}

/// The clocks of the machine. Steady time follows tokio's clock, so that a paused test pauses it too.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
    started_at: UnixMillis,
}

impl SystemClock {
    /// Starts steady time at the present wall time, but not before what it `showed` in the last life: the wall clock may have
    /// been set back since.
    pub fn start(showed: UnixMillis) -> Self {
        Self {
            started: Instant::now(),
            started_at: wall_now().max(showed),
        }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> UnixMillis {
        wall_now()
    }

    fn steady(&self) -> UnixMillis {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        UnixMillis(self.started_at.0.saturating_add(elapsed))
    }
}

/// A wall clock before 1970 counts as 1970.
fn wall_now() -> UnixMillis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
