//! Errors over HTTP: `application/problem+json` (RFC 9457).

use axum::Json;
use axum::response::{IntoResponse, Response};
use embeddables_core::Field;
use embeddables_proto::events::v1 as proto;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::borrow::Cow;

use crate::ingest::refusal::Refusal;
use crate::ingest::remap::{MALFORMED, MESSAGE_TOO_LARGE};

/// An error as its caller gets it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Problem {
    status: u16,
    title: Cow<'static, str>,
    /// Stable code, listed in `docs/errors.md`.
    reason: Cow<'static, str>,
    detail: Cow<'static, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<Violation>,
    #[serde(skip)]
    retry_after_seconds: Option<u64>,
}

/// One thing wrong, with the field's name in upstream's body.
#[derive(Clone, Debug, Serialize)]
struct Violation {
    field: Cow<'static, str>,
    reason: Cow<'static, str>,
    description: Cow<'static, str>,
}

pub(super) const NO_SUCH_PATH: Problem = fixed(
    StatusCode::NOT_FOUND,
    "NO_SUCH_PATH",
    "the sidecar takes POST /projects/{projectId}/events and nothing else here",
);
pub(super) const WRONG_METHOD: Problem = fixed(
    StatusCode::METHOD_NOT_ALLOWED,
    "WRONG_METHOD",
    "events are sent with POST",
);
pub(super) const NOT_JSON: Problem = fixed(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "NOT_JSON",
    "send the event with the header `Content-Type: application/json`",
);
pub(super) const BAD_IDEMPOTENCY_KEY: Problem = fixed(
    StatusCode::BAD_REQUEST,
    "IDEMPOTENCY_KEY_MALFORMED",
    "the header Idempotency-Key is the event's id: 1 to 64 visible ASCII characters",
);
pub(super) const ONE_IDENTIFIER: Problem = fixed(
    StatusCode::BAD_REQUEST,
    "IDENTIFIER_COUNT",
    "`identifiers` holds exactly one {\"key\", \"value\"} today",
);

const fn fixed(status: StatusCode, reason: &'static str, detail: &'static str) -> Problem {
    Problem {
        status: status.as_u16(),
        title: Cow::Borrowed("the event was not taken"),
        reason: Cow::Borrowed(reason),
        detail: Cow::Borrowed(detail),
        violations: Vec::new(),
        retry_after_seconds: None,
    }
}

/// The body is not upstream's: where and why, for its sender only.
pub(super) fn of_json(error: &serde_json::Error) -> Problem {
    let detail = format!("the body is not the JSON that the events API documents: {error}");
    Problem {
        detail: Cow::Owned(detail),
        ..fixed(StatusCode::BAD_REQUEST, MALFORMED, "")
    }
}

/// The body could not be read to its end.
pub(super) fn of_body(error: &axum::Error) -> Problem {
    let too_large = std::error::Error::source(error)
        .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
    if too_large {
        let detail = "the body is larger than grpc.max_message_size, the limit of all listeners";
        return fixed(StatusCode::PAYLOAD_TOO_LARGE, MESSAGE_TOO_LARGE, detail);
    }
    fixed(
        StatusCode::BAD_REQUEST,
        MALFORMED,
        "the body ended before it was complete",
    )
}

/// The identifier's value is JSON where a string of JSON belongs.
pub(super) fn not_stringified(value: &serde_json::Value) -> Problem {
    let description = match value {
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            Cow::Borrowed("the value is a string that holds one JSON scalar, no array and no object")
        }
        scalar => Cow::Owned(format!(
            "the value is a string that holds JSON: send \"{scalar}\""
        )),
    };
    let violation = Violation {
        field: Cow::Borrowed(IDENTIFIER_VALUE),
        reason: Cow::Borrowed("IDENTIFIER_NOT_STRINGIFIED"),
        description,
    };
    let detail = "the identifier's value is not stringified";
    Problem {
        violations: vec![violation],
        ..fixed(StatusCode::BAD_REQUEST, "INVALID_EVENT", detail)
    }
}

impl Problem {
    /// Stable code of the reason, for counting.
    pub(super) fn reason(&self) -> &'static str {
        match self.reason {
            Cow::Borrowed(reason) => reason,
            // Of dead letters only, which were not refused.
            Cow::Owned(_) => "",
        }
    }

    /// A refusal of the rooms behind, its fields named as in upstream's body.
    pub(super) fn of_refusal(refusal: &Refusal) -> Self {
        let violations = match refusal {
            Refusal::Invalid(violations) => violations
                .iter()
                .map(|violation| Violation {
                    field: Cow::Borrowed(upstream_name(violation.field())),
                    reason: Cow::Borrowed(violation.reason().as_str()),
                    description: Cow::Owned(violation.for_caller()),
                })
                .collect(),
            _ => Vec::new(),
        };
        let detail = Cow::Owned(refusal.to_string());
        let retry_after_seconds = refusal.retry_delay().map(|delay| delay.as_secs().max(1));
        let fixed = fixed(refusal.http_status(), refusal.reason(), "");
        Self {
            detail,
            violations,
            retry_after_seconds,
            ..fixed
        }
    }

    /// Upstream's final rejection, for a caller that waited for it.
    pub(super) fn of_dead_letter(status: &proto::EventStatus) -> Self {
        let upstream = status
            .attempts
            .last()
            .and_then(|attempt| u16::try_from(attempt.http_status).ok());
        let http_status = upstream
            .and_then(|status| StatusCode::from_u16(status).ok())
            .filter(StatusCode::is_client_error)
            .unwrap_or(StatusCode::BAD_GATEWAY);
        Self {
            title: Cow::Borrowed("the event was taken and given up; it is kept as a dead letter"),
            reason: Cow::Owned(status.reason.clone()),
            detail: Cow::Owned(status.message.clone()),
            ..fixed(http_status, "", "")
        }
    }
}

const IDENTIFIER_VALUE: &str = "identifiers[0].value";

fn upstream_name(field: Field) -> &'static str {
    match field {
        Field::EventId => "Idempotency-Key",
        Field::ProjectId => "projectId",
        Field::Name => "custom_event_name",
        Field::Identifier => "identifiers[0]",
        Field::IdentifierKey => "identifiers[0].key",
        Field::IdentifierValue => IDENTIFIER_VALUE,
        Field::Props | Field::PropsJson | Field::Payload | Field::PayloadMetrics => "custom_event_props",
        other => other.as_str(),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after_seconds.map(HeaderValue::from);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(retry_after) = retry_after {
            headers.insert(header::RETRY_AFTER, retry_after);
        }
        response
    }
}
