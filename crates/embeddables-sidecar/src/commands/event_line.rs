//! A line of NDJSON → [`Event`]: the shape of "event" in `vectors/request-bodies.json`, plus `event_id`, `project_id` and
//! `props_json`.
//!
//! # Invariants
//! 1. Nothing is rounded: an integer identifier beyond 2^53 stays exact, and `props` are sent as the text that stands in the
//!    line, not as doubles.
//! 2. Only the shape is judged here. What makes an event valid the sidecar says, all of it at once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use embeddables_proto::events::v1::{Event, Identifier, StructuredPayload, event, identifier};
use serde::Deserialize;
use serde::de::{Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The shape of a line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventLine<'a> {
    event_id: Option<String>,
    project_id: Option<String>,
    embeddable_id: Option<String>,
    name: Option<String>,
    timestamp: Option<String>,
    #[serde(borrow)]
    identifier: Option<IdentifierLine<'a>>,
    #[serde(borrow)]
    props: Option<&'a RawValue>,
    props_json: Option<String>,
    payload: Option<PayloadLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentifierLine<'a> {
    key: Option<String>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PayloadLine {
    #[serde(default)]
    metrics: UniqueMap<f64>,
    #[serde(default)]
    dimensions: UniqueMap<String>,
}

/// Reads a line.
///
/// # Errors
/// A sentence that says why it is no event. It may quote names of fields, never a value.
pub(super) fn parse_line(line: &str) -> Result<Event, String> {
    let line: EventLine<'_> = serde_json::from_str(line).map_err(|error| shape_error(&error))?;
    Ok(Event {
        event_id: line.event_id.unwrap_or_default(),
        project_id: line.project_id.unwrap_or_default(),
        embeddable_id: line.embeddable_id.unwrap_or_default(),
        name: line.name.unwrap_or_default(),
        timestamp: line.timestamp.as_deref().map(parse_timestamp).transpose()?,
        identifier: line.identifier.map(read_identifier).transpose()?,
        properties: properties(line.props, line.props_json, line.payload)?,
    })
}

/// Reads a time as RFC 3339 has it.
pub(super) fn parse_timestamp(text: &str) -> Result<prost_types::Timestamp, String> {
    let timestamp: jiff::Timestamp = text.parse().map_err(|_| {
        "`timestamp` is not a time with an offset such as 2026-11-23T10:00:00Z or 2026-11-23T12:00:00.5+02:00".to_owned()
    })?;
    // The nanoseconds of a protobuf time count forward, also before 1970.
    let (seconds, nanos) = (timestamp.as_second(), timestamp.subsec_nanosecond());
    let is_before = nanos < 0;
    Ok(prost_types::Timestamp {
        seconds: if is_before { seconds - 1 } else { seconds },
        nanos: if is_before { nanos + 1_000_000_000 } else { nanos },
    })
}

/// Reads an identifier's value from JSON: a string, a number or a truth value.
pub(super) fn parse_value(json: &str) -> Result<identifier::Value, String> {
    use identifier::Value;
    let json = json.trim();
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json)
            .map(Value::StringValue)
            .map_err(|error| value_error(&error)),
        Some(b't' | b'f') => serde_json::from_str(json)
            .map(Value::BoolValue)
            .map_err(|error| value_error(&error)),
        Some(b'-' | b'0'..=b'9') if !json.contains(['.', 'e', 'E']) => {
            // Read once as JSON: `007` is a number to Rust only.
            serde_json::from_str::<&RawValue>(json).map_err(|error| value_error(&error))?;
            json.parse().map(Value::Int64Value).map_err(|_| {
                "the identifier's value is an integer beyond 64 bits: give it as a string if it is one upstream".to_owned()
            })
        }
        Some(b'-' | b'0'..=b'9') => serde_json::from_str(json)
            .map(Value::DoubleValue)
            .map_err(|error| value_error(&error)),
        _ => Err("the identifier's value must be a string, a number, true or false".to_owned()),
    }
}

/// The text of `props`, which must be an object.
pub(super) fn props_text(json: &str) -> Result<String, String> {
    let json = json.trim();
    match json.starts_with('{') {
        true => Ok(json.to_owned()),
        false => Err("`props` must be a JSON object; the text of one goes into `props_json`".to_owned()),
    }
}

fn read_identifier(line: IdentifierLine<'_>) -> Result<Identifier, String> {
    Ok(Identifier {
        key: line.key.unwrap_or_default(),
        value: line.value.map(|value| parse_value(value.get())).transpose()?,
    })
}

fn properties(
    props: Option<&RawValue>,
    props_json: Option<String>,
    payload: Option<PayloadLine>,
) -> Result<Option<event::Properties>, String> {
    match (props, props_json, payload) {
        (None, None, None) => Ok(None),
        // As text, not as a `Struct`: that would round integers beyond 2^53.
        (Some(props), None, None) => {
            props_text(props.get()).map(|text| Some(event::Properties::PropsJson(text)))
        }
        (None, Some(text), None) => Ok(Some(event::Properties::PropsJson(text))),
        (None, None, Some(payload)) => Ok(Some(event::Properties::Payload(StructuredPayload {
            metrics: payload.metrics.0,
            dimensions: payload.dimensions.0,
        }))),
        _ => Err("give only one of `props`, `props_json` and `payload`".to_owned()),
    }
}

/// What the JSON parser found, without the values that it quotes: they may be personal data.
fn shape_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!("column {}", error.column());
    if error.is_data() {
        let message = text
            .rsplit_once(" at line ")
            .map_or(text.as_str(), |(message, _)| message);
        return match message
            .split_once("invalid type: ")
            .or_else(|| message.split_once("invalid value: "))
        {
            Some((_, rest)) => {
                let expected = rest
                    .rsplit_once("expected ")
                    .map_or(rest, |(_, expected)| expected);
                format!("{place}: expected {expected}")
            }
            None => format!("{place}: {message}"),
        };
    }
    match error.is_eof() {
        true => "it ends too early: an event is one JSON object on one line".to_owned(),
        false => {
            let message = text
                .rsplit_once(" at line ")
                .map_or(text.as_str(), |(message, _)| message);
            format!("not JSON, {place}: {message}")
        }
    }
}

fn value_error(error: &serde_json::Error) -> String {
    format!("the identifier's value: {}", shape_error(error))
}

/// A map that takes no key twice: the last one would win in silence.
struct UniqueMap<V>(BTreeMap<String, V>);

impl<V> Default for UniqueMap<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UniqueVisitor<V>(std::marker::PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
            type Value = UniqueMap<V>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = entries.next_entry::<Cow<'de, str>, V>()? {
                    if map.insert(key.into_owned(), value).is_some() {
                        return Err(A::Error::custom("a key stands twice in `payload`"));
                    }
                }
                Ok(UniqueMap(map))
            }
        }

        deserializer.deserialize_map(UniqueVisitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_value(json: &str, expected: identifier::Value) {
        assert_eq!(parse_value(json), Ok(expected), "{json}");
    }

    #[track_caller]
    fn check_refused(line: &str, parts: &[&str]) {
        let error = parse_line(line).expect_err(line);
        for part in parts {
            assert!(error.contains(part), "no `{part}` in: {error}");
        }
        assert!(!error.contains("CANARY"), "a value is shown: {error}");
    }

    #[test]
    fn an_identifier_keeps_its_type_and_every_digit() {
        use identifier::Value;
        check_value("\"a@b.co\"", Value::StringValue("a@b.co".to_owned()));
        check_value("9007199254740993", Value::Int64Value(9_007_199_254_740_993));
        check_value("-9223372036854775808", Value::Int64Value(i64::MIN));
        check_value("1.5", Value::DoubleValue(1.5));
        check_value("1e3", Value::DoubleValue(1000.0));
        check_value("true", Value::BoolValue(true));
    }

    #[test]
    fn an_identifier_that_would_be_rounded_or_is_no_scalar_is_refused() {
        for json in [
            "9223372036854775808",
            "1e999",
            "007",
            "null",
            "[1]",
            "{}",
            "",
            "tru",
            "NaN",
        ] {
            assert!(parse_value(json).is_err(), "{json}");
        }
    }

    #[test]
    fn props_are_kept_to_the_byte() {
        let event =
            parse_line(r#"{"props": {"n": 12345678901234567890, "x": 1.50, "x": 2}}"#).expect("is an event");
        let expected = r#"{"n": 12345678901234567890, "x": 1.50, "x": 2}"#.to_owned();
        assert_eq!(event.properties, Some(event::Properties::PropsJson(expected)));
    }

    #[test]
    fn times_are_taken_with_their_offset() {
        let time = |text: &str| parse_timestamp(text).map(|time| (time.seconds, time.nanos));
        assert_eq!(time("1970-01-01T00:00:01.5Z"), Ok((1, 500_000_000)));
        assert_eq!(time("1970-01-01T02:00:00+02:00"), Ok((0, 0)));
        assert_eq!(time("1969-12-31T23:59:59.25Z"), Ok((-1, 250_000_000)));
        for text in ["", "yesterday", "2026-11-23", "2026-11-23T10:00:00", "1700000000"] {
            assert!(time(text).unwrap_err().contains("2026-11-23T10:00:00Z"), "{text}");
        }
    }

    #[test]
    fn what_is_no_event_is_told_without_its_values() {
        check_refused("hello CANARY", &["not JSON", "column 1"]);
        check_refused("{\"name\": \"CANARY\"", &["ends too early"]);
        check_refused("[\"CANARY\"]", &["expected"]);
        check_refused(r#"{"name": "CANARY", "nmae": 1}"#, &["unknown field `nmae`"]);
        check_refused(r#"{"name": 42, "event_id": "CANARY"}"#, &["expected a string"]);
        check_refused(r#"{"event_id": {"x": "CANARY"}}"#, &["expected a string"]);
        check_refused(r#"{"name": "a", "name": "CANARY"}"#, &["duplicate field `name`"]);
        check_refused(r#"{"props": "{\"a\": \"CANARY\"}"}"#, &["`props_json`"]);
        check_refused(r#"{"props": {}, "props_json": "CANARY"}"#, &["only one of"]);
        check_refused(r#"{"timestamp": "CANARY"}"#, &["`timestamp`"]);
        check_refused(
            r#"{"identifier": {"key": "k", "value": ["CANARY"]}}"#,
            &["a string, a number"],
        );
        check_refused(
            r#"{"payload": {"metrics": {"CANARY": 1, "CANARY": 2}}}"#,
            &["twice"],
        );
        check_refused(r#"{"payload": {"metrics": {"a": "CANARY"}}}"#, &["expected f64"]);
    }

    /// Copies of the events in `vectors/request-bodies.json`, one for each way that they differ.
    #[test]
    fn the_shapes_of_the_vectors_are_taken() {
        let event = parse_line(
            r#"{"embeddable_id": "flow_myexampleflow", "timestamp": "2022-01-01T00:00:00.000Z", "name": "my_custom_event", "props": {"my_prop": "my_val"}, "identifier": {"key": "email", "value": "test@test.com"}}"#,
        )
        .expect("documented example");
        assert_eq!(
            (event.embeddable_id.as_str(), event.name.as_str()),
            ("flow_myexampleflow", "my_custom_event")
        );
        assert_eq!(event.timestamp.map(|time| time.seconds), Some(1_640_995_200));
        let event = parse_line(
            r#"{"embeddable_id": "flow_a1", "timestamp": "2026-11-23T10:00:00.123456789Z", "name": "visit_completed", "identifier": {"key": "member_no", "value": 9007199254740993}}"#,
        )
        .expect("a number beyond 2^53");
        assert_eq!(event.timestamp.map(|time| time.nanos), Some(123_456_789));
        assert_eq!(
            event.identifier.and_then(|identifier| identifier.value),
            Some(identifier::Value::Int64Value(9_007_199_254_740_993))
        );
        let event = parse_line(
            r#"{"embeddable_id": "flow_a1", "timestamp": "2026-02-28T00:00:00+02:00", "name": "purchase", "payload": {"metrics": {"amount": 49.5, "items": 2}, "dimensions": {"currency": "EUR"}}, "identifier": {"key": "email", "value": "a@b.co"}}"#,
        )
        .expect("structured payload");
        let Some(event::Properties::Payload(payload)) = event.properties else {
            panic!("{event:?}")
        };
        assert_eq!(
            payload.metrics,
            BTreeMap::from([("amount".to_owned(), 49.5), ("items".to_owned(), 2.0)])
        );
        let event = parse_line(
            "{\"embeddable_id\": \"flow_a1\", \"timestamp\": \"1999-12-31T23:59:59Z\", \"name\": \"note_added\", \"props\": {\"note\": \"a \\\"b\\\" \\\\ c\\n\\u0001 é 漢 😀\"}, \"identifier\": {\"key\": \"name\", \"value\": \"O\\\"Brien \\\\ 漢\"}}",
        )
        .expect("quotes and non-ASCII text");
        assert_eq!(
            event.identifier.and_then(|identifier| identifier.value),
            Some(identifier::Value::StringValue("O\"Brien \\ 漢".to_owned()))
        );
        let event = parse_line(
            r#"{"event_id": "e1", "project_id": "pr_1", "embeddable_id": "flow_a1", "timestamp": "2026-06-01T00:00:00Z", "name": "a", "props_json": "{\"x\":{\"y\":[1,null,true,1.5e300]}}", "identifier": {"key": "beta", "value": true}}"#,
        )
        .expect("with ids and the text of props");
        assert_eq!(
            (event.event_id.as_str(), event.project_id.as_str()),
            ("e1", "pr_1")
        );
    }

    #[test]
    fn what_is_missing_is_left_for_the_sidecar_to_say() {
        assert_eq!(parse_line("{}"), Ok(Event::default()));
        assert_eq!(
            parse_line(r#"{"props": null, "timestamp": null}"#),
            Ok(Event::default())
        );
    }
}
