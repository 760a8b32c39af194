//! All gates of one lane, in the order in which an event meets them: it is sent only when every one is open.
//!
//! 1. [`hold`]: key, route or every event is refused; a probe from time to time.
//! 2. [`pause`]: upstream asked for time, or the lane has just been opened again.
//! 3. [`breaker`]: attempts fail in a row; one at a time finds out whether that is over.
//! 4. [`rate`]: the configured rate.
//! 5. [`pace`]: the rate that upstream was found to admit.
//! 6. [`concurrency`]: as many at once as upstream serves well.
//! 7. [`budget`]: repeats of failed attempts.
//!
//! Here: how they let events through, and who may close and open them. Beside them: what an answer does to them ([`answers`]),
//! and what they show of themselves ([`view`]).
//!
//! # Invariants
//! 1. Gates delay and never fail an event; a waiting event holds none of them.
//! 2. An answer moves hold and key only where it was asked with the present key ([`Ticket::key`]).
//! 3. Every way back to sending is jittered and begins with one attempt in flight.
//! 4. Time and randomness are handed in.

mod breaker;
mod budget;
mod concurrency;
mod hold;
mod pace;
mod pause;
mod rate;

mod answers;
mod view;

use std::num::NonZeroUsize;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use self::breaker::Breaker;
use self::budget::Budget;
use self::concurrency::Concurrency;
use self::hold::Hold;
use self::pace::Pace;
use self::pause::Pause;
use self::rate::Rate;
use crate::config;

pub(super) use self::answers::{Change, Ticket};
pub(super) use self::hold::Held;
pub use self::hold::ProbeIntervals;
pub(super) use self::view::held;

/// Part of the concurrency limit that is claimed ahead: a quarter.
const AHEAD: usize = 4;

/// Time that a claim may take: what the rates let through in it is claimed ahead.
const CLAIM_TIME: Duration = Duration::from_millis(100);

/// What the gates of a lane are set to.
#[derive(Clone, Copy, Debug)]
pub struct GateSettings {
    /// Most attempts under way at once.
    pub max_in_flight: NonZeroUsize,
    /// Configured rate.
    pub rate: Option<config::Rate>,
    /// Time between the probes of a held lane.
    pub probes: ProbeIntervals,
    /// Whether an event of unknown fate is given up: then the first ambiguous attempt opens the breaker, and nothing is claimed
    /// that cannot be sent at once, since a crash would give it up too.
    pub ambiguous_is_final: bool,
    /// Attempts that a half-open breaker lets through at once: 1, but in simulations that prove that more are noticed.
    pub half_open_attempts: usize,
}

/// Whether events may be sent at all: what hold, pause and breaker say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// As many as the other gates let through.
    Open,
    /// So many, to find out whether upstream is back.
    Trial(usize),
    /// One of any kind, to find out whether a hold is over.
    Probe,
    /// None before this time; `None`: before something else happens.
    Closed(Option<Instant>),
}

/// How many records to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClaimRoom {
    /// So many.
    pub(super) max: NonZeroUsize,
    /// So many of them that were tried before.
    pub(super) max_repeats: usize,
}

/// All gates of one lane.
#[derive(Debug)]
pub(super) struct Gates {
    settings: GateSettings,
    hold: Hold,
    pause: Pause,
    breaker: Breaker,
    rate: Rate,
    pace: Pace,
    concurrency: Concurrency,
    budget: Budget,
    /// Rises with each key that the lane is given.
    key: u64,
}

impl Gates {
    pub(super) fn new(settings: GateSettings, now: Instant) -> Self {
        Self {
            hold: Hold::new(settings.probes),
            pause: Pause::default(),
            breaker: Breaker::new(now, settings.half_open_attempts),
            rate: Rate::new(settings.rate, now),
            pace: Pace::new(now),
            concurrency: Concurrency::new(settings.max_in_flight, now),
            budget: Budget::new(now),
            key: 0,
            settings,
        }
    }

    /// The first three gates. The one place that knows their order.
    pub(super) fn passage(&mut self, now: Instant) -> Passage {
        let probe = match self.hold.passage(now) {
            hold::Passage::None(until) => return Passage::Closed(until),
            hold::Passage::Probe => true,
            hold::Passage::All => false,
        };
        match self.pause.check(now) {
            (Some(until), _) => return Passage::Closed(Some(until)),
            (None, true) => self.concurrency.restart(now),
            (None, false) => {}
        }
        match self.breaker.passage(now) {
            breaker::Passage::NoneUntil(until) => Passage::Closed(Some(until)),
            breaker::Passage::None => Passage::Closed(None),
            _ if probe => Passage::Probe,
            breaker::Passage::Some(count) => Passage::Trial(count),
            breaker::Passage::All => Passage::Open,
        }
    }

    /// How many attempts may begin beside the `in_flight` ones, and where none, when to ask again.
    pub(super) fn send_room(&mut self, in_flight: usize, now: Instant) -> (usize, Option<Instant>) {
        let wanted = match self.passage(now) {
            Passage::Closed(until) => return (0, until),
            Passage::Probe => 1,
            Passage::Trial(count) => count,
            Passage::Open => self.concurrency.limit().saturating_sub(in_flight),
        };
        if wanted == 0 {
            return (0, None);
        }
        let by_rate = self.rate.available(wanted);
        if by_rate == 0 {
            return (0, self.rate.next());
        }
        match self.pace.available(by_rate, now) {
            0 => (0, self.pace.next(now)),
            by_pace => (by_pace, None),
        }
    }

    /// How many records to claim beside those `in_flight` and the `ready` ones, which are claimed and not sent yet; so many
    /// of these are repeats.
    ///
    /// A few more than can be sent now, so that a place that becomes free need not wait for a commit.
    ///
    /// # Errors
    /// Where none are to be claimed: when to ask again; `None`: when something happens.
    pub(super) fn claim_room(
        &mut self,
        in_flight: usize,
        ready: usize,
        ready_repeats: usize,
        now: Instant,
    ) -> Result<ClaimRoom, Option<Instant>> {
        let is_open = match self.passage(now) {
            Passage::Closed(until) => return Err(until),
            Passage::Probe | Passage::Trial(_) => false,
            Passage::Open => true,
        };
        let (now_sendable, until) = self.send_room(in_flight, now);
        let ahead = if is_open && !self.settings.ambiguous_is_final {
            let free = self.concurrency.limit().saturating_sub(in_flight);
            let by_limit = free + (self.concurrency.limit() / AHEAD).max(1);
            let by_rate = self
                .rate
                .in_time(CLAIM_TIME)
                .min(self.pace.in_time(CLAIM_TIME, now));
            by_limit.min(now_sendable.saturating_add(by_rate))
        } else {
            now_sendable
        };
        let max =
            NonZeroUsize::new(ahead.saturating_sub(ready)).ok_or(if ready == 0 { until } else { None })?;
        // One finds out for all: it does not matter whether it is a repeat.
        let max_repeats = if is_open {
            let left = self.budget.available(now).saturating_sub(ready_repeats);
            left.min(max.get())
        } else {
            max.get()
        };
        Ok(ClaimRoom { max, max_repeats })
    }

    /// When there is room in the budget for another repeat.
    pub(super) fn next_repeat(&self, now: Instant) -> Instant {
        now + self.budget.wait()
    }

    /// Notes that an attempt begins; `in_flight` counts it.
    pub(super) fn begin(&mut self, repeat: bool, in_flight: usize, now: Instant) -> Ticket {
        let is_probe = self.hold.passage(now) == hold::Passage::Probe;
        let probe = is_probe.then(|| self.hold.probe_begun()).flatten();
        self.breaker.begun();
        self.rate.spend();
        self.pace.spend();
        self.concurrency.begun(in_flight, now);
        if repeat {
            self.budget.spend();
        }
        Ticket {
            begun: now,
            key: self.key,
            repeat,
            probe,
        }
    }

    /// Holds the lane.
    pub(super) fn hold(&mut self, held: Held, now: Instant, random: &mut impl Rng) {
        self.hold.begin(held, now, random);
    }

    /// Opens every gate that an operator may open.
    pub(super) fn open(&mut self, now: Instant, random: &mut impl Rng) {
        self.hold.lift(now);
        self.pause = Pause::default();
        self.breaker = Breaker::new(now, self.settings.half_open_attempts);
        self.resume(now, random);
    }

    /// The lane has another key; whether that lifted a hold.
    pub(super) fn rekeyed(&mut self, now: Instant, random: &mut impl Rng) -> bool {
        self.key += 1;
        let lifted = self.hold.reconfigured(now);
        if lifted {
            self.resume(now, random);
        }
        lifted
    }

    fn resume(&mut self, now: Instant, random: &mut impl Rng) {
        self.concurrency.restart(now);
        self.pause.before_resume(now, random);
    }

    /// What an earlier life left: a pause to go on with, and whether the breaker was open.
    pub(super) fn restore(
        &mut self,
        pause: Duration,
        breaker_open: bool,
        now: Instant,
        random: &mut impl Rng,
    ) {
        if !pause.is_zero() {
            self.pause.asked_for(pause, now, random);
        }
        if breaker_open {
            self.breaker.half_open(now);
        }
    }
}

#[cfg(test)]
mod tests;
