//! A process that this one started: waits until it is ready, ends it by its own id.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::{self, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::http_control::{Control, metric_sum};

/// Longest time from the start of a process to its being ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the ready file is looked for: so exact is the time to be ready.
const READY_POLL: Duration = Duration::from_millis(1);
/// How long a process may take to end when asked to, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a log shown with an error.
const SHOWN_LOG_BYTES: usize = 2_000;

/// Addresses in a ready file.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Ready {
    /// gRPC over TCP.
    pub grpc: Option<String>,
    /// gRPC over a Unix socket.
    pub grpc_unix: Option<PathBuf>,
    /// Probes and metrics.
    pub ops: Option<String>,
    /// The mock API.
    pub mock: Option<String>,
}

/// A server under measurement. Dropped, it is killed.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    pid: u32,
    name: &'static str,
    /// Where it says it listens.
    pub ready: Ready,
    /// When its ready file was seen.
    pub ready_at: Instant,
    /// Time from its start until then.
    pub ready_after: Duration,
}

impl Child {
    /// Starts a program that writes `<name>.ready` in `dir`; its output goes to `<name>.log` there.
    ///
    /// The environment is `environment` and nothing else, so that nobody's settings are measured. `--ready-file` and its
    /// value are added to the arguments.
    ///
    /// # Errors
    /// Where it cannot be started, ends, or is not ready in time; the end of its log is in the error.
    pub async fn start(
        name: &'static str,
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let ready_file = dir.join(format!("{name}.ready"));
        let log_file = dir.join(format!("{name}.log"));
        // One of an earlier process of that name would be taken for this one's.
        match fs::remove_file(&ready_file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", ready_file.display()));
            }
            _ => {}
        }
        let log = File::create(&log_file).with_context(|| format!("cannot write {}", log_file.display()))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg("--ready-file")
            .arg(&ready_file)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        let started = Instant::now();
        let mut process = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = process.id().context("the process has ended already")?;
        match until_ready(&mut process, &ready_file).await {
            Ok(ready) => {
                let ready_at = Instant::now();
                Ok(Self {
                    process,
                    pid,
                    name,
                    ready,
                    ready_at,
                    ready_after: ready_at - started,
                })
            }
            Err(error) => Err(error.context(format!("{name} did not start; its log:\n{}", tail(&log_file)))),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sum of all samples of one of its metrics; 0 where there is none.
    ///
    /// # Errors
    /// Where it serves no metrics.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let ops = self.ready.ops.as_deref().context("it serves no metrics")?;
        let ops = Control::new(format!("http://{ops}"), None)?;
        let metrics = ops.request(Method::GET, "/metrics", "").await?;
        Ok(metric_sum(&metrics, name))
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// Where it cannot be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let killed = self.process.kill().await;
        killed.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Asks it to end with SIGTERM and waits; kills it if it takes too long.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.process.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            kill_process(pid, Signal::TERM).with_context(|| format!("cannot stop {}", self.name))?;
        }
        if timeout(STOP_TIMEOUT, self.process.wait()).await.is_err() {
            eprintln!("{} does not end and is killed", self.name);
            self.process.kill().await?;
        }
        Ok(())
    }
}

async fn until_ready(process: &mut process::Child, ready_file: &Path) -> anyhow::Result<Ready> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        if let Ok(text) = fs::read_to_string(ready_file) {
            return serde_json::from_str(&text).context("the ready file cannot be read");
        }
        if let Some(status) = process.try_wait()? {
            bail!("it ended with {status}");
        }
        if Instant::now() > deadline {
            bail!("it was not ready within {READY_TIMEOUT:?}");
        }
        sleep(READY_POLL).await;
    }
}

/// The end of a log.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(SHOWN_LOG_BYTES)..]).into_owned()
}
