//! The content of an event in one form, whatever form the caller gave it in: for telling a repeat from another event.
//!
//! # Invariants
//! 1. Same content, same bytes: a structure, its text with other white space or order of keys, or a payload of the same
//!    members. No properties are the same as `{}`.
//! 2. Other content, other bytes: every part carries its kind and its length. Numbers are compared as 64-bit integers where
//!    they are whole and fit, else as doubles, which is as finely as any reader of JSON can be trusted to.
//! 3. Defaults, stamps and options are not in it; nor are event id and project id, under which it is compared.
//! 4. Any event has a form, also an invalid one; what cannot be understood stands for itself.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::identifier::IdentifierValue;
use crate::limits::PROPS_JSON_MAX_DEPTH;
use crate::properties::{Properties, Value};
use crate::time::EventTime;

/// Returns the event's content in canonical form. Personal data: to be hashed with a key, not to be kept.
pub fn canonical(event: &Event) -> Vec<u8> {
    let mut form = Form(Vec::with_capacity(512));
    form.tag(b'1');
    form.text(&event.embeddable_id);
    form.text(&event.name);
    form.time(event.timestamp.as_ref());
    match &event.identifier {
        None => form.tag(b'-'),
        Some(identifier) => {
            form.tag(b'+');
            form.text(&identifier.key);
            form.identifier_value(identifier.value.as_ref());
        }
    }
    form.properties(&event.properties);
    form.0
}

/// Bytes of the form; each method appends one part, which begins with a tag of its kind.
struct Form(Vec<u8>);

impl Form {
    fn tag(&mut self, tag: u8) {
        self.0.push(tag);
    }

    fn length(&mut self, length: usize) {
        // No platform has more than 64 bits of address.
        self.0.extend_from_slice(&(length as u64).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.tag(b's');
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Something that is not within the rules.
    fn raw(&mut self, text: &str) {
        self.tag(b'?');
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn integer(&mut self, number: i128) {
        self.tag(b'i');
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn double(&mut self, number: f64) {
        let fits_64_bits = (-9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0).contains(&number);
        if number.trunc() == number && fits_64_bits {
            #[expect(clippy::cast_possible_truncation, reason = "whole and within 64 bits")]
            let whole = number as i128;
            self.integer(whole);
        } else {
            self.tag(b'd');
            self.0.extend_from_slice(&number.to_bits().to_be_bytes());
        }
    }

    fn truth(&mut self, truth: bool) {
        self.tag(if truth { b't' } else { b'f' });
    }

    fn time(&mut self, time: Option<&EventTime>) {
        let Some(time) = time else { return self.tag(b'-') };
        match (time.check(), time) {
            (Ok(instant), _) => {
                self.integer(i128::from(instant.seconds()) * 1_000_000_000 + i128::from(instant.nanos()));
            }
            (Err(_), EventTime::Unix { seconds, nanos }) => self.raw(&format!("{seconds} {nanos}")),
            (Err(_), EventTime::Text(text)) => self.raw(text),
        }
    }

    fn identifier_value(&mut self, value: Option<&IdentifierValue>) {
        match value {
            None => self.tag(b'-'),
            Some(IdentifierValue::String(text)) => self.text(text),
            Some(IdentifierValue::Integer(number)) => self.integer(i128::from(*number)),
            Some(IdentifierValue::Number(number)) => self.double(*number),
            Some(IdentifierValue::Bool(truth)) => self.truth(*truth),
            Some(IdentifierValue::Json(text)) => self.json(text),
        }
    }

    fn properties(&mut self, properties: &Properties) {
        match properties {
            Properties::None => self.object(&mut [], 1),
            Properties::Json(text) => self.json(text),
            Properties::Object(members) => {
                let mut sorted: Vec<(&str, &Value)> =
                    members.iter().map(|(key, value)| (key.as_str(), value)).collect();
                self.object(&mut sorted, 1);
            }
            Properties::Payload { metrics, dimensions } => self.payload(metrics, dimensions),
        }
    }

    fn payload(&mut self, metrics: &BTreeMap<String, f64>, dimensions: &BTreeMap<String, String>) {
        self.tag(b'{');
        self.length(usize::from(!dimensions.is_empty()) + usize::from(!metrics.is_empty()));
        if !dimensions.is_empty() {
            self.text("payload_dimensions");
            self.tag(b'{');
            self.length(dimensions.len());
            for (key, text) in dimensions {
                self.text(key);
                self.text(text);
            }
        }
        if !metrics.is_empty() {
            self.text("payload_metrics");
            self.tag(b'{');
            self.length(metrics.len());
            for (key, number) in metrics {
                self.text(key);
                self.double(*number);
            }
        }
    }

    fn object(&mut self, members: &mut [(&str, &Value)], depth: usize) {
        members.sort_by_key(|(key, _)| *key);
        self.tag(b'{');
        self.length(members.len());
        for (key, value) in members {
            self.text(key);
            self.value(value, depth);
        }
    }

    fn value(&mut self, value: &Value, depth: usize) {
        match value {
            Value::Unset => self.tag(b'u'),
            Value::Null => self.tag(b'n'),
            Value::Bool(truth) => self.truth(*truth),
            Value::Number(number) => self.double(*number),
            Value::String(text) => self.text(text),
            // Beyond every limit: such an event is invalid, and going on could exhaust the stack.
            Value::List(_) | Value::Object(_) if depth > PROPS_JSON_MAX_DEPTH => self.raw("too deep"),
            Value::List(items) => {
                self.tag(b'[');
                self.length(items.len());
                for item in items {
                    self.value(item, depth + 1);
                }
            }
            Value::Object(members) => {
                let mut sorted: Vec<(&str, &Value)> =
                    members.iter().map(|(key, value)| (key.as_str(), value)).collect();
                self.object(&mut sorted, depth + 1);
            }
        }
    }

    fn json(&mut self, text: &str) {
        match serde_json::from_str(text) {
            Ok(tree) => self.tree(&tree),
            Err(_) => self.raw(text),
        }
    }

    /// The parser's own limit of recursion bounds the depth.
    fn tree(&mut self, tree: &serde_json::Value) {
        match tree {
            serde_json::Value::Null => self.tag(b'n'),
            serde_json::Value::Bool(truth) => self.truth(*truth),
            serde_json::Value::Number(number) => {
                if let Some(whole) = number.as_i128() {
                    self.integer(whole);
                } else if let Some(double) = number.as_f64() {
                    self.double(double);
                } else {
                    self.raw(&number.to_string());
                }
            }
            serde_json::Value::String(text) => self.text(text),
            serde_json::Value::Array(items) => {
                self.tag(b'[');
                self.length(items.len());
                for item in items {
                    self.tree(item);
                }
            }
            serde_json::Value::Object(members) => {
                // The parser sorts them, unless somebody else in the build turns that off.
                let mut sorted: Vec<_> = members.iter().collect();
                sorted.sort_by_key(|(key, _)| *key);
                self.tag(b'{');
                self.length(sorted.len());
                for (key, value) in sorted {
                    self.text(key);
                    self.tree(value);
                }
            }
        }
    }
}
