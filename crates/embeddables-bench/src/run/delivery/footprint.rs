//! `footprint`: what the sidecar takes where it does next to nothing: memory and CPU when idle, its binary, the time from its
//! start until it is ready, with nothing queued and with a million events.
//!
//! The million is accepted with deliveries switched off. The sidecar is killed as soon as the last event is acknowledged, so
//! that the next start finds the write-ahead log as a crash leaves it; then it is ended and started in order. What it delivers
//! between these two starts, some thousands, is missing at the second.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Context;
use super::reading::{Bound, Figure, Reading, require};
use super::stage::{End, Setup, Stage};
use crate::load::LoadReport;
use crate::proc_fs::{cpu_seconds, memory};
use crate::run::disk::ensure_room;
use crate::run::generator::Load;

const IDLE_RSS: Figure = Figure::told("idle_rss_mib", "idle: RSS in MiB", 1).keeping(Bound::AtMost(15.0));
const IDLE_CPU: Figure =
    Figure::told("idle_cpu_percent", "idle: CPU in percent of a core", 3).keeping(Bound::AtMost(0.2));
const OUTAGE_CPU: Figure = Figure::told(
    "outage_cpu_percent",
    "1,000 events wait for an upstream that is away: CPU in percent of a core",
    3,
);
const BINARY: Figure = Figure::told("binary_mb", "binary in MB", 1).keeping(Bound::AtMost(20.0));
const READY_EMPTY: Figure =
    Figure::told("ready_empty_ms", "ms to ready, new queue", 0).keeping(Bound::AtMost(100.0));
const READY_KILLED: Figure =
    Figure::told("ready_killed_ms", "ms to ready, 1 M queued, after SIGKILL", 0).keeping(MOST_READY_MS);
const READY_MILLION: Figure =
    Figure::told("ready_million_ms", "ms to ready, 1 M queued", 0).keeping(MOST_READY_MS);

/// Bar of a start with a million events.
const MOST_READY_MS: Bound = Bound::AtMost(1_000.0);

/// Time after the start, or after upstream is gone, that does not count as idle.
const SETTLING_SECONDS: f64 = 5.0;
/// Time that counts.
const IDLE_SECONDS: f64 = 30.0;
/// Events that wait for an upstream that is away.
const UNDELIVERABLE_EVENTS: f64 = 1_000.0;
/// Events queued for the later starts.
const MILLION: f64 = 1_000_000.0;
/// Disk for each of them.
const BYTES_AN_EVENT: u64 = 1_200;
/// Events a call.
const BATCH: u32 = 100;
/// Longest time to accept the million.
const LONGEST_LOAD_SECONDS: f64 = 300.0;

/// One measurement.
pub(super) async fn measure(context: &Context<'_>) -> anyhow::Result<Reading> {
    let binary_bytes = std::fs::metadata(&context.places.sidecar)?.len();
    let idle = Idle::watch(context).await?;
    let starts = Starts::watch(context).await?;
    Ok(Reading {
        figures: vec![
            (IDLE_RSS, idle.rss_bytes as f64 / f64::from(1 << 20)),
            (IDLE_CPU, idle.cpu_percent),
            (OUTAGE_CPU, idle.outage_cpu_percent),
            (BINARY, binary_bytes as f64 / 1e6),
            (READY_EMPTY, millis(idle.ready_after)),
            (READY_KILLED, millis(starts.after_kill)),
            (READY_MILLION, millis(starts.in_order)),
        ],
        details: json!({ "binary_bytes": binary_bytes, "idle": idle.details, "starts": starts.details }),
        faults: [idle.faults, starts.faults].concat(),
    })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A sidecar with a new queue and one project.
struct Idle {
    ready_after: Duration,
    rss_bytes: u64,
    cpu_percent: f64,
    /// The same while events wait.
    outage_cpu_percent: f64,
    details: Value,
    faults: Vec<String>,
}

impl Idle {
    async fn watch(context: &Context<'_>) -> anyhow::Result<Self> {
        let mut stage = Stage::start(context.places, Setup::default()).await?;
        let pid = stage.sidecar.pid();
        sleep(context.seconds(SETTLING_SECONDS)).await;
        let idle = memory(pid)?;
        let cpu_percent = idle_cpu_percent(context, pid).await?;

        stage.lose_upstream().await?;
        let load = publish(&stage, context, UNDELIVERABLE_EVENTS).await?;
        sleep(context.seconds(SETTLING_SECONDS)).await;
        let outage_cpu_percent = idle_cpu_percent(context, pid).await?;
        let mut faults = faults(&load);
        let delivered = stage.settled().await?;
        require(&mut faults, delivered < 1.0, || {
            format!("{delivered} events were delivered although upstream is away")
        });
        let waiting = memory(pid)?;
        let ready_after = stage.sidecar.ready_after;
        stage.stop().await?;
        Ok(Self {
            ready_after,
            rss_bytes: idle.resident_bytes,
            cpu_percent,
            outage_cpu_percent,
            details: json!({
                "ready_ms": millis(ready_after),
                "rss_bytes": idle.resident_bytes,
                "peak_rss_bytes": idle.peak_resident_bytes,
                "rss_bytes_while_events_wait": waiting.resident_bytes,
            }),
            faults,
        })
    }
}

/// CPU time of a process, to the time that passes.
async fn idle_cpu_percent(context: &Context<'_>, pid: u32) -> anyhow::Result<f64> {
    let (before, start) = (cpu_seconds(pid)?, Instant::now());
    sleep(context.seconds(IDLE_SECONDS)).await;
    Ok((cpu_seconds(pid)? - before) / start.elapsed().as_secs_f64() * 1e2)
}

/// Starts with a million events queued.
struct Starts {
    after_kill: Duration,
    in_order: Duration,
    details: Value,
    faults: Vec<String>,
}

impl Starts {
    async fn watch(context: &Context<'_>) -> anyhow::Result<Self> {
        let places = context.places;
        ensure_room(&places.work_dir, context.events(MILLION) * BYTES_AN_EVENT)?;
        let setup = Setup {
            delivers: false,
            ..Setup::default()
        };
        let stage = Stage::start(places, setup).await?;
        let load = publish(&stage, context, MILLION).await?;
        let filled = memory(stage.sidecar.pid())?;
        let stage = stage.restart(places, End::Killed, true).await?;
        let (after_kill, queue_bytes) = (stage.sidecar.ready_after, stage.queue_bytes()?);
        let stage = stage.restart(places, End::Asked, true).await?;
        let in_order = stage.sidecar.ready_after;
        let mut faults = faults(&load);
        let left = (load.count + load.warm_up) as f64 - stage.settled().await?;
        require(&mut faults, left >= 0.5 * load.count as f64, || {
            format!("only {left} events were queued at the last start")
        });
        require(&mut faults, !stage.was_salvaged()?, || {
            "a start took the queue of a killed sidecar for damaged and salvaged it".to_owned()
        });
        stage.stop().await?;
        Ok(Self {
            after_kill,
            in_order,
            details: json!({
                "accepted": load.count + load.warm_up,
                "accepted_per_second": load.rate,
                "queued_at_last_start": left,
                "queue_bytes": queue_bytes,
                "peak_rss_bytes": filled.peak_resident_bytes,
            }),
            faults,
        })
    }
}

async fn publish(stage: &Stage, context: &Context<'_>, events: f64) -> anyhow::Result<LoadReport> {
    let load = Load {
        batch: Some(BATCH),
        calls: Some(context.events(events) / u64::from(BATCH)),
        seconds: LONGEST_LOAD_SECONDS,
        projects: 1,
        ..Load::default()
    };
    stage.publish(context.places, &load).await
}

fn faults(load: &LoadReport) -> Vec<String> {
    let mut faults = Vec::new();
    require(&mut faults, load.is_clean(), || {
        format!("the load failed: {load:?}")
    });
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_of_cpu_time_is_small_beside_the_bar() {
        // A hundredth of a second is how finely the kernel tells CPU time.
        let Some(Bound::AtMost(most_percent)) = IDLE_CPU.bound else {
            panic!("no bar");
        };
        assert!(0.01 / IDLE_SECONDS * 1e2 <= most_percent / 5.0);
    }
}
