//! The pretended upstream: a process that counts requests and keeps none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::places::Places;
use super::tls::Identity;
use crate::child::Child;
use crate::http_control::Control;

/// Requests at once on one HTTP/2 connection: the fewest that a server should allow (RFC 9113 §6.5.2).
const MAX_STREAMS: u32 = 100;

/// How upstream is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wire {
    /// HTTP/1.1 without TLS.
    #[default]
    Plain,
    /// TLS and HTTP/2, as production has it. The authority is made for each mock.
    Tls,
}

/// An address on the loopback with a port that is free.
pub(crate) const ANY_PORT: &str = "127.0.0.1:0";

/// A mock of the events API.
#[derive(Debug)]
pub(crate) struct Mock {
    /// Its process.
    pub(crate) child: Child,
    /// Its base address: `http://…` or `https://…`.
    pub(crate) url: String,
    /// The authority to trust, where it has TLS.
    pub(crate) ca_file: Option<PathBuf>,
    control: Control,
}

/// What the mock has seen.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct MockCounts {
    /// Requests of any outcome.
    pub(crate) requests: u64,
    /// Events created.
    pub(crate) created: u64,
    /// Connections accepted, that of this run's own requests among them.
    pub(crate) connections: u64,
    /// The most requests that were being answered at once.
    pub(crate) max_in_flight: u64,
    /// Connections open now, that of this run's own requests among them.
    pub(crate) open_connections: u64,
    /// Requests answered, by status.
    pub(crate) by_status: BTreeMap<u16, u64>,
    /// Requests by project.
    pub(crate) by_project: BTreeMap<String, ProjectCounts>,
}

/// What the mock has seen of one project.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct ProjectCounts {
    /// Requests of any outcome.
    pub(crate) requests: u64,
    /// Events created.
    pub(crate) created: u64,
}

impl Mock {
    /// Starts one on a free port with the given settings on top of those of every run.
    pub(crate) async fn start(
        places: &Places,
        work: &Path,
        wire: Wire,
        settings: Value,
    ) -> anyhow::Result<Self> {
        Self::start_at(places, work, ANY_PORT, wire, settings).await
    }

    /// The same on a certain address.
    pub(crate) async fn start_at(
        places: &Places,
        work: &Path,
        address: &str,
        wire: Wire,
        settings: Value,
    ) -> anyhow::Result<Self> {
        let (scheme, identity) = match wire {
            Wire::Plain => ("http", None),
            Wire::Tls => ("https", Some(Identity::make(work)?)),
        };
        let mut arguments = vec!["--listen", address];
        if let Some(identity) = &identity {
            arguments.extend(identity.server_arguments()?);
        }
        let child = Child::start("mock", &places.mock, &arguments, &[], work).await?;
        let address = child.ready.mock.as_deref();
        let address = address.context("the mock does not say where it listens")?;
        let url = format!("{scheme}://{address}");
        let ca_file = identity.map(|identity| identity.ca_file);
        let mock = Self {
            control: Control::new(url.clone(), ca_file.as_deref())?,
            child,
            url,
            ca_file,
        };
        mock.configure(settings).await?;
        Ok(mock)
    }

    /// Replaces its settings. Every user exists, no request is kept, and an HTTP/2 connection carries [`MAX_STREAMS`] at once.
    async fn configure(&self, mut settings: Value) -> anyhow::Result<()> {
        settings["any_entry"] = true.into();
        settings["record_requests"] = false.into();
        settings["max_streams"] = MAX_STREAMS.into();
        let config = settings.to_string();
        self.control
            .request(Method::PUT, "/_mock/config", &config)
            .await?;
        Ok(())
    }

    /// Adds a script of faults.
    pub(crate) async fn push_faults(&self, script: &Value) -> anyhow::Result<()> {
        let script = script.to_string();
        self.control
            .request(Method::POST, "/_mock/faults", &script)
            .await?;
        Ok(())
    }

    /// What it has seen so far.
    pub(crate) async fn counts(&self) -> anyhow::Result<MockCounts> {
        let counts = self.control.request(Method::GET, "/_mock/counts", "").await?;
        serde_json::from_str(&counts).context("the mock's counts cannot be read")
    }
}

impl MockCounts {
    /// The numbers of one project; zeros where it was never seen.
    pub(crate) fn of_project(&self, project: &str) -> ProjectCounts {
        self.by_project.get(project).copied().unwrap_or_default()
    }

    /// Requests answered with a status.
    pub(crate) fn of_status(&self, status: u16) -> u64 {
        self.by_status.get(&status).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_the_mock_writes_them() {
        let text = r#"{"requests":7,"created":4,"distinct_created":1,"connections":9,"open_connections":3,"max_in_flight":2,
            "by_status":{"200":4,"429":3},"by_project":{"pr_1":{"requests":5,"created":4}},"fault_steps_left":null}"#;
        let counts: MockCounts = serde_json::from_str(text).expect("counts");
        assert_eq!((counts.requests, counts.created, counts.max_in_flight), (7, 4, 2));
        assert_eq!((counts.connections, counts.open_connections), (9, 3));
        assert_eq!((counts.of_status(429), counts.of_status(401)), (3, 0));
        let projects = ["pr_1", "pr_2"].map(|project| counts.of_project(project));
        assert_eq!(projects.map(|one| (one.requests, one.created)), [(5, 4), (0, 0)]);
    }
}
