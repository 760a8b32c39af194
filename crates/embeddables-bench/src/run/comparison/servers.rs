//! The processes of a measurement, fresh each time: null server or sidecar, and the mock where events are delivered.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use tempfile::TempDir;

use super::scenario::Scenario;
use crate::child::Child;
use crate::event::PROJECT;
use crate::load::Address;
use crate::run::mock::{Mock, Wire};
use crate::run::places::Places;
use crate::run::sidecar;

/// A key that the mock takes, as it takes any of this form.
const API_KEY: &str = "rk_benchmark";

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The bound.
    Null,
    /// The product.
    Sidecar,
}

/// A server that takes load, and all that belongs to it. Dropped, its processes are killed and its files removed.
#[derive(Debug)]
pub(crate) struct Server {
    /// The server itself.
    pub(crate) child: Child,
    /// The upstream, where events are delivered.
    pub(crate) mock: Option<Mock>,
    /// Where load is sent.
    pub(crate) address: Address,
    /// Queue, ready files and logs.
    _work: TempDir,
    /// Unix sockets: their paths must be short.
    _sockets: TempDir,
}

impl Server {
    /// Starts what a scenario needs.
    pub(crate) async fn start(side: Side, scenario: &Scenario, places: &Places) -> anyhow::Result<Self> {
        let work = places.fresh_dir()?;
        let sockets = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let socket = sockets.path().join("grpc.sock");
        let (child, mock) = match side {
            Side::Null => (start_null(places, &socket, work.path()).await?, None),
            Side::Sidecar => {
                let mock = if scenario.delivers {
                    Some(Mock::start(places, work.path(), Wire::Tls, json!({})).await?)
                } else {
                    None
                };
                (
                    start_sidecar(places, &socket, work.path(), mock.as_ref()).await?,
                    mock,
                )
            }
        };
        let address = if scenario.over_unix {
            Address::Unix(
                child
                    .ready
                    .grpc_unix
                    .clone()
                    .context("it listens on no Unix socket")?,
            )
        } else {
            Address::Tcp(child.ready.grpc.clone().context("it does not listen on TCP")?)
        };
        Ok(Self {
            child,
            mock,
            address,
            _work: work,
            _sockets: sockets,
        })
    }

    /// Ends the processes.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.child.stop().await?;
        match self.mock {
            Some(mock) => mock.child.stop().await,
            None => Ok(()),
        }
    }
}

async fn start_null(places: &Places, socket: &Path, work: &Path) -> anyhow::Result<Child> {
    let socket = socket.to_str().context("a path that is not UTF-8")?;
    Child::start("null", &places.bench, &["null", "--unix", socket], &[], work).await
}

async fn start_sidecar(
    places: &Places,
    socket: &Path,
    work: &Path,
    mock: Option<&Mock>,
) -> anyhow::Result<Child> {
    let mut environment = sidecar::environment(work, mock.is_some(), mock);
    environment.extend([
        ("EMBEDDABLES_API_KEY", API_KEY.to_owned()),
        ("EMBEDDABLES_PROJECT_ID", PROJECT.to_owned()),
        (
            "EMBEDDABLES_SIDECAR__LISTEN__GRPC_UNIX",
            socket.display().to_string(),
        ),
    ]);
    Child::start("sidecar", &places.sidecar, &["serve"], &environment, work).await
}
