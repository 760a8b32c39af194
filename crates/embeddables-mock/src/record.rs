//! One request as it is kept: compact, and independent of the buffer it was read into; and as it is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use hyper::{HeaderMap, Method, Version};
use jiff::Timestamp;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::faults::Step;
use crate::received::Arrival;

/// What a kept request costs beside its texts, in bytes, roughly.
const RECORD_OVERHEAD_BYTES: usize = 256;

/// Requests kept, in the order in which they arrived.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Requests {
    /// The requests asked for that are kept.
    pub requests: Vec<ReceivedRequest>,
    /// Number of the newest request: the `since` of the next call.
    pub last: u64,
    /// How many of the requests asked for are missing, because they were dropped or never recorded.
    pub dropped: u64,
}

/// One request as it came, and what became of it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ReceivedRequest {
    /// Its number, rising from 1.
    pub number: u64,
    /// When its last byte had arrived: RFC 3339, UTC.
    pub time: String,
    /// Number of the connection it came by, rising from 1.
    pub connection: u64,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Headers with names in lower case, in order of arrival; as JSON an object in which the values of a
    /// repeated header are joined by `, `.
    #[serde(serialize_with = "headers_as_object")]
    pub headers: Vec<(String, String)>,
    /// The body as text; bytes that are not UTF-8 are replaced. Empty if it was larger than 8 MiB.
    pub body: String,
    /// Whether it created an event.
    pub created: bool,
    /// How far it has come.
    pub state: RequestState,
    /// The answer, once it was given.
    pub answer: Option<RecordedAnswer>,
    /// The fault step it consumed.
    pub fault: Option<Step>,
}

impl ReceivedRequest {
    /// The first value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RequestState {
    /// It waits for its answer.
    InFlight,
    /// It was answered, in full or (with `truncate`) in part.
    Answered,
    /// It got no answer and never will.
    Unanswered,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecordedAnswer {
    /// Its status.
    pub status: u16,
    /// Its whole body, also where `truncate` cut it.
    pub body: String,
}

/// A request as it is kept.
#[derive(Debug)]
pub(crate) struct Record {
    /// Number of the request; 0 until it has one.
    pub(crate) number: u64,
    time: Timestamp,
    connection: u64,
    version: Version,
    method: Method,
    path: Box<str>,
    /// A line a header, `name:value`.
    headers: Box<[u8]>,
    body: Box<[u8]>,
    created: bool,
    state: AtomicU8,
    answer: Option<(u16, Bytes)>,
    fault: Option<Arc<Step>>,
}

const IN_FLIGHT: u8 = 0;
const ANSWERED: u8 = 1;
const UNANSWERED: u8 = 2;

impl Record {
    /// Keeps what is known on arrival.
    pub(crate) fn new(arrival: &Arrival<'_>) -> Self {
        let head = arrival.head;
        Self {
            number: 0,
            time: Timestamp::now(),
            connection: arrival.connection,
            version: head.version,
            method: head.method.clone(),
            path: head.uri.path_and_query().map_or("/", |path| path.as_str()).into(),
            headers: header_lines(&head.headers),
            body: arrival.body[..].into(),
            created: arrival.created,
            state: AtomicU8::new(IN_FLIGHT),
            answer: arrival
                .answer
                .map(|answer| (answer.status.as_u16(), answer.body.clone())),
            fault: arrival.fault.clone(),
        }
    }

    /// Notes how the request ended.
    pub(crate) fn finish(&self, is_answered: bool) {
        self.state
            .store(if is_answered { ANSWERED } else { UNANSWERED }, Ordering::Release);
    }

    /// What it takes of memory, in bytes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let answer = self.answer.as_ref().map_or(0, |(_, body)| body.len());
        self.path.len() + self.headers.len() + self.body.len() + answer + RECORD_OVERHEAD_BYTES
    }

    /// The request as it is shown.
    pub(crate) fn to_request(&self) -> ReceivedRequest {
        let state = match self.state.load(Ordering::Acquire) {
            ANSWERED => RequestState::Answered,
            UNANSWERED => RequestState::Unanswered,
            _ => RequestState::InFlight,
        };
        let answer = self.answer.as_ref().filter(|_| state == RequestState::Answered);
        let lines = String::from_utf8_lossy(&self.headers);
        let headers = lines.lines().filter_map(|line| line.split_once(':'));
        ReceivedRequest {
            number: self.number,
            time: format!("{:.3}", self.time),
            connection: self.connection,
            version: format!("{:?}", self.version),
            method: self.method.to_string(),
            path: self.path.to_string(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: String::from_utf8_lossy(&self.body).into_owned(),
            created: self.created,
            state,
            answer: answer.map(|(status, body)| RecordedAnswer {
                status: *status,
                body: String::from_utf8_lossy(body).into_owned(),
            }),
            fault: self.fault.as_deref().cloned(),
        }
    }
}

/// A header value holds no line break, and a name no colon.
fn header_lines(headers: &HeaderMap) -> Box<[u8]> {
    let mut lines = Vec::with_capacity(256);
    for (name, value) in headers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.push(b':');
        lines.extend_from_slice(value.as_bytes());
        lines.push(b'\n');
    }
    lines.into_boxed_slice()
}

fn headers_as_object<S: Serializer>(headers: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for (index, (name, value)) in headers.iter().enumerate() {
        if headers[..index].iter().any(|(earlier, _)| earlier == name) {
            continue;
        }
        let repeats = headers[index + 1..].iter().filter(|(other, _)| other == name);
        let joined = repeats.fold(value.clone(), |joined, (_, next)| joined + ", " + next);
        map.serialize_entry(name, &joined)?;
    }
    map.end()
}
