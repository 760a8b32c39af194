//! One request from its last byte to its answer: what it deserves, what the fault step makes of that, and
//! the wait in between.
//!
//! # Invariants
//! 1. All that is decided of a request is decided on arrival, in one go; after that it only waits.
//! 2. An error returned from here closes an HTTP/1.1 connection and resets an HTTP/2 stream
//!    (INTERNAL_ERROR), without an answer.

use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::connection::Connection;
use crate::control;
use crate::fault_plan::FaultPlan;
use crate::faults::{ResetPoint, Step};
use crate::received::{Arrival, Received, Ticket};
use crate::route::Route;
use crate::settings::{Rules, Settings, SettingsError};
use crate::upstream::{self, Call, MAX_BODY_BYTES, Outcome};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The requests so far.
    pub(crate) received: Arc<Received>,
    /// The faults to come.
    pub(crate) faults: FaultPlan,
    rules: RwLock<Arc<Rules>>,
}

impl Shared {
    /// A mock that knows nothing yet.
    pub(crate) fn new() -> Result<Self, SettingsError> {
        let rules = RwLock::new(Arc::new(Rules::new(Settings::default())?));
        Ok(Self {
            received: Arc::default(),
            faults: FaultPlan::default(),
            rules,
        })
    }

    /// The rules in force.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the settings.
    pub(crate) fn configure(&self, settings: Settings) -> Result<(), SettingsError> {
        let rules = Arc::new(Rules::new(settings)?);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        Ok(())
    }

    /// Back to the state of a start: default settings, no faults, nothing recorded.
    pub(crate) fn reset(&self) -> Result<(), SettingsError> {
        self.faults.clear();
        self.configure(Settings::default())?;
        self.received.reset();
        Ok(())
    }
}

/// Why a request gets no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// A fault step wants it so.
    #[error("closed without an answer on demand")]
    OnDemand,
    /// The body broke off.
    #[error("the request body broke off")]
    Incomplete,
}

/// Answers one request.
pub(crate) async fn handle(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Unanswered> {
    let (head, body) = request.into_parts();
    let is_control = control::owns(head.uri.path());
    let Ok(body) = read_body(body).await else {
        if !is_control {
            shared.received.incomplete();
        }
        return Err(Unanswered::Incomplete);
    };
    if is_control {
        return Ok(respond(control::handle(&shared, &head, body.as_deref()), None));
    }
    let plan = Plan::new(&shared, &connection, &head, body);
    if !plan.wait.is_zero() {
        tokio::time::sleep(plan.wait).await;
    }
    let Some(answer) = plan.answer else {
        if plan.is_reset && head.version < Version::HTTP_2 {
            connection.reset_on_close();
        }
        return Err(Unanswered::OnDemand);
    };
    plan.ticket.answered();
    let cut = plan.kept_bytes.map(|kept_bytes| Cut {
        kept_bytes,
        // An HTTP/2 stream simply ends early, which the promised length shows to be wrong; the end of an
        // HTTP/1.1 body is the end of its connection.
        connection: (head.version < Version::HTTP_2).then_some(connection),
    });
    Ok(respond(answer, cut))
}

/// Reads a whole body; `None` if it is too large.
async fn read_body(body: Incoming) -> Result<Option<Bytes>, Unanswered> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(Some(collected.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        Err(_) => Err(Unanswered::Incomplete),
    }
}

/// What will happen to a request, decided on arrival.
struct Plan {
    ticket: Ticket,
    wait: Duration,
    answer: Option<Answer>,
    is_reset: bool,
    kept_bytes: Option<usize>,
}

impl Plan {
    fn new(shared: &Shared, connection: &Connection, head: &Parts, body: Option<Bytes>) -> Self {
        let rules = shared.rules();
        let route = Route::of(head.uri.path());
        let step = shared.faults.take(route.project());
        let fault = step.as_deref();
        let outcome = fault.is_none_or(carries_out).then(|| {
            let query = head.uri.query().unwrap_or_default();
            let call = Call {
                method: &head.method,
                route,
                query,
                headers: &head.headers,
                body: body.as_deref(),
                now: Instant::now(),
            };
            upstream::carry_out(&rules, call)
        });
        let created = outcome.as_ref().is_some_and(|outcome| outcome.created);
        let answer = match fault {
            None => outcome.map(|outcome| outcome.answer),
            Some(step) => answer_of(step, outcome),
        };
        let arrival = Arrival {
            connection: connection.number,
            head,
            project: route.project(),
            is_event: matches!(route, Route::Events { .. }),
            body: body.unwrap_or_default(),
            created,
            answer: answer.as_ref(),
            fault: step.clone(),
        };
        let ticket = shared.received.arrive(arrival, rules.settings().record_requests);
        let wait = match fault.and_then(|step| step.hang_ms) {
            Some(hang_ms) => Duration::from_millis(hang_ms),
            None => {
                rules.latency() + Duration::from_millis(fault.and_then(|step| step.latency_ms).unwrap_or(0))
            }
        };
        let cut = fault.and_then(|step| step.truncate);
        let kept_bytes = cut
            .zip(answer.as_ref())
            .and_then(|(cut, answer)| cut.kept_bytes(answer.body.len()));
        Self {
            ticket,
            wait,
            answer,
            is_reset: fault.is_some_and(|step| step.reset.is_some()),
            kept_bytes,
        }
    }
}

/// The status of the answer that a step makes up, if it does.
fn status_of(step: &Step) -> Option<StatusCode> {
    let default = if step.redirect.is_some() {
        Some(StatusCode::TEMPORARY_REDIRECT)
    } else {
        step.body.as_ref().map(|_| StatusCode::OK)
    };
    // A step is checked when it is pushed: its status is one.
    step.status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .or(default)
}

/// Whether a request that consumes this step is carried out.
fn carries_out(step: &Step) -> bool {
    step.hang_ms.is_none()
        && step.reset != Some(ResetPoint::Before)
        && status_of(step).is_none_or(|status| status.is_success())
}

/// The answer to a request that consumes this step; `None` if it gets none.
fn answer_of(step: &Step, outcome: Option<Outcome>) -> Option<Answer> {
    if step.hang_ms.is_some() || step.reset.is_some() {
        return None;
    }
    let Some(status) = status_of(step) else {
        return outcome.map(|outcome| outcome.answer);
    };
    let mut answer = match (&step.body, outcome) {
        (Some(body), _) => Answer::text(status, Bytes::from(body.clone())),
        (
            None,
            Some(Outcome {
                answer,
                created: true,
            }),
        ) => Answer { status, ..answer },
        (None, _) => Answer::of_status(status),
    };
    let retry_after = step
        .retry_after
        .as_ref()
        .and_then(|retry_after| retry_after.header().ok());
    let location = step
        .redirect
        .as_deref()
        .and_then(|text| HeaderValue::from_str(text).ok());
    answer
        .headers
        .extend(retry_after.map(|value| (RETRY_AFTER, value)));
    answer.headers.extend(location.map(|value| (LOCATION, value)));
    Some(answer)
}

fn respond(answer: Answer, cut: Option<Cut>) -> Response<AnswerBody> {
    let promised_bytes = cut.as_ref().map(|_| answer.body.len().max(1));
    let body = match cut {
        None => AnswerBody {
            data: answer.body,
            cut: None,
        },
        Some(cut) => AnswerBody {
            data: answer.body.slice(..cut.kept_bytes),
            cut: Some(cut.into()),
        },
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, answer.content_type);
    headers.extend(answer.headers);
    if let Some(bytes) = promised_bytes {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    response
}

/// Where the body of an answer is cut.
struct Cut {
    kept_bytes: usize,
    connection: Option<Arc<Connection>>,
}

impl From<Cut> for CutState {
    fn from(cut: Cut) -> Self {
        Self {
            connection: cut.connection,
            seen_flush: None,
        }
    }
}

/// The body of an answer: whole, or cut after `data`.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    data: Bytes,
    cut: Option<CutState>,
}

#[derive(Debug)]
struct CutState {
    /// The connection to close after `data`; `None` to end the stream there.
    connection: Option<Arc<Connection>>,
    /// Number of the last flush before the end of `data` was handed over.
    seen_flush: Option<u64>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Unanswered;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unanswered>>> {
        if !self.data.is_empty() {
            let data = std::mem::take(&mut self.data);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let Some(CutState {
            connection: Some(connection),
            seen_flush,
        }) = &mut self.cut
        else {
            return Poll::Ready(None);
        };
        // The error below drops what is not written yet: wait until head and data have left.
        let seen = *seen_flush.get_or_insert_with(|| connection.flush_count());
        connection
            .poll_flushed_after(seen, context)
            .map(|()| Some(Err(Unanswered::OnDemand)))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.cut.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.cut {
            None => SizeHint::with_exact(self.data.len() as u64),
            Some(_) => SizeHint::new(),
        }
    }
}
