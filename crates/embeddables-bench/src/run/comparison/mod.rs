//! The sidecar beside the null server: how fast it takes events, and how fast they go the whole way.
//!
//! # Invariants
//! 1. In each repetition every scenario is measured on both sides, one straight after the other; who begins alternates.
//! 2. Every measurement has fresh processes and an empty queue on disk.
//! 3. Deliveries go over TLS and HTTP/2, as in production, on the connections that the sidecar opens by default.

mod measure;
pub(crate) mod scenario;
mod servers;
pub(crate) mod summary;
pub(crate) mod table;

use anyhow::Context as _;

pub(crate) use self::measure::Bounds;
use self::measure::{Measurement, measure};
use self::scenario::Scenario;
use self::servers::Side;
use self::summary::{Pair, ScenarioSummary};
use super::disk::sync_cost;
use super::places::Places;

/// All repetitions of all scenarios: scenario by scenario within a repetition, so that a slow minute touches all of them.
pub(crate) async fn measure_all(
    scenarios: &[Scenario],
    repetitions: u32,
    places: &Places,
    bounds: Bounds,
) -> anyhow::Result<Vec<ScenarioSummary>> {
    let mut pairs: Vec<Vec<Pair>> = scenarios.iter().map(|_| Vec::new()).collect();
    for repetition in 0..repetitions {
        for (scenario, pairs) in scenarios.iter().zip(&mut pairs) {
            let pair = measure_pair(repetition, scenario, places, bounds).await?;
            pairs.push(pair);
        }
    }
    Ok(scenarios
        .iter()
        .zip(pairs)
        .map(|(scenario, pairs)| ScenarioSummary::of(scenario, pairs))
        .collect())
}

/// Both sides, and a sync in the same minute.
async fn measure_pair(
    repetition: u32,
    scenario: &Scenario,
    places: &Places,
    bounds: Bounds,
) -> anyhow::Result<Pair> {
    let one = async |side| {
        let measured = measure(side, scenario, places, bounds).await;
        let measured = measured.with_context(|| format!("{}, {side:?}", scenario.name))?;
        note(repetition, side, scenario, &measured);
        anyhow::Ok(measured)
    };
    let (null, sidecar) = if repetition.is_multiple_of(2) {
        let null = one(Side::Null).await?;
        (null, one(Side::Sidecar).await?)
    } else {
        let sidecar = one(Side::Sidecar).await?;
        (one(Side::Null).await?, sidecar)
    };
    let fdatasync = sync_cost(&places.work_dir)?;
    Ok(Pair {
        null,
        sidecar,
        fdatasync,
    })
}

/// One line of progress.
fn note(repetition: u32, side: Side, scenario: &Scenario, measured: &Measurement) {
    let load = &measured.load;
    eprint!(
        "#{} {:<20} {side:<7?} {:>9.0}/s  p50 {:>8.0} µs  p99 {:>8.0} µs  CPU {:>6.1} s/M",
        repetition + 1,
        scenario.name,
        load.rate,
        load.p50_us,
        load.p99_us,
        measured.cpu_per_million(),
    );
    if let Some(way) = &measured.whole_way {
        eprint!(
            "  delivered {:.0}/s, {} more requests",
            way.rate(),
            way.extra_requests
        );
    }
    if !measured.is_valid() {
        eprint!(
            "  INVALID: {} errors {:?}, {} refused, {} unanswered, drained: {:?}",
            load.errors,
            load.by_status,
            load.refused,
            load.unanswered,
            measured.whole_way.as_ref().map(|way| way.drained)
        );
    }
    eprintln!();
}
