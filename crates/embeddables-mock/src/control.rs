//! The control endpoints under `/_mock/`: never counted, never recorded, never met by a fault.

use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::answer::Answer;
use crate::counts::Counts;
use crate::handler::Shared;
use crate::strict_json;

/// What the paths of all control endpoints begin with.
const PREFIX: &str = "/_mock/";

/// Whether a path belongs to a control endpoint.
pub(crate) fn owns(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// Answers a control request; `body` is `None` if it was too large.
pub(crate) fn handle(shared: &Shared, head: &Parts, body: Option<&[u8]>) -> Answer {
    let endpoint = head.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let result = match (&head.method, endpoint) {
        (&Method::PUT, "config") => parse(body).and_then(|settings| {
            shared.configure(settings).map_err(refuse)?;
            Ok(Answer::json(StatusCode::OK, shared.rules().settings()))
        }),
        (&Method::POST, "faults") => parse(body).and_then(|script| {
            shared.faults.push(script).map_err(refuse)?;
            Ok(Answer::json(
                StatusCode::OK,
                &json!({ "fault_steps_left": shared.faults.steps_left() }),
            ))
        }),
        (&Method::GET, "requests") => since(head.uri.query().unwrap_or_default())
            .map(|since| Answer::json(StatusCode::OK, &shared.received.requests(since))),
        (&Method::GET, "counts") => Ok(Answer::json(StatusCode::OK, &counts(shared))),
        (&Method::POST, "reset") => shared
            .reset()
            .map_err(refuse)
            .map(|()| Answer::json(StatusCode::OK, &json!({}))),
        (_, "config" | "faults" | "requests" | "counts" | "reset") => Err(Answer::error(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "not with this method",
        )),
        _ => Err(Answer::error(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "no such control endpoint",
        )),
    };
    result.unwrap_or_else(|answer| answer)
}

/// All numbers.
pub(crate) fn counts(shared: &Shared) -> Counts {
    Counts {
        fault_steps_left: shared.faults.steps_left(),
        ..shared.received.counts()
    }
}

fn parse<T: DeserializeOwned>(body: Option<&[u8]>) -> Result<T, Answer> {
    let body = body.ok_or_else(|| refuse("the body is too large"))?;
    let parsed = strict_json::parse(body).map_err(refuse)?;
    if let Some(key) = parsed.duplicate_keys.first() {
        return Err(refuse(format_args!("the key `{key}` occurs twice in one object")));
    }
    serde_json::from_value(parsed.value).map_err(refuse)
}

fn since(query: &str) -> Result<u64, Answer> {
    if query.is_empty() {
        return Ok(0);
    }
    let number = query
        .strip_prefix("since=")
        .and_then(|number| number.parse().ok());
    number.ok_or_else(|| refuse("the query is not since=<number of a request>"))
}

fn refuse(reason: impl std::fmt::Display) -> Answer {
    Answer::error(
        StatusCode::BAD_REQUEST,
        "INVALID_CONTROL_REQUEST",
        &reason.to_string(),
    )
}
