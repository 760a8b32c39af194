//! One of two queues: filled to a depth, accepted into and drained, round by round.

use std::time::Duration;

use serde_json::{Value, json};

use crate::load::LoadReport;
use crate::proc_fs::{cpu_seconds, memory};
use crate::run::delivery::Context;
use crate::run::delivery::reading::require;
use crate::run::delivery::sample::{Sample, until};
use crate::run::delivery::stage::{End, Setup, Stage};
use crate::run::generator::Load;

/// Events a call.
const BATCH: u32 = 100;
/// Longest time to fill a queue.
const LONGEST_LOAD_SECONDS: f64 = 1_800.0;
/// Events accepted in a round on top of the depth.
const ACCEPTED: f64 = 20_000.0;
/// Events delivered in a round before it is looked at: the sidecar begins with one request in flight.
const SKIPPED: f64 = 3_000.0;
/// Events whose delivery is looked at in a round: fewer than the shallow queue holds after `SKIPPED`.
const DELIVERED: f64 = 24_000.0;
/// How often deliveries are counted.
const POLL: Duration = Duration::from_millis(10);
/// Longest time for the deliveries of a round.
const LONGEST: Duration = Duration::from_secs(60);

/// Time of so many events.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Mean {
    seconds: f64,
    events: u64,
}

impl Mean {
    fn add(&mut self, seconds: f64, events: u64) {
        self.seconds += seconds;
        self.events += events;
    }

    /// Microseconds an event.
    pub(super) fn micros(&self) -> f64 {
        self.seconds * 1e6 / self.events as f64
    }

    /// Events a second.
    pub(super) fn per_second(&self) -> f64 {
        self.events as f64 / self.seconds
    }
}

/// What accepting or draining took in all rounds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Phase {
    cpu: Mean,
    time: Mean,
    peak_bytes: u64,
    last_bytes: u64,
}

impl Phase {
    /// CPU time of the sidecar.
    pub(super) fn cpu(&self) -> &Mean {
        &self.cpu
    }

    /// Time on the wall.
    pub(super) fn time(&self) -> &Mean {
        &self.time
    }

    /// The most resident memory that any of the sidecar's processes ever had in this phase, in MiB.
    pub(super) fn peak_mib(&self) -> f64 {
        mib(self.peak_bytes)
    }

    fn note_memory(&mut self, pid: u32) -> anyhow::Result<()> {
        let memory = memory(pid)?;
        self.peak_bytes = self.peak_bytes.max(memory.peak_resident_bytes);
        self.last_bytes = memory.resident_bytes;
        Ok(())
    }

    fn details(&self) -> Value {
        json!({
            "events": self.time.events,
            "cpu_us": self.cpu.micros(),
            "per_second": self.time.per_second(),
            "peak_mib": self.peak_mib(),
            "mib_at_end": mib(self.last_bytes),
        })
    }
}

/// A queue with its sidecar and upstream.
#[derive(Debug)]
pub(super) struct Side {
    stage: Stage,
    /// Events that are queued before others are accepted.
    depth: u64,
    /// Events accepted so far.
    accepted: u64,
    outcome: Outcome,
}

/// What a side came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Accepting, deliveries switched off.
    pub(super) accept: Phase,
    /// Delivering.
    pub(super) drain: Phase,
    /// Longest time from a start to being ready, in milliseconds.
    pub(super) longest_ready_ms: f64,
    /// Why it does not count.
    pub(super) faults: Vec<String>,
    fill: Mean,
    queue_bytes: u64,
}

impl Outcome {
    /// All that was counted.
    pub(super) fn details(&self) -> Value {
        json!({
            "fill_seconds": self.fill.seconds,
            "filled_per_second": self.fill.per_second(),
            "queue_bytes": self.queue_bytes,
            "longest_ready_ms": self.longest_ready_ms,
            "accept": self.accept.details(),
            "drain": self.drain.details(),
        })
    }
}

impl Side {
    /// Starts a sidecar that does not deliver and fills its queue.
    pub(super) async fn fill(context: &Context<'_>, depth: u64) -> anyhow::Result<Self> {
        let setup = Setup {
            delivers: false,
            ..Setup::default()
        };
        let mut side = Self {
            stage: Stage::start(context.places, setup).await?,
            depth,
            accepted: 0,
            outcome: Outcome::default(),
        };
        let load = side.publish(context, depth).await?;
        side.outcome.fill.add(load.seconds, load.count);
        side.outcome.accept.note_memory(side.stage.sidecar.pid())?;
        side.outcome.queue_bytes = side.stage.queue_bytes()?;
        Ok(side)
    }

    /// Tops the queue up, accepts further events, is started again and delivers some.
    pub(super) async fn round(mut self, context: &Context<'_>) -> anyhow::Result<Self> {
        let delivered = Sample::take(&self.stage.mock).await?.counts.created;
        // An attempt that was cut by a start may have been counted upstream and be made again.
        let queued = self.accepted.saturating_sub(delivered);
        if queued < self.depth {
            self.publish(context, self.depth - queued).await?;
        }
        self.accept(context).await?;
        let mut side = self.restart(context, true).await?;
        side.drain(context, delivered).await?;
        side.restart(context, false).await
    }

    /// Ends both processes.
    pub(super) async fn finish(self) -> anyhow::Result<Outcome> {
        self.stage.stop().await?;
        Ok(self.outcome)
    }

    /// Looks at accepting.
    async fn accept(&mut self, context: &Context<'_>) -> anyhow::Result<()> {
        let pid = self.stage.sidecar.pid();
        let before = cpu_seconds(pid)?;
        let load = self.publish(context, context.events(ACCEPTED)).await?;
        let phase = &mut self.outcome.accept;
        phase
            .cpu
            .add(cpu_seconds(pid)? - before, load.count + load.warm_up);
        phase.time.add(load.seconds, load.count);
        phase.note_memory(pid)
    }

    /// Looks at deliveries; upstream had so many events before they began.
    async fn drain(&mut self, context: &Context<'_>, delivered_before: u64) -> anyhow::Result<()> {
        let pid = self.stage.sidecar.pid();
        let first = delivered_before + context.events(SKIPPED);
        let last = first + context.events(DELIVERED);
        let (begin, cpu_begin) = self.until_delivered(first).await?;
        let (end, cpu_end) = self.until_delivered(last).await?;
        let events = end.counts.created - begin.counts.created;
        let phase = &mut self.outcome.drain;
        phase.cpu.add(cpu_end - cpu_begin, events);
        phase.time.add(end.seconds_since(&begin), events);
        phase.note_memory(pid)?;
        require(&mut self.outcome.faults, end.counts.created >= last, || {
            format!("{events} events were delivered within {LONGEST:?}")
        });
        require(
            &mut self.outcome.faults,
            end.counts.created < self.accepted,
            || "the queue ended while it was looked at".to_owned(),
        );
        Ok(())
    }

    /// Waits until upstream has so many events; gives its counts and the CPU time of the sidecar so far.
    async fn until_delivered(&self, events: u64) -> anyhow::Result<(Sample, f64)> {
        let sample = until(&self.stage.mock, POLL, LONGEST, |counts| counts.created >= events).await?;
        Ok((sample, cpu_seconds(self.stage.sidecar.pid())?))
    }

    /// Starts the sidecar again.
    async fn restart(self, context: &Context<'_>, delivers: bool) -> anyhow::Result<Self> {
        let stage = self.stage.restart(context.places, End::Asked, delivers).await?;
        let mut outcome = self.outcome;
        let ready_ms = stage.sidecar.ready_after.as_secs_f64() * 1e3;
        outcome.longest_ready_ms = outcome.longest_ready_ms.max(ready_ms);
        Ok(Self {
            stage,
            outcome,
            ..self
        })
    }

    /// Publishes events; they are rounded up to whole calls.
    async fn publish(&mut self, context: &Context<'_>, events: u64) -> anyhow::Result<LoadReport> {
        let load = Load {
            batch: Some(BATCH),
            calls: Some(events.div_ceil(u64::from(BATCH))),
            seconds: LONGEST_LOAD_SECONDS,
            projects: 1,
            ..Load::default()
        };
        let load = self.stage.publish(context.places, &load).await?;
        require(&mut self.outcome.faults, load.is_clean(), || {
            format!("the load failed: {load:?}")
        });
        self.accepted += load.count + load.warm_up;
        Ok(load)
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_add_up() {
        let mut mean = Mean::default();
        mean.add(1.0, 100_000);
        mean.add(2.0, 200_000);
        assert!((mean.micros() - 10.0).abs() < 1e-9);
        assert!((mean.per_second() - 100_000.0).abs() < 1e-6);
    }

    #[test]
    fn the_shallow_queue_outlasts_what_is_looked_at() {
        const { assert!(SKIPPED + DELIVERED < super::super::SHALLOW_EVENTS + ACCEPTED) }
    }
}
