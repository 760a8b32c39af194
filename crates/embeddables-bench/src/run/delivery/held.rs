//! `held`: upstream refuses the key while events keep coming; is it left alone, and how soon is all delivered once the key is
//! right?
//!
//! Events are published one by one at a steady rate until the backlog is there. Requests are counted meanwhile: what arrives
//! within two seconds of the first is the burst that was under way when the answer came; of the rest, there may be one an
//! interval. Then the key file is replaced, and the time from there to the last delivery is taken.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::Context;
use super::reading::{Bound, Figure, Reading, require};
use super::sample::{Sample, until, watch};
use super::stage::{Setup, Stage};
use crate::load::LoadReport;
use crate::run::generator::Load;
use crate::run::mock::MockCounts;

const SECONDS: Figure = Figure::told(
    "seconds_to_deliver",
    "seconds from the right key to the last delivery",
    2,
)
.keeping(Bound::AtMost(5.0));
const PROBES: Figure =
    Figure::told("probes_an_interval", "probes an interval", 2).keeping(Bound::AtMost(1.0));
const DEAD_LETTERS: Figure = Figure::told("dead_letters", "dead letters", 0).keeping(Bound::AtMost(0.0));
const BURST: Figure = Figure::told("burst_requests", "requests in the first burst", 0);
const HELD: Figure = Figure::told("held_events", "events held", 0);

/// Events accepted while the key is wrong.
const EVENTS: f64 = 10_000.0;
/// Events published a second.
const PUBLISHED_PER_SECOND: f64 = 400.0;
/// Calls under way at most.
const CALLERS: u32 = 32;
/// Time that upstream takes for an answer.
const LATENCY_MS: u64 = 5;
/// Shortest interval of probes: the sidecar's default.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// What arrives so soon after the first request is no probe.
const BURST_TIME: Duration = Duration::from_secs(2);
/// How often requests are counted.
const POLL: Duration = Duration::from_millis(50);
/// Longest time for all deliveries once the key is right.
const LONGEST: Duration = Duration::from_secs(120);
/// How long the last outcomes may take to be written once upstream has every event.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// One measurement.
pub(super) async fn measure(context: &Context<'_>) -> anyhow::Result<Reading> {
    let setup = Setup {
        upstream: json!({ "latency_ms": LATENCY_MS }),
        keys_are_wrong: true,
        ..Setup::default()
    };
    let stage = Stage::start(context.places, setup).await?;
    let events = context.events(EVENTS);
    let load = Load {
        callers: CALLERS,
        calls: Some(events),
        rate: Some(PUBLISHED_PER_SECOND),
        seconds: events as f64 / PUBLISHED_PER_SECOND,
        projects: 1,
        ..Load::default()
    };
    let publishing = stage.publish(context.places, &load);
    let (load, mut samples) = watch(&stage.mock, POLL, publishing).await?;
    let accepted = load.count + load.warm_up;
    samples.push(Sample::take(&stage.mock).await?);
    let probes = Probes::of(samples.iter().map(|sample| (sample.at, sample.counts.requests)));
    let held = samples.pop().map(|sample| sample.counts).unwrap_or_default();

    let mended = Instant::now();
    stage.mend_key(0)?;
    let done = until(&stage.mock, POLL / 5, LONGEST, |counts| {
        counts.created >= accepted
    })
    .await?;
    let settled = stage.until_settled(accepted, SETTLE_TIMEOUT).await?;
    let dead_letters = stage.dead_letters().await?;
    let mut faults = faults(&load, &held, &done.counts);
    require(&mut faults, settled >= accepted as f64, || {
        format!("the sidecar counts {settled} events as delivered, of {accepted}")
    });
    stage.stop().await?;
    Ok(Reading {
        figures: vec![
            (SECONDS, (done.at - mended).as_secs_f64()),
            (PROBES, probes.an_interval()),
            (DEAD_LETTERS, dead_letters),
            (BURST, probes.burst as f64),
            (HELD, accepted as f64),
        ],
        details: json!({
            "load": load,
            "probes": probes.later,
            "seconds_after_burst": probes.time.as_secs_f64(),
            "shortest_gap_seconds": probes.shortest_gap.map(|gap| gap.as_secs_f64()),
        }),
        faults,
    })
}

fn faults(load: &LoadReport, held: &MockCounts, done: &MockCounts) -> Vec<String> {
    let mut faults = Vec::new();
    let accepted = load.count + load.warm_up;
    require(&mut faults, load.is_clean(), || {
        format!("the load failed: {load:?}")
    });
    require(&mut faults, held.created == 0 && held.of_status(401) > 0, || {
        format!("the key was not refused: {:?}", held.by_status)
    });
    require(&mut faults, done.created == accepted, || {
        format!("{} of {accepted} events were delivered", done.created)
    });
    faults
}

/// Requests that came while the key was wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Probes {
    /// Within the first burst.
    burst: u64,
    /// After it.
    later: u64,
    /// From the end of the burst to the end.
    time: Duration,
    /// Between the arrivals of two later ones, as closely as they were looked at.
    shortest_gap: Option<Duration>,
}

impl Probes {
    /// Tells them apart; each look says how many requests had come by then.
    fn of(looks: impl Iterator<Item = (Instant, u64)>) -> Self {
        let mut probes = Self::default();
        let mut burst_end = None;
        let mut last_arrival: Option<Instant> = None;
        let mut seen = 0;
        for (at, requests) in looks {
            let arrived = requests - seen;
            seen = requests;
            if arrived == 0 && burst_end.is_none() {
                continue;
            }
            let burst_end = *burst_end.get_or_insert(at + BURST_TIME);
            if at <= burst_end {
                probes.burst += arrived;
                continue;
            }
            probes.later += arrived;
            probes.time = at - burst_end;
            if arrived > 0 {
                let gap = last_arrival.map(|last| at - last);
                let gap = if arrived > 1 { Some(Duration::ZERO) } else { gap };
                probes.shortest_gap = [probes.shortest_gap, gap].into_iter().flatten().min();
                last_arrival = Some(at);
            }
        }
        probes
    }

    /// Probes for each interval that has begun.
    fn an_interval(&self) -> f64 {
        let intervals = (self.time.as_secs_f64() / PROBE_INTERVAL.as_secs_f64()).ceil();
        self.later as f64 / intervals.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arrivals in milliseconds, looked at every 100 ms until the end.
    fn probes(arrivals: &[u64], end_ms: u64) -> Probes {
        let start = Instant::now();
        Probes::of((0..=end_ms).step_by(100).map(|now| {
            let requests = arrivals.iter().filter(|&&arrival| arrival <= now).count();
            (start + Duration::from_millis(now), requests as u64)
        }))
    }

    #[test]
    fn what_comes_with_the_first_request_is_the_burst() {
        let found = probes(&[1_000, 1_000, 1_200, 2_900, 7_000, 17_000], 23_000);
        assert_eq!((found.burst, found.later), (4, 2));
        assert_eq!(found.time, Duration::from_secs(20));
        assert_eq!(found.shortest_gap, Some(Duration::from_secs(10)));
        assert!((found.an_interval() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn more_than_one_an_interval_shows() {
        let every_second: Vec<u64> = (0..24).map(|second| second * 1_000).collect();
        assert!(probes(&every_second, 22_000).an_interval() > 4.0);
        assert_eq!(
            probes(&[0, 5_000, 5_000], 9_000).shortest_gap,
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn silence_has_no_probes() {
        assert_eq!(probes(&[], 5_000), Probes::default());
        let found = probes(&[0], 12_000);
        assert_eq!((found.burst, found.later, found.shortest_gap), (1, 0, None));
    }
}
