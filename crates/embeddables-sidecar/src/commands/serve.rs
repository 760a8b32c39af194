//! `serve`: the sidecar until it is told to stop.

use std::path::PathBuf;

use clap::Args;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Global;
use super::failure::{Failure, chain};
use super::ready::{self, Ready};
use crate::config::{self, LoadOptions, LogConfig};
use crate::server::{Running, Sidecar, StartError};
use crate::telemetry;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Write where the sidecar listens to this file (JSON), once it is ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT.
pub(super) async fn serve(args: &ServeArgs, global: &Global, delivery: &Handle) -> Result<u8, Failure> {
    let options = LoadOptions {
        file: global.config.clone(),
        ..LoadOptions::default()
    };
    let loaded = config::load(&options, std::env::vars_os())?;
    init_logging(&loaded.config.log)?;
    let signals = Signals::new()?;
    if let Some(path) = &args.ready_file {
        ready::remove_stale(path)?;
    }
    let running = Sidecar::start(loaded, delivery).await.map_err(start_failure)?;
    if let Some(path) = &args.ready_file {
        Ready::new(running.addresses(), None).write(path)?;
    }
    stop_on_signal(running, signals).await
}

/// Sends logs to standard error.
pub(super) fn init_logging(log: &LogConfig) -> Result<(), Failure> {
    telemetry::init_logging(log)
        .map_err(|error| Failure::with_exit_code(config::EXIT_CONFIGURATION, chain(&error)))
}

/// Why the sidecar did not start, with its exit code.
pub(super) fn start_failure(error: StartError) -> Failure {
    Failure::with_exit_code(error.exit_code(), chain(&error))
}

/// Waits for a signal, then shuts down; another signal meanwhile ends the process at once.
pub(super) async fn stop_on_signal(running: Running, mut signals: Signals) -> Result<u8, Failure> {
    let name = signals.next().await;
    tracing::info!(signal = name, "stopping; another signal ends at once");
    tokio::select! {
        report = running.shutdown() => {
            tracing::info!(?report, "stopped");
            Ok(0)
        }
        name = signals.next() => {
            Err(Failure::new(format!("ended at once by a second signal ({name}); what was accepted is on disk")))
        }
    }
}

/// SIGTERM and SIGINT. From its making on neither ends the process by itself.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(format!("cannot listen to signals: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The next signal's name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
