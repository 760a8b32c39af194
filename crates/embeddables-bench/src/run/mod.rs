//! `run`: the sidecar beside the null server, alternating, several times, into a table and a JSON summary.
//!
//! # Invariants
//! 1. In each repetition every scenario is measured on both sides, one straight after the other; who begins alternates.
//! 2. Every measurement has fresh processes and an empty queue on disk.
//! 3. SIGINT and SIGTERM end the run and the processes that it started.

mod disk;
mod measure;
mod scenario;
mod servers;
mod summary;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use self::measure::{Bounds, Measurement, measure};
use self::scenario::{Scenario, chosen, known_name};
use self::servers::{Places, Side};
use self::summary::{Pair, ScenarioSummary, Summary};
use crate::proc_fs;

/// Load average at the start above which others are at work.
const QUIET_LOAD: f64 = 0.5;

/// What to compare, how often, and where the programs are.
#[derive(Clone, Debug, clap::Args)]
pub struct RunConfig {
    /// A scenario, the beginning of several names, or `all`.
    #[arg(default_value = "all", value_parser = known_name)]
    pub name: String,
    /// Pairs of measurements for each scenario.
    #[arg(long, env = "BENCH_REPETITIONS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repetitions: u32,
    /// Seconds that load is sent in each measurement.
    #[arg(long, env = "BENCH_SECONDS", default_value_t = 4.0)]
    pub seconds: f64,
    /// Longest wait in seconds for a backlog to be delivered.
    #[arg(long, env = "BENCH_DRAIN_SECONDS", default_value_t = 30.0)]
    pub drain_seconds: f64,
    /// Directory on disk for queues. Default: the directory of the results.
    #[arg(long, env = "BENCH_WORK_DIR", value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Directory of the results. Default: `bench` beside the directory of this program: `target/bench`.
    #[arg(long, env = "BENCH_OUTPUT_DIR", value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// The sidecar's binary. Default: beside this program.
    #[arg(long, env = "BENCH_SIDECAR", value_name = "FILE")]
    pub sidecar: Option<PathBuf>,
    /// The mock's binary. Default: beside this program.
    #[arg(long, env = "BENCH_MOCK", value_name = "FILE")]
    pub mock: Option<PathBuf>,
}

/// Runs the comparison; gives whether every measurement is valid.
///
/// # Errors
/// Where a program is missing, a process does not start, or the results cannot be written.
pub async fn execute(config: RunConfig) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Dropping the comparison kills its processes and removes their files.
    tokio::select! {
        done = compare(&config) => done,
        _ = terminate.recv() => bail!("ended by SIGTERM"),
        _ = interrupt.recv() => bail!("ended by SIGINT"),
    }
}

async fn compare(config: &RunConfig) -> anyhow::Result<bool> {
    let scenarios = chosen(&config.name);
    let is_duration = |seconds: f64| seconds > 0.0 && seconds <= 3_600.0;
    ensure!(
        is_duration(config.seconds) && is_duration(config.drain_seconds),
        "seconds must be above 0 and at most an hour"
    );
    let (places, output_dir) = places(config)?;
    let bounds = Bounds {
        seconds: config.seconds,
        drain: Duration::from_secs_f64(config.drain_seconds),
    };
    let load_average = proc_fs::load_average()?;
    if load_average > QUIET_LOAD {
        eprintln!("warning: load average {load_average}: others use this machine, and the figures show it");
    }
    let fdatasync = disk::sync_cost(&places.work_dir)?;
    let scenarios = measure_all(&scenarios, config.repetitions, &places, bounds).await?;
    let summary = Summary {
        recipe: "bench",
        name: config.name.clone(),
        ok: scenarios.iter().all(|scenario| scenario.ok),
        repetitions: config.repetitions,
        seconds: config.seconds,
        cores: std::thread::available_parallelism()?.get(),
        load_average,
        fdatasync,
        scenarios,
    };
    publish(&summary, &output_dir)?;
    Ok(summary.ok)
}

/// Where everything is; makes the directories.
fn places(config: &RunConfig) -> anyhow::Result<(Places, PathBuf)> {
    let bench = std::env::current_exe().context("cannot tell where this program is")?;
    let programs = bench.parent().context("this program is in no directory")?;
    let target = programs.parent().unwrap_or(programs);
    let output_dir = config.output_dir.clone().unwrap_or_else(|| target.join("bench"));
    let work_dir = config.work_dir.clone().unwrap_or_else(|| output_dir.clone());
    let made = |dir: &Path| -> anyhow::Result<PathBuf> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // Processes run elsewhere: relative paths would not be found there.
        Ok(dir.canonicalize()?)
    };
    let absolute = |program: &Option<PathBuf>, name: &str| {
        std::path::absolute(program.clone().unwrap_or_else(|| programs.join(name)))
    };
    let places = Places {
        sidecar: absolute(&config.sidecar, "embeddables-sidecar")?,
        mock: absolute(&config.mock, "embeddables-mock")?,
        work_dir: made(&work_dir)?,
        bench,
    };
    places.check()?;
    disk::ensure_on_disk(&places.work_dir)?;
    Ok((places, made(&output_dir)?))
}

/// All repetitions of all scenarios: scenario by scenario within a repetition, so that a slow minute touches all of them.
async fn measure_all(
    scenarios: &[Scenario],
    repetitions: u32,
    places: &Places,
    bounds: Bounds,
) -> anyhow::Result<Vec<ScenarioSummary>> {
    let mut pairs: Vec<Vec<Pair>> = scenarios.iter().map(|_| Vec::new()).collect();
    for repetition in 0..repetitions {
        for (scenario, pairs) in scenarios.iter().zip(&mut pairs) {
            let one = async |side| {
                let measured = measure(side, scenario, places, bounds).await;
                let measured = measured.with_context(|| format!("{}, {side:?}", scenario.name))?;
                note(repetition, side, scenario, &measured);
                anyhow::Ok(measured)
            };
            let pair = if repetition.is_multiple_of(2) {
                let null = one(Side::Null).await?;
                Pair {
                    null,
                    sidecar: one(Side::Sidecar).await?,
                }
            } else {
                let sidecar = one(Side::Sidecar).await?;
                Pair {
                    null: one(Side::Null).await?,
                    sidecar,
                }
            };
            pairs.push(pair);
        }
    }
    Ok(scenarios
        .iter()
        .zip(pairs)
        .map(|(scenario, pairs)| ScenarioSummary::of(scenario, pairs))
        .collect())
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

/// The table on stderr, the summary into a file and on stdout.
fn publish(summary: &Summary, output_dir: &Path) -> anyhow::Result<()> {
    eprintln!("\n{}", table::render(summary));
    let path = output_dir.join(format!("{}.json", summary.name));
    let text = serde_json::to_string(summary)?;
    fs::write(&path, format!("{text}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("written to {}", path.display());
    println!("{text}");
    Ok(())
}
