//! Errors that tonic makes before our code sees a call, in the words of our contract.
//!
//! A message that cannot be decoded comes from tonic as INTERNAL, one over the size limit as OUT_OF_RANGE. Both are the
//! caller's: INVALID_ARGUMENT with the reason `MALFORMED`, and RESOURCE_EXHAUSTED without `RetryInfo`. Our own statuses always
//! carry details and pass untouched.

use http::{HeaderMap, Response};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::refusal::ERROR_DOMAIN;

/// Reason of a message that is not what `proto/` describes.
pub const MALFORMED: &str = "MALFORMED";
/// Reason of a message over `grpc.max_message_size`.
pub const MESSAGE_TOO_LARGE: &str = "MESSAGE_TOO_LARGE";

/// Says a transport's error in our words.
pub fn remap(status: Status) -> Status {
    if !status.details().is_empty() {
        return status;
    }
    match status.code() {
        Code::Internal => error(
            Code::InvalidArgument,
            MALFORMED,
            "the message cannot be decoded: it is not what this sidecar's proto files describe, and nothing of the call was kept",
        ),
        Code::OutOfRange | Code::ResourceExhausted => error(
            Code::ResourceExhausted,
            MESSAGE_TOO_LARGE,
            "the message is larger than this sidecar takes: GetServerInfo tells the limit",
        ),
        _ => status,
    }
}

/// [`remap`] for a response whose status stands in its headers, as that of a call refused before it began.
pub fn remap_response<B>(mut response: Response<B>) -> Response<B> {
    let headers = response.headers();
    if !headers.contains_key("grpc-status") {
        return response;
    }
    let Some(status) = Status::from_header_map(headers) else {
        return response;
    };
    let code = status.code();
    let remapped = remap(status);
    if remapped.code() != code {
        write_status(&remapped, response.headers_mut());
        let reason = if remapped.code() == Code::InvalidArgument {
            MALFORMED
        } else {
            MESSAGE_TOO_LARGE
        };
        response.extensions_mut().insert(Remapped(reason));
    }
    response
}

/// The reason of a response that [`remap_response`] has changed; `None` for all others.
pub fn reason_of<B>(response: &Response<B>) -> Option<&'static str> {
    response
        .extensions()
        .get::<Remapped>()
        .map(|Remapped(reason)| *reason)
}

/// Marks a response that was changed.
#[derive(Clone, Copy)]
struct Remapped(&'static str);

fn write_status(status: &Status, headers: &mut HeaderMap) {
    if let Err(error) = status.add_header(headers) {
        tracing::error!(%error, "a status could not be written into headers");
    }
}

fn error(code: Code, reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
    Status::with_error_details_and_metadata(code, message, details, MetadataMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(from: Code, expected: Code, reason: &str) {
        let mut headers = HeaderMap::new();
        write_status(&Status::new(from, "tonic's own words"), &mut headers);
        let mut response = Response::new(());
        *response.headers_mut() = headers;
        let status = Status::from_header_map(remap_response(response).headers()).expect("a status");
        assert_eq!(status.code(), expected);
        assert_eq!(
            status.get_details_error_info().expect("an ErrorInfo").reason,
            reason
        );
    }

    #[test]
    fn transport_errors_are_the_callers() {
        check(Code::Internal, Code::InvalidArgument, MALFORMED);
        check(Code::OutOfRange, Code::ResourceExhausted, MESSAGE_TOO_LARGE);
    }

    #[test]
    fn statuses_with_details_pass_untouched() {
        let ours = error(Code::OutOfRange, "CURSOR_TOO_OLD", "ours");
        assert_eq!(remap(ours).code(), Code::OutOfRange);
    }
}
