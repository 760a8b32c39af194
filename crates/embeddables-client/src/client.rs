//! The client: one call, one request, one classified outcome.
//!
//! # Invariants
//! 1. One call of [`Client::send`] sends at most one request: nothing is retried and no redirect is followed. The one
//!    exception harms nothing: a request of which no byte was written, because an idle connection turned out to be closed,
//!    is written to another one.
//! 2. Every failure is classified; none is returned as an error.
//! 3. An attempt ends within its time, whatever the server does, and takes at most 64 KiB of the answer's body.
//!
//! Absent on purpose: retries, back-off, rate limits, clocks other than for the attempt's own time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use embeddables_core::{Attempt, Fate, ValidEvent, Verdict};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use tokio::time::{Instant, timeout_at};

use crate::classify::{classify, needs_body};
use crate::config::{self, ClientConfig, ConfigError};
use crate::connections::{Connections, Place};
use crate::endpoint::Endpoint;
use crate::redact::excerpt;
use crate::transport;
use crate::wire::{self, KEY_HEADER, UpstreamRequest};

/// Most that is read of an answer's body, in bytes.
pub const BODY_MAX_BYTES: usize = 64 * 1024;

/// Time given to a body that changes nothing: enough to keep the connection where it is there already.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

const JSON: &str = "application/json";

/// HTTP client of the events API. A clone shares its connections.
#[derive(Clone, Debug)]
pub struct Client {
    connections: Arc<Connections>,
    config: Arc<ClientConfig>,
    connect_timeout: Duration,
}

impl Client {
    /// Makes a client; opens no connection.
    ///
    /// # Errors
    /// Where the configuration cannot be used.
    pub fn new(config: ClientConfig) -> Result<Self, ConfigError> {
        if config.connect_timeout.is_zero() || config.attempt_timeout.is_zero() {
            return Err(ConfigError::ZeroTimeout);
        }
        let user_agent = HeaderValue::from_str(&config.user_agent).map_err(|_| ConfigError::UserAgent)?;
        let connect_timeout = config.connect_timeout.min(config.attempt_timeout / 2);
        let tls = config::tls(&config)?;
        let mut proxy = None;
        if let Some(url) = &config.proxy {
            proxy = Some(reqwest::Proxy::all(url).map_err(|_| ConfigError::Proxy)?);
        }
        let builder = || {
            let builder = reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .user_agent(user_agent.clone())
                .connect_timeout(connect_timeout)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .no_proxy()
                .pool_idle_timeout(config.pool_idle_timeout)
                .pool_max_idle_per_host(config.pool_max_idle)
                .tcp_nodelay(true)
                .tcp_keepalive(Duration::from_secs(30))
                .http2_keep_alive_interval(Duration::from_secs(20))
                .http2_keep_alive_timeout(Duration::from_secs(10))
                .http2_max_header_list_size(64 * 1024);
            match &proxy {
                Some(proxy) => builder.proxy(proxy.clone()),
                None => builder,
            }
        };
        let connections = Connections::new(config.http2_connections, builder);
        let connections = connections.map_err(|source| ConfigError::Http { source })?;
        Ok(Self {
            connections: Arc::new(connections),
            config: Arc::new(config),
            connect_timeout,
        })
    }

    /// Returns the configuration in use.
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Sends one event and says what became of it. An event of another project is not sent. Where a connection is being opened
    /// already it waits for that one, half a second at most for each, before the attempt's time begins.
    ///
    /// # Cancel safety
    /// Dropping the future ends the exchange at whatever point it is: the attempt is ambiguous then.
    pub async fn send(&self, endpoint: &Endpoint, event: &ValidEvent) -> Attempt {
        if event.project_id() != endpoint.project_id() {
            return wrong_project();
        }
        let place = self.connections.take().await;
        let request = place
            .http()
            .post(endpoint.events_url().clone())
            .header(CONTENT_TYPE, HeaderValue::from_static(JSON))
            .body(wire::body(event));
        self.exchange(place, endpoint, request, Some(event)).await
    }

    /// Returns the request that [`Client::send`] would make: for a preview. Sends nothing.
    #[expect(clippy::expect_used, reason = "made of strings alone")]
    pub fn request(&self, endpoint: &Endpoint, event: &ValidEvent) -> UpstreamRequest {
        UpstreamRequest {
            method: "POST",
            url: endpoint.events_url().to_string(),
            headers: vec![
                ("X-Api-Key", "[redacted]".to_owned()),
                ("Content-Type", JSON.to_owned()),
                ("Accept", JSON.to_owned()),
                ("User-Agent", self.config.user_agent.clone()),
            ],
            body: String::from_utf8(wire::body(event)).expect("JSON is UTF-8"),
        }
    }

    /// Asks upstream, without creating an event, whether the key is good for the project: reads one entry, of which
    /// nothing is kept.
    ///
    /// # Cancel safety
    /// Dropping the future ends the exchange; upstream changes nothing either way.
    pub async fn check_key(&self, endpoint: &Endpoint) -> KeyCheck {
        let place = self.connections.take().await;
        let request = place.http().get(endpoint.entries_url());
        let attempt = self.exchange(place, endpoint, request, None).await;
        let verdict = match attempt.verdict {
            Verdict::Delivered(_) => KeyVerdict::Accepted,
            Verdict::KeyRejected => KeyVerdict::Rejected,
            Verdict::EntryNotFound | Verdict::Refused | Verdict::Invalid | Verdict::Unavailable { .. } => {
                KeyVerdict::Unclear
            }
        };
        KeyCheck {
            verdict,
            http_status: attempt.http_status,
            detail: attempt.detail,
        }
    }

    /// Makes one exchange within the attempt's time and classifies it. Its place is given back with the last byte.
    async fn exchange(
        &self,
        place: Place,
        endpoint: &Endpoint,
        request: reqwest::RequestBuilder,
        event: Option<&ValidEvent>,
    ) -> Attempt {
        let deadline = Instant::now() + self.config.attempt_timeout;
        let request = request
            .header(KEY_HEADER, endpoint.api_key().header())
            .header(ACCEPT, HeaderValue::from_static(JSON));
        let mut response = match timeout_at(deadline, request.send()).await {
            Ok(Ok(response)) => {
                place.ended(true);
                response
            }
            Ok(Err(error)) => {
                place.ended(false);
                return transport::without_answer(&error, self.connect_timeout);
            }
            Err(_) => return transport::out_of_time(self.config.attempt_timeout),
        };
        let status = response.status().as_u16();
        let body_deadline = if needs_body(status) {
            deadline
        } else {
            deadline.min(Instant::now() + DRAIN_TIMEOUT)
        };
        let body = read_body(&mut response, body_deadline).await;
        let verdict = classify(status, response.headers(), &body, SystemTime::now());
        let is_delivered = matches!(verdict, Verdict::Delivered(_));
        Attempt {
            fate: Fate::of_status(status),
            detail: describe(status, &verdict),
            http_status: Some(status),
            excerpt: if is_delivered {
                None
            } else {
                excerpt(&body, event, endpoint.api_key())
            },
            verdict,
        }
    }
}

/// Reads at most [`BODY_MAX_BYTES`] until the deadline. What came is returned, also where the rest did not come: the
/// status line has decided already.
async fn read_body(response: &mut reqwest::Response, deadline: Instant) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Ok(Some(chunk))) = timeout_at(deadline, response.chunk()).await {
        let room = BODY_MAX_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == BODY_MAX_BYTES {
            break;
        }
    }
    body
}

fn describe(status: u16, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Delivered(receipt) if receipt.unparsed => {
            format!("delivered ({status}, body not understood)")
        }
        Verdict::Delivered(_) => format!("delivered ({status})"),
        Verdict::EntryNotFound => format!("no entry matches the identifier ({status} ENTRY_NOT_FOUND)"),
        Verdict::KeyRejected => format!("the API key was rejected ({status})"),
        Verdict::Refused if (300..400).contains(&status) => {
            format!("answered {status}, a redirect, which is not followed")
        }
        Verdict::Refused => format!("refused ({status})"),
        Verdict::Invalid => format!("upstream will not take the event as it is ({status})"),
        Verdict::Unavailable {
            retry_after: Some(pause),
        } => format!("answered {status}, retry after {}s", pause.as_secs()),
        Verdict::Unavailable { retry_after: None } => format!("answered {status}"),
    }
}

fn wrong_project() -> Attempt {
    Attempt {
        fate: Fate::NotSent,
        verdict: Verdict::Refused,
        http_status: None,
        detail: "the event belongs to another project than the endpoint".to_owned(),
        excerpt: None,
    }
}

/// What upstream says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCheck {
    /// Whether the key is good.
    pub verdict: KeyVerdict,
    /// Status of the answer; `None` where no status line came.
    pub http_status: Option<u16>,
    /// A few words for a person.
    pub detail: String,
}

/// Whether a key is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyVerdict {
    /// 2xx: upstream takes it.
    Accepted,
    /// 401: upstream does not take it.
    Rejected,
    /// Anything else: upstream was not reached, or its answer says nothing of the key.
    Unclear,
}
