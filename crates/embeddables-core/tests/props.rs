//! Properties: each rule at its edge and one beyond it.

mod common;

use common::{accepted, json, refused, validate, with_properties};
use embeddables_core::{Properties, Value};

fn nested_text(levels: usize) -> String {
    format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
}

fn nested(levels: usize) -> Properties {
    let mut value = Value::Number(1.0);
    for _ in 1..levels {
        value = Value::List(vec![value]);
    }
    Properties::Object(vec![("a".to_owned(), value)])
}

fn member(value: Value) -> Properties {
    Properties::Object(vec![("a".to_owned(), value)])
}

#[track_caller]
fn check_refused(properties: Properties, expected: (&str, &str)) {
    assert_eq!(refused(&with_properties(properties)), [expected]);
}

#[track_caller]
fn check_written(properties: Properties, expected: &str) {
    assert_eq!(accepted(&with_properties(properties)).props_json(), expected);
}

#[test]
fn text_is_kept_to_the_byte() {
    for text in [
        "{}",
        " {\"b\" : 1.50,\n\"a\":1E2, \"\\u0061b\":-0} ",
        "{\"n\":123456789012345678901234567890}",
    ] {
        check_written(json(text), text);
    }
}

#[test]
fn text_is_at_most_64_levels_deep() {
    check_written(json(nested_text(64)), &nested_text(64));
    for levels in [65, 127, 128, 129, 10_000] {
        check_refused(json(nested_text(levels)), ("props_json", "PROPS_TOO_DEEP"));
    }
    check_refused(
        json(format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64))),
        ("props_json", "PROPS_TOO_DEEP"),
    );
}

#[test]
fn structures_are_at_most_24_levels_deep() {
    accepted(&with_properties(nested(24)));
    check_refused(nested(25), ("props", "PROPS_TOO_DEEP"));
    check_refused(nested(1000), ("props", "PROPS_TOO_DEEP"));
}

#[test]
fn properties_have_at_most_256_kib() {
    let text = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    accepted(&with_properties(json(text(262_144))));
    check_refused(json(text(262_145)), ("props_json", "PROPS_TOO_LARGE"));
    let object = |bytes: usize| member(Value::String("x".repeat(bytes - 8)));
    accepted(&with_properties(object(262_144)));
    check_refused(object(262_145), ("props", "PROPS_TOO_LARGE"));
}

#[test]
fn text_that_is_no_object_of_json_is_refused_with_its_place() {
    let wrong = [
        "",
        " ",
        "{",
        "{}}",
        "{} x",
        "\u{feff}{}",
        "{'a':1}",
        "{\"a\":1,}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{a:1}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "// c\n{}",
        "{\"a\":undefined}",
    ];
    for text in wrong {
        check_refused(json(text), ("props_json", "PROPS_NOT_JSON"));
    }
    for text in ["[]", "1", "null", "\"{}\"", "true"] {
        check_refused(json(text), ("props_json", "PROPS_NOT_OBJECT"));
    }
    let violations = validate(&with_properties(json("{\n  'secret'}"))).unwrap_err();
    assert!(
        violations.to_string().contains("(line 2, column 3)"),
        "{violations}"
    );
}

#[test]
fn half_surrogates_are_refused_in_keys_and_values() {
    for text in [
        r#"{"a":"\ud800"}"#,
        r#"{"a":"\udc00"}"#,
        r#"{"a":"\ud800x"}"#,
        r#"{"\ud800\u0041":1}"#,
        r#"{"a":"\ud800\n"}"#,
    ] {
        check_refused(json(text), ("props_json", "PROPS_LONE_SURROGATE"));
    }
    check_written(json(r#"{"a":"\ud83d\ude00"}"#), r#"{"a":"\ud83d\ude00"}"#);
}

#[test]
fn a_value_that_is_none_at_all_is_refused_and_null_is_written() {
    check_refused(member(Value::Unset), ("props", "PROPS_VALUE_MISSING"));
    check_refused(
        member(Value::List(vec![Value::Null, Value::Unset])),
        ("props", "PROPS_VALUE_MISSING"),
    );
    accepted(&with_properties(member(Value::Null)));
}

#[test]
fn keys_stand_once_at_every_level() {
    for text in [
        r#"{"a":1,"b":2,"a":3}"#,
        r#"{"x":[{"a":1,"\u0061":2}]}"#,
        r#"{"a":{"":1,"":1}}"#,
    ] {
        check_refused(json(text), ("props_json", "PROPS_DUPLICATE_KEY"));
    }
    accepted(&with_properties(json(r#"{"a":{"a":{"a":1}},"A":1}"#)));
    let twice = || vec![("a".to_owned(), Value::Null), ("a".to_owned(), Value::Null)];
    check_refused(Properties::Object(twice()), ("props", "PROPS_DUPLICATE_KEY"));
    check_refused(
        member(Value::List(vec![Value::Object(twice())])),
        ("props", "PROPS_DUPLICATE_KEY"),
    );
    let violations = validate(&with_properties(Properties::Object(twice()))).unwrap_err();
    assert_eq!(violations.as_slice()[0].hint(), Some("the key is a"));
}

#[test]
fn numbers_beyond_a_double_are_refused_in_text() {
    check_refused(json(r#"{"a":[1e999]}"#), ("props_json", "NUMBER_NOT_FINITE"));
    check_refused(json(r#"{"a":-1e999}"#), ("props_json", "NUMBER_NOT_FINITE"));
    accepted(&with_properties(json(
        r#"{"a":1.7976931348623157e308,"b":1e-999}"#,
    )));
}

#[test]
fn doubles_are_written_exactly_or_refused() {
    let cases = [
        (0.0, "0"),
        (-0.0, "0"),
        (2.0, "2"),
        (-49.5, "-49.5"),
        (0.1, "0.1"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (9_007_199_254_740_992.0, "9007199254740992"),
        (-9_007_199_254_740_992.0, "-9007199254740992"),
        (18_446_744_073_709_555_712.0, "18446744073709556000"),
        (1.5e300, "1.5e300"),
        (5e-324, "5e-324"),
    ];
    for (number, written) in cases {
        check_written(member(Value::Number(number)), &format!("{{\"a\":{written}}}"));
    }
    for number in [
        9_007_199_254_740_994.0,
        -9_007_199_254_740_994.0,
        1e17,
        18_446_744_073_709_551_616.0,
    ] {
        check_refused(member(Value::Number(number)), ("props", "NUMBER_NOT_EXACT"));
    }
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        check_refused(member(Value::Number(number)), ("props", "NUMBER_NOT_FINITE"));
    }
}

#[test]
fn payloads_are_written_in_the_documented_form() {
    let payload = |metrics: &[(&str, f64)], dimensions: &[(&str, &str)]| Properties::Payload {
        metrics: metrics
            .iter()
            .map(|(key, number)| ((*key).to_owned(), *number))
            .collect(),
        dimensions: dimensions
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect(),
    };
    check_written(
        payload(&[("items", 2.0), ("amount", 49.5)], &[("currency", "EUR")]),
        r#"{"payload_dimensions":{"currency":"EUR"},"payload_metrics":{"amount":49.5,"items":2}}"#,
    );
    check_written(payload(&[], &[]), "{}");
    check_written(payload(&[("", 1.0)], &[]), r#"{"payload_metrics":{"":1}}"#);
    check_written(payload(&[], &[("a", "")]), r#"{"payload_dimensions":{"a":""}}"#);
    check_refused(
        payload(&[("a", f64::NAN)], &[]),
        ("payload.metrics", "NUMBER_NOT_FINITE"),
    );
    check_refused(
        payload(&[("a", 1e16)], &[]),
        ("payload.metrics", "NUMBER_NOT_EXACT"),
    );
    check_refused(
        payload(&[], &[("a", &"x".repeat(262_144))]),
        ("payload", "PROPS_TOO_LARGE"),
    );
}

#[test]
fn each_rule_that_properties_break_is_told_once() {
    let text = r#"{"a":1,"a":2,"b":{"c":1,"c":1},"d":"#.to_owned() + &nested_text(70) + "}";
    let expected = [
        ("props_json", "PROPS_TOO_DEEP"),
        ("props_json", "PROPS_DUPLICATE_KEY"),
    ];
    assert_eq!(refused(&with_properties(json(text))), expected);
    let numbers = vec![
        Value::Number(f64::NAN),
        Value::Number(f64::NAN),
        Value::Number(1e17),
    ];
    let expected = [("props", "NUMBER_NOT_FINITE"), ("props", "NUMBER_NOT_EXACT")];
    assert_eq!(refused(&with_properties(member(Value::List(numbers)))), expected);
}
