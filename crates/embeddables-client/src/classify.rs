//! What an answer says: a pure function from status, headers and body to a verdict.
//!
//! # Invariants
//! 1. The status decides. The body is asked three things only: for a receipt (2xx), for the code of a 404, and whether it
//!    is JSON at all (other 4xx), which tells the API's own words from a gateway's.
//! 2. Any status and any body has a verdict.

use std::fmt;
use std::time::{Duration, SystemTime};

use embeddables_core::limits::RECEIPT_FIELD_MAX_BYTES;
use embeddables_core::{Receipt, Verdict};
use http::HeaderMap;
use http::header::RETRY_AFTER;
use serde::Deserialize;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// Shortest pause that is taken from `Retry-After`.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// Longest pause that is taken from `Retry-After`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The only code that is looked for in a body.
const ENTRY_NOT_FOUND: &str = "ENTRY_NOT_FOUND";

/// Says what an answer means for the event and its lane. `body` is what was read of it; `now` is the wall clock, for a
/// `Retry-After` that is a date.
pub fn classify(status: u16, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Verdict {
    match status {
        200..=299 => Verdict::Delivered(receipt(body)),
        401 => Verdict::KeyRejected,
        300..=399 | 402 | 403 | 407 | 421 => Verdict::Refused,
        404 => match parse(body) {
            Some(json) if has_code(&json) => Verdict::EntryNotFound,
            Some(_) | None => Verdict::Refused,
        },
        408 | 425 => Verdict::Unavailable { retry_after: None },
        429 | 503 => Verdict::Unavailable {
            retry_after: retry_after(headers, now),
        },
        400..=499 if parse(body).is_none() => Verdict::Refused,
        400 | 405 | 406 | 409..=417 | 422..=424 | 426 | 428 | 431 | 451 => Verdict::Invalid,
        _ => Verdict::Unavailable { retry_after: None },
    }
}

/// Whether the verdict, or the receipt, depends on the body.
pub(crate) fn needs_body(status: u16) -> bool {
    match status {
        200..=299 => true,
        401..=403 | 407 | 408 | 421 | 425 | 429 => false,
        400..=499 => true,
        _ => false,
    }
}

fn parse(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

/// Looks where APIs of this make put a code.
fn has_code(json: &Value) -> bool {
    let is_code = |value: Option<&Value>| value.and_then(Value::as_str) == Some(ENTRY_NOT_FOUND);
    let mentions = |value: Option<&Value>| value.and_then(Value::as_str).is_some_and(mentions_code);
    let error = json.get("error");
    is_code(json.get("code"))
        || mentions(error)
        || mentions(json.get("message"))
        || error.is_some_and(|error| is_code(error.get("code")) || mentions(error.get("message")))
}

/// Whether the code stands in a text as a word of its own.
fn mentions_code(text: &str) -> bool {
    let is_part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    text.split(|character| !is_part_of_word(character))
        .any(|word| word == ENTRY_NOT_FOUND)
}

fn receipt(body: &[u8]) -> Receipt {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let receipt = reader.deserialize_map(ReceiptFields);
    receipt
        .and_then(|receipt| reader.end().map(|()| receipt))
        .unwrap_or_else(|_| Receipt {
            unparsed: true,
            ..Receipt::default()
        })
}

/// Reads a receipt out of an object in one pass and keeps nothing else of it. Of several fields of a name the last counts.
struct ReceiptFields;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum FieldName {
    EntryId,
    ContactId,
    GroupId,
    EmbeddableVersionNumber,
    #[serde(other)]
    Other,
}

impl<'de> Visitor<'de> for ReceiptFields {
    type Value = Receipt;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Receipt, A::Error> {
        let mut receipt = Receipt::default();
        while let Some(name) = members.next_key()? {
            let field = match name {
                FieldName::EntryId => &mut receipt.entry_id,
                FieldName::ContactId => &mut receipt.contact_id,
                FieldName::GroupId => &mut receipt.group_id,
                FieldName::EmbeddableVersionNumber => &mut receipt.embeddable_version_number,
                FieldName::Other => {
                    members.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = kept(members.next_value()?);
        }
        Ok(receipt)
    }
}

/// What is kept of a field: text or a number, if it is not too long.
fn kept(value: Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    (text.len() <= RECEIPT_FIELD_MAX_BYTES).then_some(text)
}

/// Reads seconds or a date; `None` where there is neither.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let pause = if is_digits {
        // More digits than fit are a very long time.
        text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(pause.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
}
