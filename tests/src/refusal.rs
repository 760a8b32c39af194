//! The details of a gRPC error, and what they must be.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Domain of every `ErrorInfo`.
const DOMAIN: &str = "embeddables-sidecar";

/// Stable reason of an error.
///
/// # Panics
/// Where it carries no `ErrorInfo` of the sidecar's domain.
#[track_caller]
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    let info = info.unwrap_or_else(|| panic!("an error carries `ErrorInfo`: {status:?}"));
    assert_eq!(info.domain, DOMAIN, "{status:?}");
    info.reason
}

/// Value that the `ErrorInfo` of an error holds under this name.
///
/// # Panics
/// Where it holds none.
#[track_caller]
pub fn metadata(status: &Status, name: &str) -> String {
    let info = status.get_details_error_info();
    let value = info.and_then(|info| info.metadata.get(name).cloned());
    value.unwrap_or_else(|| panic!("`ErrorInfo` names {name}: {status:?}"))
}

/// Every violation of an error, as (field, reason).
///
/// # Panics
/// Where it carries no `BadRequest`, or a violation has no sentence.
#[track_caller]
pub fn violations(status: &Status) -> Vec<(String, String)> {
    let details = status.get_details_bad_request();
    let details = details.unwrap_or_else(|| panic!("an error carries `BadRequest`: {status:?}"));
    let violations = details.field_violations.into_iter();
    violations
        .map(|violation| {
            assert!(
                !violation.description.is_empty(),
                "a violation says how to mend it: {violation:?}"
            );
            (violation.field, violation.reason)
        })
        .collect()
}

/// Asserts that an error has this code and reason.
///
/// # Panics
/// Where it has not.
#[track_caller]
pub fn check(status: &Status, code: Code, expected_reason: &str) {
    assert_eq!(
        (status.code(), reason(status).as_str()),
        (code, expected_reason),
        "{status:?}"
    );
}

/// Asserts that an error may be retried as the contract says: UNAVAILABLE, `RetryInfo` and the pushback header.
///
/// # Panics
/// Where it may not.
#[track_caller]
pub fn check_unavailable(status: &Status, expected_reason: &str) {
    check(status, Code::Unavailable, expected_reason);
    let info = status.get_details_retry_info();
    let delay = info
        .and_then(|info| info.retry_delay)
        .unwrap_or_else(|| panic!("`RetryInfo` is there: {status:?}"));
    assert!(delay > Duration::ZERO, "{status:?}");
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    let pushback = pushback
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    assert!(pushback.is_some_and(|millis| millis > 0), "{status:?}");
}
