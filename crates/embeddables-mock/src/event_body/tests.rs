//! Every rule of a body, at its edge and beyond it.

use serde_json::json;

use super::*;

fn good() -> Value {
    json!({
        "embeddable_id": "flow_1",
        "timestamp": "2022-01-01T00:00:00.000Z",
        "custom_event_name": "my_event",
        "custom_event_props": "{}",
        "identifiers": [{ "key": "email", "value": "\"a@b.co\"" }],
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut body = good();
    body[field] = value;
    body
}

fn identified(identifier: Value) -> Value {
    with("identifiers", json!([identifier]))
}

#[track_caller]
fn check(body: &Value, expected: &[(&str, &str)]) {
    check_text(&body.to_string(), expected);
}

#[track_caller]
fn check_text(body: &str, expected: &[(&str, &str)]) {
    let reasons = read(body.as_bytes()).err().unwrap_or_default();
    let found: Vec<_> = reasons
        .iter()
        .map(|reason| (reason.code, reason.field.as_str()))
        .collect();
    assert_eq!(found, expected, "{body}");
}

#[test]
fn a_good_body_gives_its_parts() {
    let event = read(good().to_string().as_bytes()).expect("a good body");
    assert_eq!(event.name, "my_event");
    assert_eq!((event.key.as_str(), event.value), ("email", json!("a@b.co")));
}

#[test]
fn what_is_not_a_json_object_is_refused_as_a_whole() {
    check_text("", &[("INVALID_JSON", "")]);
    check_text("{", &[("INVALID_JSON", "")]);
    check_text("[]", &[("WRONG_TYPE", "")]);
}

#[test]
fn every_field_is_required_and_all_are_named_at_once() {
    check(
        &json!({}),
        &[
            ("FIELD_MISSING", "embeddable_id"),
            ("FIELD_MISSING", "timestamp"),
            ("FIELD_MISSING", "custom_event_name"),
            ("FIELD_MISSING", "custom_event_props"),
            ("FIELD_MISSING", "identifiers"),
        ],
    );
}

#[test]
fn every_field_has_its_type() {
    for field in [
        "embeddable_id",
        "timestamp",
        "custom_event_name",
        "custom_event_props",
        "identifiers",
    ] {
        check(&with(field, json!(1)), &[("WRONG_TYPE", field)]);
        check(&with(field, Value::Null), &[("WRONG_TYPE", field)]);
    }
    check(
        &with("custom_event_props", json!({})),
        &[("WRONG_TYPE", "custom_event_props")],
    );
}

#[test]
fn an_unknown_field_is_refused() {
    check(&with("event_id", json!("1")), &[("UNKNOWN_FIELD", "event_id")]);
    check(
        &identified(json!({ "key": "email", "value": "1", "type": "x" })),
        &[("UNKNOWN_FIELD", "identifiers[0].type")],
    );
}

#[test]
fn a_key_given_twice_is_refused() {
    let twice = good().to_string().replacen('{', "{\"timestamp\":\"x\",", 1);
    check_text(&twice, &[("DUPLICATE_KEY", "timestamp")]);
    check(
        &with("custom_event_props", json!("{\"a\":1,\"a\":2}")),
        &[("DUPLICATE_KEY", "custom_event_props")],
    );
}

#[test]
fn an_embeddable_id_is_1_to_256_id_characters() {
    check(&with("embeddable_id", json!("a".repeat(256))), &[]);
    for bad in [
        String::new(),
        "a".repeat(257),
        "a b".into(),
        "é".into(),
        "a/b".into(),
    ] {
        check(
            &with("embeddable_id", json!(bad)),
            &[("EMBEDDABLE_ID_INVALID", "embeddable_id")],
        );
    }
}

#[test]
fn a_timestamp_is_iso_8601_with_a_zone() {
    for good in [
        "2022-01-01T00:00:00Z",
        "2022-01-01T00:00:00.1Z",
        "2022-01-01T00:00:00.123456789Z",
        "2024-02-29T23:59:59.999+02:00",
        "0001-01-01T00:00:00.000Z",
    ] {
        check(&with("timestamp", json!(good)), &[]);
    }
    for bad in [
        "",
        "2022-01-01",
        "2022-01-01T00:00:00",
        "2022-01-01 00:00:00Z",
        "2022-01-01t00:00:00z",
        "2022-01-01T00:00:00.Z",
        "2022-01-01T00:00:00.1234567890Z",
        "2022-01-01T00:00:00+0200",
        "2022-01-01T00:00Z",
        "2023-02-29T00:00:00Z",
        "2022-13-01T00:00:00Z",
        "2022-01-01T24:00:00Z",
        "2022-01-01T00:00:00Z[UTC]",
        "1640995200000",
        "2022-01-01T00:00:0é",
    ] {
        check(
            &with("timestamp", json!(bad)),
            &[("TIMESTAMP_INVALID", "timestamp")],
        );
    }
}

#[test]
fn a_name_is_snake_case() {
    for good in ["a", "a1", "visit_completed", "a_1_b"] {
        check(&with("custom_event_name", json!(good)), &[]);
    }
    for bad in [
        "",
        "A",
        "visitCompleted",
        "_a",
        "a_",
        "a__b",
        "1a",
        "a-b",
        "a b",
        "é",
    ] {
        check(
            &with("custom_event_name", json!(bad)),
            &[("NAME_NOT_SNAKE_CASE", "custom_event_name")],
        );
    }
}

#[test]
fn props_are_a_string_that_holds_a_json_object() {
    check(
        &with("custom_event_props", json!("{\"a\":{\"b\":[1,null]}}")),
        &[],
    );
    for bad in ["", "{", "a", "{} {}"] {
        check(
            &with("custom_event_props", json!(bad)),
            &[("PROPS_NOT_JSON", "custom_event_props")],
        );
    }
    for bad in ["[]", "null", "1", "\"{}\""] {
        check(
            &with("custom_event_props", json!(bad)),
            &[("PROPS_NOT_AN_OBJECT", "custom_event_props")],
        );
    }
}

#[test]
fn there_is_exactly_one_identifier() {
    let one = json!({ "key": "email", "value": "1" });
    check(
        &with("identifiers", json!([])),
        &[("IDENTIFIER_COUNT", "identifiers")],
    );
    check(
        &with("identifiers", json!([one, one])),
        &[("IDENTIFIER_COUNT", "identifiers")],
    );
    check(
        &with("identifiers", json!(["a"])),
        &[("WRONG_TYPE", "identifiers[0]")],
    );
    check(
        &identified(json!({})),
        &[
            ("FIELD_MISSING", "identifiers[0].key"),
            ("FIELD_MISSING", "identifiers[0].value"),
        ],
    );
    check(
        &identified(json!({ "key": 1, "value": 42 })),
        &[
            ("WRONG_TYPE", "identifiers[0].key"),
            ("WRONG_TYPE", "identifiers[0].value"),
        ],
    );
    check(
        &identified(json!({ "key": "", "value": "1" })),
        &[("IDENTIFIER_KEY_EMPTY", "identifiers[0].key")],
    );
}

#[test]
fn an_identifier_value_is_a_stringified_scalar() {
    for good in ["\"a@b.co\"", "42", "-1.5", "true", "\"\\\"a@b.co\\\"\""] {
        check(&identified(json!({ "key": "email", "value": good })), &[]);
    }
    for bad in ["a@b.co", "", "null", "{}", "[1]", "\"a", "1 2"] {
        check(
            &identified(json!({ "key": "email", "value": bad })),
            &[("IDENTIFIER_VALUE_NOT_A_SCALAR", "identifiers[0].value")],
        );
    }
}
