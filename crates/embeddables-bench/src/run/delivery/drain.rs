//! `drain`: a backlog of 300,000 events of one project; how much of the speed of a bare client does the sidecar reach?
//!
//! The sidecar accepts the backlog with deliveries switched off and is started again. Its clock starts when it says that it is
//! ready, and stops when upstream has every event and the sidecar itself counts each as delivered: finding its speed and
//! settling are part of it. The bare client sends as many of the same bodies, 256 at once over 4 connections, each of which
//! has carried one before; so does hyper alone, which shows what reqwest costs. Upstream speaks TLS and HTTP/2 and answers at once, and each side has one of its own.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::backlog::Backlog;
use super::bare::{Bare, Sending};
use super::reading::{Bound, Figure, Reading, require};
use super::sample::{Sample, until};
use super::stage::Setup;
use super::{BARE_CONNECTIONS, Context, IN_FLIGHT, books};
use crate::bare::Library;
use crate::proc_fs::cpu_seconds;
use crate::run::mock::{MockCounts, Wire};

const RATIO: Figure = Figure::told("ratio", "delivered, to a bare client's", 3)
    .keeping(Bound::AtLeast(0.50))
    .aiming_at(Bound::AtLeast(0.80));
const DELIVERED: Figure = Figure::told("delivered_per_second", "delivered and settled/s", 0);
const BARE: Figure = Figure::told("bare_per_second", "bare client's requests/s", 0);
const FIRST_SECOND: Figure = Figure::told("delivered_in_first_second", "delivered/s in the first second", 0);
const CPU: Figure = Figure::told("cpu_us", "CPU µs an event", 1);
const BARE_CPU: Figure = Figure::told("bare_cpu_us", "bare client's CPU µs a request", 1);
const HYPER: Figure = Figure::told("hyper_per_second", "requests/s of bare hyper", 0);
const HYPER_CPU: Figure = Figure::told("hyper_cpu_us", "CPU µs a request of bare hyper", 1);
const CONNECTIONS: Figure = Figure::told(
    "connections",
    "connections upstream, one of them the run's own",
    0,
);

/// Events of the backlog.
const EVENTS: f64 = 300_000.0;
/// How often deliveries are counted.
const POLL: Duration = Duration::from_millis(20);
/// Longest time for either side.
const LONGEST: Duration = Duration::from_secs(300);

/// One pair, and what a leaner library would make of it.
pub(super) async fn measure(context: &Context<'_>) -> anyhow::Result<Reading> {
    let bare = |library| by_bare_client(context, library);
    let (sidecar, bare, hyper) = if context.is_even() {
        let hyper = bare(Library::Hyper).await?;
        let bare = bare(Library::Reqwest).await?;
        (by_sidecar(context).await?, bare, hyper)
    } else {
        let sidecar = by_sidecar(context).await?;
        let bare_reqwest = bare(Library::Reqwest).await?;
        (sidecar, bare_reqwest, bare(Library::Hyper).await?)
    };
    Ok(Reading {
        figures: vec![
            (RATIO, sidecar.side.per_second() / bare.per_second()),
            (DELIVERED, sidecar.side.per_second()),
            (BARE, bare.per_second()),
            (FIRST_SECOND, sidecar.first.created_per_second(&sidecar.start)),
            (CPU, sidecar.side.cpu_micros()),
            (BARE_CPU, bare.cpu_micros()),
            (HYPER, hyper.per_second()),
            (HYPER_CPU, hyper.cpu_micros()),
            (CONNECTIONS, sidecar.done.counts.open_connections as f64),
        ],
        details: json!({
            "sidecar": sidecar.side.details(),
            "delivered_before_the_clock": sidecar.start.counts.created,
            "bare": bare.details(),
            "hyper": hyper.details(),
        }),
        faults: [bare.faults, hyper.faults, sidecar.side.faults].concat(),
    })
}

/// What one side came to.
struct Side {
    /// Events delivered while its clock ran.
    events: u64,
    seconds: f64,
    /// CPU time of its process meanwhile.
    cpu_seconds: f64,
    faults: Vec<String>,
}

impl Side {
    fn per_second(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    fn cpu_micros(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.events as f64
    }

    fn details(&self) -> Value {
        json!({
            "events": self.events,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        })
    }
}

/// The sidecar's side, and what was seen on the way.
struct Drained {
    side: Side,
    start: Sample,
    /// A second later.
    first: Sample,
    /// Upstream has every event.
    done: Sample,
}

async fn by_sidecar(context: &Context<'_>) -> anyhow::Result<Drained> {
    let setup = Setup {
        wire: Wire::Tls,
        ..Setup::default()
    };
    let Backlog {
        stage,
        accepted,
        mut faults,
    } = Backlog::queue(context, setup, context.events(EVENTS)).await?;
    let pid = stage.sidecar.pid();
    let cpu_before = cpu_seconds(pid)?;
    let clock = Instant::now();
    let start = Sample::take(&stage.mock).await?;
    let has_all = |counts: &MockCounts| counts.created >= accepted;
    let first = until(&stage.mock, POLL, Duration::from_secs(1), has_all).await?;
    let done = until(&stage.mock, POLL, LONGEST, has_all).await?;
    let imbalance = books::faults(&stage, accepted).await?;
    let seconds = clock.elapsed().as_secs_f64();
    let cpu_seconds = cpu_seconds(pid)? - cpu_before;
    faults.extend(imbalance);
    stage.stop().await?;
    Ok(Drained {
        side: Side {
            events: accepted - start.counts.created,
            seconds,
            cpu_seconds,
            faults,
        },
        start,
        first,
        done,
    })
}

async fn by_bare_client(context: &Context<'_>, library: Library) -> anyhow::Result<Side> {
    let events = context.events(EVENTS);
    let sending = Sending {
        library,
        wire: Wire::Tls,
        in_flight: IN_FLIGHT,
        connections: BARE_CONNECTIONS,
        time: LONGEST,
        events: Some(events),
    };
    let report = Bare::start(context.places, json!({}), sending)
        .await?
        .finish()
        .await?;
    let mut faults = Vec::new();
    require(
        &mut faults,
        report.is_clean() && report.delivered == events,
        || format!("the bare client failed: {report:?}"),
    );
    Ok(Side {
        events: report.delivered,
        seconds: report.seconds,
        cpu_seconds: report.cpu_seconds,
        faults,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_judged_by_what_was_delivered_while_its_clock_ran() {
        let side = Side {
            events: 200_000,
            seconds: 20.0,
            cpu_seconds: 10.0,
            faults: Vec::new(),
        };
        assert!((side.per_second() - 10_000.0).abs() < 1e-9);
        assert!((side.cpu_micros() - 50.0).abs() < 1e-9);
    }
}
