//! The second room: from an event as it was given to one that is within every rule, or all that is wrong with it.
//!
//! # Invariants
//! 1. Every violation of an event is found in one call, in the order of its fields; each rule counts once a field.
//! 2. Nothing is repaired in silence: only defaults are filled in, and a double encoding is unwrapped where that is
//!    asked for.
//! 3. Same event, same defaults, same rules: same result. No clock, no randomness, no I/O.

use crate::event::{Event, ValidEvent, ValidEventParts};
use crate::identifier;
use crate::ids::{EmbeddableId, EventId, EventName, InvalidId, ProjectId};
use crate::properties::{self, Stamp};
use crate::time::Timestamp;
use crate::violation::{Field, Reason, Violation, Violations};

/// What an event gets where it does not say.
#[derive(Clone, Debug)]
pub struct Defaults<'a> {
    /// The configured project; an event without one is refused where this is `None`.
    pub project_id: Option<&'a ProjectId>,
    /// The id made for this event; unused where the event has its own.
    pub event_id: EventId,
    /// The time of admission.
    pub now: Timestamp,
}

/// What becomes of an identifier's value that is a JSON string literal within a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DoubleEncoding {
    /// It is refused, and the caller is told what was meant.
    #[default]
    Refuse,
    /// The string within is taken, however many layers there are.
    Unwrap,
    /// It is taken as it is: for values that have quotes of their own.
    Allow,
}

/// What an operator can choose among the rules.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What becomes of a doubly encoded identifier. Default: it is refused.
    pub double_encoding: DoubleEncoding,
    /// Key under which the event id is written into the properties, as their first member. Default: none.
    pub stamp_event_id: Option<String>,
}

impl Event {
    /// Checks every rule and encodes what upstream gets.
    ///
    /// ```
    /// use embeddables_core::{Defaults, Event, EventId, Identifier, IdentifierValue, ProjectId, Rules, Timestamp};
    ///
    /// let event = Event {
    ///     embeddable_id: "flow_a1".to_owned(),
    ///     name: "visit_completed".to_owned(),
    ///     identifier: Some(Identifier {
    ///         key: "email".to_owned(),
    ///         value: Some(IdentifierValue::String("test@test.com".to_owned())),
    ///     }),
    ///     ..Event::default()
    /// };
    /// let project = ProjectId::parse("pr_1")?;
    /// let now = Timestamp::from_unix(1_640_995_200, 0).ok_or("out of range")?;
    /// let defaults = Defaults { project_id: Some(&project), event_id: EventId::parse("e1")?, now };
    /// let valid = event.validate(&defaults, &Rules::default())?;
    /// assert_eq!(valid.identifier_json(), r#""test@test.com""#);
    /// assert_eq!(valid.props_json(), "{}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// With everything that is wrong; the event is untouched.
    pub fn validate(&self, defaults: &Defaults<'_>, rules: &Rules) -> Result<ValidEvent, Violations> {
        let mut found = Found::default();
        let event_id = match &self.event_id {
            Some(text) => found.take(Field::EventId, EventId::parse(text)),
            None => Some(defaults.event_id.clone()),
        };
        let project_id = self.check_project(defaults, &mut found);
        let embeddable_id = found.take(Field::EmbeddableId, EmbeddableId::parse(&self.embeddable_id));
        let name = found.take(Field::Name, EventName::parse(&self.name));
        let time = self.check_time(defaults, &mut found);
        let identifier = identifier::encode(self.identifier.as_ref(), rules.double_encoding, &mut found);
        // Where the id itself is wrong, a stamp of its length is checked in its place.
        let stamp_value = event_id.as_ref().unwrap_or(&defaults.event_id).as_str();
        let stamp = rules.stamp_event_id.as_deref().map(|key| Stamp {
            key,
            value: stamp_value,
        });
        let props_json = properties::encode(&self.properties, stamp, &mut found);

        let all = (
            event_id,
            project_id,
            embeddable_id,
            name,
            time,
            identifier,
            props_json,
        );
        let (
            Some(event_id),
            Some(project_id),
            Some(embeddable_id),
            Some(name),
            Some(time),
            Some(identifier),
            Some(props_json),
        ) = all
        else {
            return Err(Violations::from_found(found.violations));
        };
        Ok(ValidEvent::new(ValidEventParts {
            event_id,
            project_id,
            embeddable_id,
            name,
            time,
            identifier_key: identifier.key,
            identifier_json: identifier.json,
            props_json,
        }))
    }

    fn check_project(&self, defaults: &Defaults<'_>, found: &mut Found) -> Option<ProjectId> {
        match (&self.project_id, defaults.project_id) {
            (Some(text), Some(default)) if text == default.as_str() => Some(default.clone()),
            (Some(text), _) => found.take(Field::ProjectId, ProjectId::parse(text)),
            (None, Some(default)) => Some(default.clone()),
            (None, None) => {
                found.add(Field::ProjectId, Reason::ProjectIdMissing);
                None
            }
        }
    }

    fn check_time(&self, defaults: &Defaults<'_>, found: &mut Found) -> Option<Timestamp> {
        match self.timestamp.as_ref().map(crate::time::EventTime::check) {
            None => Some(defaults.now),
            Some(Ok(time)) => Some(time),
            Some(Err(reason)) => {
                found.add(Field::Timestamp, reason);
                None
            }
        }
    }
}

/// Violations found so far.
#[derive(Default)]
pub(crate) struct Found {
    violations: Vec<Violation>,
}

impl Found {
    /// Notes a violation; returns false, for use as "is fine".
    pub(crate) fn add(&mut self, field: Field, reason: Reason) -> bool {
        self.push(Violation::new(field, reason));
        false
    }

    pub(crate) fn push(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    pub(crate) fn count(&self) -> usize {
        self.violations.len()
    }

    fn take<T>(&mut self, field: Field, checked: Result<T, InvalidId>) -> Option<T> {
        match checked {
            Ok(value) => Some(value),
            Err(InvalidId { reason }) => {
                self.add(field, reason);
                None
            }
        }
    }
}
