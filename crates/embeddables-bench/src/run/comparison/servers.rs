//! The processes of a measurement, fresh each time: null server or sidecar, and the mock where events are delivered.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use hyper::Method;
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use super::scenario::Scenario;
use crate::child::Child;
use crate::http_control::{metric_sum, request};
use crate::load::Address;

/// The project that events belong to.
const PROJECT: &str = "pr_benchmark";
/// A key that the mock takes, as it takes any of this form.
const API_KEY: &str = "rk_benchmark";
/// Room for all that a measurement accepts: the default of 1 GiB can be full within seconds. A limit, not a setting of speed.
const QUEUE_MAX_BYTES: &str = "32GiB";

/// Where the programs are, and where processes may write.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// This program: null server and load generator.
    pub(crate) bench: PathBuf,
    /// The sidecar's binary.
    pub(crate) sidecar: PathBuf,
    /// The mock's binary.
    pub(crate) mock: PathBuf,
    /// Directory on disk, for queues.
    pub(crate) work_dir: PathBuf,
}

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
        let work = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&places.work_dir)
            .with_context(|| format!("cannot write into {}", places.work_dir.display()))?;
        let sockets = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let socket = sockets.path().join("grpc.sock");
        let (child, mock) = match side {
            Side::Null => (start_null(places, &socket, work.path()).await?, None),
            Side::Sidecar => {
                let mock = if scenario.delivers {
                    Some(Mock::start(places, work.path()).await?)
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

    /// Events that the sidecar itself counts as delivered.
    pub(crate) async fn settled(&self) -> anyhow::Result<f64> {
        let ops = self.child.ready.ops.as_deref().context("it serves no metrics")?;
        let metrics = request(Method::GET, ops, "/metrics", "").await?;
        Ok(metric_sum(&metrics, "embeddables_settle_delivered_events_total"))
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
    let path = |path: &Path| path.display().to_string();
    let any_port = || "127.0.0.1:0".to_owned();
    // Without deliveries nobody listens upstream, and nobody is asked.
    let upstream = mock.map_or("http://127.0.0.1:9".to_owned(), |mock| {
        format!("http://{}", mock.address)
    });
    let environment = [
        ("EMBEDDABLES_API_KEY", API_KEY.to_owned()),
        ("EMBEDDABLES_PROJECT_ID", PROJECT.to_owned()),
        ("EMBEDDABLES_API_URL", upstream),
        ("EMBEDDABLES_SIDECAR__LISTEN__GRPC", any_port()),
        ("EMBEDDABLES_SIDECAR__LISTEN__GRPC_UNIX", path(socket)),
        ("EMBEDDABLES_SIDECAR__LISTEN__HTTP", any_port()),
        ("EMBEDDABLES_SIDECAR__LISTEN__OPS", any_port()),
        ("EMBEDDABLES_SIDECAR__QUEUE__DIR", path(&work.join("queue"))),
        (
            "EMBEDDABLES_SIDECAR__QUEUE__MAX_BYTES",
            QUEUE_MAX_BYTES.to_owned(),
        ),
        (
            "EMBEDDABLES_SIDECAR__DELIVERY__ENABLED",
            mock.is_some().to_string(),
        ),
    ];
    Child::start("sidecar", &places.sidecar, &["serve"], &environment, work).await
}

/// The pretended upstream: counts requests and keeps none.
#[derive(Debug)]
pub(crate) struct Mock {
    /// Its process.
    pub(crate) child: Child,
    address: String,
}

/// What the mock has seen.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct MockCounts {
    /// Requests of any outcome.
    pub(crate) requests: u64,
    /// Events created.
    pub(crate) created: u64,
}

impl Mock {
    async fn start(places: &Places, work: &Path) -> anyhow::Result<Self> {
        let child = Child::start("mock", &places.mock, &["--listen", "127.0.0.1:0"], &[], work).await?;
        let address = child
            .ready
            .mock
            .clone()
            .context("the mock does not say where it listens")?;
        let settings = json!({ "any_entry": true, "record_requests": false }).to_string();
        request(Method::PUT, &address, "/_mock/config", &settings).await?;
        Ok(Self { child, address })
    }

    /// What it has seen so far.
    pub(crate) async fn counts(&self) -> anyhow::Result<MockCounts> {
        let counts = request(Method::GET, &self.address, "/_mock/counts", "").await?;
        serde_json::from_str(&counts).context("the mock's counts cannot be read")
    }
}

impl Places {
    /// Checks that the programs are there.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for program in [&self.sidecar, &self.mock] {
            ensure!(
                program.is_file(),
                "{} is missing: cargo build --release -p embeddables-sidecar -p embeddables-mock -p embeddables-bench",
                program.display()
            );
        }
        Ok(())
    }
}
