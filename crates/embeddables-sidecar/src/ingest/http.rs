//! The HTTP drop-in: `POST /projects/{projectId}/events` with upstream's own body, so that an existing caller moves over by
//! changing its base address.
//!
//! # Invariants
//! 1. The caller's `X-Api-Key` is never read: events go out with the sidecar's own key.
//! 2. Every error is `application/problem+json` (RFC 9457) with the stable reason of `docs/errors.md`.

mod body;
mod problem;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use embeddables_core::Event;
use embeddables_proto::events::v1 as proto;
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use self::problem::Problem;
use super::admission::{MAX_WAIT, Options};
use super::refusal::Refusal;
use crate::pipeline::{Accepted, Pipeline};

/// Header that carries the event id (IETF draft `idempotency-key-header`).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What the endpoint needs to know.
#[derive(Clone)]
pub struct DropIn {
    /// The rooms.
    pub pipeline: Arc<Pipeline>,
    /// Status of an accepted event: 202, or 200 for callers that insist on the documented one.
    pub accepted_status: StatusCode,
    /// Largest body, in bytes.
    pub max_body_bytes: usize,
}

/// The routes.
pub fn router(drop_in: DropIn) -> Router {
    Router::new()
        .route("/projects/{project_id}/events", post(publish))
        .fallback(|| async { problem::NO_SUCH_PATH })
        .method_not_allowed_fallback(|| async { problem::WRONG_METHOD })
        .with_state(drop_in)
}

async fn publish(
    State(drop_in): State<DropIn>,
    Path(project_id): Path<String>,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    match read(&drop_in, project_id, request).await {
        Ok(event) => match take(&drop_in.pipeline, event).await {
            Ok(accepted) => answer(&drop_in, &headers, accepted).await,
            Err(refusal) => {
                drop_in.pipeline.count_refused(&refusal);
                Problem::of_refusal(&refusal).into_response()
            }
        },
        Err(problem) => {
            drop_in.pipeline.count_unread(problem.reason());
            problem.into_response()
        }
    }
}

/// Reads the event out of a request.
async fn read(drop_in: &DropIn, project_id: String, request: Request) -> Result<Event, Problem> {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(is_json) {
        return Err(problem::NOT_JSON);
    }
    let event_id = match request.headers().get(IDEMPOTENCY_KEY) {
        None => None,
        Some(value) => Some(event_id(value.to_str().map_err(|_| problem::BAD_IDEMPOTENCY_KEY)?).to_owned()),
    };
    let bytes = axum::body::to_bytes(request.into_body(), drop_in.max_body_bytes)
        .await
        .map_err(|error| problem::of_body(&error))?;
    body::event(&bytes, project_id, event_id)
}

/// The draft's form is a string in quotes; a bare one is as common. Both name the same event.
fn event_id(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value)
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

async fn take(pipeline: &Pipeline, event: Event) -> Result<Accepted, Refusal> {
    let verdicts = pipeline.publish(&[(event, Options::default())], false).await?;
    verdicts
        .into_iter()
        .next()
        .unwrap_or(Err(Refusal::StorageRefused))
}

async fn answer(drop_in: &DropIn, headers: &HeaderMap, mut accepted: Accepted) -> Response {
    let Some(limit) = prefer_wait(headers) else {
        return told(drop_in.accepted_status, &accepted.status);
    };
    drop_in.pipeline.wait_until_final(&mut accepted, limit).await;
    match accepted.status.state() {
        proto::State::Delivered => told(StatusCode::OK, &accepted.status),
        proto::State::DeadLettered => Problem::of_dead_letter(&accepted.status).into_response(),
        _ => told(StatusCode::ACCEPTED, &accepted.status),
    }
}

/// The answer for an event that was taken: where it is, and upstream's ids once it is delivered.
fn told(http_status: StatusCode, status: &proto::EventStatus) -> Response {
    let mut body = json!({
        "event_id": status.event_id,
        "project_id": status.project_id,
        "state": status.state().as_str_name(),
        "duplicate": status.duplicate,
        "durability": status.durability().as_str_name(),
    });
    if let (Some(receipt), Some(body)) = (&status.receipt, body.as_object_mut()) {
        let ids = [
            ("entry_id", &receipt.entry_id),
            ("contact_id", &receipt.contact_id),
            ("group_id", &receipt.group_id),
            ("embeddable_version_number", &receipt.embeddable_version_number),
        ];
        for (name, value) in ids.into_iter().filter(|(_, value)| !value.is_empty()) {
            body.insert(name.to_owned(), json!(value));
        }
    }
    (http_status, Json(body)).into_response()
}

/// Seconds of the preference `wait` (RFC 7240 §4.3), at most [`MAX_WAIT`].
fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok());
    let seconds = preferences
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.trim().split_once('='))
        .find_map(|(name, value)| {
            let value = value.trim().trim_matches('"').parse::<u64>().ok();
            value.filter(|_| name.trim().eq_ignore_ascii_case("wait"))
        })?;
    Some(Duration::from_secs(seconds).min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_id_may_stand_in_quotes() {
        assert_eq!(event_id("\"abc\""), "abc");
        assert_eq!(event_id("abc"), "abc");
        assert_eq!(event_id("\"abc"), "\"abc");
    }

    #[test]
    fn prefer_wait_is_read_among_other_preferences() {
        let wait = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", value.parse().expect("a header value"));
            prefer_wait(&headers)
        };
        assert_eq!(wait("respond-async, wait=10"), Some(Duration::from_secs(10)));
        assert_eq!(wait("Wait=\"3\""), Some(Duration::from_secs(3)));
        assert_eq!(wait("wait=100000"), Some(MAX_WAIT));
        assert_eq!(wait("wait=soon"), None);
        assert_eq!(wait("return=minimal"), None);
    }

    #[test]
    fn only_json_is_taken() {
        assert!(is_json("application/json"));
        assert!(is_json("Application/JSON; charset=utf-8"));
        assert!(!is_json("application/x-www-form-urlencoded"));
        assert!(!is_json("application/jsonp"));
    }
}
