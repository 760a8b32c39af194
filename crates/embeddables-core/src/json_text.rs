//! Checks the text of a JSON object in one streaming pass: no tree is built.
//!
//! # Invariants
//! 1. What passes is one JSON object by RFC 8259, in which no object has a key twice, compared as decoded text.
//! 2. No recursion goes deeper than the allowed depth: what lies below is skipped without recursion.
//! 3. Places are told as line and column, never by what stands there.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::violation::Reason;

/// One thing wrong with a text.
pub(crate) struct Defect {
    pub(crate) reason: Reason,
    pub(crate) place: Option<String>,
    pub(crate) hint: Option<String>,
}

/// What is known of a text after the pass.
pub(crate) struct Checked {
    /// Empty where the text is fine.
    pub(crate) defects: Vec<Defect>,
    /// Whether the object has no member.
    pub(crate) is_empty: bool,
}

/// Checks that the text is an object with at most `max_depth` levels and without `reserved_key` at its top.
pub(crate) fn check_object(text: &str, max_depth: usize, reserved_key: Option<&str>) -> Checked {
    let notes = RefCell::new(Notes::default());
    let walk = Walk {
        notes: &notes,
        depth: 0,
        max_depth,
        reserved_key,
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    let outcome = walk.deserialize(&mut reader).and_then(|()| reader.end());
    let notes = notes.into_inner();
    let mut defects = Vec::new();
    match outcome {
        Err(error) => defects.push(syntax_defect(&error)),
        Ok(()) if !notes.is_object => defects.push(Defect {
            reason: Reason::PropsNotObject,
            place: None,
            hint: None,
        }),
        Ok(()) => {}
    }
    if notes.is_too_deep {
        defects.push(Defect {
            reason: Reason::PropsTooDeep,
            place: None,
            hint: None,
        });
    }
    if let Some(key) = notes.duplicate_key {
        let hint = Some(format!("the key is {key}"));
        defects.push(Defect {
            reason: Reason::PropsDuplicateKey,
            place: None,
            hint,
        });
    }
    if notes.has_reserved_key {
        defects.push(Defect {
            reason: Reason::PropsStampTaken,
            place: None,
            hint: None,
        });
    }
    Checked {
        defects,
        is_empty: notes.is_empty,
    }
}

/// Finds a key that stands twice; sorts what it is given.
pub(crate) fn first_duplicate<T: AsRef<str> + Ord>(keys: &mut [T]) -> Option<&str> {
    keys.sort_unstable();
    keys.windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0].as_ref())
}

/// The parser tells its kinds of error apart by text only; a test holds these texts.
fn syntax_defect(error: &serde_json::Error) -> Defect {
    let words = error.to_string();
    let reason = if words.starts_with("number out of range") {
        Reason::NumberNotFinite
    } else if words.starts_with("lone leading surrogate") || words.starts_with("unexpected end of hex escape")
    {
        Reason::PropsLoneSurrogate
    } else {
        Reason::PropsNotJson
    };
    Defect {
        reason,
        place: Some(format!("line {}, column {}", error.line(), error.column())),
        hint: None,
    }
}

#[derive(Default)]
struct Notes {
    is_object: bool,
    is_empty: bool,
    is_too_deep: bool,
    has_reserved_key: bool,
    duplicate_key: Option<String>,
}

/// Goes through one value. `depth` counts the objects and arrays around it.
#[derive(Clone, Copy)]
struct Walk<'a> {
    notes: &'a RefCell<Notes>,
    depth: usize,
    max_depth: usize,
    reserved_key: Option<&'a str>,
}

impl Walk<'_> {
    /// The walk within this value; `None` where that is too deep.
    fn inner(self) -> Option<Self> {
        if self.depth >= self.max_depth {
            self.notes.borrow_mut().is_too_deep = true;
            return None;
        }
        Some(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    fn note_keys(self, keys: &mut [Cow<'_, str>]) {
        let mut notes = self.notes.borrow_mut();
        if self.depth == 0 {
            notes.is_object = true;
            notes.is_empty = keys.is_empty();
            notes.has_reserved_key = self
                .reserved_key
                .is_some_and(|reserved| keys.iter().any(|key| key == reserved));
        }
        if notes.duplicate_key.is_none() {
            notes.duplicate_key = first_duplicate(keys).map(str::to_owned);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
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

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        match self.inner() {
            Some(inner) => while items.next_element_seed(inner)?.is_some() {},
            None => while items.next_element::<IgnoredAny>()?.is_some() {},
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Some(inner) = self.inner() else {
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let mut keys = Vec::new();
        while let Some(Key(key)) = members.next_key_seed(KeySeed)? {
            keys.push(key);
            members.next_value_seed(inner)?;
        }
        self.note_keys(&mut keys);
        Ok(())
    }
}

/// A key, borrowed from the text where it holds no escape.
struct Key<'de>(Cow<'de, str>);

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Key<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}
