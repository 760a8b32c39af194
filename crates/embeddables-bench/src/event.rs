//! The events that both sides get: realistic, of about 305 bytes, the same in every run; and what upstream gets of them.
//!
//! # Invariants
//! 1. All variants of one workload have the same size, so that no answer is faster for its event.
//! 2. Where ids are made, they are the first field of an event: patching the encoded bytes is enough.
//! 3. A variant's upstream body is what the sidecar sends for it, in the documented order of fields.

use embeddables_proto::events::v1::event::Properties;
use embeddables_proto::events::v1::identifier::Value;
use embeddables_proto::events::v1::{Event, Identifier};
use prost_types::value::Kind;
use prost_types::{Struct, Timestamp};
use serde::Serialize;

/// Length of an event id: a UUID as text.
pub const EVENT_ID_BYTES: usize = 36;

/// An event id: stands where one is to be patched in.
pub const ID_PLACEHOLDER: &str = "00000000-0000-7000-8000-000000000000";

/// The project of events that name none.
pub const PROJECT: &str = "pr_benchmark";

/// 2026-11-23T10:00:00Z.
const FIRST_SECOND: i64 = 1_795_428_000;

/// Name of one of several projects; all names have one size up to 1,000 of them.
pub fn project_name(index: u32) -> String {
    format!("pr_benchmark_{index:03}")
}

/// Makes variant `index` of the event. Without ids, the server makes them. Of several projects each is named in turn;
/// with 0 of them none is named.
pub fn event(index: u32, with_id: bool, projects: u32) -> Event {
    Event {
        event_id: if with_id {
            ID_PLACEHOLDER.to_owned()
        } else {
            String::new()
        },
        project_id: index.checked_rem(projects).map(project_name).unwrap_or_default(),
        embeddable_id: "flow_2bc58aj3a8g0d9ddd8j7jbd4g".to_owned(),
        name: "appointment_completed".to_owned(),
        timestamp: Some(Timestamp {
            seconds: FIRST_SECOND + i64::from(index),
            nanos: 123_000_000,
        }),
        identifier: Some(Identifier {
            key: "email".to_owned(),
            value: Some(Value::StringValue(email(index))),
        }),
        properties: Some(Properties::Props(props(index))),
    }
}

/// Body of the request that creates variant `index` upstream.
pub fn upstream_body(index: u32) -> serde_json::Result<String> {
    let event = event(index, false, 0);
    let (hours, minutes, seconds) = (index / 3_600, index / 60 % 60, index % 60);
    serde_json::to_string(&UpstreamBody {
        timestamp: format!("2026-11-23T{:02}:{minutes:02}:{seconds:02}.123Z", 10 + hours),
        custom_event_props: serde_json::to_string(&json(props(index)))?,
        identifiers: [UpstreamIdentifier {
            key: "email",
            value: serde_json::to_string(&email(index))?,
        }],
        embeddable_id: event.embeddable_id,
        custom_event_name: event.name,
    })
}

#[derive(Serialize)]
struct UpstreamBody {
    embeddable_id: String,
    timestamp: String,
    custom_event_name: String,
    custom_event_props: String,
    identifiers: [UpstreamIdentifier; 1],
}

#[derive(Serialize)]
struct UpstreamIdentifier {
    key: &'static str,
    value: String,
}

fn email(index: u32) -> String {
    format!("jamie.rivera.{index:08}@example.com")
}

/// The kinds that [`props`] uses; its numbers are small and whole.
fn json(props: Struct) -> serde_json::Map<String, serde_json::Value> {
    let value = |kind| match kind {
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::BoolValue(truth)) => truth.into(),
        #[expect(clippy::cast_possible_truncation, reason = "small and whole")]
        Some(Kind::NumberValue(number)) => (number as i64).into(),
        _ => serde_json::Value::Null,
    };
    let fields = props.fields.into_iter();
    fields.map(|(name, one)| (name, value(one.kind))).collect()
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
        let length_bytes = event(0, false, 0).encoded_len();
        assert!((300..=310).contains(&length_bytes), "{length_bytes} bytes");
    }

    #[test]
    fn all_variants_have_one_size() {
        for projects in [0, 1, 100, 1_000] {
            let first = event(0, true, projects).encoded_len();
            assert!((1..2_000).all(|index| event(index, true, projects).encoded_len() == first));
        }
    }

    #[test]
    fn projects_take_turns() {
        let project = |index, projects| event(index, false, projects).project_id;
        assert_eq!(project(7, 0), "");
        assert_eq!(project(7, 1), "pr_benchmark_000");
        assert_eq!(project(199, 100), "pr_benchmark_099");
        assert_eq!(project(200, 100), "pr_benchmark_000");
    }

    #[test]
    fn the_id_is_the_first_field() {
        let encoded = event(7, true, 3).encode_to_vec();
        assert_eq!(&encoded[2..2 + EVENT_ID_BYTES], ID_PLACEHOLDER.as_bytes());
    }

    #[test]
    fn an_upstream_body_is_to_the_byte_what_the_sidecar_sends() {
        let expected = concat!(
            r#"{"embeddable_id":"flow_2bc58aj3a8g0d9ddd8j7jbd4g","timestamp":"2026-11-23T10:01:01.123Z","#,
            r#""custom_event_name":"appointment_completed","custom_event_props":"{\"appointment_id\":\"apt_0000000061\","#,
            r#"\"channel\":\"video-consultation\",\"clinic\":\"northside-family-practice-leeds\",\"duration_minutes\":31,"#,
            r#"\"follow_up\":false,\"specialty\":\"dermatology\"}","#,
            r#""identifiers":[{"key":"email","value":"\"jamie.rivera.00000061@example.com\""}]}"#,
        );
        assert_eq!(upstream_body(61).expect("a body"), expected);
    }
}
