//! The load generator: raw HTTP/2, requests encoded beforehand, every answer looked at. One thread.
//!
//! # Invariants
//! 1. The clock starts after every connection has carried one request.
//! 2. Closed loop: each caller makes its next call when the last is answered. Open loop: calls are due at a fixed rate, and a
//!    latency starts when the call was due, so that a server that stalls cannot hide it (coordinated omission).
//! 3. It ends by itself: at the limit of time or of calls, and no later than [`GRACE`] after it.

mod body;
mod connection;
mod framing;
mod pacer;
mod tally;

use std::cell::{Cell, RefCell};
use std::process;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, timeout, timeout_at};

use self::body::{Bodies, Contents};
pub use self::connection::Address;
use self::connection::{CallError, Caller, Rpc};
use self::pacer::Pacer;
pub use self::tally::LoadReport;
use self::tally::{Tally, Totals};
use crate::proc_fs;

/// How long answers may take once no more calls are made.
pub const GRACE: Duration = Duration::from_secs(10);

/// What to send where, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadConfig {
    /// Server: `host:port` or `unix:/path`.
    #[arg(long, value_name = "ADDRESS")]
    pub address: Address,
    /// Callers: how many calls are under way at most.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub callers: u32,
    /// Connections that the callers share.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
    /// Events a call, by `PublishEvents`; without it single events by `PublishEvent`.
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: Option<u32>,
    /// Open loop: calls a second, whatever became of those before. Without it a closed loop.
    #[arg(long, value_name = "CALLS")]
    pub rate: Option<f64>,
    /// Longest time to make calls, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0)]
    pub seconds: f64,
    /// Most calls to make.
    #[arg(long, value_name = "CALLS")]
    pub count: Option<u64>,
    /// Make an id (UUIDv7) for each event; otherwise the server does.
    #[arg(long)]
    pub ids: bool,
    /// Projects that events name in turn: pr_benchmark_000 and so on. With 0 events name none.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub projects: u32,
}

impl LoadConfig {
    fn rpc(&self) -> Rpc {
        self.batch.map_or(Rpc::One, Rpc::Batch)
    }

    fn contents(&self) -> Contents {
        Contents {
            batch: self.batch,
            with_ids: self.ids,
            projects: self.projects,
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        let is_duration = |seconds: f64| seconds > 0.0 && seconds <= 86_400.0;
        ensure!(
            is_duration(self.seconds),
            "--seconds must be above 0 and at most a day"
        );
        ensure!(
            self.rate.is_none_or(|rate| (1.0..=1e7).contains(&rate)),
            "--rate must be from 1 to 10 million"
        );
        Ok(())
    }

    /// Calls that an open loop makes.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked: positive, far below 2^53"
    )]
    fn slots(&self, rate: f64) -> u64 {
        let slots = (rate * self.seconds).ceil() as u64;
        self.count.map_or(slots, |count| slots.min(count))
    }
}

/// Runs a load and prints its report. Gives whether every call was made, answered, and took its events.
///
/// # Errors
/// Where the server cannot be reached or does not answer the warm-up.
pub async fn execute(config: LoadConfig) -> anyhow::Result<bool> {
    config.check()?;
    let report = LocalSet::new().run_until(run(&config)).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(report.is_clean())
}

/// What the callers share.
struct Shared {
    bodies: Bodies,
    tally: RefCell<Tally>,
    /// Calls under way.
    open_calls: Cell<u64>,
    /// Calls that may still begin in a closed loop.
    calls_left: Cell<u64>,
    /// When a closed loop makes no more calls.
    end: Instant,
    pacer: Option<Pacer>,
    last_answer: Cell<Instant>,
}

async fn run(config: &LoadConfig) -> anyhow::Result<LoadReport> {
    let bodies = Bodies::new(config.contents());
    let connections = connect(config, &bodies).await?;
    let cpu_before = proc_fs::cpu_seconds(process::id())?;
    let start = Instant::now();
    let pacer = config
        .rate
        .map(|rate| Pacer::start(rate, config.slots(rate)))
        .transpose()?;
    let shared = Rc::new(Shared {
        bodies,
        tally: RefCell::new(Tally::new()?),
        open_calls: Cell::new(0),
        calls_left: Cell::new(config.count.unwrap_or(u64::MAX)),
        end: start + Duration::from_secs_f64(config.seconds),
        pacer,
        last_answer: Cell::new(start),
    });
    let mut callers = JoinSet::new();
    for caller in connections.iter().cycle().take(config.callers as usize) {
        callers.spawn_local(Rc::clone(&shared).keep_calling(caller.clone()));
    }
    // Calls still under way after the grace are unanswered; dropping their tasks ends them.
    let _in_time = timeout_at(shared.end + GRACE, callers.join_all()).await;
    let late = shared.pacer.as_ref().map_or(0, Pacer::left);
    let cpu_seconds = proc_fs::cpu_seconds(process::id())? - cpu_before;
    let tally = shared.tally.replace(Tally::new()?);
    let events_a_call = u64::from(config.batch.unwrap_or(1));
    Ok(tally.report(Totals {
        elapsed: shared.last_answer.get() - start,
        request_bytes: shared.bodies.body_bytes() as u64,
        warm_up: connections.len() as u64 * events_a_call,
        unanswered: shared.open_calls.get(),
        late,
        cpu_seconds,
    }))
}

/// Opens all connections and sends one request over each.
async fn connect(config: &LoadConfig, bodies: &Bodies) -> anyhow::Result<Vec<Caller>> {
    let mut connections = Vec::new();
    for _ in 0..config.connections.min(config.callers) {
        let mut caller = Caller::connect(&config.address, config.rpc()).await?;
        let warm_up = timeout(GRACE, caller.call(bodies.next()))
            .await
            .context("no answer to the first request")?;
        let results = warm_up.context("the first request failed")?;
        ensure!(results.refused == 0, "the first request was refused");
        connections.push(caller);
    }
    Ok(connections)
}

impl Shared {
    async fn keep_calling(self: Rc<Self>, mut caller: Caller) {
        while let Some(since) = self.next_start().await {
            self.open_calls.update(|calls| calls + 1);
            let outcome = caller.call(self.bodies.next()).await;
            let now = Instant::now();
            self.open_calls.update(|calls| calls - 1);
            self.last_answer.set(now);
            self.tally.borrow_mut().record(now - since, &outcome);
            if matches!(outcome, Err(CallError::Connection(_))) {
                break;
            }
        }
    }

    /// When the next call starts for the books: now in a closed loop, when it was due in an open one.
    async fn next_start(&self) -> Option<Instant> {
        let Some(pacer) = &self.pacer else {
            let now = Instant::now();
            let left = self.calls_left.get().checked_sub(1)?;
            self.calls_left.set(left);
            return (now < self.end).then_some(now);
        };
        match pacer.next().await {
            Ok(due) => due,
            Err(error) => {
                eprintln!("the timer failed: {error}");
                None
            }
        }
    }
}
