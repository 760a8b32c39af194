//! gRPC errors for a person: code, message, and what the details hold.

use std::fmt::Write as _;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::config::units::format_duration;

/// A status in full: `CODE (REASON): message`, then a line for each violation and the wait that is asked for.
pub(super) fn describe(status: &Status) -> String {
    let details = status.get_error_details();
    let mut text = code_name(status.code()).to_owned();
    let mut push = |part: String| write!(text, "{part}").unwrap_or_default();
    if let Some(info) = details.error_info().filter(|info| !info.reason.is_empty()) {
        push(format!(" ({})", info.reason));
    }
    push(format!(": {}", status.message()));
    if let Some(info) = details.error_info() {
        for (name, value) in &info.metadata {
            push(format!("\n  {name} {value}"));
        }
    }
    if let Some(request) = details.bad_request() {
        for violation in &request.field_violations {
            push(format!(
                "\n  {} {}: {}",
                violation.field, violation.reason, violation.description
            ));
        }
    }
    if let Some(delay) = retry_delay(status) {
        push(format!("\n  try again in {}", format_duration(delay)));
    }
    text
}

/// The stable reason of a status, empty where it tells none.
pub(super) fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

/// After how long the server wants another try.
pub(super) fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// Whether the same call may succeed later: the server says so, or the connection broke. Only for calls that may be
/// repeated, such as publishing with ids of the caller's.
pub(super) fn is_retryable(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::ResourceExhausted => retry_delay(status).is_some(),
        // The channel's own errors have a source; what a server says has none.
        Code::Unknown | Code::Internal | Code::Cancelled => std::error::Error::source(status).is_some(),
        _ => false,
    }
}

/// A code as the documentation of gRPC writes it.
pub(super) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    fn full() -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            "QUEUE_FULL",
            "embeddables-sidecar",
            std::collections::HashMap::<String, String>::new(),
        );
        details.set_bad_request(vec![FieldViolation {
            field: "event.name".to_owned(),
            description: "must be snake_case".to_owned(),
            reason: "NAME_NOT_SNAKE_CASE".to_owned(),
            localized_message: None,
        }]);
        details.set_retry_info(Some(Duration::from_millis(1500)));
        Status::with_error_details(Code::Unavailable, "queue full", details)
    }

    #[test]
    fn a_status_tells_code_reason_violations_and_the_wait() {
        assert_eq!(
            describe(&full()),
            "UNAVAILABLE (QUEUE_FULL): queue full\n  event.name NAME_NOT_SNAKE_CASE: must be snake_case\n  try again in 1500ms"
        );
        assert_eq!(
            describe(&Status::not_found("no such event")),
            "NOT_FOUND: no such event"
        );
    }

    #[test]
    fn what_may_succeed_later_is_retried_and_nothing_else() {
        assert!(is_retryable(&full()));
        assert!(is_retryable(&Status::unavailable("draining")));
        assert!(!is_retryable(&Status::invalid_argument("no")));
        assert!(!is_retryable(&Status::resource_exhausted("message too large")));
        assert!(!is_retryable(&Status::internal("a bug")));
    }
}
