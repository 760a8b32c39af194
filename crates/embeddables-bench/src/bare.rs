//! The bare loop: a reqwest client that sends events upstream and does nothing else, so many at once as it may.
//!
//! It is the bound of what a sidecar that delivers with this client can reach: no queue, no encoding, nothing settled. The
//! bodies are those that the sidecar sends.
//!
//! # Invariants
//! 1. Only an answer of 2xx, read to its end, is a delivery; whatever else happens is an error and is counted as one.
//! 2. It ends by itself: no request begins after the given time, and none takes longer than [`GRACE`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;

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
    /// Requests under way.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub in_flight: u32,
    /// Time to send requests, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0)]
    pub seconds: f64,
}

/// What the loop came to: the JSON line that `bare` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BareReport {
    /// Events delivered.
    pub delivered: u64,
    /// Requests that were none.
    pub errors: u64,
    /// The same by status; `client` where there was no answer.
    pub by_status: BTreeMap<String, u64>,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Events delivered a second.
    pub rate: f64,
    /// CPU time of this process.
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
/// Where no client can be made.
pub async fn execute(config: BareConfig) -> anyhow::Result<bool> {
    let report = run(&config).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(report.is_clean())
}

/// What all senders share.
struct Shared {
    client: reqwest::Client,
    config: BareConfig,
    bodies: Vec<Bytes>,
    next_body: AtomicUsize,
    end: Instant,
}

async fn run(config: &BareConfig) -> anyhow::Result<BareReport> {
    let bodies: serde_json::Result<Vec<Bytes>> = (0..VARIANT_EVENTS)
        .map(|index| upstream_body(index).map(Bytes::from))
        .collect();
    let start = Instant::now();
    let shared = Arc::new(Shared {
        client: client(config.in_flight)?,
        config: config.clone(),
        bodies: bodies?,
        next_body: AtomicUsize::new(0),
        end: start + Duration::from_secs_f64(config.seconds),
    });
    let mut senders = JoinSet::new();
    for _ in 0..config.in_flight {
        senders.spawn(Arc::clone(&shared).keep_sending());
    }
    let mut report = BareReport::default();
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
    report.cpu_seconds = proc_fs::cpu_seconds(std::process::id())?;
    Ok(report)
}

/// A client as the sidecar has one, for plain HTTP: no TLS connection is ever made.
fn client(in_flight: u32) -> anyhow::Result<reqwest::Client> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .pool_max_idle_per_host(in_flight as usize)
        .tcp_nodelay(true)
        .timeout(GRACE)
        .build()
        .context("cannot make a client")
}

impl Shared {
    async fn keep_sending(self: Arc<Self>) -> BareReport {
        let mut report = BareReport::default();
        while Instant::now() < self.end {
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

    async fn send(&self) -> reqwest::Result<reqwest::StatusCode> {
        let body = self.next_body.fetch_add(1, Ordering::Relaxed) % self.bodies.len();
        let response = self
            .client
            .post(&self.config.url)
            .header("x-api-key", &self.config.key)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(self.bodies[body].clone())
            .send()
            .await?;
        let status = response.status();
        response.bytes().await?;
        Ok(status)
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

    /// Answers each request of a connection with a status; gives the bodies that came.
    async fn serve(stream: TcpStream, status: u16, bodies: &std::sync::Mutex<Vec<String>>) {
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
            bodies
                .lock()
                .expect("not poisoned")
                .push(String::from_utf8(body).expect("text"));
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\n{{}}");
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
    }

    async fn run_against(status: u16) -> (BareReport, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let bodies = Arc::new(std::sync::Mutex::new(Vec::new()));
        let shared = Arc::clone(&bodies);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let bodies = Arc::clone(&shared);
                tokio::spawn(async move { serve(stream, status, &bodies).await });
            }
        });
        let config = BareConfig {
            url: format!("http://{address}/projects/pr_1/events"),
            key: "rk_test".to_owned(),
            in_flight: 4,
            seconds: 0.05,
        };
        let report = run(&config).await.expect("a report");
        server.abort();
        let bodies = std::mem::take(&mut *bodies.lock().expect("not poisoned"));
        (report, bodies)
    }

    #[tokio::test]
    async fn each_answer_of_2xx_is_a_delivery() {
        let (report, bodies) = run_against(200).await;
        assert!(report.is_clean() && report.seconds >= 0.05);
        assert_eq!(report.delivered, bodies.len() as u64);
        assert!(bodies.contains(&upstream_body(0).expect("a body")));
    }

    #[tokio::test]
    async fn any_other_answer_is_an_error() {
        let (report, bodies) = run_against(429).await;
        assert_eq!((report.delivered, report.errors), (0, bodies.len() as u64));
        assert_eq!(report.by_status, [("429".to_owned(), report.errors)].into());
        assert!(!report.is_clean());
    }
}
