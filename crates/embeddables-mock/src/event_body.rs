//! The body of `POST …/events`: what the documentation asks of it, all reasons against it at once.
//!
//! Messages never repeat a value: identifiers and properties are personal data, and answers end up in logs.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::route::is_id_byte;
use crate::strict_json;

/// Longest id of an Embeddable in bytes.
const MAX_EMBEDDABLE_ID_BYTES: usize = 256;
/// Fields that a body has: all of them, and no other.
const FIELDS: [&str; 5] = [
    "embeddable_id",
    "timestamp",
    "custom_event_name",
    "custom_event_props",
    "identifiers",
];

/// A body that follows every rule.
#[derive(Debug, PartialEq)]
pub(crate) struct EventBody {
    /// `embeddable_id`
    pub(crate) embeddable_id: String,
    /// `timestamp`, as it was written
    pub(crate) timestamp: String,
    /// `custom_event_name`
    pub(crate) name: String,
    /// `custom_event_props`, as it was written
    pub(crate) props: String,
    /// `identifiers[0].key`
    pub(crate) key: String,
    /// The scalar that `identifiers[0].value` stands for: string, number or boolean.
    pub(crate) value: Value,
}

/// One rule that a body breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Reason {
    /// Stable name of the rule.
    code: &'static str,
    /// Path of the field; empty for the body as a whole.
    field: String,
    /// The rule, in a sentence.
    message: String,
}

impl Reason {
    pub(crate) fn new(code: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            field: field.into(),
            message: message.into(),
        }
    }

    fn missing(field: &str) -> Self {
        Self::new("FIELD_MISSING", field, "the field is required")
    }

    fn wrong_type(field: &str, expected: &str) -> Self {
        Self::new("WRONG_TYPE", field, format!("expected {expected}"))
    }
}

/// Reads a body, or gives every reason against it.
pub(crate) fn read(body: &[u8]) -> Result<EventBody, Vec<Reason>> {
    let parsed = strict_json::parse(body).map_err(|error| {
        vec![Reason::new(
            "INVALID_JSON",
            "",
            format!("the body is not JSON: {error}"),
        )]
    })?;
    let mut reasons = Vec::new();
    for key in parsed.duplicate_keys {
        reasons.push(Reason::new(
            "DUPLICATE_KEY",
            key,
            "the key occurs twice in one object",
        ));
    }
    let Value::Object(mut object) = parsed.value else {
        return Err(vec![Reason::wrong_type("", "a JSON object")]);
    };
    let embeddable_id = string(&mut object, "embeddable_id", check_embeddable_id, &mut reasons);
    let timestamp = string(&mut object, "timestamp", check_timestamp, &mut reasons);
    let name = string(&mut object, "custom_event_name", check_name, &mut reasons);
    let props = string(&mut object, "custom_event_props", check_props, &mut reasons);
    let identifier = identifier(object.remove("identifiers"), &mut reasons);
    for field in object.keys() {
        reasons.push(Reason::new(
            "UNKNOWN_FIELD",
            field,
            format!("the known fields are {}", FIELDS.join(", ")),
        ));
    }
    match (embeddable_id, timestamp, name, props, identifier) {
        (Some(embeddable_id), Some(timestamp), Some(name), Some(props), Some((key, value)))
            if reasons.is_empty() =>
        {
            Ok(EventBody {
                embeddable_id,
                timestamp,
                name,
                props,
                key,
                value,
            })
        }
        _ => Err(reasons),
    }
}

/// Takes a required string out of the body and checks it.
fn string(
    object: &mut Map<String, Value>,
    field: &str,
    check: fn(&str) -> Option<Reason>,
    reasons: &mut Vec<Reason>,
) -> Option<String> {
    match object.remove(field) {
        None => reasons.push(Reason::missing(field)),
        Some(Value::String(text)) => match check(&text) {
            None => return Some(text),
            Some(reason) => reasons.push(reason),
        },
        Some(_) => reasons.push(Reason::wrong_type(field, "a string")),
    }
    None
}

fn check_embeddable_id(text: &str) -> Option<Reason> {
    let good = !text.is_empty() && text.len() <= MAX_EMBEDDABLE_ID_BYTES && text.bytes().all(is_id_byte);
    (!good).then(|| {
        Reason::new(
            "EMBEDDABLE_ID_INVALID",
            "embeddable_id",
            "expected 1 to 256 of A-Z a-z 0-9 _ -",
        )
    })
}

fn check_timestamp(text: &str) -> Option<Reason> {
    let good = has_timestamp_shape(text.as_bytes()) && text.parse::<jiff::Timestamp>().is_ok();
    (!good).then(|| {
        let message = "expected ISO 8601 with date, time and zone, e.g. 2022-01-01T00:00:00.000Z";
        Reason::new("TIMESTAMP_INVALID", "timestamp", message)
    })
}

/// Whether the text is `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`. The calendar is not looked at.
fn has_timestamp_shape(text: &[u8]) -> bool {
    let Some((date_time, rest)) = text.split_at_checked(19) else {
        return false;
    };
    let fits = |text: &[u8], pattern: &[u8]| {
        text.len() == pattern.len()
            && text.iter().zip(pattern).all(|(byte, wanted)| match wanted {
                b'0' => byte.is_ascii_digit(),
                b'+' => matches!(byte, b'+' | b'-'),
                _ => byte == wanted,
            })
    };
    let zone = match rest.strip_prefix(b".") {
        None => rest,
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if !(1..=9).contains(&digits) {
                return false;
            }
            &fraction[digits..]
        }
    };
    fits(date_time, b"0000-00-00T00:00:00") && (fits(zone, b"Z") || fits(zone, b"+00:00"))
}

fn check_name(text: &str) -> Option<Reason> {
    let good = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.split('_').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
    (!good).then(|| {
        let message =
            "expected snake_case: lower-case words of a-z and 0-9, a letter first, one _ between two";
        Reason::new("NAME_NOT_SNAKE_CASE", "custom_event_name", message)
    })
}

fn check_props(text: &str) -> Option<Reason> {
    let field = "custom_event_props";
    match strict_json::parse(text.as_bytes()) {
        Err(error) => Some(Reason::new("PROPS_NOT_JSON", field, format!("not JSON: {error}"))),
        Ok(parsed) if !parsed.value.is_object() => Some(Reason::new(
            "PROPS_NOT_AN_OBJECT",
            field,
            "the string must hold a JSON object",
        )),
        Ok(parsed) if !parsed.duplicate_keys.is_empty() => Some(Reason::new(
            "DUPLICATE_KEY",
            field,
            "a key occurs twice in one object of the string",
        )),
        Ok(_) => None,
    }
}

/// Reads the one identifier: its key and the scalar that its value stands for.
fn identifier(value: Option<Value>, reasons: &mut Vec<Reason>) -> Option<(String, Value)> {
    let list = match value {
        None => {
            reasons.push(Reason::missing("identifiers"));
            return None;
        }
        Some(Value::Array(list)) => list,
        Some(_) => {
            reasons.push(Reason::wrong_type("identifiers", "an array"));
            return None;
        }
    };
    let count = list.len();
    let [identifier] = <[Value; 1]>::try_from(list)
        .inspect_err(|_| {
            let message = format!("expected exactly one identifier, not {count}");
            reasons.push(Reason::new("IDENTIFIER_COUNT", "identifiers", message));
        })
        .ok()?;
    let Value::Object(mut object) = identifier else {
        reasons.push(Reason::wrong_type(
            "identifiers[0]",
            "an object with key and value",
        ));
        return None;
    };
    let key = identifier_part(&mut object, "key", reasons);
    let value = identifier_part(&mut object, "value", reasons);
    for field in object.keys() {
        let field = format!("identifiers[0].{field}");
        reasons.push(Reason::new(
            "UNKNOWN_FIELD",
            field,
            "the known fields are key, value",
        ));
    }
    if key.as_deref() == Some("") {
        reasons.push(Reason::new(
            "IDENTIFIER_KEY_EMPTY",
            "identifiers[0].key",
            "the key must not be empty",
        ));
    }
    let scalar = value.and_then(|text| match serde_json::from_str(&text) {
        Ok(scalar @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => Some(scalar),
        _ => {
            let message =
                r#"expected a stringified JSON string, number or boolean, e.g. "\"a@b.co\"" or "42""#;
            reasons.push(Reason::new(
                "IDENTIFIER_VALUE_NOT_A_SCALAR",
                "identifiers[0].value",
                message,
            ));
            None
        }
    });
    Some((key?, scalar?))
}

fn identifier_part(object: &mut Map<String, Value>, part: &str, reasons: &mut Vec<Reason>) -> Option<String> {
    let field = format!("identifiers[0].{part}");
    match object.remove(part) {
        Some(Value::String(text)) => return Some(text),
        Some(_) => reasons.push(Reason::wrong_type(&field, "a string")),
        None => reasons.push(Reason::missing(&field)),
    }
    None
}

#[cfg(test)]
mod tests;
