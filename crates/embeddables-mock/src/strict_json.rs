//! JSON as strict receivers read it: one value, valid UTF-8, no key twice in one object at any depth.
//!
//! `serde_json` keeps the last of two equal keys in silence; here the repeated ones are named.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// A value, and the keys that occurred more than once in one object of it (each named once an occurrence).
#[derive(Debug)]
pub(crate) struct Parsed {
    /// The value; of a repeated key the last occurrence.
    pub(crate) value: Value,
    /// The repeated keys, in order of appearance; empty in a good document.
    pub(crate) duplicate_keys: Vec<String>,
}

/// Parses one JSON document.
///
/// # Errors
/// Text that is not JSON, is nested too deep (128) or is followed by anything but white space.
pub(crate) fn parse(text: &[u8]) -> Result<Parsed, serde_json::Error> {
    let value = serde_json::from_slice(text)?;
    let mut duplicate_keys = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    DuplicateKeys {
        found: &mut duplicate_keys,
    }
    .deserialize(&mut deserializer)?;
    Ok(Parsed {
        value,
        duplicate_keys,
    })
}

/// Walks a document and notes repeated keys. Values are looked at by [`parse`] in a pass of its own, so that
/// this walk need not know how numbers are represented.
struct DuplicateKeys<'a> {
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for DuplicateKeys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DuplicateKeys<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence
            .next_element_seed(DuplicateKeys {
                found: &mut *self.found,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                self.found.push(key);
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            seen.insert(key);
            map.next_value_seed(DuplicateKeys {
                found: &mut *self.found,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let parsed = parse(text.as_bytes()).expect("valid JSON");
        assert_eq!(parsed.duplicate_keys, expected, "{text}");
    }

    #[test]
    fn repeated_keys_are_found_at_every_depth() {
        check(r#"{"a":1,"b":{"a":1}}"#, &[]);
        check(r#"{"a":1,"a":2}"#, &["a"]);
        check(r#"{"a":[{"b":1,"b":null,"b":true}],"c":-1.5}"#, &["b", "b"]);
        check("{\"a\":1,\"\\u0061\":2}", &["a"]);
    }

    #[test]
    fn what_is_not_one_json_value_is_an_error() {
        for text in ["", "{", "{} {}", "{'a':1}", "[1,]", "NaN", "\"\\ud800\""] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"").is_err(), "invalid UTF-8");
        assert!(parse("[".repeat(100_000).as_bytes()).is_err(), "nested too deep");
    }

    #[test]
    fn whole_numbers_beyond_two_to_the_53_stay_exact() {
        let parsed = parse(b"9007199254740993").expect("a number");
        assert_eq!(parsed.value.to_string(), "9007199254740993");
    }
}
