//! An event as a caller gave it, and an event that is known to be within the rules.
//!
//! # Invariants
//! 1. A [`ValidEvent`] comes from [`Event::validate`], or from the disk where such a one was written.
//! 2. `Debug` shows neither the identifier's value nor properties.

use std::fmt;

use crate::identifier::Identifier;
use crate::ids::{EmbeddableId, EventId, EventName, ProjectId};
use crate::properties::Properties;
use crate::time::{EventTime, Timestamp};

/// Something that a user did, as a caller tells it. Nothing is checked; see [`Event::validate`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// Idempotency key within the project. Default: the one that the callee makes.
    pub event_id: Option<String>,
    /// Project that it belongs to. Default: the configured one.
    pub project_id: Option<String>,
    /// The Embeddable whose user this is about.
    pub embeddable_id: String,
    /// What happened, in snake_case.
    pub name: String,
    /// When it happened. Default: the time of admission.
    pub timestamp: Option<EventTime>,
    /// Who did it. Required.
    pub identifier: Option<Identifier>,
    /// Anything else worth knowing. Default: none.
    pub properties: Properties,
}

/// An event within all rules, its defaults filled in, its identifier and properties encoded as upstream wants them.
#[derive(Clone, PartialEq, Eq)]
pub struct ValidEvent(ValidEventParts);

/// All that a [`ValidEvent`] is made of: for storing it.
///
/// Holds personal data and has no `Debug` for that reason.
#[derive(Clone, PartialEq, Eq)]
pub struct ValidEventParts {
    /// Idempotency key within the project.
    pub event_id: EventId,
    /// Project that it belongs to.
    pub project_id: ProjectId,
    /// The Embeddable whose user this is about.
    pub embeddable_id: EmbeddableId,
    /// What happened.
    pub name: EventName,
    /// When it happened.
    pub time: Timestamp,
    /// Key of the user's data that holds the identifier's value.
    pub identifier_key: String,
    /// The identifier's value as JSON text of one scalar.
    pub identifier_json: String,
    /// The properties as JSON text of one object.
    pub props_json: String,
}

impl ValidEvent {
    pub(crate) fn new(parts: ValidEventParts) -> Self {
        Self(parts)
    }

    /// Takes an event back from where it was stored. Checks nothing: only for parts that [`ValidEvent::into_parts`] gave
    /// and that a checksum has protected since.
    pub fn from_stored(parts: ValidEventParts) -> Self {
        Self(parts)
    }

    /// Takes it apart, to be stored.
    pub fn into_parts(self) -> ValidEventParts {
        self.0
    }

    /// Returns the id, given or made; unique within the project.
    pub fn event_id(&self) -> &EventId {
        &self.0.event_id
    }

    /// Returns the project, given or configured.
    pub fn project_id(&self) -> &ProjectId {
        &self.0.project_id
    }

    /// Returns the Embeddable whose user this is about.
    pub fn embeddable_id(&self) -> &EmbeddableId {
        &self.0.embeddable_id
    }

    /// Returns what happened.
    pub fn name(&self) -> &EventName {
        &self.0.name
    }

    /// Returns when it happened, given or the time of admission.
    pub fn time(&self) -> Timestamp {
        self.0.time
    }

    /// Returns the key of the user's data that holds the identifier's value.
    pub fn identifier_key(&self) -> &str {
        &self.0.identifier_key
    }

    /// Returns the identifier's value as JSON text of one scalar, such as `"test@test.com"` with its quotes. Personal data.
    pub fn identifier_json(&self) -> &str {
        &self.0.identifier_json
    }

    /// Returns the properties as JSON text of one object. Personal data.
    pub fn props_json(&self) -> &str {
        &self.0.props_json
    }
}

impl fmt::Debug for ValidEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ValidEvent")
            .field("event_id", &self.0.event_id)
            .field("project_id", &self.0.project_id)
            .field("embeddable_id", &self.0.embeddable_id)
            .field("name", &self.0.name)
            .field("time", &format_args!("{}", self.0.time))
            .field("identifier_key", &self.0.identifier_key)
            .field(
                "identifier_json",
                &format_args!("{} bytes", self.0.identifier_json.len()),
            )
            .field("props_json", &format_args!("{} bytes", self.0.props_json.len()))
            .finish()
    }
}
