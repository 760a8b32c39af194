//! The sidecar as a process: started, asked where it listens, ended by signals.
//!
//! # Invariants
//! 1. Only a process that was started here gets a signal, by its own pid.
//! 2. A sidecar that is dropped is dead. Dropped by a panic, it shows the end of its log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::settings::Settings;
use crate::{binary, wait};

/// Bytes of log that a failure shows.
const LOG_TAIL_BYTES: usize = 8 * 1024;

/// A running sidecar that has said it is ready.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    ready: Value,
    log_file: PathBuf,
}

/// How a sidecar ended that never became ready.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// All that it wrote on stderr.
    pub log: String,
}

impl Sidecar {
    /// Starts `serve` and waits until it is ready.
    ///
    /// # Panics
    /// Where it ends before, or takes too long.
    pub async fn start(settings: &Settings) -> Self {
        match Self::try_start(settings).await {
            Ok(sidecar) => sidecar,
            Err(ended) => panic!("the sidecar ended at start with {}:\n{}", ended.status, ended.log),
        }
    }

    /// Starts `serve` and waits until it is ready or has ended.
    ///
    /// # Errors
    /// Where it ended before it was ready.
    ///
    /// # Panics
    /// Where neither happens in time.
    pub async fn try_start(settings: &Settings) -> Result<Self, Ended> {
        let mut starting = Self::spawn(settings);
        let ready_file = settings.ready_file();
        let ready = wait::until("the sidecar to be ready", wait::SOON, async || {
            if let Some(status) = starting.child.try_wait().expect("the process can be asked") {
                return Some(Err(status));
            }
            read_ready(&ready_file).map(Ok)
        })
        .await;
        match ready {
            Ok(ready) => {
                starting.ready = ready;
                Ok(starting)
            }
            Err(status) => Err(Ended {
                status,
                log: starting.log(),
            }),
        }
    }

    /// Starts `serve` and does not wait: [`Sidecar::ready`] says nothing of it.
    ///
    /// # Panics
    /// Where the program cannot be started.
    pub fn spawn(settings: &Settings) -> Self {
        let ready_file = settings.ready_file();
        if ready_file.exists() {
            std::fs::remove_file(&ready_file).expect("the former life's ready file can be removed");
        }
        let log_file = settings.log_file();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_file)
            .expect("the log can be opened");
        let mut command = program(settings);
        command.arg("serve").arg("--ready-file").arg(&ready_file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        let child = command.spawn().expect("the sidecar can be started");
        Self {
            child,
            ready: Value::Null,
            log_file,
        }
    }

    /// Value that the ready file holds under `name`; an address is `host:port`, a socket its path.
    ///
    /// # Panics
    /// Where it holds none.
    #[track_caller]
    pub fn ready(&self, name: &str) -> &str {
        match self.ready[name].as_str() {
            Some(value) => value.trim_start_matches("unix:").trim_start_matches("http://"),
            None => panic!("no {name:?} in the ready file: {}", self.ready),
        }
    }

    /// Ends it at once with SIGKILL and waits until it is gone.
    pub async fn kill_nine(&mut self) {
        self.signal(Signal::KILL);
        self.wait_for_end().await;
    }

    /// Asks it to end with SIGTERM; does not wait.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// Where it does not end in time.
    pub async fn wait_for_end(&mut self) -> ExitStatus {
        let ended = wait::within("the sidecar to end", wait::SOON, self.child.wait()).await;
        ended.expect("the process can be waited for")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the process can be asked").is_none()
    }

    /// All that it and its former lives wrote on stderr.
    pub fn log(&self) -> String {
        read_lossy(&self.log_file)
    }

    /// Process id that the ready file tells.
    ///
    /// # Panics
    /// Where it tells none.
    pub fn ready_pid(&self) -> i64 {
        self.ready["pid"].as_i64().expect("the ready file tells the pid")
    }

    /// Its process id.
    ///
    /// # Panics
    /// Where it has been waited for.
    pub fn pid(&self) -> Pid {
        let pid = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        pid.expect("a process that was not waited for has a pid")
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a process of ours takes a signal");
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let start = log.len().saturating_sub(LOG_TAIL_BYTES);
            let start = (start..=log.len())
                .find(|at| log.is_char_boundary(*at))
                .unwrap_or(0);
            eprintln!("--- end of {}\n{}\n---", self.log_file.display(), &log[start..]);
        }
    }
}

/// Runs a subcommand of the sidecar to its end.
///
/// # Panics
/// Where it does not end in time.
pub async fn run(settings: &Settings, arguments: &[&str]) -> std::process::Output {
    let mut command = program(settings);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let what = format!("`{}` to end", arguments.join(" "));
    wait::within(what, wait::SOON, command.output())
        .await
        .expect("the sidecar can be started")
}

fn program(settings: &Settings) -> Command {
    let mut command = Command::new(binary::sidecar());
    command
        .env_clear()
        .envs(settings.environment())
        .env("RUST_BACKTRACE", "1")
        .current_dir(settings.directory());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

fn read_ready(file: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(file).ok()?;
    // Written atomically: what is there is whole.
    Some(serde_json::from_str(&text).expect("the ready file is one JSON object"))
}

fn read_lossy(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
}
