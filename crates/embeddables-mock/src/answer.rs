//! An answer as plain values, before any fault touches it.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::json;

/// Content type of everything the documented API says.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Content type of a body that is not JSON: what a gateway in between would send.
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// One HTTP answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Status of the answer.
    pub(crate) status: StatusCode,
    /// Value of `Content-Type`.
    pub(crate) content_type: HeaderValue,
    /// Further headers.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The whole body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// An answer with `value` as its JSON body.
    pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(status, JSON, body.into()),
            Err(error) => Self::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                Bytes::from(format!("failed to write the answer as JSON: {error}")),
            ),
        }
    }

    /// An error of the documented make: `{"code": …, "message": …}`.
    pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::json(status, &json!({ "code": code, "message": message }))
    }

    /// The error a status stands for on its own, e.g. `SERVICE_UNAVAILABLE` for 503.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let reason = status.canonical_reason().unwrap_or("unknown status");
        let code: String = reason
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect();
        Self::error(status, &code, &format!("answer {} on demand", status.as_u16()))
    }

    /// An answer with `body` verbatim: JSON if it parses as such, else HTML.
    pub(crate) fn text(status: StatusCode, body: Bytes) -> Self {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        Self::new(status, if is_json { JSON } else { HTML }, body)
    }

    /// The same answer with one more header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn new(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Self {
        Self {
            status,
            content_type,
            headers: Vec::new(),
            body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &'static str, expected: &str) {
        let answer = Answer::text(StatusCode::OK, Bytes::from_static(body.as_bytes()));
        assert_eq!(answer.content_type, expected, "{body}");
        assert_eq!(answer.body, body);
    }

    #[test]
    fn a_verbatim_body_is_json_only_if_it_parses() {
        check("{\"a\":1}", "application/json");
        check("<html></html>", "text/html; charset=utf-8");
        check("{\"a\":", "text/html; charset=utf-8");
        check("", "text/html; charset=utf-8");
    }

    #[test]
    fn the_code_of_a_bare_status_is_its_reason() {
        let answer = Answer::of_status(StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            answer.body.starts_with(b"{\"code\":\"SERVICE_UNAVAILABLE\""),
            "{:?}",
            answer.body
        );
    }
}
