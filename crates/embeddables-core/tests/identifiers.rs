//! Identifiers: stringified once, refused where they name nobody.

mod common;

use common::{accepted, codes, event, refused, validate, validate_by, with_value};
use embeddables_core::{DoubleEncoding, Event, Identifier, IdentifierValue, Rules};

fn string(text: &str) -> IdentifierValue {
    IdentifierValue::String(text.to_owned())
}

fn json(text: &str) -> IdentifierValue {
    IdentifierValue::Json(text.to_owned())
}

#[test]
fn identifiers_are_stringified_once() {
    let cases = [
        (string("test@test.com"), r#""test@test.com""#),
        (
            string("O\"Brien \\ 漢\n\u{1}"),
            "\"O\\\"Brien \\\\ 漢\\n\\u0001\"",
        ),
        (string("\"half"), r#""\"half""#),
        (string("42"), r#""42""#),
        (
            IdentifierValue::Integer(9_007_199_254_740_993),
            "9007199254740993",
        ),
        (IdentifierValue::Integer(i64::MIN), "-9223372036854775808"),
        (IdentifierValue::Number(42.0), "42"),
        (IdentifierValue::Number(-0.0), "0"),
        (IdentifierValue::Number(0.1), "0.1"),
        (
            IdentifierValue::Number(9_007_199_254_740_992.0),
            "9007199254740992",
        ),
        (IdentifierValue::Bool(true), "true"),
        (json(r#""test@test.com""#), r#""test@test.com""#),
        (json(r#""\u0061""#), r#""\u0061""#),
        (json("1.50"), "1.50"),
        (json("false"), "false"),
    ];
    for (value, encoded) in cases {
        assert_eq!(accepted(&with_value(value)).identifier_json(), encoded);
    }
}

#[test]
fn identifiers_that_name_nobody_are_refused() {
    let cases = [
        (string(""), "IDENTIFIER_VALUE_EMPTY"),
        (json(r#""""#), "IDENTIFIER_VALUE_EMPTY"),
        (json("null"), "IDENTIFIER_VALUE_NOT_SCALAR"),
        (json("[1]"), "IDENTIFIER_VALUE_NOT_SCALAR"),
        (json("{}"), "IDENTIFIER_VALUE_NOT_SCALAR"),
        (json("test@test.com"), "IDENTIFIER_VALUE_NOT_JSON"),
        (json(""), "IDENTIFIER_VALUE_NOT_JSON"),
        (json(r#""\ud800""#), "IDENTIFIER_VALUE_NOT_JSON"),
        (json("1 2"), "IDENTIFIER_VALUE_NOT_JSON"),
        (json("1e999"), "NUMBER_NOT_FINITE"),
        (IdentifierValue::Number(f64::NAN), "NUMBER_NOT_FINITE"),
        (IdentifierValue::Number(f64::NEG_INFINITY), "NUMBER_NOT_FINITE"),
        (
            IdentifierValue::Number(9_007_199_254_740_994.0),
            "NUMBER_NOT_EXACT",
        ),
        (IdentifierValue::Number(1e300), "NUMBER_NOT_EXACT"),
    ];
    for (value, code) in cases {
        assert_eq!(refused(&with_value(value)), [("identifier.value", code)]);
    }
    assert_eq!(
        refused(&Event {
            identifier: None,
            ..event()
        }),
        [("identifier", "IDENTIFIER_MISSING")]
    );
}

#[test]
fn identifier_keys_have_1_to_256_bytes() {
    let with_key = |key: &str| Event {
        identifier: Some(Identifier {
            key: key.to_owned(),
            value: Some(string("a")),
        }),
        ..event()
    };
    accepted(&with_key(&"k".repeat(256)));
    accepted(&with_key("\0 ké"));
    assert_eq!(
        refused(&with_key("")),
        [("identifier.key", "IDENTIFIER_KEY_MISSING")]
    );
    assert_eq!(
        refused(&with_key(&"k".repeat(257))),
        [("identifier.key", "IDENTIFIER_KEY_LENGTH")]
    );
}

#[test]
fn a_double_encoding_is_refused_with_what_was_meant() {
    let cases = [
        (string(r#""test@test.com""#), "send test@test.com"),
        (string(r#""\"test@test.com\"""#), "send test@test.com"),
        (json(r#""\"test@test.com\"""#), r#"send "\"test@test.com\"""#),
    ];
    for (value, hint) in cases {
        let violations = validate(&with_value(value)).unwrap_err();
        assert_eq!(
            codes(&violations),
            [("identifier.value", "IDENTIFIER_DOUBLE_ENCODED")]
        );
        let violation = &violations.as_slice()[0];
        assert_eq!(violation.hint(), Some(hint));
        assert!(violation.for_caller().ends_with(hint));
    }
    let unquoted = validate(&with_value(json("test@test.com"))).unwrap_err();
    assert_eq!(unquoted.as_slice()[0].hint(), Some(r#"send "\"test@test.com\"""#));
}

#[test]
fn a_double_encoding_is_unwrapped_or_allowed_where_configured() {
    let by = |double_encoding, value| {
        validate_by(
            &with_value(value),
            &Rules {
                double_encoding,
                ..Rules::default()
            },
        )
        .map(|valid| valid.identifier_json().to_owned())
        .map_err(|violations| codes(&violations))
    };
    let (unwrap, allow) = (DoubleEncoding::Unwrap, DoubleEncoding::Allow);
    assert_eq!(by(unwrap, string(r#""a""#)).as_deref(), Ok(r#""a""#));
    assert_eq!(by(unwrap, string(r#""\"a\"""#)).as_deref(), Ok(r#""a""#));
    assert_eq!(by(unwrap, json(r#""\"a\"""#)).as_deref(), Ok(r#""a""#));
    assert_eq!(by(unwrap, json(r#""\u0061""#)).as_deref(), Ok(r#""\u0061""#));
    assert_eq!(
        by(unwrap, string(r#""""#)),
        Err(vec![("identifier.value", "IDENTIFIER_VALUE_EMPTY")])
    );
    assert_eq!(by(allow, string(r#""a""#)).as_deref(), Ok(r#""\"a\"""#));
    assert_eq!(by(allow, json(r#""\"a\"""#)).as_deref(), Ok(r#""\"a\"""#));
}
