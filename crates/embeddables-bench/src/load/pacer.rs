//! When calls are due in an open loop: at a fixed rate, whatever became of the calls before.
//!
//! # Invariants
//! 1. Slot `n` is due at start + n / rate, and is handed out once, in order, never before it is due.
//! 2. A slot that nobody could take in time keeps its time: what it waited is part of its latency.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Hands out slots to callers that share it.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Whoever holds it waits for the next slot; the others wait for the holder. The runtime's own timers have a grain
    /// of a millisecond, many times the latency to be measured.
    timer: Mutex<AsyncFd<OwnedFd>>,
    start: Instant,
    per_second: f64,
    next_slot: Cell<u64>,
    slots: u64,
}

impl Pacer {
    /// Starts now: `slots` slots at a rate.
    ///
    /// # Errors
    /// Where the kernel has no timer to give.
    pub(crate) fn start(per_second: f64, slots: u64) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        #[expect(
            deprecated,
            reason = "`register` is unsafe for types that lie about their descriptor; an OwnedFd does not"
        )]
        let timer = Mutex::new(AsyncFd::new(timer)?);
        Ok(Self {
            timer,
            start: Instant::now(),
            per_second,
            next_slot: Cell::new(0),
            slots,
        })
    }

    /// Waits for the next slot and gives the time at which it was due; `None` after the last.
    pub(crate) async fn next(&self) -> io::Result<Option<Instant>> {
        let timer = self.timer.lock().await;
        let slot = self.next_slot.get();
        if slot == self.slots {
            return Ok(None);
        }
        let due = self.start + Duration::from_secs_f64(slot as f64 / self.per_second);
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            sleep(&timer, wait).await?;
        }
        self.next_slot.set(slot + 1);
        Ok(Some(due))
    }

    /// Slots that were never handed out.
    pub(crate) fn left(&self) -> u64 {
        self.slots - self.next_slot.get()
    }
}

async fn sleep(timer: &AsyncFd<OwnedFd>, wait: Duration) -> io::Result<()> {
    let it_value = Timespec::try_from(wait).map_err(io::Error::other)?;
    let once = Itimerspec {
        it_interval: Timespec::default(),
        it_value,
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    loop {
        let mut ready = timer.readable().await?;
        let mut expirations = [0; 8];
        match ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expirations)?)) {
            Ok(read) => return read.map(drop),
            Err(_not_yet) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slots_come_in_order_when_due_and_end() {
        let pacer = Pacer::start(2_000.0, 5).expect("timer");
        let start = pacer.start;
        for slot in 0..5 {
            let due = pacer.next().await.expect("timer").expect("a slot");
            assert_eq!(due, start + Duration::from_micros(500 * slot));
            assert!(Instant::now() >= due);
        }
        assert_eq!(pacer.left(), 0);
        assert_eq!(pacer.next().await.expect("timer"), None);
    }
}
