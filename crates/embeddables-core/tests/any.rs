//! Properties that hold for every event.

mod common;

use common::strategies::{any_event, any_members, to_json};
use common::{NOW_SECONDS, event, validate, with_properties, with_value};
use embeddables_core::{Event, EventTime, IdentifierValue, Properties, Value, canonical};
use proptest::prelude::*;

/// Equal but for how numbers are written.
fn same(left: &serde_json::Value, right: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (left, right) {
        (Number(left), Number(right)) => left.as_f64() == right.as_f64(),
        (Array(left), Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same(l, r))
        }
        (Object(left), Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, l)| right.get(key).is_some_and(|r| same(l, r)))
        }
        _ => left == right,
    }
}

fn has_forbidden_number(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            !number.is_finite()
                || (number.fract() == 0.0
                    && (2f64.powi(53)..=2f64.powi(64)).contains(&number.abs())
                    && number.abs() != 2f64.powi(53))
        }
        Value::List(items) => items.iter().any(has_forbidden_number),
        Value::Object(members) => members.iter().any(|(_, value)| has_forbidden_number(value)),
        Value::Unset | Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_the_same_event_validates_the_same(event in any_event()) {
        let first = validate(&event);
        prop_assert!(first == validate(&event));
        prop_assert_eq!(canonical(&event), canonical(&event.clone()));
        if let Ok(valid) = first {
            let value: serde_json::Value = serde_json::from_str(valid.identifier_json()).unwrap();
            prop_assert!(value.is_string() || value.is_number() || value.is_boolean());
            let props: serde_json::Value = serde_json::from_str(valid.props_json()).unwrap();
            prop_assert!(props.is_object());
        }
    }

    #[test]
    fn structures_read_back_equal_or_are_refused_for_a_number(members in any_members()) {
        let tree = Value::Object(members.clone());
        match validate(&with_properties(Properties::Object(members))) {
            Ok(valid) => {
                prop_assert!(!has_forbidden_number(&tree));
                let read: serde_json::Value = serde_json::from_str(valid.props_json()).unwrap();
                prop_assert!(same(&read, &to_json(&tree)));
            }
            Err(violations) => {
                prop_assert!(has_forbidden_number(&tree), "{}", violations);
                prop_assert!(violations.iter().all(|violation| violation.path("event") == "event.props"));
            }
        }
    }

    #[test]
    fn doubles_read_back_as_the_same_double(number in any::<f64>()) {
        let properties = Properties::Object(vec![("a".to_owned(), Value::Number(number))]);
        if let Ok(valid) = validate(&with_properties(properties)) {
            let text = valid.props_json();
            let written = &text[5..text.len() - 1];
            prop_assert_eq!(written.parse::<f64>().unwrap(), number);
        }
    }

    #[test]
    fn strings_read_back_equal_or_are_refused(text in any::<String>()) {
        match validate(&with_value(IdentifierValue::String(text.clone()))) {
            Ok(valid) => prop_assert_eq!(serde_json::from_str::<String>(valid.identifier_json()).unwrap(), text),
            Err(violations) => {
                prop_assert!(text.is_empty() || text.starts_with('"'));
                prop_assert_eq!(violations.as_slice()[0].path("events[3]"), "events[3].identifier.value");
            }
        }
    }

    #[test]
    fn only_the_wrong_field_is_named(name in "[A-Z ]{1,9}", id in "[ é]{1,9}", embeddable in "[./%]{1,9}") {
        let by_name = validate(&Event { name, ..event() }).unwrap_err();
        prop_assert_eq!(common::codes(&by_name), [("name", "NAME_NOT_SNAKE_CASE")]);
        let by_id = validate(&Event { event_id: Some(id), ..event() }).unwrap_err();
        prop_assert_eq!(common::codes(&by_id), [("event_id", "EVENT_ID_CHARACTER")]);
        let by_embeddable = validate(&Event { embeddable_id: embeddable, ..event() }).unwrap_err();
        prop_assert_eq!(common::codes(&by_embeddable), [("embeddable_id", "EMBEDDABLE_ID_CHARACTER")]);
    }

    #[test]
    fn times_are_written_as_another_library_writes_them(seconds in -62_135_596_800i64..253_400_000_000, nanos in 0u32..1_000_000_000) {
        let time = embeddables_core::Timestamp::from_unix(seconds, nanos).unwrap();
        let theirs = jiff::Timestamp::new(seconds, i32::try_from(nanos).unwrap()).unwrap();
        prop_assert_eq!(time.to_string(), theirs.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string());
        prop_assert_eq!(embeddables_core::Timestamp::parse(&theirs.to_string()), Ok(time));
        prop_assert_eq!(embeddables_core::Timestamp::from_system_time(time.to_system_time().unwrap()), Some(time));
    }

    #[test]
    fn the_form_of_properties_does_not_change_the_content(members in any_members()) {
        let tree = Value::Object(members.clone());
        prop_assume!(!has_forbidden_number(&tree));
        let mut reversed = members.clone();
        reversed.reverse();
        let pretty = serde_json::to_string_pretty(&to_json(&tree)).unwrap();
        let expected = canonical(&with_properties(Properties::Object(members)));
        prop_assert_eq!(&canonical(&with_properties(Properties::Object(reversed))), &expected);
        prop_assert_eq!(&canonical(&with_properties(Properties::Json(pretty))), &expected);
    }

    #[test]
    fn other_content_has_another_form(left in any_event(), right in any_event()) {
        let left = Event { event_id: None, project_id: None, ..left };
        let right = Event { event_id: None, project_id: None, ..right };
        if canonical(&left) == canonical(&right) {
            prop_assert_eq!(left.embeddable_id, right.embeddable_id);
            prop_assert_eq!(left.name, right.name);
        }
    }

    #[test]
    fn a_change_anywhere_changes_the_form(members in any_members(), key in any::<String>(), text in any::<String>()) {
        let base = event();
        let expected = canonical(&base);
        let changed = [
            Event { embeddable_id: base.embeddable_id.clone() + "x", ..base.clone() },
            Event { name: base.name.clone() + "x", ..base.clone() },
            Event { timestamp: Some(EventTime::Unix { seconds: NOW_SECONDS, nanos: 1 }), ..base.clone() },
            Event { identifier: None, ..base.clone() },
            with_value(IdentifierValue::String(text.clone() + "x")),
            with_value(IdentifierValue::Bool(true)),
            with_properties(Properties::Object(vec![(key.clone(), Value::String(text.clone()))])),
            // Bytes that move from one field to the next.
            Event { embeddable_id: base.embeddable_id.clone() + &base.name, name: String::new(), ..base.clone() },
        ];
        for event in changed {
            prop_assert_ne!(&canonical(&event), &expected);
        }
        let mut more = members.clone();
        more.retain(|(other, _)| *other != key);
        let less = with_properties(Properties::Object(more.clone()));
        more.push((key, Value::String(text)));
        prop_assert_ne!(canonical(&with_properties(Properties::Object(more))), canonical(&less));
    }

    #[test]
    fn neither_debug_nor_display_shows_personal_data(suffix in "[a-z]{8}") {
        let canary = format!("canary-{suffix}");
        let events = [
            with_value(IdentifierValue::String(canary.clone())),
            with_value(IdentifierValue::String(format!("\"{canary}\""))),
            with_value(IdentifierValue::Json(canary.clone())),
            with_value(IdentifierValue::Json(format!("\"{canary}\""))),
            with_properties(Properties::Json(format!("{{\"{canary}\":1, {canary}"))),
            with_properties(Properties::Json(format!("{{\"{canary}\":1, \"{canary}\":1}}"))),
            with_properties(Properties::Object(vec![(canary.clone(), Value::String(canary.clone()))])),
            with_properties(Properties::Object(vec![(canary.clone(), Value::Number(f64::NAN))])),
            with_properties(Properties::Payload {
                metrics: [(canary.clone(), f64::NAN)].into(),
                dimensions: [(canary.clone(), canary.clone())].into(),
            }),
            Event { timestamp: Some(EventTime::Text(canary.clone())), ..event() },
            Event { name: canary.clone(), ..event() },
        ];
        for (index, event) in events.into_iter().enumerate() {
            if index < 10 {
                let shown = format!("{event:?} {event:#?}");
                prop_assert!(!shown.contains(&canary), "{}", shown);
            }
            let shown = match validate(&event) {
                Ok(valid) => format!("{valid:?} {valid:#?}"),
                Err(violations) => format!("{violations:?} {violations:#?} {violations}"),
            };
            prop_assert!(!shown.contains(&canary), "{}", shown);
        }
    }
}

#[test]
fn the_content_of_equal_values_in_other_types_is_equal() {
    let form = |value| canonical(&with_value(value));
    let json = |text: &str| form(IdentifierValue::Json(text.to_owned()));
    assert_eq!(form(IdentifierValue::String("a".to_owned())), json("\"\\u0061\""));
    assert_eq!(
        form(IdentifierValue::Integer(42)),
        form(IdentifierValue::Number(42.0))
    );
    assert_eq!(form(IdentifierValue::Integer(42)), json("42.0"));
    assert_ne!(
        form(IdentifierValue::Integer(9_007_199_254_740_993)),
        json("9007199254740992")
    );
    assert_ne!(form(IdentifierValue::String("42".to_owned())), json("42"));
    assert_ne!(json("true"), json("\"true\""));
    let props = |text: &str| canonical(&with_properties(Properties::Json(text.to_owned())));
    assert_eq!(props("{}"), canonical(&event()));
    assert_eq!(props("{\"a\":1.0,\"b\":-0}"), props("{ \"b\":0,\"a\":1e0 }"));
    assert_eq!(
        props("{\"a\":18446744073709551615}"),
        props("{\"a\":18446744073709551615 }")
    );
    assert_ne!(
        props("{\"a\":18446744073709551615}"),
        props("{\"a\":18446744073709551614}")
    );
    assert_ne!(props("{\"a\":[1,[2]]}"), props("{\"a\":[[1],2]}"));
    assert_ne!(props("{\"a\":null}"), props("{}"));
}

#[test]
fn the_content_leaves_out_ids_and_knows_instants() {
    let time = |text: &str| {
        canonical(&Event {
            timestamp: Some(EventTime::Text(text.to_owned())),
            ..event()
        })
    };
    assert_eq!(
        canonical(&Event {
            event_id: None,
            project_id: None,
            ..event()
        }),
        canonical(&event())
    );
    assert_eq!(
        time("2022-01-01T00:00:00Z"),
        time("2022-01-01T01:00:00.000+01:00")
    );
    let unix = Event {
        timestamp: Some(EventTime::Unix {
            seconds: NOW_SECONDS,
            nanos: 0,
        }),
        ..event()
    };
    assert_eq!(time("2022-01-01T00:00:00Z"), canonical(&unix));
    assert_ne!(
        time("2022-01-01T00:00:00Z"),
        time("2022-01-01T00:00:00.000000001Z")
    );
    assert_ne!(time("2022-01-01T00:00:00Z"), canonical(&event()));
}
