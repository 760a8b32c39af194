//! The bare client as a process of its own, with a mock of its own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::stage::key;
use crate::bare::{BareReport, GRACE, Library};
use crate::event::project_name;
use crate::run::mock::{Mock, Wire};
use crate::run::places::Places;

/// How the bare client sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    /// What it sends with.
    pub(crate) library: Library,
    /// How it speaks to its mock.
    pub(crate) wire: Wire,
    /// Requests under way.
    pub(crate) in_flight: u32,
    /// Clients that send in turn; over HTTP/2 each has one connection.
    pub(crate) connections: u32,
    /// How long it sends at most.
    pub(crate) time: Duration,
    /// How many events it sends at most; `None` for no bound but time.
    pub(crate) events: Option<u64>,
}

/// A bare client at work. Dropped, it and its mock are killed.
#[derive(Debug)]
pub(crate) struct Bare {
    /// Its upstream.
    pub(crate) mock: Mock,
    client: Child,
    longest: Duration,
    _work: TempDir,
}

impl Bare {
    /// Starts a mock and a client that sends to it.
    pub(crate) async fn start(places: &Places, upstream: Value, sending: Sending) -> anyhow::Result<Self> {
        let work = places.fresh_dir()?;
        let mock = Mock::start(places, work.path(), sending.wire, upstream).await?;
        let mut command = Command::new(&places.bench);
        command
            .arg("bare")
            .args(["--url", &events_url(&mock)])
            .args(["--key", &key(0)])
            .args(["--library", sending.library.name()])
            .args(["--in-flight", &sending.in_flight.to_string()])
            .args(["--connections", &sending.connections.to_string()])
            .args(["--seconds", &sending.time.as_secs_f64().to_string()]);
        if let Some(events) = sending.events {
            command.args(["--count", &events.to_string()]);
        }
        if let Some(ca_file) = &mock.ca_file {
            command.arg("--ca").arg(ca_file);
        }
        let client = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", places.bench.display()))?;
        Ok(Self {
            mock,
            client,
            longest: sending.time + 3 * GRACE,
            _work: work,
        })
    }

    /// The client's process id.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.client.id().context("the bare client has ended already")
    }

    /// Waits for the client's report and ends the mock.
    pub(crate) async fn finish(self) -> anyhow::Result<BareReport> {
        let output = timeout(self.longest, self.client.wait_with_output())
            .await
            .context("the bare client does not end")??;
        self.mock.child.stop().await?;
        let report = String::from_utf8(output.stdout)?;
        serde_json::from_str(&report)
            .with_context(|| format!("the bare client's report cannot be read: {report}"))
    }
}

fn events_url(mock: &Mock) -> String {
    format!("{}/projects/{}/events", mock.url, project_name(0))
}
