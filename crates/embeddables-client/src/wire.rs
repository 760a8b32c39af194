//! The request as upstream documents it. No other module knows the names of its fields.

use std::fmt;

use embeddables_core::{Timestamp, ValidEvent};
use http::HeaderName;
use serde::{Serialize, Serializer};

/// Header that carries the key, as documented; names of headers have no case.
pub(crate) const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// What a body takes beside its properties, for most events: fields, names, an identifier.
const FRAME_BYTES: usize = 384;

/// Body of `POST /projects/{projectId}/events`, fields in the documented order.
#[derive(Serialize)]
struct CreateEvent<'a> {
    embeddable_id: &'a str,
    #[serde(serialize_with = "as_text")]
    timestamp: Timestamp,
    custom_event_name: &'a str,
    /// JSON text within a string; `{}` where there are no properties, since older descriptions require the field.
    custom_event_props: &'a str,
    /// Exactly one today.
    identifiers: [WireIdentifier<'a>; 1],
}

#[derive(Serialize)]
struct WireIdentifier<'a> {
    key: &'a str,
    /// JSON text of a scalar within a string.
    value: &'a str,
}

fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// Writes the request's body: JSON.
pub(crate) fn body(event: &ValidEvent) -> Vec<u8> {
    let body = CreateEvent {
        embeddable_id: event.embeddable_id().as_str(),
        timestamp: event.time(),
        custom_event_name: event.name().as_str(),
        custom_event_props: event.props_json(),
        identifiers: [WireIdentifier {
            key: event.identifier_key(),
            value: event.identifier_json(),
        }],
    };
    // Every quote within the properties gets a backslash.
    let usual_bytes = FRAME_BYTES + event.props_json().len() * 3 / 2;
    let mut json = Vec::with_capacity(usual_bytes);
    #[expect(
        clippy::expect_used,
        reason = "strings in a structure: neither maps nor numbers that JSON cannot carry"
    )]
    serde_json::to_writer(&mut json, &body).expect("strings are JSON");
    json
}

/// The request that would be sent for an event: for a preview. The key is redacted; the body holds personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamRequest {
    /// `POST`.
    pub method: &'static str,
    /// The whole URL.
    pub url: String,
    /// Names and values; that of `X-Api-Key` is `[redacted]`.
    pub headers: Vec<(&'static str, String)>,
    /// JSON, to the byte as it would be sent.
    pub body: String,
}

impl fmt::Debug for UpstreamRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("UpstreamRequest")
            .field("method", &self.method)
            .field("url", &self.url)
            .field("headers", &self.headers)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}
