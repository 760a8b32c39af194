//! Names and ids whose form has been checked: a value of such a type is within the rules.
//!
//! All of them are shared strings: a clone costs one counter.

use std::fmt;
use std::sync::Arc;

use crate::limits::{EMBEDDABLE_ID_MAX_BYTES, EVENT_ID_MAX_BYTES, NAME_MAX_BYTES, PROJECT_ID_MAX_BYTES};
use crate::violation::Reason;

/// Says why a text is not the id or name that it was taken for. Does not hold the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", reason.sentence())]
pub struct InvalidId {
    /// The rule that it breaks.
    pub reason: Reason,
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text if it is within the rules.
            ///
            /// # Errors
            /// With the rule that it breaks.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                match $check(text) {
                    None => Ok(Self(Arc::from(text))),
                    Some(reason) => Err(InvalidId { reason }),
                }
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for Arc<str> {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, formatter)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidId;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text)
            }
        }
    };
}

checked_text! {
    /// Id of a project: 1 to 128 of `A-Z a-z 0-9 _ -`. Safe as a path segment.
    ProjectId, check_project_id
}
checked_text! {
    /// Id of an event within its project: 1 to 64 visible ASCII characters.
    EventId, check_event_id
}
checked_text! {
    /// Id of an Embeddable: 1 to 256 of `A-Z a-z 0-9 _ -`.
    EmbeddableId, check_embeddable_id
}
checked_text! {
    /// Name of an event: `^[a-z][a-z0-9]*(_[a-z0-9]+)*$`, at most 128 bytes.
    EventName, check_name
}

fn check_project_id(text: &str) -> Option<Reason> {
    if text.is_empty() || text.len() > PROJECT_ID_MAX_BYTES {
        Some(Reason::ProjectIdLength)
    } else if !all_bytes(text, is_id_byte) {
        Some(Reason::ProjectIdCharacter)
    } else {
        None
    }
}

fn check_event_id(text: &str) -> Option<Reason> {
    if text.is_empty() || text.len() > EVENT_ID_MAX_BYTES {
        Some(Reason::EventIdLength)
    } else if !all_bytes(text, |byte| byte.is_ascii_graphic()) {
        Some(Reason::EventIdCharacter)
    } else {
        None
    }
}

fn check_embeddable_id(text: &str) -> Option<Reason> {
    if text.is_empty() {
        Some(Reason::EmbeddableIdMissing)
    } else if text.len() > EMBEDDABLE_ID_MAX_BYTES {
        Some(Reason::EmbeddableIdLength)
    } else if !all_bytes(text, is_id_byte) {
        Some(Reason::EmbeddableIdCharacter)
    } else {
        None
    }
}

fn check_name(text: &str) -> Option<Reason> {
    if text.is_empty() {
        return Some(Reason::NameMissing);
    }
    if text.len() > NAME_MAX_BYTES {
        return Some(Reason::NameLength);
    }
    let begins_with_letter = text.starts_with(|first: char| first.is_ascii_lowercase());
    let bytes_fit = all_bytes(text, |byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
    });
    let has_empty_word = text.ends_with('_') || text.as_bytes().windows(2).any(|pair| pair == b"__");
    (!begins_with_letter || !bytes_fit || has_empty_word).then_some(Reason::NameNotSnakeCase)
}

/// Whether all bytes are fine. Without an early end the compiler looks at many of them at once.
fn all_bytes(text: &str, is_fine: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(true, |all, byte| all & is_fine(byte))
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}
