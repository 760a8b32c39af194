//! Faults on demand: scripts of steps, each consumed by one request. The body of `POST /_mock/faults`.
//!
//! A script that was accepted can be carried out: whatever would fail later is refused when it is pushed.

use std::time::Duration;

use hyper::header::{HeaderValue, InvalidHeaderValue};
use serde::{Deserialize, Serialize};

use crate::settings::MAX_WAIT_MS;

/// Most scripts waiting at once.
pub(crate) const MAX_SCRIPTS: usize = 10_000;
/// Most steps in one script.
pub(crate) const MAX_STEPS: usize = 100_000;

/// A sequence of faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultScript {
    /// The project whose requests it meets. Default: every request outside `/_mock/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Rounds through `steps`. Default: 1; `0` is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// What happens to one request after the other. An empty list ends the scripts of `project` (of all
    /// projects without one) that were pushed before.
    pub steps: Vec<Step>,
}

impl FaultScript {
    /// One round through `steps`, whatever the project.
    pub fn once(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            project: None,
            times: None,
            steps: steps.into_iter().collect(),
        }
    }

    /// `steps` over and over until faults are cleared, whatever the project.
    pub fn forever(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            project: None,
            times: Some(0),
            steps: steps.into_iter().collect(),
        }
    }

    /// The same script for the requests of one project only.
    #[must_use]
    pub fn for_project(self, project: impl Into<String>) -> Self {
        Self {
            project: Some(project.into()),
            ..self
        }
    }
}

/// What happens to one request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// Answers with this status (200 to 999) without looking at the request; a 2xx carries it out first and
    /// answers as usual except for the status (and `body`, if given).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Header `Retry-After` of the answer, verbatim. Needs `status`, `redirect` or `body`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfter>,
    /// Waits this long in milliseconds, then closes the connection (HTTP/2: resets the stream) without an
    /// answer. The request is not carried out. Stands alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hang_ms: Option<u64>,
    /// Waits this long in milliseconds before the answer or reset, on top of the base latency. A request that
    /// is carried out at all is so before the wait: a client that gives up meanwhile has created its event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// Resets the connection (HTTP/2: the stream, INTERNAL_ERROR). Stands alone or with `latency_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<ResetPoint>,
    /// Cuts the body of the answer although `Content-Length` promises all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<Truncate>,
    /// Answers with this `Location`, verbatim, and status 307 unless `status` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<String>,
    /// Answers with this body, verbatim, and status 200 unless `status` is given. Its content type is JSON if
    /// it parses as such, else HTML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// When a connection is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResetPoint {
    /// Before the request is carried out: no event was created.
    Before,
    /// After the request was carried out: its event was created, only the answer is missing.
    After,
}

/// The value of `Retry-After`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "retry_after is a number of seconds or a string")]
pub enum RetryAfter {
    /// Seconds.
    Seconds(u64),
    /// Any text: a date, or garbage.
    Text(String),
}

impl RetryAfter {
    /// The value as a header carries it.
    pub(crate) fn header(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        match self {
            Self::Seconds(seconds) => Ok(HeaderValue::from(*seconds)),
            Self::Text(text) => HeaderValue::from_str(text),
        }
    }
}

/// Where the body of an answer is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "truncate is true or a number of bytes")]
pub enum Truncate {
    /// `true`: in the middle; `false`: not at all.
    Half(bool),
    /// After this many bytes, or one byte before the end if it is shorter.
    Bytes(usize),
}

impl Truncate {
    /// How many bytes of a body of `len` bytes are sent; `None` for all.
    pub(crate) fn kept_bytes(self, len: usize) -> Option<usize> {
        match self {
            Self::Half(false) => None,
            Self::Half(true) => Some(len / 2),
            Self::Bytes(bytes) => Some(bytes.min(len.saturating_sub(1))),
        }
    }
}

impl Step {
    /// Answers with a status.
    pub fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            ..Self::default()
        }
    }

    /// Answers with a body, verbatim.
    pub fn body(body: impl Into<String>) -> Self {
        Self {
            body: Some(body.into()),
            ..Self::default()
        }
    }

    /// Answers as usual, later.
    pub fn latency(wait: Duration) -> Self {
        Self {
            latency_ms: Some(whole_milliseconds(wait)),
            ..Self::default()
        }
    }

    /// Never answers, and closes after `wait`.
    pub fn hang(wait: Duration) -> Self {
        Self {
            hang_ms: Some(whole_milliseconds(wait)),
            ..Self::default()
        }
    }

    /// Resets the connection.
    pub fn reset(point: ResetPoint) -> Self {
        Self {
            reset: Some(point),
            ..Self::default()
        }
    }

    /// Cuts the usual answer.
    pub fn truncate(cut: Truncate) -> Self {
        Self {
            truncate: Some(cut),
            ..Self::default()
        }
    }

    /// Answers 307 with a `Location`.
    pub fn redirect(location: impl Into<String>) -> Self {
        Self {
            redirect: Some(location.into()),
            ..Self::default()
        }
    }

    /// The same step with a `Retry-After`, verbatim.
    #[must_use]
    pub fn with_retry_after(self, text: impl Into<String>) -> Self {
        Self {
            retry_after: Some(RetryAfter::Text(text.into())),
            ..self
        }
    }

    /// The same step with a body, verbatim.
    #[must_use]
    pub fn with_body(self, body: impl Into<String>) -> Self {
        Self {
            body: Some(body.into()),
            ..self
        }
    }

    /// Whether the step makes up an answer of its own.
    fn answers(&self) -> bool {
        self.status.is_some() || self.redirect.is_some() || self.body.is_some()
    }

    /// The sentence that says what is wrong with the step.
    pub(crate) fn objection(&self) -> Option<&'static str> {
        let answers = self.answers() || self.truncate.is_some();
        let too_long = |wait: Option<u64>| wait.is_some_and(|wait| wait > MAX_WAIT_MS);
        if *self == Self::default() {
            Some("it is empty")
        } else if self.status.is_some_and(|status| !(200..=999).contains(&status)) {
            Some("status is not within 200 to 999")
        } else if self.hang_ms.is_some()
            && *self
                != (Self {
                    hang_ms: self.hang_ms,
                    ..Self::default()
                })
        {
            Some("hang_ms stands alone")
        } else if self.reset.is_some() && answers {
            Some("reset goes with latency_ms only")
        } else if self.retry_after.is_some() && !self.answers() {
            Some("retry_after needs status, redirect or body")
        } else if too_long(self.hang_ms) || too_long(self.latency_ms) {
            Some("a wait is longer than an hour")
        } else if !self.headers_are_good() {
            Some("retry_after or redirect has a character that no header may hold")
        } else {
            None
        }
    }

    fn headers_are_good(&self) -> bool {
        let retry_after = self.retry_after.as_ref().map(RetryAfter::header);
        let location = self.redirect.as_deref().map(HeaderValue::from_str);
        retry_after
            .into_iter()
            .chain(location)
            .all(|header| header.is_ok())
    }
}

fn whole_milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// Why a script was refused. None of its steps is in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// A step that cannot be carried out.
    #[error("steps[{index}] cannot be carried out: {objection}")]
    Step {
        /// Place of the step in the script, from 0.
        index: usize,
        /// What is wrong with it.
        objection: &'static str,
    },
    /// More steps or scripts than the mock keeps.
    #[error("too many faults: at most {MAX_SCRIPTS} scripts of {MAX_STEPS} steps")]
    TooMany,
}
