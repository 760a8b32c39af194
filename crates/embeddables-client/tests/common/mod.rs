//! What the tests share: an event, an endpoint, and a server that does to each connection what a test says.

#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(unreachable_pub, reason = "a module of several test binaries")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embeddables_client::{ApiKey, BaseUrl, Client, ClientConfig, Endpoint};
use embeddables_core::{
    Attempt, Defaults, Event, EventId, Fate, Identifier, IdentifierValue, ProjectId, Properties, Rules,
    Timestamp, ValidEvent,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const KEY: &str = "rk_c4n4ry_key";

pub const CREATED: &str =
    r#"{"entry_id":"en_1","contact_id":"co_1","group_id":"gr_1","embeddable_version_number":"3"}"#;

pub fn validate(event: &Event) -> ValidEvent {
    let project = ProjectId::parse("pr_1").unwrap();
    let now = Timestamp::from_unix(1_640_995_200, 0).unwrap();
    let defaults = Defaults {
        project_id: Some(&project),
        event_id: EventId::parse("e-1").unwrap(),
        now,
    };
    event.validate(&defaults, &Rules::default()).unwrap()
}

pub fn valid_event() -> ValidEvent {
    validate(&Event {
        embeddable_id: "flow_a1".to_owned(),
        name: "visit_completed".to_owned(),
        identifier: Some(Identifier {
            key: "email".to_owned(),
            value: Some(IdentifierValue::String("canary@test.com".to_owned())),
        }),
        properties: Properties::Json(r#"{"diagnosis":"canary-illness"}"#.to_owned()),
        ..Event::default()
    })
}

pub fn endpoint(base: &str) -> Endpoint {
    Endpoint::new(
        BaseUrl::parse(base).unwrap(),
        ProjectId::parse("pr_1").unwrap(),
        ApiKey::parse(KEY).unwrap(),
    )
}

pub fn client(attempt_timeout: Duration) -> Client {
    Client::new(ClientConfig {
        attempt_timeout,
        ..ClientConfig::default()
    })
    .unwrap()
}

/// Sends one event to a base URL with the time that a slow machine needs.
pub async fn send(base: &str) -> Attempt {
    checked(
        client(Duration::from_secs(20))
            .send(&endpoint(base), &valid_event())
            .await,
    )
}

/// Every attempt's words are free of canaries.
pub fn checked(attempt: Attempt) -> Attempt {
    assert!(
        !format!("{attempt:?}").to_lowercase().contains("canary"),
        "{attempt:?}"
    );
    assert!(!format!("{attempt:?}").contains("c4n4ry"), "{attempt:?}");
    attempt
}

/// A server on a port of its own; ends with the test's runtime.
pub struct Upstream {
    pub address: SocketAddr,
    /// Every request read completely, head and body, in order.
    pub requests: Arc<Mutex<Vec<String>>>,
    /// Connections accepted.
    pub connections: Arc<Mutex<usize>>,
}

impl Upstream {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn request_count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// Does `serve` to each connection.
    pub async fn start<F>(serve: impl Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
        };
        let (requests, connections) = (Arc::clone(&upstream.requests), Arc::clone(&upstream.connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *connections.lock().unwrap() += 1;
                tokio::spawn(serve(stream, Arc::clone(&requests)));
            }
        });
        upstream
    }

    /// Answers every request with these bytes, and closes the connection after it where `close`.
    pub async fn answering(answer: impl Into<Vec<u8>>, close: bool) -> Self {
        let answer = Arc::new(answer.into());
        Self::start(move |mut stream, requests| {
            let answer = Arc::clone(&answer);
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    requests.lock().unwrap().push(request);
                    if stream.write_all(&answer).await.is_err() || close {
                        return;
                    }
                }
            }
        })
        .await
    }
}

/// Reads one request with its body; `None` where the connection ends.
pub async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8_lossy(&text).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |n| n.trim().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    text.extend_from_slice(&body);
    Some(String::from_utf8(text).unwrap())
}

/// Reads one request and notes it.
pub async fn log_request(stream: &mut TcpStream, requests: &Mutex<Vec<String>>) {
    let request = read_request(stream).await;
    requests.lock().unwrap().extend(request);
}

pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[track_caller]
pub fn check(attempt: &Attempt, fate: Fate, verdict: &str, status: Option<u16>) {
    assert_eq!(
        (attempt.fate, attempt.verdict.as_str(), attempt.http_status),
        (fate, verdict, status),
        "{attempt:?}"
    );
}
