//! The events that both sides get: realistic, of about 305 bytes, the same in every run.
//!
//! # Invariants
//! 1. All variants of one workload have the same size, so that no answer is faster for its event.
//! 2. Where ids are made, they are the first field of an event: patching the encoded bytes is enough.

use embeddables_proto::events::v1::event::Properties;
use embeddables_proto::events::v1::identifier::Value;
use embeddables_proto::events::v1::{Event, Identifier};
use prost_types::value::Kind;
use prost_types::{Struct, Timestamp};

/// Length of an event id: a UUID as text.
pub const EVENT_ID_BYTES: usize = 36;

/// Stands where an id is to be patched in.
const ID_PLACEHOLDER: &str = "00000000-0000-7000-8000-000000000000";

/// 2026-11-23T10:00:00Z.
const FIRST_SECOND: i64 = 1_795_428_000;

/// Makes variant `index` of the event. Without ids, the server makes them.
pub fn event(index: u32, with_id: bool) -> Event {
    Event {
        event_id: if with_id {
            ID_PLACEHOLDER.to_owned()
        } else {
            String::new()
        },
        embeddable_id: "flow_2bc58aj3a8g0d9ddd8j7jbd4g".to_owned(),
        name: "appointment_completed".to_owned(),
        timestamp: Some(Timestamp {
            seconds: FIRST_SECOND + i64::from(index),
            nanos: 123_000_000,
        }),
        identifier: Some(Identifier {
            key: "email".to_owned(),
            value: Some(Value::StringValue(format!("jamie.rivera.{index:08}@example.com"))),
        }),
        properties: Some(Properties::Props(props(index))),
        ..Event::default()
    }
}

fn props(index: u32) -> Struct {
    let text = |text: String| Kind::StringValue(text);
    let fields = [
        ("appointment_id", text(format!("apt_{index:010}"))),
        ("clinic", text("northside-family-practice-leeds".to_owned())),
        ("duration_minutes", Kind::NumberValue(f64::from(15 + index % 45))),
        ("follow_up", Kind::BoolValue(index.is_multiple_of(2))),
        ("specialty", text("dermatology".to_owned())),
        ("channel", text("video-consultation".to_owned())),
    ];
    let value = |kind| prost_types::Value { kind: Some(kind) };
    Struct {
        fields: fields
            .into_iter()
            .map(|(name, kind)| (name.to_owned(), value(kind)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn an_event_is_as_large_as_those_of_the_figures() {
        let length_bytes = event(0, false).encoded_len();
        assert!((300..=310).contains(&length_bytes), "{length_bytes} bytes");
    }

    #[test]
    fn all_variants_have_one_size() {
        let first = event(0, true).encoded_len();
        assert!((1..2_000).all(|index| event(index, true).encoded_len() == first));
    }

    #[test]
    fn the_id_is_the_first_field() {
        let encoded = event(7, true).encode_to_vec();
        assert_eq!(&encoded[2..2 + EVENT_ID_BYTES], ID_PLACEHOLDER.as_bytes());
    }
}
