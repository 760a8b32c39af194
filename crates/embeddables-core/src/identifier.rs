//! Names one user of an Embeddable: a key of the user's data and the value held under it.
//!
//! Upstream wants the value as stringified JSON; that encoding is done here, so that no caller does it twice.
//!
//! # Invariants
//! 1. `Debug` never shows the value.
//! 2. The JSON text made here is one scalar: a string, a number, `true` or `false`.

use std::fmt;

use crate::limits::{EXACT_WHOLE_MAX, IDENTIFIER_KEY_MAX_BYTES};
use crate::number::{write_number, write_string};
use crate::validate::{DoubleEncoding, Found};
use crate::violation::{Field, Reason, Violation};

/// Who did it, as the caller says. Unchecked.
#[derive(Clone, Debug, PartialEq)]
pub struct Identifier {
    /// Key of the user's data that holds the value, for example `email`: 1 to 256 bytes of anything that JSON can carry.
    pub key: String,
    /// Value that the user's data holds under that key; refused where it is missing.
    pub value: Option<IdentifierValue>,
}

/// Value of an identifier. Personal data: `Debug` shows its kind only.
#[derive(Clone, PartialEq)]
pub enum IdentifierValue {
    /// A string as it is; not empty, and not a JSON string literal with its quotes.
    String(String),
    /// A whole number, exact.
    Integer(i64),
    /// A number: finite, and within ±2^53 where it is whole.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// An already stringified JSON scalar, as upstream's own body has it; kept to the byte.
    Json(String),
}

impl fmt::Debug for IdentifierValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => write!(formatter, "String({} bytes)", text.len()),
            Self::Integer(_) => formatter.write_str("Integer(redacted)"),
            Self::Number(_) => formatter.write_str("Number(redacted)"),
            Self::Bool(_) => formatter.write_str("Bool(redacted)"),
            Self::Json(text) => write!(formatter, "Json({} bytes)", text.len()),
        }
    }
}

/// Key and value as upstream gets them.
pub(crate) struct EncodedIdentifier {
    pub(crate) key: String,
    pub(crate) json: String,
}

/// Checks all of it and encodes the value; `None` where something was found.
pub(crate) fn encode(
    identifier: Option<&Identifier>,
    double_encoding: DoubleEncoding,
    found: &mut Found,
) -> Option<EncodedIdentifier> {
    let Some(identifier) = identifier else {
        found.add(Field::Identifier, Reason::IdentifierMissing);
        return None;
    };
    let key_is_fine = match identifier.key.len() {
        0 => found.add(Field::IdentifierKey, Reason::IdentifierKeyMissing),
        1..=IDENTIFIER_KEY_MAX_BYTES => true,
        _ => found.add(Field::IdentifierKey, Reason::IdentifierKeyLength),
    };
    match encode_value(identifier.value.as_ref(), double_encoding) {
        Ok(json) => key_is_fine.then(|| EncodedIdentifier {
            key: identifier.key.clone(),
            json,
        }),
        Err(violation) => {
            found.push(violation);
            None
        }
    }
}

fn encode_value(
    value: Option<&IdentifierValue>,
    double_encoding: DoubleEncoding,
) -> Result<String, Violation> {
    match value {
        None => Err(wrong(Reason::IdentifierValueMissing)),
        Some(IdentifierValue::String(text)) => encode_string(text, double_encoding, Encoding::Plain),
        Some(IdentifierValue::Integer(number)) => Ok(number.to_string()),
        Some(IdentifierValue::Number(number)) => encode_number(*number),
        Some(IdentifierValue::Bool(truth)) => Ok(truth.to_string()),
        Some(IdentifierValue::Json(text)) => check_json(text, double_encoding),
    }
}

/// How the caller wrote the value, which decides how the value that was meant is told.
#[derive(Clone, Copy)]
enum Encoding {
    Plain,
    Json,
}

/// A whole number beyond 2^53 is refused whatever its size: such an identifier is a rounded one.
fn encode_number(number: f64) -> Result<String, Violation> {
    if number.is_finite() && number.trunc() == number && number.abs() > EXACT_WHOLE_MAX {
        return Err(wrong(Reason::NumberNotExact));
    }
    let mut json = String::new();
    write_number(&mut json, number).map_err(wrong)?;
    Ok(json)
}

fn encode_string(
    text: &str,
    double_encoding: DoubleEncoding,
    encoding: Encoding,
) -> Result<String, Violation> {
    if text.is_empty() {
        return Err(wrong(Reason::IdentifierValueEmpty));
    }
    match (string_within(text), double_encoding) {
        (Some(meant), DoubleEncoding::Refuse) => Err(double_encoded(&meant, encoding)),
        (Some(meant), DoubleEncoding::Unwrap) => encode_string(&meant, double_encoding, encoding),
        (Some(_), DoubleEncoding::Allow) | (None, _) => {
            let mut json = String::with_capacity(text.len() + 2);
            write_string(&mut json, text);
            Ok(json)
        }
    }
}

fn check_json(text: &str, double_encoding: DoubleEncoding) -> Result<String, Violation> {
    use serde_json::Value;
    match serde_json::from_str::<Value>(text) {
        Ok(Value::String(string)) => {
            let encoded = encode_string(&string, double_encoding, Encoding::Json)?;
            let is_unwrapped = double_encoding == DoubleEncoding::Unwrap && string_within(&string).is_some();
            Ok(if is_unwrapped { encoded } else { text.to_owned() })
        }
        Ok(Value::Number(_) | Value::Bool(_)) => Ok(text.to_owned()),
        Ok(Value::Null | Value::Array(_) | Value::Object(_)) => Err(wrong(Reason::IdentifierValueNotScalar)),
        Err(error) if error.to_string().starts_with("number out of range") => {
            Err(wrong(Reason::NumberNotFinite))
        }
        Err(_) => {
            Err(wrong(Reason::IdentifierValueNotJson).with_hint(format!("send {}", quoted(&quoted(text)))))
        }
    }
}

/// The string that a JSON string literal stands for, where the text is one from quote to quote.
fn string_within(text: &str) -> Option<String> {
    let is_quoted = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    if is_quoted {
        serde_json::from_str(text).ok()
    } else {
        None
    }
}

fn double_encoded(meant: &str, encoding: Encoding) -> Violation {
    // Three layers are as wrong as two: tell the innermost.
    let mut innermost = meant.to_owned();
    while let Some(within) = string_within(&innermost) {
        innermost = within;
    }
    let meant = match encoding {
        Encoding::Plain => innermost,
        Encoding::Json => quoted(&quoted(&innermost)),
    };
    wrong(Reason::IdentifierDoubleEncoded).with_hint(format!("send {meant}"))
}

fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    write_string(&mut json, text);
    json
}

fn wrong(reason: Reason) -> Violation {
    Violation::new(Field::IdentifierValue, reason)
}
