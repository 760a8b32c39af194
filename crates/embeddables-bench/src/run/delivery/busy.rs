//! `busy-drain`: 5,000 single events a second are offered while a backlog of 1,000,000 is delivered; how long do callers wait?
//!
//! The backlog is accepted with deliveries switched off; the sidecar is started again, and the load begins with its first
//! delivery. 64 callers share 4 connections; calls are due at a fixed rate, and a latency counts from then. Upstream speaks TLS
//! and HTTP/2 and answers at once. The backlog must outlast the load.

use std::time::Duration;

use serde_json::json;

use super::Context;
use super::backlog::Backlog;
use super::offered;
use super::reading::{Bound, Figure, Reading, require};
use super::sample::{Sample, until};
use super::stage::Setup;
use crate::proc_fs::cpu_seconds;
use crate::run::mock::{MockCounts, Wire};

const P99: Figure = Figure::told("accept_p99_ms", "accepting, p99 in ms", 2)
    .keeping(Bound::AtMost(20.0))
    .aiming_at(Bound::AtMost(5.0));
const P50: Figure = Figure::told("accept_p50_ms", "accepting, p50 in ms", 2);
const P999: Figure = Figure::told("accept_p999_ms", "accepting, p99.9 in ms", 2);
const MAX: Figure = Figure::told("accept_max_ms", "accepting, the longest in ms", 1);
const ACCEPTED: Figure = Figure::told("accepted_per_second", "accepted/s", 0);
const DELIVERED: Figure = Figure::told("delivered_per_second", "delivered/s meanwhile", 0);
const CPU: Figure = Figure::told("cpu_us", "CPU µs an event delivered, accepting included", 1);

/// Events of the backlog.
const EVENTS: f64 = 1_000_000.0;
/// How long events are offered.
const SECONDS: f64 = 20.0;
/// How often the first delivery is looked for.
const POLL: Duration = Duration::from_millis(5);
/// Longest time until then.
const LONGEST: Duration = Duration::from_secs(30);

/// One measurement.
pub(super) async fn measure(context: &Context<'_>) -> anyhow::Result<Reading> {
    let setup = Setup {
        wire: Wire::Tls,
        ..Setup::default()
    };
    let Backlog {
        stage,
        accepted: queued,
        mut faults,
    } = Backlog::queue(context, setup, context.events(EVENTS)).await?;
    let start = until(&stage.mock, POLL, LONGEST, |counts| counts.created > 0).await?;
    let pid = stage.sidecar.pid();
    let cpu_before = cpu_seconds(pid)?;
    let load = offered::load(context.seconds(SECONDS).as_secs_f64());
    let load = stage.publish(context.places, &load).await?;
    let end = Sample::take(&stage.mock).await?;
    let cpu_seconds = cpu_seconds(pid)? - cpu_before;
    stage.stop().await?;
    require(&mut faults, load.is_clean(), || {
        format!("the load failed: {load:?}")
    });
    faults.extend(faults_of_the_drain(queued, &start.counts, &end.counts));
    let delivered = end.counts.created - start.counts.created;
    Ok(Reading {
        figures: vec![
            (P99, load.p99_us / 1e3),
            (P50, load.p50_us / 1e3),
            (P999, load.p999_us / 1e3),
            (MAX, load.max_us / 1e3),
            (ACCEPTED, load.rate),
            (DELIVERED, end.created_per_second(&start)),
            (CPU, cpu_seconds * 1e6 / delivered as f64),
        ],
        details: json!({
            "load": load,
            "queued": queued,
            "delivered": delivered,
            "cpu_seconds": cpu_seconds,
            "open_connections": end.counts.open_connections,
        }),
        faults,
    })
}

/// Why the drain was none, or ended too soon.
fn faults_of_the_drain(queued: u64, start: &MockCounts, end: &MockCounts) -> Vec<String> {
    let mut faults = Vec::new();
    require(&mut faults, end.created > start.created, || {
        "nothing was delivered".to_owned()
    });
    // What was offered is among the deliveries: below this count the backlog cannot have ended.
    require(&mut faults, end.created < queued, || {
        "the backlog may have ended before the load did".to_owned()
    });
    let answered: u64 = end.by_status.values().sum();
    let others = answered - end.of_status(200);
    require(&mut faults, others == 0, || {
        format!("{others} answers were not 200")
    });
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(created: u64, statuses: &[(u16, u64)], expected: &[&str]) {
        let counts = |created| MockCounts {
            created,
            by_status: statuses.iter().copied().collect(),
            ..MockCounts::default()
        };
        assert_eq!(faults_of_the_drain(1_000, &counts(1), &counts(created)), expected);
    }

    #[test]
    fn the_backlog_must_outlast_the_load_and_every_answer_be_good() {
        check(999, &[(200, 999)], &[]);
        check(
            1_000,
            &[(200, 1_000)],
            &["the backlog may have ended before the load did"],
        );
        check(1, &[(200, 1)], &["nothing was delivered"]);
        check(500, &[(200, 500), (429, 3)], &["3 answers were not 200"]);
    }
}
