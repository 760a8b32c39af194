//! Clocks of a simulated machine: the wall's jumps, the steady one and the store's running time do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use embeddables_queue::{RunningClock, UnixMillis};
use embeddables_sidecar::clock::Clock;
use tokio::time::Instant;

/// Wall time at which every simulation begins.
const BEGIN: i64 = 1_800_000_000_000;

/// The wall clock of the machine; shared by all lives of the sidecar.
#[derive(Debug)]
pub(crate) struct Wall {
    begin: Instant,
    offset_ms: AtomicI64,
}

impl Wall {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begin: Instant::now(),
            offset_ms: AtomicI64::new(BEGIN),
        })
    }

    pub(crate) fn now(&self) -> UnixMillis {
        UnixMillis(self.offset_ms.load(Ordering::Relaxed) + millis(self.begin.elapsed()))
    }

    /// Somebody, or NTP, sets the clock.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

/// The clocks of one life.
#[derive(Debug)]
pub(crate) struct LifeClock {
    wall: Arc<Wall>,
    started: Instant,
    started_at: UnixMillis,
}

impl LifeClock {
    /// Starts steady time as the sidecar does: where the wall clock is, but not before what the store has seen.
    pub(crate) fn start(wall: &Arc<Wall>, seen: UnixMillis) -> Self {
        Self {
            started_at: wall.now().max(seen),
            wall: Arc::clone(wall),
            started: Instant::now(),
        }
    }
}

impl Clock for LifeClock {
    fn wall(&self) -> UnixMillis {
        self.wall.now()
    }

    fn steady(&self) -> UnixMillis {
        UnixMillis(self.started_at.0 + millis(self.started.elapsed()))
    }
}

/// Running time of one life of the store.
#[derive(Debug)]
pub(crate) struct Running(Instant);

impl Running {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }
}

impl RunningClock for Running {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).expect("a short simulation")
}
