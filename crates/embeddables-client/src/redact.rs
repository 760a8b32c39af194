//! Upstream's words for an operator, without what they may echo of the event.
//!
//! # Invariants
//! 1. Neither the key nor a string or number of at least three characters that the event holds as identifier or property
//!    stands in an excerpt: not as it is, not escaped once or twice as JSON, not in another case, and not cut off after at
//!    least twelve characters or by the end of what was read.
//! 2. An excerpt stands for at most 4 KiB of the body and has no control characters.

use std::collections::{HashMap, HashSet};

use embeddables_core::ValidEvent;
use embeddables_core::limits::EXCERPT_MAX_BYTES;
use serde_json::Value;

use crate::api_key::ApiKey;

const MARK: &str = "[redacted]";

/// Shorter ones are left: they say too little, and words would be full of holes.
const NEEDLE_MIN_BYTES: usize = 3;

/// From here on, also the beginning of a secret is redacted.
const PREFIX_MIN_BYTES: usize = 12;

/// Cuts the beginning out of a body and redacts it; `None` where there is nothing in it.
pub(crate) fn excerpt(body: &[u8], event: Option<&ValidEvent>, key: &ApiKey) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    if text.trim().is_empty() {
        return None;
    }
    let needles = Needles::of(event, key);
    let lower = text.to_ascii_lowercase();
    let mut excerpt = String::with_capacity(text.len().min(EXCERPT_MAX_BYTES));
    let mut position = 0;
    while position < text.len() {
        let hidden_bytes = floor_boundary(&text, position, needles.longest_match(lower.as_bytes(), position));
        let visible = text[position..].chars().next().filter(|_| hidden_bytes == 0);
        let next = position + visible.map_or(hidden_bytes, char::len_utf8);
        if next > EXCERPT_MAX_BYTES && hidden_bytes == 0 {
            break;
        }
        match visible {
            Some(character) if character.is_control() => excerpt.push(' '),
            Some(character) => excerpt.push(character),
            None => excerpt.push_str(MARK),
        }
        position = next;
        if position >= EXCERPT_MAX_BYTES {
            break;
        }
    }
    Some(excerpt)
}

/// The match's length, cut back to where a character ends.
fn floor_boundary(text: &str, position: usize, bytes: usize) -> usize {
    (0..=bytes)
        .rev()
        .find(|bytes| text.is_char_boundary(position + bytes))
        .unwrap_or(0)
}

/// Secrets in lower case, by their first byte.
struct Needles(HashMap<u8, HashSet<Vec<u8>>>);

impl Needles {
    fn of(event: Option<&ValidEvent>, key: &ApiKey) -> Self {
        let mut needles = Self(HashMap::new());
        needles.add(key.expose());
        if let Some(event) = event {
            let identifier = event.identifier_json().trim();
            if !identifier.starts_with('"') {
                // A number as it was written, whatever its parsed form looks like.
                needles.add(identifier);
            }
            needles.add_json(identifier);
            needles.add_json(event.props_json());
        }
        needles
    }

    fn add_json(&mut self, json: &str) {
        // Identifier and props of a valid event are JSON. Were they not, their whole text is hidden.
        match serde_json::from_str(json) {
            Ok(value) => self.add_value(&value),
            Err(_) => self.add_forms(json),
        }
    }

    fn add_value(&mut self, value: &Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => self.add_forms(&number.to_string()),
            Value::String(text) => self.add_forms(text),
            Value::Array(items) => items.iter().for_each(|item| self.add_value(item)),
            Value::Object(members) => members.values().for_each(|value| self.add_value(value)),
        }
    }

    /// A text as it is, and as it stands within JSON and within JSON in JSON, in ASCII only or not.
    fn add_forms(&mut self, text: &str) {
        self.add(text);
        for escape in [escape_minimal, escape_to_ascii] {
            let once = escape(text);
            if once != text {
                self.add(&escape(&once));
                self.add(&once);
            }
        }
    }

    fn add(&mut self, text: &str) {
        let needle = text.to_ascii_lowercase().into_bytes();
        if needle.len() < NEEDLE_MIN_BYTES {
            return;
        }
        self.0.entry(needle[0]).or_default().insert(needle);
    }

    /// Bytes of the longest secret, or beginning of one, at a position of the text in lower case.
    fn longest_match(&self, text: &[u8], position: usize) -> usize {
        let rest = &text[position..];
        let Some(candidates) = rest.first().and_then(|first| self.0.get(first)) else {
            return 0;
        };
        candidates
            .iter()
            .map(|needle| match_length(rest, needle))
            .max()
            .unwrap_or(0)
    }
}

fn match_length(rest: &[u8], needle: &[u8]) -> usize {
    let common = rest
        .iter()
        .zip(needle)
        .take_while(|(left, right)| left == right)
        .count();
    let is_whole = common == needle.len();
    let is_cut_off = common == rest.len() && common >= NEEDLE_MIN_BYTES;
    if is_whole || is_cut_off || common >= PREFIX_MIN_BYTES {
        common
    } else {
        0
    }
}

fn escape_minimal(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn escape_to_ascii(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in escape_minimal(text).chars() {
        if character.is_ascii() {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use embeddables_core::{
        Defaults, Event, EventId, Identifier, IdentifierValue, ProjectId, Properties, Rules, Timestamp,
    };
    use proptest::prelude::*;

    use super::*;

    fn event(value: IdentifierValue, props: &str) -> ValidEvent {
        let event = Event {
            embeddable_id: "flow_a1".to_owned(),
            name: "a".to_owned(),
            identifier: Some(Identifier {
                key: "email".to_owned(),
                value: Some(value),
            }),
            properties: Properties::Json(props.to_owned()),
            ..Event::default()
        };
        let project = ProjectId::parse("pr_1").unwrap();
        let now = Timestamp::from_unix(0, 0).unwrap();
        let defaults = Defaults {
            project_id: Some(&project),
            event_id: EventId::parse("e").unwrap(),
            now,
        };
        event.validate(&defaults, &Rules::default()).unwrap()
    }

    #[track_caller]
    fn check(value: &str, props: &str, body: &str, expected: &str) {
        let event = event(IdentifierValue::String(value.to_owned()), props);
        let key = ApiKey::parse("rk_secret").unwrap();
        assert_eq!(
            excerpt(body.as_bytes(), Some(&event), &key).as_deref(),
            Some(expected)
        );
    }

    #[test]
    fn what_the_event_holds_is_redacted_in_every_form() {
        check(
            "a@b.co",
            "{}",
            "no entry for A@B.CO here",
            "no entry for [redacted] here",
        );
        check(
            "a@b.co",
            "{}",
            r#"{"v":"\"a@b.co\""}"#,
            r#"{"v":"\"[redacted]\""}"#,
        );
        check(
            "O\"Brien",
            "{}",
            r#"{"v":"\"O\\\"Brien\"","w":"O\"Brien"}"#,
            r#"{"v":"\"[redacted]\"","w":"[redacted]"}"#,
        );
        check(
            "Zoé漢",
            "{}",
            r#"{"v":"Zo\u00e9\u6F22"}"#,
            r#"{"v":"[redacted]"}"#,
        );
        check(
            "a@b.co",
            r#"{"x":{"y":["flu shot",12345]}}"#,
            "flu shot, 12345, yes",
            "[redacted], [redacted], yes",
        );
        check(
            "ab",
            "{}",
            "ab is kept, rk_secret is not",
            "ab is kept, [redacted] is not",
        );
    }

    #[test]
    fn a_long_value_is_redacted_where_it_is_cut_off() {
        let note = "the patient reports a headache since Monday";
        check(
            "a@b.co",
            &format!("{{\"n\":\"{note}\"}}"),
            "too long: 'the patient rep…'",
            "too long: '[redacted]…'",
        );
        check("a@b.co", "{}", "end: a@b.", "end: [redacted]");
    }

    #[test]
    fn numbers_are_redacted_as_they_were_written() {
        let event = event(IdentifierValue::Integer(9_007_199_254_740_993), "{}");
        let key = ApiKey::parse("rk_secret").unwrap();
        let shown = excerpt(b"member 9007199254740993 unknown", Some(&event), &key);
        assert_eq!(shown.as_deref(), Some("member [redacted] unknown"));
    }

    #[test]
    fn an_excerpt_is_4_kib_without_control_characters() {
        check("a@b.co", "{}", "a\r\n\tb\u{1b}[31m", "a   b [31m");
        check("a@b.co", "{}", &"x".repeat(5000), &"x".repeat(4096));
        check(
            "a@b.co",
            "{}",
            &format!("{}é", "x".repeat(4095)),
            &"x".repeat(4095),
        );
        check(
            "a@b.co",
            "{}",
            &format!("{}a@b.co!", "x".repeat(4094)),
            &format!("{}[redacted]", "x".repeat(4094)),
        );
        let key = ApiKey::parse("rk_secret").unwrap();
        assert_eq!(excerpt(b" \n", None, &key), None);
        assert_eq!(
            excerpt(b"\xff\xfeok", None, &key).as_deref(),
            Some("\u{fffd}\u{fffd}ok")
        );
    }

    proptest! {
        #[test]
        fn no_value_of_three_characters_survives(value in "[a-zA-Z0-9é\"\\\\@ ]{3,30}", before in "[x-z]{0,9}", at in 0usize..5000) {
            prop_assume!(!(value.starts_with('"') && value.ends_with('"')));
            let event = event(IdentifierValue::String(value.clone()), "{}");
            let key = ApiKey::parse("rk_secret").unwrap();
            let once = serde_json::to_string(&value).unwrap();
            let twice = serde_json::to_string(&once).unwrap();
            let body = format!("{}{before}{value} {once} {twice} {value}", "-".repeat(at));
            let shown = excerpt(body.as_bytes(), Some(&event), &key).unwrap_or_default();
            // A value may also come about around a mark, from what is left; only true echoes count.
            prop_assert!(!shown.replace("[redacted]", "\u{0}").contains(&value), "{}", shown);
        }

        #[test]
        fn nothing_panics(body in prop::collection::vec(any::<u8>(), 0..9000), value in any::<String>()) {
            prop_assume!(!value.is_empty() && !value.starts_with('"'));
            let event = event(IdentifierValue::String(value), "{}");
            excerpt(&body, Some(&event), &ApiKey::parse("rk_secret").unwrap());
        }
    }
}
