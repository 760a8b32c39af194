//! What was tried, as the upstream saw it: every request in order, with its event, its time and its answer.

use std::time::Duration;

use jiff::Timestamp;

use crate::event::id_of;
use crate::upstream::{Upstream, body_of};
use crate::wait;

/// One request that came.
#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    /// Id of the test event.
    pub id: String,
    /// Project that its path names.
    pub project: String,
    /// Status of the answer; `None` where none was given, or not yet.
    pub status: Option<u16>,
    /// Whether it created an event.
    pub created: bool,
    /// Key that it came with.
    pub key: String,
    /// When its last byte had arrived.
    pub time: Timestamp,
}

impl Try {
    /// Time from an earlier one to this one.
    ///
    /// # Panics
    /// Where the other is later.
    pub fn since(&self, earlier: &Self) -> Duration {
        let gap = self.time.duration_since(earlier.time);
        gap.try_into()
            .unwrap_or_else(|_| panic!("{earlier:?} is later than {self:?}"))
    }
}

impl Upstream {
    /// Every request so far, oldest first.
    ///
    /// # Panics
    /// Where a request is none of a test event's.
    pub fn tries(&self) -> Vec<Try> {
        let requests = self.requests().into_iter();
        requests
            .map(|request| {
                let body = body_of(&request);
                let id = id_of(&body).unwrap_or_else(|| panic!("a test event's body: {body}"));
                let project = request.path.split('/').rev().nth(1).unwrap_or_default();
                Try {
                    id: id.to_owned(),
                    project: project.to_owned(),
                    status: request.answer.as_ref().map(|answer| answer.status),
                    created: request.created,
                    key: request.header("x-api-key").unwrap_or_default().to_owned(),
                    time: request.time.parse().expect("the mock tells a time"),
                }
            })
            .collect()
    }

    /// Requests of one project so far, oldest first.
    pub fn tries_of(&self, project: &str) -> Vec<Try> {
        let mut tries = self.tries();
        tries.retain(|one| one.project == project);
        tries
    }

    /// Waits until so many requests have come, and gives all that have.
    ///
    /// # Panics
    /// Where that takes too long.
    pub async fn await_tries(&self, count: usize) -> Vec<Try> {
        wait::until(format!("{count} requests upstream"), wait::SOON, async || {
            (self.request_count() >= count).then(|| self.tries())
        })
        .await
    }
}

/// Ids of requests, in order.
pub fn ids(tries: &[Try]) -> Vec<&str> {
    tries.iter().map(|one| one.id.as_str()).collect()
}
