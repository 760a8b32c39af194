//! The bare client as a process of its own, with a mock of its own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::stage::{key, work_dir};
use crate::bare::{BareReport, GRACE};
use crate::event::project_name;
use crate::run::mock::Mock;
use crate::run::places::Places;

/// A bare client at work. Dropped, it and its mock are killed.
#[derive(Debug)]
pub(crate) struct Bare {
    /// Its upstream.
    pub(crate) mock: Mock,
    client: Child,
    _work: TempDir,
}

impl Bare {
    /// Starts a mock and a client that sends to it for so long.
    pub(crate) async fn start(
        places: &Places,
        upstream: Value,
        in_flight: u32,
        time: Duration,
    ) -> anyhow::Result<Self> {
        let work = work_dir(places)?;
        let mock = Mock::start(places, work.path(), upstream).await?;
        let client = Command::new(&places.bench)
            .arg("bare")
            .args(["--url", &events_url(&mock)])
            .args(["--key", &key(0)])
            .args(["--in-flight", &in_flight.to_string()])
            .args(["--seconds", &time.as_secs_f64().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", places.bench.display()))?;
        Ok(Self {
            mock,
            client,
            _work: work,
        })
    }

    /// The client's process id.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.client.id().context("the bare client has ended already")
    }

    /// Waits for the client's report and ends the mock.
    pub(crate) async fn finish(self) -> anyhow::Result<BareReport> {
        let output = timeout(3 * GRACE, self.client.wait_with_output())
            .await
            .context("the bare client does not end")??;
        self.mock.child.stop().await?;
        let report = String::from_utf8(output.stdout)?;
        serde_json::from_str(&report)
            .with_context(|| format!("the bare client's report cannot be read: {report}"))
    }
}

fn events_url(mock: &Mock) -> String {
    format!("http://{}/projects/{}/events", mock.address, project_name(0))
}
