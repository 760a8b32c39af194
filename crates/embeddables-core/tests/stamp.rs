//! `Rules::stamp_event_id`: the event's id as the first of its properties, and nothing else changed.

mod common;

use common::strategies::{any_members, any_properties, to_json};
use common::{codes, event, json, validate, validate_by, with_properties};
use embeddables_core::limits::PROPS_MAX_BYTES;
use embeddables_core::{Event, Properties, Reason, Rules, Value, canonical};
use proptest::prelude::*;

fn rules(key: &str) -> Rules {
    Rules {
        stamp_event_id: Some(key.to_owned()),
        ..Rules::default()
    }
}

/// The properties as they are sent with a stamp, or field and code of each violation.
fn stamped(properties: Properties, key: &str) -> Result<String, Vec<(&'static str, &'static str)>> {
    validate_by(&with_properties(properties), &rules(key))
        .map(|valid| valid.props_json().to_owned())
        .map_err(|violations| codes(&violations))
}

fn payload(metrics: &[(&str, f64)], dimensions: &[(&str, &str)]) -> Properties {
    let own = |key: &str| key.to_owned();
    Properties::Payload {
        metrics: metrics.iter().map(|(key, number)| (own(key), *number)).collect(),
        dimensions: dimensions
            .iter()
            .map(|(key, text)| (own(key), own(text)))
            .collect(),
    }
}

fn object(members: &[(&str, Value)]) -> Properties {
    let member = |(key, value): &(&str, Value)| ((*key).to_owned(), value.clone());
    Properties::Object(members.iter().map(member).collect())
}

#[track_caller]
fn check(properties: Properties, expected: &str) {
    assert_eq!(stamped(properties, "event id").as_deref(), Ok(expected));
}

#[test]
fn each_form_of_properties_takes_the_stamp_as_its_first_member() {
    check(Properties::None, r#"{"event id":"e-1"}"#);
    check(object(&[]), r#"{"event id":"e-1"}"#);
    check(
        object(&[("a", Value::Object(Vec::new())), ("b", Value::Null)]),
        r#"{"event id":"e-1","a":{},"b":null}"#,
    );
    check(payload(&[], &[]), r#"{"event id":"e-1"}"#);
    check(
        payload(&[("a", 1.0)], &[("b", "c")]),
        r#"{"event id":"e-1","payload_dimensions":{"b":"c"},"payload_metrics":{"a":1}}"#,
    );
}

#[test]
fn text_is_kept_to_the_byte_around_the_stamp() {
    check(json("{}"), r#"{"event id":"e-1"}"#);
    check(json(" {} "), r#" {"event id":"e-1"} "#);
    check(json("\r\n{ \t\n}\n"), "\r\n{\"event id\":\"e-1\" \t\n}\n");
    check(json("{\n\"a\":1}"), "{\"event id\":\"e-1\",\n\"a\":1}");
    check(
        json(r#"{ "b" : 1.0e2, "a":"\u0061{" }"#),
        r#"{"event id":"e-1", "b" : 1.0e2, "a":"\u0061{" }"#,
    );
    check(
        json(r#"{"a":{"event id":1},"c":[]}"#),
        r#"{"event id":"e-1","a":{"event id":1},"c":[]}"#,
    );
}

#[test]
fn an_id_made_here_and_a_key_of_any_characters_are_written_as_json() {
    let valid = validate_by(
        &Event {
            event_id: None,
            ..event()
        },
        &rules("\"é\n"),
    )
    .unwrap();
    assert_eq!(valid.props_json(), "{\"\\\"é\\n\":\"made\"}");
    let odd = Event {
        event_id: Some(r#"a"\b"#.to_owned()),
        ..event()
    };
    let valid = validate_by(&odd, &rules("id")).unwrap();
    assert_eq!(valid.props_json(), r#"{"id":"a\"\\b"}"#);
}

#[test]
fn a_key_that_is_there_already_is_refused_however_it_is_written() {
    let taken = |field| Err(vec![(field, "PROPS_STAMP_TAKEN")]);
    for text in [r#"{"id":null}"#, r#"{"a":1, "\u0069d" :2}"#] {
        assert_eq!(stamped(json(text), "id"), taken("props_json"), "{text}");
    }
    assert_eq!(stamped(object(&[("id", Value::Null)]), "id"), taken("props"));
    let metrics = payload(&[("id", 1.0)], &[]);
    assert_eq!(stamped(metrics.clone(), "payload_metrics"), taken("payload"));
    assert!(
        stamped(metrics.clone(), "payload_dimensions").is_ok(),
        "left out where empty"
    );
    assert!(stamped(metrics, "id").is_ok(), "only the top level counts");
}

#[test]
fn the_stamp_counts_for_the_limit_of_the_size() {
    let stamp_bytes = r#""id":"e-1","#.len();
    let room = PROPS_MAX_BYTES - stamp_bytes;
    let text = |bytes: usize| "x".repeat(bytes);
    let of_text = |bytes: usize| json(format!(r#"{{"a":"{}"}}"#, text(bytes - 8)));
    let of_blanks = |bytes: usize| json(format!(r#"{{"a":1}}{}"#, " ".repeat(bytes - 7)));
    let of_object = |bytes: usize| object(&[("a", Value::String(text(bytes - 8)))]);
    let of_payload = |bytes: usize| payload(&[], &[("a", &text(bytes - 31))]);
    let forms: [(&str, &dyn Fn(usize) -> Properties); 4] = [
        ("props_json", &of_text),
        ("props_json", &of_blanks),
        ("props", &of_object),
        ("payload", &of_payload),
    ];
    for (field, sized) in forms {
        let full = stamped(sized(room), "id").unwrap_or_else(|found| panic!("{field}: {found:?}"));
        assert_eq!(full.len(), PROPS_MAX_BYTES, "{field}");
        assert!(
            validate(&with_properties(sized(PROPS_MAX_BYTES))).is_ok(),
            "{field}"
        );
        for bytes in [room + 1, PROPS_MAX_BYTES, PROPS_MAX_BYTES + 1] {
            let found = stamped(sized(bytes), "id");
            assert_eq!(found, Err(vec![(field, "PROPS_TOO_LARGE")]), "{field}");
        }
    }
}

#[test]
fn a_wrong_id_is_told_beside_what_is_wrong_with_the_stamp() {
    let wrong = Event {
        event_id: Some("a b".to_owned()),
        ..with_properties(json(r#"{"id":1}"#))
    };
    assert_eq!(
        codes(&validate_by(&wrong, &rules("id")).unwrap_err()),
        [
            ("event_id", "EVENT_ID_CHARACTER"),
            ("props_json", "PROPS_STAMP_TAKEN")
        ]
    );
}

/// Text of an object with blanks wherever they may stand around its braces.
fn any_text() -> impl Strategy<Value = Properties> {
    let blank = "[ \t\r\n]{0,3}";
    (blank, any_members(), any::<bool>(), blank).prop_map(|(before, members, is_pretty, after)| {
        let tree = to_json(&Value::Object(members));
        let text = if is_pretty {
            format!("{tree:#}")
        } else {
            tree.to_string().replacen('{', "{ ", 1)
        };
        Properties::Json(format!("{before}{text}{after}"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_valid_stays_as_it_is_behind_the_stamp(
        properties in prop_oneof![any_properties(), any_text()],
        key in any::<String>(),
        id in "[!-~]{1,64}",
    ) {
        let event = Event { event_id: Some(id.clone()), ..with_properties(properties) };
        let Ok(plain) = validate(&event) else {
            // Nothing becomes valid by a stamp.
            prop_assert!(validate_by(&event, &rules(&key)).is_err());
            return Ok(());
        };
        let mut expected: serde_json::Map<_, _> = serde_json::from_str(plain.props_json()).unwrap();
        prop_assume!(!expected.contains_key(&key));
        let valid = validate_by(&event, &rules(&key)).unwrap();

        // To the byte: the text without a stamp, with one member put in behind the first brace.
        let (before, after) = plain.props_json().split_once('{').unwrap();
        let member = format!("{}:{}", serde_json::json!(key), serde_json::json!(id));
        let comma = if expected.is_empty() { "" } else { "," };
        prop_assert_eq!(valid.props_json(), format!("{before}{{{member}{comma}{after}"));

        // By another reader: the same members and one more.
        expected.insert(key, id.into());
        let found: serde_json::Map<_, _> = serde_json::from_str(valid.props_json()).unwrap();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_key_at_the_top_is_taken_in_every_form(members in any_members(), index in any::<prop::sample::Index>()) {
        prop_assume!(!members.is_empty());
        let properties = Properties::Object(members.clone());
        prop_assume!(validate(&with_properties(properties.clone())).is_ok());
        let key = &index.get(&members).0;
        let text = json(to_json(&Value::Object(members.clone())).to_string());
        prop_assert_eq!(stamped(properties, key), Err(vec![("props", Reason::PropsStampTaken.as_str())]));
        prop_assert_eq!(stamped(text, key), Err(vec![("props_json", Reason::PropsStampTaken.as_str())]));
    }

    #[test]
    fn the_content_is_the_same_whatever_id_is_stamped(properties in any_properties(), id in "[!-~]{1,64}") {
        let one = with_properties(properties);
        let other = Event { event_id: Some(id), ..one.clone() };
        prop_assert_eq!(canonical(&one), canonical(&other));
    }
}
