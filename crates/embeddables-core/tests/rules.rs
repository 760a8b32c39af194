//! Each rule at its edge and one beyond it.

mod common;

use common::{accepted, codes, event, refused};
use embeddables_core::{Defaults, Event, EventId, EventTime, Field, Identifier, Reason, Rules, Timestamp};

#[test]
fn defaults_are_filled_in_where_the_event_says_nothing() {
    let valid = accepted(&Event {
        event_id: None,
        project_id: None,
        ..event()
    });
    assert_eq!(valid.event_id().as_str(), "made");
    assert_eq!(valid.project_id().as_str(), "pr_default");
    assert_eq!(valid.time().to_string(), "2022-01-01T00:00:00.000Z");
    assert_eq!(valid.props_json(), "{}");
    assert_eq!(valid.identifier_key(), "email");
}

#[test]
fn what_the_event_says_goes_before_defaults() {
    let valid = accepted(&event());
    assert_eq!(valid.event_id().as_str(), "e-1");
    assert_eq!(valid.project_id().as_str(), "pr_1");
}

#[test]
fn every_violation_comes_at_once_in_the_order_of_the_fields() {
    let event = Event {
        event_id: Some(String::new()),
        project_id: Some("..".to_owned()),
        embeddable_id: String::new(),
        name: "A b".to_owned(),
        timestamp: Some(EventTime::Text("yesterday".to_owned())),
        identifier: Some(Identifier {
            key: String::new(),
            value: None,
        }),
        properties: common::json("[]"),
    };
    let expected = [
        ("event_id", "EVENT_ID_LENGTH"),
        ("project_id", "PROJECT_ID_CHARACTER"),
        ("embeddable_id", "EMBEDDABLE_ID_MISSING"),
        ("name", "NAME_NOT_SNAKE_CASE"),
        ("timestamp", "TIMESTAMP_MALFORMED"),
        ("identifier.key", "IDENTIFIER_KEY_MISSING"),
        ("identifier.value", "IDENTIFIER_VALUE_MISSING"),
        ("props_json", "PROPS_NOT_OBJECT"),
    ];
    assert_eq!(refused(&event), expected);
}

#[test]
fn a_project_is_asked_for_where_none_is_configured() {
    let defaults = Defaults {
        project_id: None,
        event_id: EventId::parse("made").unwrap(),
        now: Timestamp::from_unix(0, 0).unwrap(),
    };
    let violations = Event {
        project_id: None,
        ..event()
    }
    .validate(&defaults, &Rules::default())
    .unwrap_err();
    assert_eq!(codes(&violations), [("project_id", "PROJECT_ID_MISSING")]);
    assert!(event().validate(&defaults, &Rules::default()).is_ok());
}

#[test]
fn names_are_snake_case_of_at_most_128_bytes() {
    let fine = ["a", "a1", "a_b", "a_1", "visit_completed", &"a".repeat(128)];
    for name in fine {
        accepted(&Event {
            name: name.to_owned(),
            ..event()
        });
    }
    let wrong = [
        ("", "NAME_MISSING"),
        (&*"a".repeat(129), "NAME_LENGTH"),
        ("_a", "NAME_NOT_SNAKE_CASE"),
        ("a_", "NAME_NOT_SNAKE_CASE"),
        ("a__b", "NAME_NOT_SNAKE_CASE"),
        ("1a", "NAME_NOT_SNAKE_CASE"),
        ("A", "NAME_NOT_SNAKE_CASE"),
        ("a-b", "NAME_NOT_SNAKE_CASE"),
        ("a b", "NAME_NOT_SNAKE_CASE"),
        ("a\n", "NAME_NOT_SNAKE_CASE"),
        ("é", "NAME_NOT_SNAKE_CASE"),
        ("aé", "NAME_NOT_SNAKE_CASE"),
    ];
    for (name, code) in wrong {
        assert_eq!(
            refused(&Event {
                name: name.to_owned(),
                ..event()
            }),
            [("name", code)],
            "{name:?}"
        );
    }
}

#[test]
fn ids_hold_their_lengths_and_characters() {
    let project = |id: &str| Event {
        project_id: Some(id.to_owned()),
        ..event()
    };
    let embeddable = |id: &str| Event {
        embeddable_id: id.to_owned(),
        ..event()
    };
    let id = |id: &str| Event {
        event_id: Some(id.to_owned()),
        ..event()
    };
    for fine in [
        project("Az09_-"),
        project(&"p".repeat(128)),
        embeddable(&"p".repeat(256)),
        id("!~"),
        id(&"e".repeat(64)),
    ] {
        accepted(&fine);
    }
    for hostile in ["..", "%2e", "a\0", "a/b", "ａ", "a.b", " a", "a\n"] {
        assert_eq!(
            refused(&project(hostile)),
            [("project_id", "PROJECT_ID_CHARACTER")],
            "{hostile:?}"
        );
        assert_eq!(
            refused(&embeddable(hostile)),
            [("embeddable_id", "EMBEDDABLE_ID_CHARACTER")],
            "{hostile:?}"
        );
    }
    for hostile in ["a b", "a\x7f", "a\x1f", "é", "a\n"] {
        assert_eq!(
            refused(&id(hostile)),
            [("event_id", "EVENT_ID_CHARACTER")],
            "{hostile:?}"
        );
    }
    assert_eq!(refused(&project("")), [("project_id", "PROJECT_ID_LENGTH")]);
    assert_eq!(
        refused(&project(&"p".repeat(129))),
        [("project_id", "PROJECT_ID_LENGTH")]
    );
    assert_eq!(
        refused(&embeddable(&"p".repeat(257))),
        [("embeddable_id", "EMBEDDABLE_ID_LENGTH")]
    );
    assert_eq!(refused(&id("")), [("event_id", "EVENT_ID_LENGTH")]);
    assert_eq!(refused(&id(&"e".repeat(65))), [("event_id", "EVENT_ID_LENGTH")]);
}

#[test]
fn timestamps_lie_within_the_years_1_to_9999() {
    let text = |text: &str| Event {
        timestamp: Some(EventTime::Text(text.to_owned())),
        ..event()
    };
    let unix = |seconds, nanos| Event {
        timestamp: Some(EventTime::Unix { seconds, nanos }),
        ..event()
    };
    let fine = [
        (unix(-62_135_596_800, 0), "0001-01-01T00:00:00.000Z"),
        (unix(253_402_300_799, 999_999_999), "9999-12-31T23:59:59.999Z"),
        (unix(-1, 999_000_000), "1969-12-31T23:59:59.999Z"),
        (text("0001-01-01T00:00:00Z"), "0001-01-01T00:00:00.000Z"),
        (text("9999-12-31T23:59:59.999999999Z"), "9999-12-31T23:59:59.999Z"),
        (text("2026-11-23T10:00:00.123456789Z"), "2026-11-23T10:00:00.123Z"),
        (text("2026-02-28T00:00:00+02:00"), "2026-02-27T22:00:00.000Z"),
        (text("2024-02-29t23:59:60z"), "2024-02-29T23:59:59.000Z"),
        (text("20260228T000000-0530"), "2026-02-28T05:30:00.000Z"),
    ];
    for (event, written) in fine {
        assert_eq!(accepted(&event).time().to_string(), written);
    }
    let wrong = [
        (unix(-62_135_596_801, 0), "TIMESTAMP_RANGE"),
        (unix(253_402_300_800, 0), "TIMESTAMP_RANGE"),
        (unix(1_640_995_200_000, 0), "TIMESTAMP_RANGE"),
        (unix(i64::MIN, 0), "TIMESTAMP_RANGE"),
        (unix(0, -1), "TIMESTAMP_NANOS"),
        (unix(0, 1_000_000_000), "TIMESTAMP_NANOS"),
        (text("0001-01-01T00:00:00+00:01"), "TIMESTAMP_RANGE"),
        (text("9999-12-31T23:59:59-00:01"), "TIMESTAMP_RANGE"),
        (text("0000-01-01T00:00:00Z"), "TIMESTAMP_RANGE"),
        (text("10000-01-01T00:00:00Z"), "TIMESTAMP_MALFORMED"),
        (text("2022-01-01T00:00:00"), "TIMESTAMP_MALFORMED"),
        (text("2022-01-01"), "TIMESTAMP_MALFORMED"),
        (text("2022-02-30T00:00:00Z"), "TIMESTAMP_MALFORMED"),
        (text("1640995200"), "TIMESTAMP_MALFORMED"),
        (text(""), "TIMESTAMP_MALFORMED"),
    ];
    for (event, code) in wrong {
        assert_eq!(refused(&event), [("timestamp", code)]);
    }
}

#[test]
fn codes_are_distinct_and_sentences_name_the_limits() {
    let mut codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        assert!(
            reason
                .as_str()
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_'),
            "{reason}"
        );
    }
    let limits = [
        (Reason::NameLength, embeddables_core::limits::NAME_MAX_BYTES),
        (
            Reason::ProjectIdLength,
            embeddables_core::limits::PROJECT_ID_MAX_BYTES,
        ),
        (
            Reason::EmbeddableIdLength,
            embeddables_core::limits::EMBEDDABLE_ID_MAX_BYTES,
        ),
        (
            Reason::EventIdLength,
            embeddables_core::limits::EVENT_ID_MAX_BYTES,
        ),
        (
            Reason::IdentifierKeyLength,
            embeddables_core::limits::IDENTIFIER_KEY_MAX_BYTES,
        ),
        (
            Reason::PropsTooDeep,
            embeddables_core::limits::PROPS_JSON_MAX_DEPTH,
        ),
        (
            Reason::PropsTooDeep,
            embeddables_core::limits::PROPS_OBJECT_MAX_DEPTH,
        ),
    ];
    for (reason, limit) in limits {
        assert!(reason.sentence().contains(&limit.to_string()), "{reason}");
    }
    assert_eq!(
        Field::ALL.len(),
        Field::ALL
            .iter()
            .map(|field| field.as_str())
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    );
}
