//! `lanes`: a hundred projects, one of which hangs: how much longer do the other 99 take?
//!
//! All events are published in batches that hold one event of each project, while the upstream answers after a few
//! milliseconds, or, for the last project, never. The time is from the first publish to the last delivery of the 99; it is
//! taken once with the hanging project and once without, one straight after the other.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Context;
use super::reading::{Bound, Figure, Reading, require};
use super::sample::{Sample, until, watch};
use super::stage::{Setup, Stage};
use crate::event::project_name;
use crate::load::LoadReport;
use crate::run::generator::Load;
use crate::run::mock::MockCounts;

const RATIO: Figure = Figure::told("ratio", "seconds with one lane hanging, to seconds without", 3)
    .keeping(Bound::AtMost(1.10));
const HANGING_SECONDS: Figure = Figure::told("seconds_hanging", "seconds with one lane hanging", 2);
const FREE_SECONDS: Figure = Figure::told("seconds_free", "seconds without", 2);

/// Projects; the last one hangs.
const PROJECTS: u32 = 100;
/// Events of all projects together.
const EVENTS: f64 = 100_000.0;
/// Time that upstream takes for an answer.
const LATENCY_MS: u64 = 5;
/// Time after which upstream would close a hanging request: longer than any measurement.
const HANG_MS: u64 = 3_600_000;
/// How often deliveries are counted.
const POLL: Duration = Duration::from_millis(25);
/// Longest time for all deliveries once everything is published.
const LONGEST: Duration = Duration::from_secs(180);

/// One pair.
pub(super) async fn measure(context: &Context<'_>) -> anyhow::Result<Reading> {
    let (hanging, free) = if context.is_even() {
        let free = deliver(context, false).await?;
        (deliver(context, true).await?, free)
    } else {
        let hanging = deliver(context, true).await?;
        let free = deliver(context, false).await?;
        (hanging, free)
    };
    Ok(Reading {
        figures: vec![
            (RATIO, hanging.seconds / free.seconds),
            (HANGING_SECONDS, hanging.seconds),
            (FREE_SECONDS, free.seconds),
        ],
        details: json!({ "hanging": hanging.details(), "free": free.details() }),
        faults: [free.faults, hanging.faults].concat(),
    })
}

/// One side of a pair.
struct Delivery {
    /// From the first publish to the last delivery of the 99.
    seconds: f64,
    load: LoadReport,
    /// Requests of the last project.
    last_requests: u64,
    max_in_flight: u64,
    faults: Vec<String>,
}

impl Delivery {
    fn details(&self) -> Value {
        json!({
            "seconds": self.seconds,
            "load": self.load,
            "last_project_requests": self.last_requests,
            "max_in_flight": self.max_in_flight,
        })
    }
}

async fn deliver(context: &Context<'_>, hangs: bool) -> anyhow::Result<Delivery> {
    let setup = Setup {
        projects: PROJECTS,
        upstream: json!({ "latency_ms": LATENCY_MS }),
        ..Setup::default()
    };
    let stage = Stage::start(context.places, setup).await?;
    if hangs {
        let steps = json!([{ "hang_ms": HANG_MS }]);
        let script = json!({ "project": last_project(), "times": 0, "steps": steps });
        stage.mock.push_faults(&script).await?;
    }
    let load = Load {
        batch: Some(PROJECTS),
        calls: Some(context.events(EVENTS) / u64::from(PROJECTS)),
        projects: PROJECTS,
        ..Load::default()
    };
    let publishing = stage.publish(context.places, &load);
    let (load, samples) = watch(&stage.mock, POLL, publishing).await?;
    let load_end = Instant::now();
    // Each call holds one event of each project.
    let expected = (load.count + load.warm_up) / u64::from(PROJECTS);
    let is_done = |counts: &MockCounts| healthy(counts).all(|created| created >= expected);
    let done = match samples.into_iter().find(|sample| is_done(&sample.counts)) {
        Some(sample) => sample,
        None => until(&stage.mock, POLL, LONGEST, is_done).await?,
    };
    let mut faults = faults(&load, &done.counts, expected);
    // Time enough for what is sent twice to arrive too.
    let last = Sample::take(&stage.mock).await?.counts;
    let last_project = last.of_project(&last_project());
    if hangs {
        require(
            &mut faults,
            last_project.requests > 0 && last_project.created == 0,
            || "the hanging project did not hang".to_owned(),
        );
    }
    stage.stop().await?;
    Ok(Delivery {
        // Done while the generator was still running: the end of the load is the later one.
        seconds: if done.at < load_end {
            load.seconds - (load_end - done.at).as_secs_f64()
        } else {
            load.seconds + (done.at - load_end).as_secs_f64()
        },
        load,
        last_requests: last_project.requests,
        max_in_flight: last.max_in_flight,
        faults,
    })
}

fn last_project() -> String {
    project_name(PROJECTS - 1)
}

/// Events created of each project but the last.
fn healthy(counts: &MockCounts) -> impl Iterator<Item = u64> {
    (0..PROJECTS - 1).map(|project| counts.of_project(&project_name(project)).created)
}

fn faults(load: &LoadReport, counts: &MockCounts, expected: u64) -> Vec<String> {
    let mut faults = Vec::new();
    require(&mut faults, load.is_clean(), || {
        format!("the load failed: {load:?}")
    });
    let missing: u64 = healthy(counts)
        .map(|created| expected.saturating_sub(created))
        .sum();
    require(&mut faults, missing == 0, || {
        format!("{missing} events were not delivered within {LONGEST:?}")
    });
    let more: u64 = healthy(counts)
        .map(|created| created.saturating_sub(expected))
        .sum();
    require(&mut faults, more == 0, || {
        format!("{more} events were delivered twice")
    });
    faults
}
