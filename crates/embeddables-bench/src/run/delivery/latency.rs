//! `latency-20ms`, `latency-50ms`: upstream takes its time; how much of what a bare client reaches does the sidecar?
//!
//! The sidecar accepts a backlog first, with deliveries switched off, and is then started again. Both sides may have
//! 256 requests in flight, the bare client over 4 connections; they send the same bodies over TLS and HTTP/2 to a mock of their
//! own, and are given time to reach their speed. Then the mock's counts are read at the beginning and at the end of a window.
//! The ideal is 256 requests a latency.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::backlog::Backlog;
use super::bare::{Bare, Sending};
use super::reading::{Bound, Figure, Reading, require};
use super::sample::Sample;
use super::stage::Setup;
use super::{BARE_CONNECTIONS, Context, IN_FLIGHT};
use crate::bare::Library;
use crate::proc_fs::cpu_seconds;
use crate::run::mock::{Mock, Wire};

const RATIO: Figure = Figure::told("ratio", "delivered, to a bare client's", 3);
/// What the ratio has to keep at 20 ms.
const RATIO_BOUND: Bound = Bound::AtLeast(0.90);
const OF_IDEAL: Figure = Figure::told("of_ideal", "delivered, to the ideal", 3);
/// What the part of the ideal has to keep at 50 ms.
const OF_IDEAL_BOUND: Bound = Bound::AtLeast(0.85);
/// What it should reach there.
const OF_IDEAL_GOAL: Bound = Bound::AtLeast(0.95);
const DELIVERED: Figure = Figure::told("delivered_per_second", "delivered/s", 0);
const BARE: Figure = Figure::told("bare_per_second", "bare client's requests/s", 0);
const FIRST_SECONDS: Figure = Figure::told("delivered_per_second_before", "delivered/s before the window", 0);
const IN_FLIGHT_SEEN: Figure = Figure::told("max_in_flight", "most requests in flight", 0);
const CONNECTIONS: Figure = Figure::told(
    "connections",
    "connections upstream, one of them the run's own",
    0,
);
const CPU: Figure = Figure::told("cpu_us", "CPU µs an event", 1);
const BARE_CPU: Figure = Figure::told("bare_cpu_us", "bare client's CPU µs a request", 1);

/// Time to reach full speed: the sidecar begins with one request in flight.
const SETTLING_SECONDS: f64 = 4.0;
/// Time that counts.
const WINDOW_SECONDS: f64 = 8.0;
/// Events for so many seconds at the ideal speed are accepted first: more than both of the above.
const BACKLOG_SECONDS: f64 = 13.0;

/// One pair.
pub(super) async fn measure(context: &Context<'_>, latency_ms: u64) -> anyhow::Result<Reading> {
    let (sidecar, bare) = if context.is_even() {
        let bare = by_bare_client(context, latency_ms).await?;
        (by_sidecar(context, latency_ms).await?, bare)
    } else {
        let sidecar = by_sidecar(context, latency_ms).await?;
        let bare = by_bare_client(context, latency_ms).await?;
        (sidecar, bare)
    };
    let (ratio, of_ideal) = bounded(latency_ms);
    Ok(Reading {
        figures: vec![
            (ratio, sidecar.per_second / bare.per_second),
            (of_ideal, sidecar.per_second / ideal(latency_ms)),
            (DELIVERED, sidecar.per_second),
            (BARE, bare.per_second),
            (FIRST_SECONDS, sidecar.per_second_before),
            (IN_FLIGHT_SEEN, sidecar.end.counts.max_in_flight as f64),
            (CONNECTIONS, sidecar.end.counts.open_connections as f64),
            (CPU, sidecar.cpu_micros),
            (BARE_CPU, bare.cpu_micros),
        ],
        details: json!({ "ideal": ideal(latency_ms), "sidecar": sidecar.details(), "bare": bare.details() }),
        faults: [bare.faults, sidecar.faults].concat(),
    })
}

/// At 20 ms the bare client is what counts: two cores do not reach the ideal. At 50 ms they do.
fn bounded(latency_ms: u64) -> (Figure, Figure) {
    match latency_ms {
        20 => (RATIO.keeping(RATIO_BOUND), OF_IDEAL),
        50 => (RATIO, OF_IDEAL.keeping(OF_IDEAL_BOUND).aiming_at(OF_IDEAL_GOAL)),
        _ => (RATIO, OF_IDEAL),
    }
}

/// Requests a second where each takes the latency and nothing else.
fn ideal(latency_ms: u64) -> f64 {
    f64::from(IN_FLIGHT) * 1_000.0 / latency_ms as f64
}

/// What was seen of one side in the window.
struct Window {
    per_second: f64,
    /// From the start of the deliveries to that of the window.
    per_second_before: f64,
    /// CPU time of the process for each event.
    cpu_micros: f64,
    end: Sample,
    faults: Vec<String>,
}

impl Window {
    /// Waits until the side has settled, and then for the window.
    async fn watch(context: &Context<'_>, mock: &Mock, pid: u32) -> anyhow::Result<Self> {
        let start = Sample::take(mock).await?;
        sleep(context.seconds(SETTLING_SECONDS)).await;
        let cpu_before = cpu_seconds(pid)?;
        let settled = Sample::take(mock).await?;
        sleep(context.seconds(WINDOW_SECONDS)).await;
        let cpu_seconds = cpu_seconds(pid)? - cpu_before;
        let end = Sample::take(mock).await?;
        let mut faults = Vec::new();
        let created = end.counts.created - settled.counts.created;
        require(&mut faults, created > 0, || "nothing was delivered".to_owned());
        let answered: u64 = end.counts.by_status.values().sum();
        let others = answered - end.counts.of_status(200);
        require(&mut faults, others == 0, || {
            format!("{others} answers were not 200")
        });
        Ok(Self {
            per_second: end.created_per_second(&settled),
            per_second_before: settled.created_per_second(&start),
            cpu_micros: cpu_seconds * 1e6 / created as f64,
            end,
            faults,
        })
    }

    fn details(&self) -> Value {
        json!({
            "per_second": self.per_second,
            "per_second_before": self.per_second_before,
            "cpu_micros": self.cpu_micros,
            "created": self.end.counts.created,
            "max_in_flight": self.end.counts.max_in_flight,
            "open_connections": self.end.counts.open_connections,
        })
    }
}

async fn by_sidecar(context: &Context<'_>, latency_ms: u64) -> anyhow::Result<Window> {
    let setup = Setup {
        wire: Wire::Tls,
        upstream: json!({ "latency_ms": latency_ms }),
        ..Setup::default()
    };
    let events = context.events(ideal(latency_ms) * BACKLOG_SECONDS);
    let Backlog {
        stage,
        accepted,
        faults,
    } = Backlog::queue(context, setup, events).await?;
    let mut window = Window::watch(context, &stage.mock, stage.sidecar.pid()).await?;
    window.faults.extend(faults);
    require(&mut window.faults, window.end.counts.created < accepted, || {
        "the backlog ended before the window did".to_owned()
    });
    stage.stop().await?;
    Ok(window)
}

async fn by_bare_client(context: &Context<'_>, latency_ms: u64) -> anyhow::Result<Window> {
    let longest = context.seconds(SETTLING_SECONDS + WINDOW_SECONDS) + Duration::from_secs(1);
    let upstream = json!({ "latency_ms": latency_ms });
    let sending = Sending {
        library: Library::Reqwest,
        wire: Wire::Tls,
        in_flight: IN_FLIGHT,
        connections: BARE_CONNECTIONS,
        time: longest,
        events: None,
    };
    let bare = Bare::start(context.places, upstream, sending).await?;
    let mut window = Window::watch(context, &bare.mock, bare.pid()?).await?;
    let report = bare.finish().await?;
    require(&mut window.faults, report.is_clean(), || {
        format!("the bare client failed: {report:?}")
    });
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ideal_is_256_requests_a_latency() {
        assert!((ideal(20) - 12_800.0).abs() < 1e-9);
        assert!((ideal(50) - 5_120.0).abs() < 1e-9);
        assert_eq!(bounded(20), (RATIO.keeping(RATIO_BOUND), OF_IDEAL));
        assert_eq!(bounded(50).1.bound, Some(Bound::AtLeast(0.85)));
        const { assert!(BACKLOG_SECONDS > SETTLING_SECONDS + WINDOW_SECONDS) }
    }
}
