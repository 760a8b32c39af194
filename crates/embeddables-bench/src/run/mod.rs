//! `run`: scenarios with real processes, several times, into a table and a JSON summary.
//!
//! # Invariants
//! 1. Every measurement has fresh processes and an empty queue on disk.
//! 2. Where two sides are compared they are measured one straight after the other; who begins alternates.
//! 3. SIGINT and SIGTERM end the run and the processes that it started.

mod comparison;
mod delivery;
mod disk;
mod figure;
mod generator;
mod mock;
mod names;
mod places;
mod sidecar;
mod summary;
mod table;
mod tls;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use self::comparison::Bounds;
use self::names::{Chosen, known_name};
use self::places::Places;
use self::summary::Summary;
use crate::proc_fs;

/// Load average at the start above which others are at work.
const QUIET_LOAD: f64 = 0.5;

/// Repetitions beside the null server unless told otherwise.
const COMPARISONS: u32 = 3;

/// What to run, how often, and where the programs are.
#[derive(Clone, Debug, clap::Args)]
pub struct RunConfig {
    /// A scenario, the beginning of several names, or `all`.
    #[arg(default_value = "all", value_parser = known_name)]
    pub name: String,
    /// Measurements of each scenario, or pairs of them. Default: 3 beside the null server, else as many as the scenario needs.
    #[arg(long, env = "BENCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repetitions: Option<u32>,
    /// Part of the events and times of all scenarios but those beside the null server: below 1 for trying things out.
    #[arg(long, env = "BENCH_SCALE", default_value_t = 1.0)]
    pub scale: f64,
    /// Seconds that load is sent in each measurement beside the null server.
    #[arg(long, env = "BENCH_SECONDS", default_value_t = 4.0)]
    pub seconds: f64,
    /// Longest wait in seconds for a backlog to be delivered, beside the null server.
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

/// Runs the scenarios; gives whether every measurement is valid and every bound kept.
///
/// # Errors
/// Where a program is missing, a process does not start, or the results cannot be written.
pub async fn execute(config: RunConfig) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Dropping the run kills its processes and removes their files.
    tokio::select! {
        done = run(&config) => done,
        _ = terminate.recv() => bail!("ended by SIGTERM"),
        _ = interrupt.recv() => bail!("ended by SIGINT"),
    }
}

async fn run(config: &RunConfig) -> anyhow::Result<bool> {
    let chosen = Chosen::by(&config.name);
    let is_duration = |seconds: f64| seconds > 0.0 && seconds <= 3_600.0;
    ensure!(
        is_duration(config.seconds) && is_duration(config.drain_seconds),
        "seconds must be above 0 and at most an hour"
    );
    ensure!(
        config.scale > 0.0 && config.scale <= 10.0,
        "the scale must be above 0 and at most 10"
    );
    let places = Places::of(config)?;
    let bounds = Bounds {
        seconds: config.seconds,
        drain: Duration::from_secs_f64(config.drain_seconds),
    };
    let load_average = proc_fs::load_average()?;
    if load_average > QUIET_LOAD {
        eprintln!("warning: load average {load_average}: others use this machine, and the figures show it");
    }
    raise_file_limit()?;
    let fdatasync = disk::sync_cost(&places.work_dir)?;
    let repetitions = config.repetitions.unwrap_or(COMPARISONS);
    let scenarios = comparison::measure_all(&chosen.comparisons, repetitions, &places, bounds).await?;
    let deliveries =
        delivery::measure_all(&chosen.deliveries, config.repetitions, &places, config.scale).await?;
    let is_ok = scenarios.iter().all(|scenario| scenario.ok) && deliveries.iter().all(|delivery| delivery.ok);
    let summary = Summary {
        recipe: "bench",
        name: config.name.clone(),
        ok: is_ok,
        repetitions,
        seconds: config.seconds,
        scale: config.scale,
        cores: std::thread::available_parallelism()?.get(),
        load_average,
        fdatasync,
        scenarios,
        deliveries,
    };
    publish(&summary, &places)?;
    Ok(summary.ok)
}

/// Processes inherit it: a hundred lanes may have thousands of connections.
fn raise_file_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")
}

/// The table on stderr, the summary into a file and on stdout.
fn publish(summary: &Summary, places: &Places) -> anyhow::Result<()> {
    eprintln!("\n{}", table::render(summary));
    let path = places.output_dir.join(format!("{}.json", summary.name));
    let text = serde_json::to_string(summary)?;
    fs::write(&path, format!("{text}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("written to {}", path.display());
    println!("{text}");
    Ok(())
}
