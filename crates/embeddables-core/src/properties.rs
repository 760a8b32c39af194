//! Anything else worth knowing of an event, in the forms in which callers give it, and the JSON text that is sent.
//!
//! # Invariants
//! 1. Text that a caller gave is kept to the byte; only a stamp is put in front of its first member.
//! 2. The text made or taken here is one JSON object without duplicate keys, NaN or infinity, at most
//!    [`PROPS_MAX_BYTES`] long.
//! 3. `Debug` never shows keys or values.

use std::collections::BTreeMap;
use std::fmt;

use crate::json_text::{self, Defect};
use crate::limits::{PROPS_JSON_MAX_DEPTH, PROPS_MAX_BYTES, PROPS_OBJECT_MAX_DEPTH};
use crate::number::{write_number, write_string};
use crate::validate::Found;
use crate::violation::{Field, Reason, Violation};

/// Room for the text of most structures, so that it does not grow again and again.
const USUAL_BYTES: usize = 256;

/// Properties of an event, as the caller gives them. Unchecked; personal data.
#[derive(Clone, Default, PartialEq)]
pub enum Properties {
    /// None: sent as `{}`.
    #[default]
    None,
    /// A structure, for example of a `google.protobuf.Struct`; at most 24 levels deep. Sent in the order given.
    Object(Vec<(String, Value)>),
    /// Text of a JSON object; at most 64 levels deep. Sent to the byte.
    Json(String),
    /// Numbers to sum and strings to group by. Sent as `{"payload_dimensions":{…},"payload_metrics":{…}}`, either left
    /// out where it is empty. Any key is taken, also an empty one.
    Payload {
        /// Numbers to sum, for example `amount`. Finite, and within ±2^53 where they are whole.
        metrics: BTreeMap<String, f64>,
        /// Strings to group by, for example `currency`.
        dimensions: BTreeMap<String, String>,
    },
}

/// A value within properties that were given as a structure.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// No value at all, as a `google.protobuf.Value` without a kind: refused, since `null` would be a guess.
    Unset,
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number: finite, and not a whole one between 2^53 and 2^64. Whole ones within ±2^53 are written without a
    /// fraction, negative zero as `0`.
    Number(f64),
    /// A string.
    String(String),
    /// A list.
    List(Vec<Value>),
    /// An object; its keys must differ.
    Object(Vec<(String, Value)>),
}

impl fmt::Debug for Properties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("None"),
            Self::Object(members) => write!(formatter, "Object({} members)", members.len()),
            Self::Json(text) => write!(formatter, "Json({} bytes)", text.len()),
            Self::Payload { metrics, dimensions } => {
                write!(
                    formatter,
                    "Payload({} metrics, {} dimensions)",
                    metrics.len(),
                    dimensions.len()
                )
            }
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => formatter.write_str("Unset"),
            Self::Null => formatter.write_str("Null"),
            Self::Bool(_) => formatter.write_str("Bool(redacted)"),
            Self::Number(_) => formatter.write_str("Number(redacted)"),
            Self::String(text) => write!(formatter, "String({} bytes)", text.len()),
            Self::List(items) => write!(formatter, "List({} items)", items.len()),
            Self::Object(members) => write!(formatter, "Object({} members)", members.len()),
        }
    }
}

/// Key and value of the member that an operator wants in front of all others.
#[derive(Clone, Copy)]
pub(crate) struct Stamp<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: &'a str,
}

/// Checks the properties and makes the text to be sent; `None` where something was found.
pub(crate) fn encode(properties: &Properties, stamp: Option<Stamp<'_>>, found: &mut Found) -> Option<String> {
    match properties {
        Properties::None => Writer::new(Field::Props, stamp).finish(found),
        Properties::Object(members) => {
            let mut writer = Writer::new(Field::Props, stamp);
            writer.check_stamp(members.iter().map(|(key, _)| key.as_str()));
            writer.check_duplicates(members);
            writer.write_members(members, 1);
            writer.finish(found)
        }
        Properties::Json(text) => check_text(text, stamp, found),
        Properties::Payload { metrics, dimensions } => {
            let mut writer = Writer::new(Field::Payload, stamp);
            let keys = [
                ("payload_dimensions", dimensions.is_empty()),
                ("payload_metrics", metrics.is_empty()),
            ];
            writer.check_stamp(
                keys.into_iter()
                    .filter(|(_, is_empty)| !is_empty)
                    .map(|(key, _)| key),
            );
            writer.write_payload(metrics, dimensions);
            writer.finish(found)
        }
    }
}

fn check_text(text: &str, stamp: Option<Stamp<'_>>, found: &mut Found) -> Option<String> {
    let count_before = found.count();
    let mut total_bytes = text.len();
    if total_bytes > PROPS_MAX_BYTES {
        found.push(too_large(Field::PropsJson, total_bytes));
    }
    let checked = json_text::check_object(text, PROPS_JSON_MAX_DEPTH, stamp.map(|stamp| stamp.key));
    for Defect { reason, place, hint } in checked.defects {
        let mut violation = Violation::new(Field::PropsJson, reason);
        if let Some(place) = place {
            violation = violation.at(place);
        }
        if let Some(hint) = hint {
            violation = violation.with_hint(hint);
        }
        found.push(violation);
    }
    if found.count() > count_before {
        return None;
    }
    let Some(stamp) = stamp else {
        return Some(text.to_owned());
    };
    // A checked text is an object: all that stands before its brace is white space.
    let (before, after) = text.split_once('{')?;
    let mut stamped = String::with_capacity(total_bytes + stamp.key.len() + stamp.value.len() + 6);
    stamped.push_str(before);
    stamped.push('{');
    write_stamp(&mut stamped, stamp);
    if !checked.is_empty {
        stamped.push(',');
    }
    stamped.push_str(after);
    total_bytes = stamped.len();
    if total_bytes > PROPS_MAX_BYTES {
        found.push(too_large(Field::PropsJson, total_bytes));
        return None;
    }
    Some(stamped)
}

fn write_stamp(out: &mut String, stamp: Stamp<'_>) {
    write_string(out, stamp.key);
    out.push(':');
    write_string(out, stamp.value);
}

fn too_large(field: Field, bytes: usize) -> Violation {
    Violation::new(field, Reason::PropsTooLarge).at(format!("{bytes} bytes"))
}

/// Writes a structure as JSON text and notes each rule that it breaks, the first place of each.
struct Writer<'a> {
    out: String,
    field: Field,
    stamp: Option<Stamp<'a>>,
    violations: Vec<Violation>,
}

impl<'a> Writer<'a> {
    fn new(field: Field, stamp: Option<Stamp<'a>>) -> Self {
        let mut out = String::with_capacity(USUAL_BYTES);
        out.push('{');
        if let Some(stamp) = stamp {
            write_stamp(&mut out, stamp);
        }
        Self {
            out,
            field,
            stamp,
            violations: Vec::new(),
        }
    }

    fn note(&mut self, violation: Violation) {
        let is_known =
            |other: &Violation| other.field() == violation.field() && other.reason() == violation.reason();
        if !self.violations.iter().any(is_known) {
            self.violations.push(violation);
        }
    }

    fn check_stamp<'k>(&mut self, mut keys: impl Iterator<Item = &'k str>) {
        if let Some(stamp) = self.stamp
            && keys.any(|key| key == stamp.key)
        {
            self.note(Violation::new(self.field, Reason::PropsStampTaken));
        }
    }

    fn check_duplicates(&mut self, members: &[(String, Value)]) {
        let mut keys: Vec<&str> = members.iter().map(|(key, _)| key.as_str()).collect();
        if let Some(key) = json_text::first_duplicate(&mut keys) {
            let hint = format!("the key is {key}");
            self.note(Violation::new(self.field, Reason::PropsDuplicateKey).with_hint(hint));
        }
    }

    /// Writes what stands between an object's braces; the opening one is there. `depth` is that of the object.
    fn write_members(&mut self, members: &[(String, Value)], depth: usize) {
        for (key, value) in members {
            self.write_key(key);
            self.write_value(key, value, depth);
        }
    }

    fn write_key(&mut self, key: &str) {
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        write_string(&mut self.out, key);
        self.out.push(':');
    }

    /// `key` is that of the member that the value is or is in; `depth` that of the object or list around it.
    fn write_value(&mut self, key: &str, value: &Value, depth: usize) {
        let is_nested = matches!(value, Value::List(_) | Value::Object(_));
        if is_nested && depth >= PROPS_OBJECT_MAX_DEPTH {
            self.note(Violation::new(self.field, Reason::PropsTooDeep));
            return;
        }
        match value {
            Value::Unset => {
                let hint = format!("the key is {key}");
                self.note(Violation::new(self.field, Reason::PropsValueMissing).with_hint(hint));
            }
            Value::Null => self.out.push_str("null"),
            Value::Bool(truth) => self.out.push_str(if *truth { "true" } else { "false" }),
            Value::Number(number) => self.write_number(self.field, key, *number),
            Value::String(text) => write_string(&mut self.out, text),
            Value::List(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.out.push(',');
                    }
                    self.write_value(key, item, depth + 1);
                }
                self.out.push(']');
            }
            Value::Object(members) => {
                self.check_duplicates(members);
                self.out.push('{');
                self.write_members(members, depth + 1);
                self.out.push('}');
            }
        }
    }

    fn write_number(&mut self, field: Field, key: &str, number: f64) {
        if let Err(reason) = write_number(&mut self.out, number) {
            self.note(Violation::new(field, reason).with_hint(format!("the key is {key}")));
        }
    }

    fn write_payload(&mut self, metrics: &BTreeMap<String, f64>, dimensions: &BTreeMap<String, String>) {
        if !dimensions.is_empty() {
            self.write_key("payload_dimensions");
            self.out.push('{');
            for (key, text) in dimensions {
                self.write_key(key);
                write_string(&mut self.out, text);
            }
            self.out.push('}');
        }
        if !metrics.is_empty() {
            self.write_key("payload_metrics");
            self.out.push('{');
            for (key, number) in metrics {
                self.write_key(key);
                self.write_number(Field::PayloadMetrics, key, *number);
            }
            self.out.push('}');
        }
    }

    fn finish(mut self, found: &mut Found) -> Option<String> {
        self.out.push('}');
        if self.out.len() > PROPS_MAX_BYTES {
            self.note(too_large(self.field, self.out.len()));
        }
        let is_fine = self.violations.is_empty();
        for violation in self.violations {
            found.push(violation);
        }
        is_fine.then_some(self.out)
    }
}
