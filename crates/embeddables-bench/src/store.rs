//! `store`: the durable queue by itself, in this process: no call, no check, no delivery.
//!
//! It is the bound of what a sidecar on this queue can accept. The records are as large as the sidecar's.
//!
//! # Invariants
//! 1. Every record is as durable as the disk allows before it is counted; one that is refused or known ends the measurement.
//! 2. It ends by itself: no call begins after the given time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use embeddables_queue::sqlite::{SqliteConfig, SqliteQueue};
use embeddables_queue::{Append, Durability, LaneName, NewRecord, Queue as _, UnixMillis};
use hdrhistogram::Histogram;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::event::{PROJECT, event};
use crate::proc_fs;

/// Room for all that a measurement appends. A limit, not a setting of speed.
const MAX_BYTES: u64 = 32 << 30;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// How to append, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreConfig {
    /// Directory of the queue: made where it is missing, left as it is afterwards.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Calls under way.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub callers: u32,
    /// Records a call.
    #[arg(long, value_name = "RECORDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,
    /// Time to append, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0)]
    pub seconds: f64,
}

/// What it came to: the JSON line that `store` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Records appended and synced.
    pub count: u64,
    /// From the first call to the last answer.
    pub seconds: f64,
    /// Records a second.
    pub rate: f64,
    /// Half of the calls took no longer, in microseconds.
    pub p50_us: f64,
    /// All but a hundredth took no longer.
    pub p99_us: f64,
    /// CPU time of this process, its callers among it.
    pub cpu_seconds: f64,
}

/// Appends and prints its report. Gives whether anything was appended.
///
/// # Errors
/// Where the queue cannot be opened, or refuses a record.
pub async fn execute(config: StoreConfig) -> anyhow::Result<bool> {
    let report = run(&config).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(report.count > 0)
}

/// What the callers share.
struct Shared {
    queue: SqliteQueue,
    lane: LaneName,
    durability: Durability,
    payload: Bytes,
    batch: u32,
    end: Instant,
}

async fn run(config: &StoreConfig) -> anyhow::Result<StoreReport> {
    let lane = LaneName::new(PROJECT);
    let (queue, _) = SqliteQueue::open(SqliteConfig {
        max_bytes: MAX_BYTES,
        ..SqliteConfig::new(&config.dir, vec![lane.clone()])
    })?;
    let durability = queue.durabilities().last().copied();
    let cpu_before = proc_fs::cpu_seconds(std::process::id())?;
    let start = Instant::now();
    let shared = Arc::new(Shared {
        durability: durability.context("the queue offers no durability")?,
        queue,
        lane,
        payload: event(0, true, 0).encode_to_vec().into(),
        batch: config.batch,
        end: start + Duration::from_secs_f64(config.seconds),
    });
    let mut callers = JoinSet::new();
    for _ in 0..config.callers {
        callers.spawn(Arc::clone(&shared).keep_appending());
    }
    let mut nanos = Histogram::new(LATENCY_DIGITS)?;
    while let Some(caller) = callers.join_next().await {
        nanos.add(caller.context("a caller failed")??)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu_seconds = proc_fs::cpu_seconds(std::process::id())? - cpu_before;
    shared.queue.close().await;
    let count = nanos.len() * u64::from(config.batch);
    let micros = |quantile| nanos.value_at_quantile(quantile) as f64 / 1e3;
    Ok(StoreReport {
        count,
        seconds,
        rate: count as f64 / seconds,
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        cpu_seconds,
    })
}

impl Shared {
    /// Appends until the time is over; gives how long each call took, in nanoseconds.
    async fn keep_appending(self: Arc<Self>) -> anyhow::Result<Histogram<u64>> {
        let mut nanos = Histogram::new(LATENCY_DIGITS)?;
        loop {
            let start = Instant::now();
            if start >= self.end {
                return Ok(nanos);
            }
            let append = Append {
                records: (0..self.batch).map(|_| self.record()).collect(),
                durability: self.durability,
                atomic: false,
            };
            for appended in self.queue.append(append).await? {
                ensure!(!appended?.duplicate, "an id was made twice");
            }
            nanos.record(u64::try_from(start.elapsed().as_nanos())?)?;
        }
    }

    /// A record with an id like those that the sidecar makes.
    fn record(&self) -> NewRecord {
        let id = Uuid::now_v7();
        NewRecord {
            lane: self.lane.clone(),
            id: id.hyphenated().to_string().into(),
            fingerprint: id.into_bytes(),
            order_key: id.into_bytes(),
            accept_time: UnixMillis(1),
            deadline: None,
            payload: self.payload.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use embeddables_queue::Ledger as _;

    use super::*;

    #[tokio::test]
    async fn what_is_counted_is_in_the_queue() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = StoreConfig {
            dir: dir.path().join("queue"),
            callers: 3,
            batch: 5,
            seconds: 0.05,
        };
        let report = run(&config).await.expect("a report");
        assert!(report.count >= 15 && report.count.is_multiple_of(5), "{report:?}");
        assert!(report.seconds >= 0.05 && report.p99_us >= report.p50_us);
        let lane = LaneName::new(PROJECT);
        let (queue, _) = SqliteQueue::open(SqliteConfig::new(&config.dir, vec![lane])).expect("opens again");
        let books = queue.books();
        let accepted: u64 = books.lanes.iter().map(|(_, lane)| lane.accepted).sum();
        assert_eq!(accepted, report.count);
        queue.close().await;
    }
}
