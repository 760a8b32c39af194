//! The load generator as a process of its own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use super::places::Places;
use crate::load::{Address, GRACE, LoadReport};

/// One load; see [`LoadConfig`](crate::load::LoadConfig).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Calls under way.
    pub(crate) callers: u32,
    /// Connections that they share.
    pub(crate) connections: u32,
    /// Events a call; `None` for single events.
    pub(crate) batch: Option<u32>,
    /// Whether each caller publishes over a stream.
    pub(crate) streams: bool,
    /// Longest time to make calls.
    pub(crate) seconds: f64,
    /// Most calls to make; `None` for no bound but time.
    pub(crate) calls: Option<u64>,
    /// Calls a second; `None` for as many as are answered.
    pub(crate) rate: Option<f64>,
    /// Projects that events name in turn; 0 for events that name none.
    pub(crate) projects: u32,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            callers: 4,
            connections: 4,
            batch: None,
            streams: false,
            seconds: 60.0,
            calls: None,
            rate: None,
            projects: 0,
        }
    }
}

impl Load {
    fn arguments(&self, address: &Address) -> Vec<String> {
        let mut arguments = vec!["load".to_owned()];
        let mut push = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                arguments.extend([name.to_owned(), value]);
            }
        };
        push("--address", Some(address.to_string()));
        push("--callers", Some(self.callers.to_string()));
        push("--connections", Some(self.connections.to_string()));
        push("--seconds", Some(self.seconds.to_string()));
        push("--batch", self.batch.map(|batch| batch.to_string()));
        push("--count", self.calls.map(|calls| calls.to_string()));
        push("--rate", self.rate.map(|rate| rate.to_string()));
        push("--projects", Some(self.projects.to_string()));
        if self.streams {
            arguments.push("--stream".to_owned());
        }
        arguments
    }

    /// Runs it and reads its report.
    pub(crate) async fn run(&self, places: &Places, address: &Address) -> anyhow::Result<LoadReport> {
        let mut command = Command::new(&places.bench);
        command
            .args(self.arguments(address))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let longest = Duration::from_secs_f64(self.seconds) + 3 * GRACE;
        let output = timeout(longest, command.output())
            .await
            .context("the load generator does not end")??;
        // It also fails where answers were errors; then its report says so.
        let report = String::from_utf8(output.stdout)?;
        ensure!(
            !report.is_empty(),
            "the load generator ended with {} and no report",
            output.status
        );
        serde_json::from_str(&report)
            .with_context(|| format!("the load generator's report cannot be read: {report}"))
    }
}
