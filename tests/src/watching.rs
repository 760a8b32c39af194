//! The caller's side of what becomes of events: outcomes as they happen, and the end of all that is under way.

use std::time::Duration;

use embeddables_proto::events::v1::{
    FlushRequest, FlushResponse, State, WatchOutcomesRequest, WatchOutcomesResponse,
};
use tonic::{Request, Status, Streaming};

use crate::calls::Client;
use crate::wait;

/// A stream of outcomes.
#[derive(Debug)]
pub struct Watch {
    stream: Streaming<WatchOutcomesResponse>,
}

/// From which outcome on, and which of them.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Where to go on; empty for now, `earliest` for the oldest kept.
    pub cursor: String,
    /// Only this project; empty for all.
    pub project: String,
    /// Only these states; empty for the final ones.
    pub states: Vec<State>,
}

impl Wanted {
    /// From the oldest outcome that is kept.
    pub fn earliest() -> Self {
        Self::from("earliest")
    }

    /// From a cursor on.
    pub fn from(cursor: impl Into<String>) -> Self {
        Self {
            cursor: cursor.into(),
            ..Self::default()
        }
    }
}

impl Watch {
    /// Opens a stream. It lasts longer than a usual call may.
    ///
    /// # Errors
    /// As the call does; also where the stream ends with an error before its first message and the call itself does not.
    pub async fn open(client: &Client, wanted: Wanted) -> Result<Self, Status> {
        let request = WatchOutcomesRequest {
            cursor: wanted.cursor,
            project_id: wanted.project,
            states: wanted.states.into_iter().map(Into::into).collect(),
        };
        let opened = client.clone().watch_outcomes(request).await?;
        Ok(Self {
            stream: opened.into_inner(),
        })
    }

    /// The next outcome.
    ///
    /// # Errors
    /// As the stream ends.
    ///
    /// # Panics
    /// Where none comes in time, or the stream ends well.
    pub async fn next(&mut self) -> Result<WatchOutcomesResponse, Status> {
        let message = wait::within("an outcome", wait::SOON, self.stream.message()).await?;
        Ok(message.expect("a stream of outcomes does not end by itself"))
    }

    /// The next outcomes.
    ///
    /// # Panics
    /// Where so many do not come.
    pub async fn take(&mut self, count: usize) -> Vec<WatchOutcomesResponse> {
        let mut outcomes = Vec::with_capacity(count);
        while outcomes.len() < count {
            match self.next().await {
                Ok(outcome) => outcomes.push(outcome),
                Err(status) => panic!("after {} of {count} outcomes: {status:?}", outcomes.len()),
            }
        }
        outcomes
    }
}

/// Id of the event that an outcome is about.
///
/// # Panics
/// Where it names none.
#[track_caller]
pub fn id(outcome: &WatchOutcomesResponse) -> &str {
    &outcome
        .status
        .as_ref()
        .expect("an outcome shows its event")
        .event_id
}

/// Waits for what is under way in a project, all of them where it is empty, with this deadline.
///
/// # Errors
/// As the call does.
pub async fn flush(client: &Client, project: &str, deadline: Duration) -> Result<FlushResponse, Status> {
    let mut request = Request::new(FlushRequest {
        project_id: project.to_owned(),
    });
    request.set_timeout(deadline);
    Ok(client.clone().flush(request).await?.into_inner())
}
