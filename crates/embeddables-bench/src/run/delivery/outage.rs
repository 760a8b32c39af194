//! `outage`: nobody listens where upstream was, for a minute, while events keep coming; how soon after it is back comes the
//! first delivery, and how soon is everything delivered?
//!
//! The sidecar delivers normally first, so that there are connections, which are cut. The port is kept by this process
//! meanwhile: a socket that is bound and does not listen refuses connections and lets nobody else have the port.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep};

use super::Context;
use super::reading::{Bound, Figure, Reading, require};
use super::sample::{Sample, until};
use super::stage::{Setup, Stage};
use crate::load::LoadReport;
use crate::run::generator::Load;

const FIRST: Figure = Figure::told(
    "seconds_to_first",
    "seconds from upstream's return to the first delivery",
    3,
)
.keeping(Bound::AtMost(2.0))
.aiming_at(Bound::AtMost(0.5));
const ALL: Figure = Figure::told(
    "seconds_to_all",
    "seconds from upstream's return to the last one",
    2,
);
const MOST: Figure = Figure::told(
    "seconds_to_most",
    "seconds from upstream's return until 1 % of all is left",
    2,
);
const QUEUED: Figure = Figure::told("queued_events", "events queued when it returned", 0);
const ATTEMPTS: Figure = Figure::told("attempts_per_second", "attempts/s during the outage", 2);

/// Attempts that the sidecar counts.
const ATTEMPTS_TOTAL: &str = "embeddables_deliver_attempts_total";
/// Time of normal deliveries before the outage.
const BEFORE_SECONDS: f64 = 5.0;
/// Time without upstream.
const OUTAGE_SECONDS: f64 = 60.0;
/// Events published a second, one a call, before and during the outage.
const PUBLISHED_PER_SECOND: f64 = 2_000.0;
/// Calls under way at most.
const CALLERS: u32 = 64;
/// How often the first delivery is looked for: the figure may be so much too large.
const POLL: Duration = Duration::from_millis(5);
/// One in so many events may be left where most are delivered: what was tried during the outage waits for its time.
const LEFT: u64 = 100;
/// Longest time for all deliveries once upstream is back.
const LONGEST: Duration = Duration::from_secs(300);

/// One measurement.
pub(super) async fn measure(context: &Context<'_>) -> anyhow::Result<Reading> {
    let port = KeptPort::take()?;
    let setup = Setup {
        mock_address: port.address()?.to_string(),
        ..Setup::default()
    };
    let mut stage = Stage::start(context.places, setup).await?;
    let before = context.seconds(BEFORE_SECONDS);
    let load = Load {
        callers: CALLERS,
        rate: Some(PUBLISHED_PER_SECOND),
        seconds: (before + context.seconds(OUTAGE_SECONDS)).as_secs_f64(),
        projects: 1,
        ..Load::default()
    };
    let address = stage.address()?;
    let publishing = load.run(context.places, &address);
    let (load, lost) = tokio::try_join!(publishing, Lost::after(before, &mut stage))?;
    let queued = (load.count + load.warm_up) as f64 - stage.settled().await?;
    let attempts = attempts(&stage).await? - lost.attempts;
    let outage = lost.at.elapsed();

    stage.regain_upstream(context.places).await?;
    let back = stage.mock.child.ready_at;
    let first = until(&stage.mock, POLL, LONGEST, |counts| counts.created > 0).await?;
    let accepted = load.count + load.warm_up;
    // The mocks cannot tell: what the first one had created when it was killed is not known to the last event.
    stage.until_settled(accepted - accepted / LEFT, LONGEST).await?;
    let most = back.elapsed();
    let settled = stage.until_settled(accepted, LONGEST).await?;
    let all = back.elapsed();
    let dead_letters = stage.dead_letters().await?;
    let faults = faults(&load, lost.delivered, &first, settled, dead_letters);
    stage.stop().await?;
    Ok(Reading {
        figures: vec![
            (FIRST, (first.at - back).as_secs_f64()),
            (MOST, most.as_secs_f64()),
            (ALL, all.as_secs_f64()),
            (QUEUED, queued),
            (ATTEMPTS, attempts / outage.as_secs_f64()),
        ],
        details: json!({
            "load": load,
            "delivered_before": lost.delivered,
            "outage_seconds": outage.as_secs_f64(),
            "attempts_during_outage": attempts,
        }),
        faults,
    })
}

/// The loss of upstream.
struct Lost {
    at: Instant,
    /// Events delivered until then.
    delivered: u64,
    /// Attempts made until then.
    attempts: f64,
}

impl Lost {
    async fn after(time: Duration, stage: &mut Stage) -> anyhow::Result<Self> {
        sleep(time).await;
        let delivered = Sample::take(&stage.mock).await?.counts.created;
        stage.lose_upstream().await?;
        Ok(Self {
            at: Instant::now(),
            delivered,
            attempts: attempts(stage).await?,
        })
    }
}

async fn attempts(stage: &Stage) -> anyhow::Result<f64> {
    stage.sidecar.metric(ATTEMPTS_TOTAL).await
}

fn faults(
    load: &LoadReport,
    delivered_before: u64,
    first: &Sample,
    settled: f64,
    dead_letters: f64,
) -> Vec<String> {
    let mut faults = Vec::new();
    require(&mut faults, load.is_clean(), || {
        format!("the load failed: {load:?}")
    });
    require(&mut faults, delivered_before > 0, || {
        "nothing was delivered before the outage".to_owned()
    });
    require(&mut faults, first.counts.created > 0, || {
        format!("nothing was delivered within {LONGEST:?} of upstream's return")
    });
    let accepted = (load.count + load.warm_up) as f64;
    require(
        &mut faults,
        settled.to_bits() == accepted.to_bits() && dead_letters < 1.0,
        || format!("of {accepted} events {settled} were delivered and {dead_letters} became dead letters"),
    );
    faults
}

/// A port of the loopback that nobody else gets, where nobody listens but who is told of it.
struct KeptPort(TcpSocket);

impl KeptPort {
    fn take() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Lets a listener that allows the same have the address too, as the mock's does.
        socket.set_reuseaddr(true)?;
        socket
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .context("cannot bind a port")?;
        Ok(Self(socket))
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_kept_port_refuses_connections_while_nobody_listens() {
        let port = KeptPort::take().expect("a port");
        let address = port.address().expect("an address");
        for _ in 0..2 {
            let listener = TcpListener::bind(address).await.expect("the port is to be had");
            TcpStream::connect(address).await.expect("somebody listens");
            drop(listener);
            let error = TcpStream::connect(address).await.expect_err("nobody listens");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
    }
}
