//! `throttled`: upstream admits 200 requests a second and answers 429 beyond; does the sidecar send just so many?
//!
//! A backlog larger than what can be admitted is published at once; after a time to find the pace, the mock's counts are
//! read at the beginning and at the end of a window. The 429 carry no `Retry-After`: nothing tells the sidecar the rate.

use serde_json::json;
use tokio::time::sleep;

use super::Context;
use super::reading::{Bound, Figure, Reading, require};
use super::sample::Sample;
use super::stage::{Setup, Stage};
use crate::load::LoadReport;
use crate::run::generator::Load;
use crate::run::mock::MockCounts;

const ADMITTED: Figure =
    Figure::told("admitted_share", "admitted, to what upstream admits", 3).keeping(Bound::AtLeast(0.95));
const REFUSED: Figure =
    Figure::told("refused_share", "429 among the answers", 4).keeping(Bound::AtMost(0.03));
const REFUSED_BEFORE: Figure = Figure::told(
    "refused_share_before",
    "429 among the answers before the window",
    4,
);
const REQUESTS: Figure = Figure::told("answers_per_second", "answers/s", 0);

/// Requests that upstream admits a second.
const ADMITTED_PER_SECOND: u32 = 200;
/// Time that upstream takes for an answer.
const LATENCY_MS: u64 = 20;
/// Time to find the pace.
const SETTLING_SECONDS: f64 = 10.0;
/// Time that counts.
const WINDOW_SECONDS: f64 = 30.0;
/// Events for so many seconds are accepted first.
const BACKLOG_SECONDS: f64 = 60.0;
/// Events a call.
const BATCH: u32 = 100;

/// One measurement.
pub(super) async fn measure(context: &Context<'_>) -> anyhow::Result<Reading> {
    let setup = Setup {
        upstream: json!({ "latency_ms": LATENCY_MS, "admit_per_second": ADMITTED_PER_SECOND }),
        ..Setup::default()
    };
    let stage = Stage::start(context.places, setup).await?;
    let load = Load {
        batch: Some(BATCH),
        calls: Some(context.events(f64::from(ADMITTED_PER_SECOND) * BACKLOG_SECONDS) / u64::from(BATCH)),
        projects: 1,
        ..Load::default()
    };
    let load = stage.publish(context.places, &load).await?;
    sleep(context.seconds(SETTLING_SECONDS)).await;
    let start = Sample::take(&stage.mock).await?;
    sleep(context.seconds(WINDOW_SECONDS)).await;
    let end = Sample::take(&stage.mock).await?;
    let mut faults = faults(&load, &end.counts);
    let dead_letters = stage.dead_letters().await?;
    require(&mut faults, dead_letters < 1.0, || {
        format!("{dead_letters} dead letters")
    });
    stage.stop().await?;
    let (before, after) = (Answers::of(&start.counts), Answers::of(&end.counts));
    let during = after.less(before);
    Ok(Reading {
        figures: vec![
            (
                ADMITTED,
                end.created_per_second(&start) / f64::from(ADMITTED_PER_SECOND),
            ),
            (REFUSED, during.refused_share()),
            (REFUSED_BEFORE, before.refused_share()),
            (REQUESTS, during.all as f64 / end.seconds_since(&start)),
        ],
        details: json!({
            "seconds": end.seconds_since(&start),
            "created": end.counts.created - start.counts.created,
            "answers": during.all,
            "refused": during.refused,
            "refused_before": before.refused,
        }),
        faults,
    })
}

/// Answers so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answers {
    all: u64,
    refused: u64,
}

impl Answers {
    fn of(counts: &MockCounts) -> Self {
        Self {
            all: counts.by_status.values().sum(),
            refused: counts.of_status(429),
        }
    }

    fn less(self, earlier: Self) -> Self {
        Self {
            all: self.all - earlier.all,
            refused: self.refused - earlier.refused,
        }
    }

    fn refused_share(self) -> f64 {
        self.refused as f64 / self.all as f64
    }
}

fn faults(load: &LoadReport, end: &MockCounts) -> Vec<String> {
    let mut faults = Vec::new();
    require(&mut faults, load.is_clean(), || {
        format!("the load failed: {load:?}")
    });
    let accepted = load.count + load.warm_up;
    require(&mut faults, end.created < accepted, || {
        "the backlog ended before the window did".to_owned()
    });
    let known = end.of_status(200) + end.of_status(429);
    let others = Answers::of(end).all - known;
    require(&mut faults, others == 0, || {
        format!("{others} answers were neither 200 nor 429")
    });
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_429_is_that_of_the_window_alone() {
        let counts = |accepted, refused| MockCounts {
            by_status: [(200, accepted), (429, refused)].into(),
            ..MockCounts::default()
        };
        let before = Answers::of(&counts(100, 100));
        let after = Answers::of(&counts(298, 102));
        assert!((after.less(before).refused_share() - 0.01).abs() < 1e-12);
        assert!((before.refused_share() - 0.5).abs() < 1e-12);
    }
}
