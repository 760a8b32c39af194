//! The bare loop: an HTTP client that sends events upstream and does nothing else, so many at once as it may.
//!
//! It is the bound of what a sidecar that delivers with this client can reach: no queue, no encoding, nothing settled. The
//! bodies are those that the sidecar sends.
//!
//! # Invariants
//! 1. The clock starts after each client has sent one event: its connection is there by then, and over HTTP/2 it needs no other.
//! 2. Only an answer of 2xx, read to its end, is a delivery; whatever else happens is an error and is counted as one.
//! 3. It ends by itself: no request begins after the given time or beyond the given number, and none takes longer than
//!    [`GRACE`].

mod transport;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::transport::Library;
use self::transport::Transport;
use crate::event::upstream_body;
use crate::proc_fs;

/// Longest time for one request.
pub const GRACE: Duration = Duration::from_secs(10);
/// Events that differ before they repeat.
const VARIANT_EVENTS: u32 = 1_000;

/// Where to send events, how many at once, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct BareConfig {
    /// URL of the events of a project.
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// Key of the project: one that the mock takes. Never a real one, since arguments can be seen by others.
    #[arg(long, value_name = "KEY", default_value = "rk_benchmark")]
    pub key: String,
    /// What it sends with.
    #[arg(long, value_enum, default_value_t)]
    pub library: Library,
    /// Requests under way.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub in_flight: u32,
    /// Clients that send in turn. Over HTTP/2 each has one connection; over HTTP/1.1 as many as it needs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
    /// Certificate (PEM) of the authority to trust, for `https://`: HTTP/2, where the server speaks it.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Longest time to send requests, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0)]
    pub seconds: f64,
    /// Most requests to send, those of the warm-up not counted. Default: as many as fit into the time.
    #[arg(long, value_name = "REQUESTS")]
    pub count: Option<u64>,
}

/// What the loop came to: the JSON line that `bare` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BareReport {
    /// Events delivered.
    pub delivered: u64,
    /// Events delivered on top of these before the clock started.
    pub warm_up: u64,
    /// Requests that were none.
    pub errors: u64,
    /// The same by status; `client` where there was no answer.
    pub by_status: BTreeMap<String, u64>,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Events delivered a second.
    pub rate: f64,
    /// CPU time of this process after the warm-up.
    pub cpu_seconds: f64,
}

impl BareReport {
    /// Whether every request was a delivery.
    pub fn is_clean(&self) -> bool {
        self.delivered > 0 && self.errors == 0
    }
}

/// Runs the loop and prints its report. Gives whether every request was a delivery.
///
/// # Errors
/// Where no client can be made, or the first event of one is not delivered.
pub async fn execute(config: BareConfig) -> anyhow::Result<bool> {
    let report = run(&config).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(report.is_clean())
}

/// What all senders share.
struct Shared {
    clients: Vec<Transport>,
    config: BareConfig,
    bodies: Vec<Bytes>,
    next: AtomicUsize,
    /// Requests that may still begin.
    left: AtomicU64,
}

async fn run(config: &BareConfig) -> anyhow::Result<BareReport> {
    let bodies: serde_json::Result<Vec<Bytes>> = (0..VARIANT_EVENTS)
        .map(|index| upstream_body(index).map(Bytes::from))
        .collect();
    let mut clients = Vec::new();
    for _ in 0..config.connections {
        clients.push(Transport::open(config).await?);
    }
    let shared = Arc::new(Shared {
        clients,
        config: config.clone(),
        bodies: bodies?,
        next: AtomicUsize::new(0),
        left: AtomicU64::new(config.count.unwrap_or(u64::MAX)),
    });
    for _ in &shared.clients {
        let status = shared.send().await.context("the first event failed")?;
        ensure!(status.is_success(), "the first event was answered {status}");
    }
    let cpu_before = proc_fs::cpu_seconds(std::process::id())?;
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(config.seconds);
    let mut senders = JoinSet::new();
    for _ in 0..config.in_flight {
        senders.spawn(Arc::clone(&shared).keep_sending(end));
    }
    let mut report = BareReport {
        warm_up: shared.clients.len() as u64,
        ..BareReport::default()
    };
    while let Some(sent) = senders.join_next().await {
        let sent = sent.context("a sender failed")?;
        report.delivered += sent.delivered;
        report.errors += sent.errors;
        for (status, count) in sent.by_status {
            *report.by_status.entry(status).or_default() += count;
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    report.rate = report.delivered as f64 / report.seconds;
    report.cpu_seconds = proc_fs::cpu_seconds(std::process::id())? - cpu_before;
    Ok(report)
}

impl Shared {
    async fn keep_sending(self: Arc<Self>, end: Instant) -> BareReport {
        let mut report = BareReport::default();
        while Instant::now() < end && self.may_begin() {
            let status = self.send().await;
            match status {
                Ok(status) if status.is_success() => report.delivered += 1,
                Ok(status) => report.fail(status.as_u16().to_string()),
                Err(error) => {
                    if report.errors == 0 {
                        eprintln!("request failed: {error}");
                    }
                    report.fail("client".to_owned());
                }
            }
        }
        report
    }

    /// Whether another request may begin; if so it is counted.
    fn may_begin(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
    }

    async fn send(&self) -> anyhow::Result<StatusCode> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let client = &self.clients[turn % self.clients.len()];
        let body = self.bodies[turn % self.bodies.len()].clone();
        client.send(&self.config, body).await
    }
}

impl BareReport {
    fn fail(&mut self, status: String) {
        self.errors += 1;
        *self.by_status.entry(status).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What the server of a test has to know and tells.
    struct Seen {
        /// Requests answered 200 before `status` is the answer.
        good: usize,
        status: u16,
        bodies: std::sync::Mutex<Vec<String>>,
    }

    impl Seen {
        /// Takes a body; gives the status of its answer.
        fn take(&self, body: String) -> u16 {
            let mut bodies = self.bodies.lock().expect("not poisoned");
            bodies.push(body);
            if bodies.len() <= self.good {
                200
            } else {
                self.status
            }
        }
    }

    /// Answers each request of a connection.
    async fn serve(stream: TcpStream, seen: &Seen) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut length_bytes = 0;
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap_or_default() == 0 {
                    return;
                }
                let line = line.trim_end().to_ascii_lowercase();
                if let Some(length) = line.strip_prefix("content-length: ") {
                    length_bytes = length.parse().expect("a length");
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length_bytes];
            stream.read_exact(&mut body).await.expect("a body");
            let status = seen.take(String::from_utf8(body).expect("text"));
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\n{{}}");
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
    }

    /// Runs two clients against a server that answers `good` requests with 200 and the others with `status`: so many
    /// requests, or for a short time.
    async fn run_against(
        good: usize,
        status: u16,
        count: Option<u64>,
    ) -> (anyhow::Result<BareReport>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen {
            good,
            status,
            bodies: std::sync::Mutex::default(),
        });
        let shared = Arc::clone(&seen);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&shared);
                tokio::spawn(async move { serve(stream, &seen).await });
            }
        });
        let config = BareConfig {
            url: format!("http://{address}/projects/pr_1/events"),
            key: "rk_test".to_owned(),
            library: Library::Reqwest,
            in_flight: 4,
            connections: 2,
            ca: None,
            seconds: if count.is_some() { 60.0 } else { 0.05 },
            count,
        };
        let report = run(&config).await;
        server.abort();
        let bodies = std::mem::take(&mut *seen.bodies.lock().expect("not poisoned"));
        (report, bodies)
    }

    #[tokio::test]
    async fn each_answer_of_2xx_is_a_delivery() {
        let (report, bodies) = run_against(usize::MAX, 200, None).await;
        let report = report.expect("a report");
        assert!(report.is_clean() && report.seconds >= 0.05);
        assert_eq!(report.warm_up, 2);
        assert_eq!(report.delivered + report.warm_up, bodies.len() as u64);
        assert!(bodies.contains(&upstream_body(0).expect("a body")));
    }

    #[tokio::test]
    async fn no_more_is_sent_than_asked_for() {
        let (report, bodies) = run_against(usize::MAX, 200, Some(50)).await;
        let report = report.expect("a report");
        assert_eq!((report.delivered, report.errors, bodies.len()), (50, 0, 52));
    }

    #[tokio::test]
    async fn any_other_answer_is_an_error() {
        let (report, bodies) = run_against(2, 429, None).await;
        let report = report.expect("a report");
        assert_eq!((report.delivered, report.errors), (0, bodies.len() as u64 - 2));
        assert_eq!(report.by_status, [("429".to_owned(), report.errors)].into());
        assert!(!report.is_clean());
    }

    #[tokio::test]
    async fn nothing_is_measured_where_the_first_event_of_a_client_fails() {
        let (report, bodies) = run_against(1, 401, None).await;
        let error = report.expect_err("no report");
        assert!(error.to_string().contains("401"), "{error:#}");
        assert_eq!(bodies.len(), 2);
    }
}
