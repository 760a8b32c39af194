//! `offered-5000`: 5,000 single events a second are offered, whatever becomes of them; does delivering keep up with accepting?
//!
//! 64 callers share 4 connections; calls are due at a fixed rate, and a latency counts from then. Upstream speaks TLS and
//! HTTP/2 and answers at once. What upstream has created when the generator has ended, milliseconds after its last answer, is
//! *delivered during the load*; then the rest is waited for, and the books have to balance.

use std::time::Duration;

use serde_json::json;

use super::reading::{Bound, Figure, Reading, require};
use super::sample::{Sample, until};
use super::stage::{Setup, Stage};
use super::{Context, books};
use crate::proc_fs::cpu_seconds;
use crate::run::generator::Load;
use crate::run::mock::Wire;

const DURING_LOAD: Figure = Figure::told(
    "delivered_during_load",
    "delivered during the load, to accepted",
    4,
)
.keeping(Bound::AtLeast(0.95))
.aiming_at(Bound::AtLeast(0.99));
const ACCEPTED: Figure = Figure::told("accepted_per_second", "accepted/s", 0);
const P50: Figure = Figure::told("accept_p50_ms", "accepting, p50 in ms", 2);
const P99: Figure = Figure::told("accept_p99_ms", "accepting, p99 in ms", 2);
const CPU: Figure = Figure::told("cpu_us", "CPU µs an event, accepting and delivering", 1);
const CONNECTIONS: Figure = Figure::told(
    "connections",
    "connections upstream, one of them the run's own",
    0,
);

/// Events a second.
pub(super) const PER_SECOND: f64 = 5_000.0;
/// How long.
const SECONDS: f64 = 20.0;
/// How often the rest is looked at.
const POLL: Duration = Duration::from_millis(25);
/// Longest time for the rest.
const LONGEST: Duration = Duration::from_secs(60);

/// The load: for so many seconds, of one project.
pub(super) fn load(seconds: f64) -> Load {
    Load {
        callers: 64,
        connections: 4,
        rate: Some(PER_SECOND),
        seconds,
        projects: 1,
        ..Load::default()
    }
}

/// One measurement.
pub(super) async fn measure(context: &Context<'_>) -> anyhow::Result<Reading> {
    let setup = Setup {
        wire: Wire::Tls,
        ..Setup::default()
    };
    let stage = Stage::start(context.places, setup).await?;
    let pid = stage.sidecar.pid();
    let cpu_before = cpu_seconds(pid)?;
    let load = load(context.seconds(SECONDS).as_secs_f64());
    let load = stage.publish(context.places, &load).await?;
    let during = Sample::take(&stage.mock).await?;
    let accepted = load.count + load.warm_up;
    let done = until(&stage.mock, POLL, LONGEST, |counts| counts.created >= accepted).await?;
    let mut faults = books::faults(&stage, accepted).await?;
    let cpu_seconds = cpu_seconds(pid)? - cpu_before;
    require(&mut faults, load.is_clean(), || {
        format!("the load failed: {load:?}")
    });
    stage.stop().await?;
    Ok(Reading {
        figures: vec![
            (DURING_LOAD, during.counts.created as f64 / accepted as f64),
            (ACCEPTED, load.rate),
            (P50, load.p50_us / 1e3),
            (P99, load.p99_us / 1e3),
            (CPU, cpu_seconds * 1e6 / accepted as f64),
            (CONNECTIONS, done.counts.open_connections as f64),
        ],
        details: json!({
            "load": load,
            "delivered_during_load": during.counts.created,
            "seconds_to_the_last_delivery": done.seconds_since(&during),
        }),
        faults,
    })
}
