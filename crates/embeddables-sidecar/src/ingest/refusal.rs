//! Why an event was not taken, and how each protocol says it: the one table of codes, reasons and statuses.

use std::time::Duration;

use embeddables_core::Violations;
use embeddables_proto::events::v1 as proto;
use embeddables_queue::ReadError;
use http::StatusCode;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use super::bad_call::BadCall;
use crate::settle::progress::millis;

/// Domain of every `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "embeddables-sidecar";

/// Most bytes of violations in a status: gRPC clients refuse more than 8 KiB of headers by default, and base64 adds a third.
const DETAILS_MAX_BYTES: usize = 4 * 1024;

/// Why an event, or a whole call, was not taken. Nothing of it was kept, but after [`Refusal::DurabilityUnknown`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The event breaks rules: all that it breaks. Mend it; a retry never helps.
    #[error("the event is not valid: {}", summary(.0))]
    Invalid(Violations),
    /// The call is not what it should be.
    #[error("{0}")]
    BadCall(&'static BadCall),
    /// The events are more than one call may bring.
    #[error("{count} events in one call, at most {limit} are taken: send several calls")]
    BatchTooLarge {
        /// Events in the call.
        count: usize,
        /// `grpc.max_batch_events`.
        limit: usize,
    },
    /// No key is configured for the project.
    #[error(
        "this sidecar has no key for the event's project: ask its operator to configure one, or correct project_id"
    )]
    ProjectNotConfigured,
    /// The id was accepted before with another content.
    #[error("this event_id was accepted before with another content: a new event needs a new id")]
    Conflict,
    /// Durability asked for is not on offer here.
    #[error("this sidecar cannot keep events as durably as asked; GetServerInfo tells what is on offer")]
    DurabilityNotOnOffer,
    /// The queue is at `queue.max_bytes`.
    #[error("the queue is full: retry with the same event_id once events were delivered")]
    QueueFull,
    /// The project is at its share of the queue, `queue.project_share_percent`.
    #[error(
        "the event's project is at its share of the queue: retry with the same event_id once its events were delivered"
    )]
    ProjectFull,
    /// The project's dead letters are at their share of the queue, `queue.dead_letter_share_percent`.
    #[error(
        "too many events of this project were given up and lie in the queue: its operator must replay some \
         (`embeddables-sidecar dead-letters`), then retry with the same event_id"
    )]
    DeadLettersFull,
    /// The volume has no room.
    #[error("the queue's volume is full: deliveries go on and free room, retry with the same event_id")]
    DiskFull,
    /// The disk does not keep up with what is offered.
    #[error("the queue's disk does not keep up: retry with the same event_id")]
    Busy,
    /// The disk refuses writes.
    #[error("the queue's volume refuses writes, nothing was kept: retry with the same event_id")]
    StorageRefused,
    /// The disk failed while the event was synced.
    #[error(
        "the disk failed while the event was synced, it may or may not be kept: retry with the same event_id"
    )]
    DurabilityUnknown,
    /// The store cannot be read.
    #[error("the queue's store cannot be read")]
    StorageUnreadable,
    /// The sidecar is shutting down.
    #[error("the sidecar is shutting down: retry with the same event_id once it is back")]
    Draining,
    /// Another event of an all-or-nothing call was refused.
    #[error("not taken because another event of the same all_or_nothing call was refused")]
    NotAlone,
}

/// How a refusal is said: one row a reason.
struct Row {
    code: Code,
    reason: &'static str,
    http: StatusCode,
    retry_delay: Option<Duration>,
}

const SOON: Option<Duration> = Some(Duration::from_secs(1));
const LATER: Option<Duration> = Some(Duration::from_secs(5));
/// A person has to act first.
const OPERATOR: Option<Duration> = Some(Duration::from_secs(30));

impl Refusal {
    fn row(&self) -> Row {
        let row = |code, reason, http, retry_delay| Row {
            code,
            reason,
            http,
            retry_delay,
        };
        let invalid = |reason| row(Code::InvalidArgument, reason, StatusCode::BAD_REQUEST, None);
        let unmet = |reason, http| row(Code::FailedPrecondition, reason, http, None);
        let exhausted = |reason, delay| {
            row(
                Code::ResourceExhausted,
                reason,
                StatusCode::TOO_MANY_REQUESTS,
                delay,
            )
        };
        let unavailable =
            |reason, delay| row(Code::Unavailable, reason, StatusCode::SERVICE_UNAVAILABLE, delay);
        match self {
            Self::Invalid(_) => invalid("INVALID_EVENT"),
            Self::BadCall(bad) => invalid(bad.reason),
            Self::BatchTooLarge { .. } => invalid("BATCH_TOO_LARGE"),
            Self::ProjectNotConfigured => unmet("PROJECT_NOT_CONFIGURED", StatusCode::NOT_FOUND),
            Self::Conflict => row(Code::AlreadyExists, "EVENT_ID_REUSED", StatusCode::CONFLICT, None),
            Self::DurabilityNotOnOffer => unmet("DURABILITY_NOT_ON_OFFER", StatusCode::BAD_REQUEST),
            Self::QueueFull => unavailable("QUEUE_FULL", SOON),
            Self::ProjectFull => exhausted("PROJECT_FULL", SOON),
            Self::DeadLettersFull => exhausted("DEAD_LETTERS_FULL", OPERATOR),
            Self::DiskFull => unavailable("DISK_FULL", LATER),
            Self::Busy => unavailable("QUEUE_BUSY", SOON),
            Self::StorageRefused => unavailable("STORAGE_REFUSED", LATER),
            Self::DurabilityUnknown => unavailable("DURABILITY_UNKNOWN", SOON),
            Self::StorageUnreadable => unavailable("STORAGE_UNREADABLE", LATER),
            Self::Draining => unavailable("DRAINING", SOON),
            Self::NotAlone => unmet("NOT_ALONE", StatusCode::CONFLICT),
        }
    }

    /// Stable code of the reason, from a closed set.
    pub fn reason(&self) -> &'static str {
        self.row().reason
    }

    /// HTTP status that says it.
    pub fn http_status(&self) -> StatusCode {
        self.row().http
    }

    /// After how long another try makes sense; `None` where none does.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.row().retry_delay
    }

    /// Whether the same call can succeed later without the caller changing it.
    pub fn is_retryable(&self) -> bool {
        self.row().retry_delay.is_some()
    }

    /// Each violation with the path of its field under `path`, its reason, and a sentence for the caller only.
    pub fn violations(&self, path: &str) -> Vec<proto::Violation> {
        match self {
            Self::Invalid(violations) => violations
                .iter()
                .map(|violation| proto::Violation {
                    field: violation.path(path),
                    reason: violation.reason().as_str().to_owned(),
                    description: violation.for_caller(),
                })
                .collect(),
            Self::BadCall(bad) => vec![proto::Violation {
                field: bad.field.to_owned(),
                reason: bad.reason.to_owned(),
                description: bad.sentence.to_owned(),
            }],
            _ => Vec::new(),
        }
    }

    /// The refusal of one event of many; `path` is the event's, for example `events[3]`.
    pub fn to_proto(&self, path: &str) -> proto::Refusal {
        let row = self.row();
        proto::Refusal {
            code: i32::from(row.code),
            reason: row.reason.to_owned(),
            message: self.to_string(),
            violations: self.violations(path),
            retry_delay: row.retry_delay.map(proto_duration),
        }
    }

    /// The refusal of a whole call; `path` is the event's, for example `event`.
    pub fn to_status(&self, path: &str) -> Status {
        self.to_status_with(&self.violations(path))
    }

    /// The refusal of a whole call with violations gathered from several events.
    pub fn to_status_with(&self, violations: &[proto::Violation]) -> Status {
        let row = self.row();
        let mut details = ErrorDetails::with_error_info(row.reason, ERROR_DOMAIN, []);
        if !violations.is_empty() {
            details.set_bad_request(field_violations(violations));
        }
        let mut metadata = MetadataMap::new();
        if let Some(delay) = row.retry_delay {
            details.set_retry_info(Some(delay));
            // gRFC A6: clients with a retry policy wait as long as this says.
            metadata.insert("grpc-retry-pushback-ms", MetadataValue::from(millis(delay)));
        }
        Status::with_error_details_and_metadata(row.code, self.to_string(), details, metadata)
    }
}

/// An error with a stable reason, and what a program needs to know of it.
pub fn status<const N: usize>(
    code: Code,
    reason: &str,
    message: &str,
    metadata: [(&str, String); N],
) -> Status {
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

/// Says that the store cannot be read; its operator finds the cause in the log.
pub fn unreadable(error: &ReadError) -> Refusal {
    if matches!(error, ReadError::Closed) {
        return Refusal::Draining;
    }
    tracing::error!(
        error = error as &dyn std::error::Error,
        "the store cannot be read"
    );
    Refusal::StorageUnreadable
}

/// Violations for the details of a status, which travel in a header: where they would not fit what clients take, the last one
/// says how many are left out.
fn field_violations(violations: &[proto::Violation]) -> Vec<FieldViolation> {
    let mut fields = Vec::with_capacity(violations.len());
    let mut size = 0;
    for (index, violation) in violations.iter().enumerate() {
        size += violation.field.len() + violation.reason.len() + violation.description.len() + 12;
        if size > DETAILS_MAX_BYTES {
            let left = violations.len() - index;
            let sentence = format!("{left} more violations are not shown here: ValidateEvents shows all");
            fields.push(FieldViolation {
                reason: "MORE".to_owned(),
                ..FieldViolation::new("events", sentence)
            });
            break;
        }
        fields.push(FieldViolation {
            field: violation.field.clone(),
            description: violation.description.clone(),
            reason: violation.reason.clone(),
            localized_message: None,
        });
    }
    fields
}

/// Names the first few violations, for the message; all of them are in the details.
fn summary(violations: &Violations) -> String {
    const SHOWN: usize = 3;
    let mut parts: Vec<_> = violations
        .iter()
        .take(SHOWN)
        .map(|violation| format!("{} ({})", violation.field().as_str(), violation.reason().as_str()))
        .collect();
    let more = violations.iter().count().saturating_sub(SHOWN);
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    parts.join(", ")
}

/// A duration of at most years, as protobuf has it.
pub fn proto_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
