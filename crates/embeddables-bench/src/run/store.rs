//! `store-…`: the durable queue by itself, as a process of its own, on the same disk: the bound of what can be accepted at all.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::process::Command;
use tokio::time::timeout;

use super::figure::{Figure, FigureSummary, rows, rows_header};
use super::places::Places;
use crate::load::GRACE;
use crate::store::StoreReport;

const RATE: Figure = Figure::told("records_per_second", "records synced/s", 0);
const P50: Figure = Figure::told("p50_us", "p50 of a call in µs", 0);
const P99: Figure = Figure::told("p99_us", "p99 of a call in µs", 0);
const CPU: Figure = Figure::told("cpu_us", "CPU µs a record", 1);

/// One way to append.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// Its name, unique.
    pub(crate) name: &'static str,
    /// Calls under way.
    callers: u32,
    /// Records a call.
    batch: u32,
}

/// All of them: as single events come, and in groups.
pub(crate) const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "store-unary-64",
        callers: 64,
        batch: 1,
    },
    Scenario {
        name: "store-batch-128",
        callers: 4,
        batch: 128,
    },
];

/// All repetitions of a scenario.
#[derive(Debug, Serialize)]
pub(crate) struct StoreSummary {
    /// Name of the scenario.
    pub(crate) name: &'static str,
    /// What they came to.
    pub(crate) figures: Vec<FigureSummary>,
    /// All of them.
    pub(crate) measurements: Vec<StoreReport>,
}

impl StoreSummary {
    fn of(name: &'static str, measurements: Vec<StoreReport>) -> Self {
        let figure = |kind, of: fn(&StoreReport) -> f64| FigureSummary::of(kind, measurements.iter().map(of));
        Self {
            name,
            figures: vec![
                figure(RATE, |one| one.rate),
                figure(P50, |one| one.p50_us),
                figure(P99, |one| one.p99_us),
                figure(CPU, |one| one.cpu_seconds / one.count as f64 * 1e6),
            ],
            measurements,
        }
    }
}

/// All repetitions of all scenarios. One that appends nothing, or is refused, ends the run.
pub(crate) async fn measure_all(
    scenarios: &[Scenario],
    repetitions: u32,
    places: &Places,
    seconds: f64,
) -> anyhow::Result<Vec<StoreSummary>> {
    let mut summaries = Vec::new();
    for scenario in scenarios {
        let mut measurements = Vec::new();
        for repetition in 0..repetitions {
            let report = measure(scenario, places, seconds).await;
            let report = report.with_context(|| scenario.name)?;
            let (number, name, rate) = (repetition + 1, scenario.name, report.rate);
            eprintln!("#{number} {name:<20} {rate:>9.0}/s");
            measurements.push(report);
        }
        summaries.push(StoreSummary::of(scenario.name, measurements));
    }
    Ok(summaries)
}

/// One measurement in a directory of its own.
async fn measure(scenario: &Scenario, places: &Places, seconds: f64) -> anyhow::Result<StoreReport> {
    let work = places.fresh_dir()?;
    let mut command = Command::new(&places.bench);
    command
        .arg("store")
        .arg("--dir")
        .arg(work.path().join("queue"))
        .args(["--callers", &scenario.callers.to_string()])
        .args(["--batch", &scenario.batch.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let longest = Duration::from_secs_f64(seconds) + 3 * GRACE;
    let output = timeout(longest, command.output()).await;
    let output = output.context("the store does not end")??;
    ensure!(output.status.success(), "the store ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("the store's report cannot be read")
}

/// Adds a row for each figure.
pub(crate) fn render(table: &mut String, summaries: &[StoreSummary]) {
    rows_header(table);
    for summary in summaries {
        rows(table, summary.name, &summary.figures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_told_for_each_record() {
        let report = StoreReport {
            count: 1_000,
            seconds: 0.5,
            rate: 2_000.0,
            p50_us: 400.0,
            p99_us: 900.0,
            cpu_seconds: 0.01,
        };
        let mut table = String::new();
        render(&mut table, &[StoreSummary::of("store-unary-64", vec![report])]);
        for row in [
            "| store-unary-64 | records synced/s | 2000 (2000–2000) |",
            "| store-unary-64 | CPU µs a record | 10.0 (10.0–10.0) |",
        ] {
            assert!(table.contains(row), "{table}");
        }
    }
}
