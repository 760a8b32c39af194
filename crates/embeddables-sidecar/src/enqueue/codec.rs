//! The form of an event on disk.
//!
//! # Invariants
//! 1. What is decoded equals what was encoded: bytes delivered = bytes acknowledged.
//! 2. The first byte is the version. Within a version fields are only ever added (protobuf rules).
//! 3. What needs no disk is not there: lane, id and accept time are columns of the queue.

use bytes::Bytes;
use embeddables_core::{
    EmbeddableId, EventId, EventName, InvalidId, ProjectId, Timestamp, ValidEvent, ValidEventParts,
};
use embeddables_queue::UnixMillis;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, int64};

/// Version of the encoding, its first byte.
const VERSION: u8 = 1;

/// Most bytes of a text's tag and length: texts are shorter than 256 MiB.
const TEXT_FRAME_MAX_BYTES: usize = 5;

/// Most bytes of an integer with its tag.
const INTEGER_MAX_BYTES: usize = 11;

/// What a record's payload holds.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The event.
    pub event: ValidEvent,
    /// Give up after this wall time; `None` where the caller set none.
    pub deliver_before: Option<UnixMillis>,
}

/// Why a payload could not be read. The event is then dead-lettered with its bytes as they are.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// There is nothing.
    #[error("the stored event is empty")]
    Empty,
    /// A newer release wrote it.
    #[error("the stored event has version {0}, this release reads version {VERSION}")]
    Version(u8),
    /// The bytes are not what this release writes.
    #[error("the stored event cannot be decoded")]
    Malformed(#[from] prost::DecodeError),
    /// An id or the name breaks a rule that it once passed.
    #[error("the stored event is not valid")]
    Id(#[from] InvalidId),
    /// Its time is out of range.
    #[error("the stored event has a time out of range")]
    Time,
}

/// Version 1 on disk.
#[derive(Clone, PartialEq, Message)]
struct StoredV1 {
    #[prost(string, tag = "1")]
    event_id: String,
    #[prost(string, tag = "2")]
    project_id: String,
    #[prost(string, tag = "3")]
    embeddable_id: String,
    #[prost(string, tag = "4")]
    name: String,
    /// Milliseconds since 1970: what is sent upstream has no finer time.
    #[prost(int64, tag = "5")]
    time_ms: i64,
    #[prost(string, tag = "6")]
    identifier_key: String,
    /// The value as JSON.
    #[prost(string, tag = "7")]
    identifier_json: String,
    #[prost(string, tag = "8")]
    props_json: String,
    #[prost(int64, optional, tag = "9")]
    deliver_before_ms: Option<i64>,
}

/// The bytes to keep of an event.
pub fn encode(event: ValidEvent, deliver_before: Option<UnixMillis>) -> Bytes {
    let time_ms = event.time().unix_millis();
    let parts = event.into_parts();
    let texts_before_time = [
        (1, parts.event_id.as_str()),
        (2, parts.project_id.as_str()),
        (3, parts.embeddable_id.as_str()),
        (4, parts.name.as_str()),
    ];
    let texts_behind_time = [
        (6, &*parts.identifier_key),
        (7, &*parts.identifier_json),
        (8, &*parts.props_json),
    ];
    let text_bytes = |texts: &[(u32, &str)]| {
        let bytes = texts.iter().map(|(_, text)| text.len() + TEXT_FRAME_MAX_BYTES);
        bytes.sum::<usize>()
    };
    let capacity =
        1 + text_bytes(&texts_before_time) + text_bytes(&texts_behind_time) + 2 * INTEGER_MAX_BYTES;

    let mut buffer = Vec::with_capacity(capacity);
    buffer.push(VERSION);
    for (tag, text) in texts_before_time {
        put_text(&mut buffer, tag, text);
    }
    if time_ms != 0 {
        int64::encode(5, &time_ms, &mut buffer);
    }
    for (tag, text) in texts_behind_time {
        put_text(&mut buffer, tag, text);
    }
    if let Some(time) = deliver_before {
        int64::encode(9, &time.0, &mut buffer);
    }
    buffer.into()
}

/// Writes a field as `prost` does, only from text that is borrowed.
fn put_text(buffer: &mut Vec<u8>, tag: u32, text: &str) {
    if !text.is_empty() {
        encode_key(tag, WireType::LengthDelimited, buffer);
        encode_varint(text.len() as u64, buffer);
        buffer.extend_from_slice(text.as_bytes());
    }
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// On bytes of another version, or none of ours: the queue's checksum has passed by then, so a newer release wrote them.
pub fn decode(payload: &[u8]) -> Result<Stored, CodecError> {
    let (version, message) = payload.split_first().ok_or(CodecError::Empty)?;
    if *version != VERSION {
        return Err(CodecError::Version(*version));
    }
    let stored = StoredV1::decode(message)?;
    let seconds = stored.time_ms.div_euclid(1_000);
    let nanos = u32::try_from(stored.time_ms.rem_euclid(1_000)).unwrap_or(0) * 1_000_000;
    let event = ValidEvent::from_stored(ValidEventParts {
        event_id: EventId::try_from(stored.event_id)?,
        project_id: ProjectId::try_from(stored.project_id)?,
        embeddable_id: EmbeddableId::try_from(stored.embeddable_id)?,
        name: EventName::try_from(stored.name)?,
        time: Timestamp::from_unix(seconds, nanos).ok_or(CodecError::Time)?,
        identifier_key: stored.identifier_key,
        identifier_json: stored.identifier_json,
        props_json: stored.props_json,
    });
    Ok(Stored {
        event,
        deliver_before: stored.deliver_before_ms.map(UnixMillis),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use embeddables_core::{Defaults, Event, EventTime, Identifier, IdentifierValue, Properties, Rules};

    fn event(seconds: i64, nanos: i32) -> ValidEvent {
        let project = ProjectId::parse("pr_1").expect("a project id");
        let event = Event {
            embeddable_id: "flow_a1".to_owned(),
            name: "visit_completed".to_owned(),
            timestamp: Some(EventTime::Unix { seconds, nanos }),
            identifier: Some(Identifier {
                key: "email".to_owned(),
                value: Some(IdentifierValue::String("O\"Brien 漢".to_owned())),
            }),
            properties: Properties::Json("{ \"a\" : 1.50 }".to_owned()),
            ..Event::default()
        };
        let now = Timestamp::from_unix(0, 0).expect("a time");
        let defaults = Defaults {
            project_id: Some(&project),
            event_id: EventId::parse("id-1").expect("an id"),
            now,
        };
        event
            .validate(&defaults, &Rules::default())
            .expect("a valid event")
    }

    #[test]
    fn what_is_decoded_equals_what_was_encoded() {
        for (seconds, nanos) in [
            (1_640_995_200, 123_000_000),
            (-62_135_596_800, 0),
            (253_402_300_799, 999_000_000),
        ] {
            let event = event(seconds, nanos);
            let stored = decode(&encode(event.clone(), Some(UnixMillis(7)))).expect("decodes");
            assert_eq!(stored.event, event);
            assert_eq!(stored.deliver_before, Some(UnixMillis(7)));
        }
    }

    #[test]
    fn what_is_encoded_is_the_message() {
        for (seconds, deliver_before) in [
            (1_640_995_200, Some(UnixMillis(-7))),
            (0, Some(UnixMillis(0))),
            (-1, None),
        ] {
            let event = event(seconds, 0);
            let message = StoredV1 {
                event_id: event.event_id().to_string(),
                project_id: event.project_id().to_string(),
                embeddable_id: event.embeddable_id().to_string(),
                name: event.name().to_string(),
                time_ms: seconds * 1_000,
                identifier_key: event.identifier_key().to_owned(),
                identifier_json: event.identifier_json().to_owned(),
                props_json: event.props_json().to_owned(),
                deliver_before_ms: deliver_before.map(|time| time.0),
            };
            assert_eq!(encode(event, deliver_before)[1..], message.encode_to_vec());
        }
    }

    #[test]
    fn bytes_that_are_not_ours_are_an_error() {
        assert!(matches!(decode(&[]), Err(CodecError::Empty)));
        assert!(matches!(decode(&[2, 1]), Err(CodecError::Version(2))));
        assert!(matches!(decode(&[1, 0xff]), Err(CodecError::Malformed(_))));
        assert!(matches!(decode(&[1]), Err(CodecError::Id(_))));
    }
}
