//! `embeddables-bench`: `null` serves and does nothing, `bare` sends upstream and does nothing, `store` fills a queue and does
//! nothing, `load` generates load, `run` runs scenarios with the sidecar beside these.
//!
//! Results on stdout, tables and progress on stderr. Exit codes: 0 ok; 1 failure, an invalid measurement or a bound that was
//! missed; 2 usage.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use embeddables_bench::bare::BareConfig;
use embeddables_bench::load::LoadConfig;
use embeddables_bench::null_server::NullConfig;
use embeddables_bench::run::RunConfig;
use embeddables_bench::store::StoreConfig;
use embeddables_bench::{bare, load, null_server, run, store};

/// Measures the sidecar beside servers and clients that do nothing else.
#[derive(Debug, Parser)]
#[command(name = "embeddables-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the events service, doing nothing but answering.
    Null(NullConfig),
    /// Sends events upstream with a bare client, so many at once; prints one JSON line.
    Bare(BareConfig),
    /// Appends records to a durable queue, with nothing around it; prints one JSON line.
    Store(StoreConfig),
    /// Publishes events as fast as they are answered, or at a fixed rate; prints one JSON line.
    Load(LoadConfig),
    /// Runs scenarios with real processes; the last line on stdout is a JSON summary.
    Run(RunConfig),
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
fn execute(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Null(config) => multi_threaded()?
            .block_on(null_server::serve(config))
            .map(|()| true),
        Command::Bare(config) => multi_threaded()?.block_on(bare::execute(config)),
        Command::Store(config) => multi_threaded()?.block_on(store::execute(config)),
        Command::Load(config) => single_threaded()?.block_on(load::execute(config)),
        Command::Run(config) => single_threaded()?.block_on(run::execute(config)),
    }
}

/// The default runtime, as the sidecar has it.
fn multi_threaded() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().context("cannot start the runtime")
}

/// One thread: what the generator burns is taken from the servers that it measures.
fn single_threaded() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
