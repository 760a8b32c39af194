//! The load generator: raw HTTP/2, requests encoded beforehand, every answer looked at. One thread.
//!
//! # Invariants
//! 1. The clock starts after every connection, and every stream, has carried one request.
//! 2. Closed loop: each caller makes its next call when the last is answered. Open loop: calls are due at a fixed rate, and a
//!    latency starts when the call was due, so that a server that stalls cannot hide it (coordinated omission). A stream sends on while
//!    less than its window is unanswered.
//! 3. It ends by itself: at the limit of time or of calls, and no later than [`GRACE`] after it.

mod body;
mod connection;
mod framing;
mod pacer;
mod stream;
mod tally;

use std::cell::{Cell, RefCell};
use std::process;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, timeout, timeout_at};

use self::body::{Bodies, Contents, Form};
pub use self::connection::Address;
use self::connection::{CallError, Caller};
use self::pacer::Pacer;
use self::stream::EventStream;
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
    /// Each caller publishes over a stream of its own, by `StreamEvents`: its messages count as calls.
    #[arg(long, conflicts_with_all = ["batch", "rate"])]
    pub stream: bool,
    /// Most messages of a stream that are not answered yet.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub window: u32,
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
    fn form(&self) -> Form {
        if self.stream {
            Form::Stream
        } else {
            self.batch.map_or(Form::One, Form::Batch)
        }
    }

    fn contents(&self) -> Contents {
        Contents {
            form: self.form(),
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
    let warm = warm_up(config, &bodies).await?;
    let warm_up = warm.events(config);
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
    match warm {
        Warm::Connections(connections) => {
            for caller in connections.iter().cycle().take(config.callers as usize) {
                callers.spawn_local(Rc::clone(&shared).keep_calling(caller.clone()));
            }
        }
        Warm::Streams(streams) => {
            for stream in streams {
                callers.spawn_local(Rc::clone(&shared).keep_streaming(stream, config.window));
            }
        }
    }
    // Calls still under way after the grace are unanswered; dropping their tasks ends them.
    let _in_time = timeout_at(shared.end + GRACE, callers.join_all()).await;
    let late = shared.pacer.as_ref().map_or(0, Pacer::left);
    let cpu_seconds = proc_fs::cpu_seconds(process::id())? - cpu_before;
    let tally = shared.tally.replace(Tally::new()?);
    Ok(tally.report(Totals {
        elapsed: shared.last_answer.get() - start,
        request_bytes: shared.bodies.body_bytes() as u64,
        warm_up,
        unanswered: shared.open_calls.get(),
        late,
        cpu_seconds,
    }))
}

/// What has carried one request.
enum Warm {
    /// Connections, for callers to share.
    Connections(Vec<Caller>),
    /// Streams, one a caller.
    Streams(Vec<EventStream>),
}

impl Warm {
    /// Events that it took.
    fn events(&self, config: &LoadConfig) -> u64 {
        match self {
            Self::Connections(connections) => connections.len() as u64 * u64::from(config.form().events()),
            Self::Streams(streams) => streams.len() as u64,
        }
    }
}

/// Opens all connections, and all streams where there are such, and sends one request over each.
async fn warm_up(config: &LoadConfig, bodies: &Bodies) -> anyhow::Result<Warm> {
    let mut connections = Vec::new();
    for _ in 0..config.connections.min(config.callers) {
        connections.push(Caller::connect(&config.address, config.form()).await?);
    }
    if config.stream {
        let mut streams = Vec::new();
        for caller in connections.iter().cycle().take(config.callers as usize) {
            streams.push(first_answer(EventStream::open(caller.clone(), bodies)).await?);
        }
        return Ok(Warm::Streams(streams));
    }
    for caller in &mut connections {
        let results = first_answer(caller.call(bodies.next())).await?;
        ensure!(results.refused == 0, "the first request was refused");
    }
    Ok(Warm::Connections(connections))
}

async fn first_answer<T>(answer: impl Future<Output = Result<T, CallError>>) -> anyhow::Result<T> {
    let answer = timeout(GRACE, answer).await;
    let answer = answer.context("no answer to the first request")?;
    answer.context("the first request failed")
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

#[cfg(test)]
mod tests {
    use embeddables_proto::events::v1::events_service_server::EventsServiceServer;
    use tokio::net::TcpListener;
    use tonic::transport::Server;
    use tonic::transport::server::TcpIncoming;

    use super::*;
    use crate::null_server::NullService;

    /// Runs a load of so many calls against the null server.
    async fn run_against_null(count: u64, change: impl FnOnce(&mut LoadConfig)) -> LoadReport {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = Server::builder()
            .add_service(EventsServiceServer::new(NullService))
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(server);
        let mut config = LoadConfig {
            address: Address::Tcp(address),
            callers: 3,
            connections: 2,
            batch: None,
            stream: false,
            window: 50,
            rate: None,
            seconds: 60.0,
            count: Some(count),
            ids: true,
            projects: 0,
        };
        change(&mut config);
        let report = LocalSet::new().run_until(run(&config)).await;
        server.abort();
        report.expect("a report")
    }

    #[tokio::test]
    async fn every_message_of_every_stream_is_answered() {
        let report = run_against_null(2_000, |config| config.stream = true).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.count, report.calls, report.warm_up), (2_000, 2_000, 3));
    }

    #[tokio::test]
    async fn a_window_of_one_is_a_call_at_a_time() {
        let change = |config: &mut LoadConfig| (config.stream, config.window) = (true, 1);
        let report = run_against_null(50, change).await;
        assert!(report.is_clean() && report.count == 50, "{report:?}");
    }

    #[tokio::test]
    async fn every_event_of_every_batch_is_answered() {
        let report = run_against_null(20, |config| config.batch = Some(10)).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.count, report.calls, report.warm_up), (200, 20, 20));
    }
}
