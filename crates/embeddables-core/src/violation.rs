//! What is wrong with an event: field, stable code, a sentence.
//!
//! # Invariants
//! 1. Codes and field names are a closed set and never change their meaning.
//! 2. `Debug`, `Display` and [`Violation::description`] never hold anything that the caller sent.
//! 3. What was meant instead may hold personal data. It is in the hint only, which [`Violation::hint`] and
//!    [`Violation::for_caller`] show: for the answer to the caller, never for a log.

use std::fmt;

use crate::limits::HINT_MAX_BYTES;

/// Names a field of an event, relative to the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Field {
    /// `event_id`.
    EventId,
    /// `project_id`.
    ProjectId,
    /// `embeddable_id`.
    EmbeddableId,
    /// `name`.
    Name,
    /// `timestamp`.
    Timestamp,
    /// `identifier`.
    Identifier,
    /// `identifier.key`.
    IdentifierKey,
    /// `identifier.value`.
    IdentifierValue,
    /// `props`: properties as a structure.
    Props,
    /// `props_json`: properties as JSON text.
    PropsJson,
    /// `payload`: properties as metrics and dimensions.
    Payload,
    /// `payload.metrics`.
    PayloadMetrics,
}

impl Field {
    /// Every field, in the order in which they are checked.
    pub const ALL: [Self; 12] = [
        Self::EventId,
        Self::ProjectId,
        Self::EmbeddableId,
        Self::Name,
        Self::Timestamp,
        Self::Identifier,
        Self::IdentifierKey,
        Self::IdentifierValue,
        Self::Props,
        Self::PropsJson,
        Self::Payload,
        Self::PayloadMetrics,
    ];

    /// Returns the path within the event, for example `identifier.value`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventId => "event_id",
            Self::ProjectId => "project_id",
            Self::EmbeddableId => "embeddable_id",
            Self::Name => "name",
            Self::Timestamp => "timestamp",
            Self::Identifier => "identifier",
            Self::IdentifierKey => "identifier.key",
            Self::IdentifierValue => "identifier.value",
            Self::Props => "props",
            Self::PropsJson => "props_json",
            Self::Payload => "payload",
            Self::PayloadMetrics => "payload.metrics",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $sentence:literal;)*) => {
        /// Says which rule an event breaks. Codes are stable; the sentences may change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, for documentation and tests.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the stable code, for example `IDENTIFIER_DOUBLE_ENCODED`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// Says what is wrong and how to mend it.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

reasons! {
    /// The event id is empty or longer than 64 bytes.
    EventIdLength = "EVENT_ID_LENGTH",
        "an event id has 1 to 64 characters; shorten it, or leave it out to have one made";
    /// The event id holds something else than visible ASCII.
    EventIdCharacter = "EVENT_ID_CHARACTER",
        "an event id is visible ASCII (0x21 to 0x7E): no spaces, control characters or other scripts; \
         send for example a UUID";
    /// No project id was given and there is no default.
    ProjectIdMissing = "PROJECT_ID_MISSING",
        "the event names no project and none is configured as the default; set project_id";
    /// The project id is empty or longer than 128 bytes.
    ProjectIdLength = "PROJECT_ID_LENGTH",
        "a project id has 1 to 128 characters; send it as the Embeddables dashboard shows it";
    /// The project id holds something else than `A-Z a-z 0-9 _ -`.
    ProjectIdCharacter = "PROJECT_ID_CHARACTER",
        "a project id is made of A-Z, a-z, 0-9, underscore and hyphen; send it as the Embeddables dashboard shows it";
    /// The embeddable id is empty.
    EmbeddableIdMissing = "EMBEDDABLE_ID_MISSING",
        "the embeddable id is empty; set it to the id of the Embeddable that the user went through";
    /// The embeddable id is longer than 256 bytes.
    EmbeddableIdLength = "EMBEDDABLE_ID_LENGTH",
        "an embeddable id has at most 256 characters; send it as the Embeddables dashboard shows it";
    /// The embeddable id holds something else than `A-Z a-z 0-9 _ -`.
    EmbeddableIdCharacter = "EMBEDDABLE_ID_CHARACTER",
        "an embeddable id is made of A-Z, a-z, 0-9, underscore and hyphen; \
         send it as the Embeddables dashboard shows it";
    /// The name is empty.
    NameMissing = "NAME_MISSING",
        "the name is empty; say what happened in snake_case, for example visit_completed";
    /// The name is longer than 128 bytes.
    NameLength = "NAME_LENGTH",
        "a name has at most 128 characters; shorten it and put what varies into the properties";
    /// The name is not snake_case.
    NameNotSnakeCase = "NAME_NOT_SNAKE_CASE",
        "a name is snake_case: words of a-z and 0-9 joined by single underscores, beginning with a letter, \
         for example visit_completed";
    /// The timestamp's text is not a date and time with an offset.
    TimestampMalformed = "TIMESTAMP_MALFORMED",
        "the timestamp is not a date and time with an offset from UTC; send for example 2022-01-01T00:00:00.000Z";
    /// The timestamp lies outside of the years 0001 to 9999.
    TimestampRange = "TIMESTAMP_RANGE",
        "the timestamp lies outside of the years 0001 to 9999 in UTC; check that it is given in seconds, \
         not in milliseconds";
    /// The timestamp's nanoseconds lie outside of 0 to 999,999,999.
    TimestampNanos = "TIMESTAMP_NANOS",
        "the timestamp's nanos lie outside of 0 to 999,999,999; they count forward from the second, \
         also before the year 1970";
    /// There is no identifier.
    IdentifierMissing = "IDENTIFIER_MISSING",
        "the event does not say who did it; set an identifier with a key such as email and the user's value";
    /// The identifier's key is empty.
    IdentifierKeyMissing = "IDENTIFIER_KEY_MISSING",
        "the identifier's key is empty; set it to the key of the user's data that holds the value, for example email";
    /// The identifier's key is longer than 256 bytes.
    IdentifierKeyLength = "IDENTIFIER_KEY_LENGTH",
        "an identifier's key has at most 256 bytes; send the key of the user's data, and the value as the value";
    /// The identifier has no value.
    IdentifierValueMissing = "IDENTIFIER_VALUE_MISSING",
        "the identifier has no value; set the one that the user's data holds under that key";
    /// The identifier's value is the empty string.
    IdentifierValueEmpty = "IDENTIFIER_VALUE_EMPTY",
        "the identifier's value is an empty string, which would name no user; send the user's value";
    /// The identifier's value was encoded twice.
    IdentifierDoubleEncoded = "IDENTIFIER_DOUBLE_ENCODED",
        "the identifier's value is a JSON string literal within a string, so that no entry would match; \
         encode it once less";
    /// The identifier's value was to be stringified JSON and is not JSON.
    IdentifierValueNotJson = "IDENTIFIER_VALUE_NOT_JSON",
        "the identifier's value is not stringified JSON; stringify it once, so that a string has quotes of its own";
    /// The identifier's value is stringified JSON, but null, an array or an object.
    IdentifierValueNotScalar = "IDENTIFIER_VALUE_NOT_SCALAR",
        "the identifier's value is null, an array or an object; send a string, a number or a boolean";
    /// A number is NaN, infinite or too large for a double.
    NumberNotFinite = "NUMBER_NOT_FINITE",
        "a number is NaN, infinite or too large for a double, and JSON cannot say so; \
         leave it out or send it as a string";
    /// A whole number is beyond what a double holds exactly.
    NumberNotExact = "NUMBER_NOT_EXACT",
        "a whole number beyond 2^53 came as a double and may have been rounded before; \
         send such numbers as an integer, in props_json or as a string";
    /// The properties' text is not valid JSON.
    PropsNotJson = "PROPS_NOT_JSON",
        "the properties are not valid JSON text; check them with a strict parser";
    /// The properties' text is JSON, but no object.
    PropsNotObject = "PROPS_NOT_OBJECT",
        "the properties are JSON, but not an object; wrap them as a member of one";
    /// The properties hold half of a UTF-16 surrogate pair.
    PropsLoneSurrogate = "PROPS_LONE_SURROGATE",
        "a string in the properties holds half of a surrogate pair (\\uD800 to \\uDFFF), so that it is no text; \
         cut strings between characters";
    /// The properties are nested too deep.
    PropsTooDeep = "PROPS_TOO_DEEP",
        "the properties are nested too deep: at most 64 levels as props_json and 24 as props; flatten them";
    /// The properties are larger than 256 KiB.
    PropsTooLarge = "PROPS_TOO_LARGE",
        "the properties have more than 256 KiB (262,144 bytes) of JSON text; send what analytics need and leave out \
         the rest";
    /// An object in the properties has the same key twice.
    PropsDuplicateKey = "PROPS_DUPLICATE_KEY",
        "an object in the properties has the same key twice, and readers differ in which one counts; keep one";
    /// A value in the properties is none at all.
    PropsValueMissing = "PROPS_VALUE_MISSING",
        "a value in the properties has no kind (a google.protobuf.Value with nothing set); set null_value for null, \
         or leave the key out";
    /// The properties have a key already under which the event id is to be written.
    PropsStampTaken = "PROPS_STAMP_TAKEN",
        "the properties have a key that the configuration reserves for the event id (stamp_event_id); rename it";
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One thing wrong with an event.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {}", self.description())]
pub struct Violation {
    field: Field,
    reason: Reason,
    /// Where it is, in numbers only, for example ` (line 1, column 5)`.
    place: Option<String>,
    hint: Option<String>,
}

impl Violation {
    /// Makes a violation without a hint.
    pub fn new(field: Field, reason: Reason) -> Self {
        Self {
            field,
            reason,
            place: None,
            hint: None,
        }
    }

    pub(crate) fn at(mut self, place: String) -> Self {
        self.place = Some(place);
        self
    }

    /// Adds what only the caller may see; left out where it is longer than [`HINT_MAX_BYTES`].
    pub(crate) fn with_hint(mut self, hint: String) -> Self {
        self.hint = (hint.len() <= HINT_MAX_BYTES).then_some(hint);
        self
    }

    /// Returns the field that is wrong, relative to the event.
    pub fn field(&self) -> Field {
        self.field
    }

    /// Returns the field's path below what the caller calls the event: `path("events[3]")` is `events[3].name`.
    pub fn path(&self, event: &str) -> String {
        if event.is_empty() {
            self.field.as_str().to_owned()
        } else {
            format!("{event}.{}", self.field)
        }
    }

    /// Returns the rule that is broken.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Says what is wrong and how to mend it. Holds nothing that the caller sent: fit for logs.
    pub fn description(&self) -> String {
        let sentence = self.reason.sentence();
        match &self.place {
            Some(place) => format!("{sentence} ({place})"),
            None => sentence.to_owned(),
        }
    }

    /// Returns what was meant or where it is, in the caller's own words. Personal data: for the answer to the caller only.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns description and hint. Personal data: for the answer to the caller only.
    pub fn for_caller(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}: {hint}", self.description()),
            None => self.description(),
        }
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Violation")
            .field("field", &self.field.as_str())
            .field("reason", &self.reason.as_str())
            .field("place", &self.place)
            .field("hint", &self.hint.as_ref().map(|_| "[redacted]"))
            .finish()
    }
}

/// All that is wrong with an event; at least one thing, in the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Wraps what was found; `None` where nothing was.
    pub fn new(violations: Vec<Violation>) -> Option<Self> {
        (!violations.is_empty()).then_some(Self(violations))
    }

    /// Wraps what validation found where it returned no event.
    pub(crate) fn from_found(violations: Vec<Violation>) -> Self {
        debug_assert!(!violations.is_empty(), "an event is refused for a reason");
        Self(violations)
    }

    /// Returns them in the order of the fields.
    pub fn as_slice(&self) -> &[Violation] {
        &self.0
    }

    /// Goes through them in the order of the fields.
    pub fn iter(&self) -> std::slice::Iter<'_, Violation> {
        self.0.iter()
    }

    /// Adds another one, for example of an event catalogue.
    pub fn push(&mut self, violation: Violation) {
        self.0.push(violation);
    }
}

impl From<Violation> for Violations {
    fn from(violation: Violation) -> Self {
        Self(vec![violation])
    }
}

impl IntoIterator for Violations {
    type Item = Violation;
    type IntoIter = std::vec::IntoIter<Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Violations {
    type Item = &'a Violation;
    type IntoIter = std::slice::Iter<'a, Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("; ")?;
            }
            violation.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}
