//! One measurement: a fresh server, one load, what both of them used, and the drain where events are delivered.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::scenario::Scenario;
use super::servers::{Server, Side};
use crate::load::LoadReport;
use crate::proc_fs::{Memory, cpu_seconds, memory};
use crate::run::mock::Mock;
use crate::run::places::Places;

/// How often a drain is looked at.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// Events that the sidecar itself counts as delivered.
const SETTLED: &str = "embeddables_settle_delivered_events_total";
/// How long the last outcomes may take to be written once upstream has every event.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long measurements may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Seconds that load is sent.
    pub(crate) seconds: f64,
    /// Longest wait for a backlog to be delivered.
    pub(crate) drain: Duration,
}

/// What one measurement came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measurement {
    /// What the load generator saw.
    pub(crate) load: LoadReport,
    /// CPU time of the server: while it was loaded, and until it had delivered where it delivers.
    pub(crate) cpu_seconds: f64,
    /// Its memory at the end, in bytes.
    pub(crate) rss_bytes: u64,
    /// Its memory at its peak, in bytes.
    pub(crate) peak_rss_bytes: u64,
    /// What became of the events, where they were delivered.
    pub(crate) whole_way: Option<WholeWay>,
}

/// From the first call to the last delivery.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WholeWay {
    /// Events that upstream created, those of the warm-up among them.
    pub(crate) delivered: u64,
    /// Those created by the time of the last acknowledgement.
    pub(crate) delivered_during_load: u64,
    /// Requests upstream that created nothing, or the same again.
    pub(crate) extra_requests: u64,
    /// From the first call to the last delivery.
    pub(crate) seconds: f64,
    /// Whether every event was delivered in time, and counted as delivered by the sidecar.
    pub(crate) drained: bool,
    /// CPU time of the mock.
    pub(crate) mock_cpu_seconds: f64,
}

impl Measurement {
    /// Whether nothing failed and nothing is missing.
    pub(crate) fn is_valid(&self) -> bool {
        self.load.is_clean() && self.whole_way.as_ref().is_none_or(|whole_way| whole_way.drained)
    }

    /// CPU seconds of the server for a million events, which are microseconds an event.
    pub(crate) fn cpu_per_million(&self) -> f64 {
        per_million(self.cpu_seconds, self.load.count)
    }

    /// The same of the load generator.
    pub(crate) fn generator_cpu_per_million(&self) -> f64 {
        per_million(self.load.cpu_seconds, self.load.count)
    }
}

impl WholeWay {
    /// Events delivered a second, from the first call to the last delivery.
    pub(crate) fn rate(&self) -> f64 {
        self.delivered as f64 / self.seconds
    }

    /// CPU seconds of the mock for a million events.
    pub(crate) fn mock_cpu_per_million(&self) -> f64 {
        per_million(self.mock_cpu_seconds, self.delivered)
    }
}

fn per_million(seconds: f64, events: u64) -> f64 {
    seconds / events as f64 * 1e6
}

/// Measures one side once.
pub(crate) async fn measure(
    side: Side,
    scenario: &Scenario,
    places: &Places,
    bounds: Bounds,
) -> anyhow::Result<Measurement> {
    let server = Server::start(side, scenario, places).await?;
    let pid = server.child.pid();
    let cpu_before = cpu_seconds(pid)?;
    let load = scenario.load(side, bounds.seconds);
    let load = load.run(places, &server.address).await?;
    let whole_way = match &server.mock {
        Some(mock) => Some(until_delivered(&server, mock, &load, bounds.drain).await?),
        None => None,
    };
    let cpu_seconds = cpu_seconds(pid)? - cpu_before;
    let Memory {
        resident_bytes,
        peak_resident_bytes,
    } = memory(pid)?;
    server.stop().await?;
    Ok(Measurement {
        load,
        cpu_seconds,
        rss_bytes: resident_bytes,
        peak_rss_bytes: peak_resident_bytes,
        whole_way,
    })
}

/// Waits until upstream has every event and the sidecar knows.
async fn until_delivered(
    server: &Server,
    mock: &Mock,
    load: &LoadReport,
    longest: Duration,
) -> anyhow::Result<WholeWay> {
    let load_end = Instant::now();
    let accepted = load.count + load.warm_up;
    let delivered_during_load = mock.counts().await?.created.min(accepted);
    let mut counts = mock.counts().await?;
    while counts.created < accepted && load_end.elapsed() < longest {
        sleep(DRAIN_POLL).await;
        counts = mock.counts().await?;
    }
    let drained_at = Instant::now();
    let mut is_settled = server.child.metric(SETTLED).await? >= accepted as f64;
    while counts.created >= accepted && !is_settled && drained_at.elapsed() < SETTLE_TIMEOUT {
        sleep(DRAIN_POLL).await;
        is_settled = server.child.metric(SETTLED).await? >= accepted as f64;
    }
    Ok(WholeWay {
        delivered: counts.created,
        delivered_during_load,
        extra_requests: counts.requests.saturating_sub(accepted),
        seconds: load.seconds + (drained_at - load_end).as_secs_f64(),
        drained: counts.created == accepted && is_settled,
        mock_cpu_seconds: cpu_seconds(mock.child.pid())?,
    })
}
