//! Second room: core's rules, with the defaults of this sidecar.
//!
//! # Invariants
//! 1. What leaves this room would be taken by upstream's documented rules; what is wrong is told all at once.
//! 2. The canonical form is that of the caller's event, before defaults: a repeat of the same call compares equal.

use embeddables_core::{Defaults, Event, EventId, ProjectId, Rules, Timestamp, ValidEvent, Violations};
use embeddables_queue::UnixMillis;
use uuid::{ContextV7, Uuid};

/// An event that passed, and what its repeats are compared with.
#[derive(Debug)]
pub struct Checked {
    /// The event.
    pub event: ValidEvent,
    /// The caller's event in canonical form. Holds personal data.
    pub canonical: Vec<u8>,
}

/// Checks events for one sidecar.
#[derive(Debug)]
pub struct Validator {
    default_project: Option<ProjectId>,
    rules: Rules,
    ids: ContextV7Mutex,
    /// As long as one that is made.
    unused_id: EventId,
}

/// Rising ids within a millisecond, shared by all callers.
type ContextV7Mutex = std::sync::Mutex<ContextV7>;

impl Validator {
    /// Checks with these defaults and rules.
    pub fn new(default_project: Option<ProjectId>, rules: Rules) -> Self {
        Self {
            default_project,
            rules,
            ids: ContextV7Mutex::new(ContextV7::new()),
            unused_id: event_id(Uuid::nil()),
        }
    }

    /// Project of events that name none.
    pub fn default_project(&self) -> Option<&ProjectId> {
        self.default_project.as_ref()
    }

    /// Checks an event that came at `now`.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn check(&self, event: &Event, now: UnixMillis) -> Result<Checked, Violations> {
        let defaults = Defaults {
            project_id: self.default_project.as_ref(),
            event_id: match event.event_id {
                Some(_) => self.unused_id.clone(),
                None => self.new_event_id(now),
            },
            now: time_of(now),
        };
        let valid = event.validate(&defaults, &self.rules)?;
        Ok(Checked {
            event: valid,
            canonical: embeddables_core::canonical(event),
        })
    }

    /// A UUIDv7 (RFC 9562): ids that rise keep the store's index cheap.
    fn new_event_id(&self, now: UnixMillis) -> EventId {
        let millis = u64::try_from(now.0).unwrap_or(0);
        let nanos = u32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000;
        let timestamp = {
            let context = self.ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            uuid::Timestamp::from_unix(&*context, millis / 1_000, nanos)
        };
        event_id(Uuid::new_v7(timestamp))
    }
}

fn event_id(id: Uuid) -> EventId {
    let mut text = Uuid::encode_buffer();
    let id = id.hyphenated().encode_lower(&mut text);
    #[expect(clippy::expect_used, reason = "a UUID is 36 visible ASCII characters")]
    EventId::parse(id).expect("a UUID is an event id")
}

/// A clock beyond the year 9999 counts as its end.
fn time_of(now: UnixMillis) -> Timestamp {
    let nanos = u32::try_from(now.0.rem_euclid(1_000)).unwrap_or(0) * 1_000_000;
    #[expect(clippy::expect_used, reason = "the clamped second is within the range")]
    Timestamp::from_unix(now.0.div_euclid(1_000).clamp(0, 253_402_300_799), nanos)
        .expect("a time within range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_ids_rise_and_differ() {
        let validator = Validator::new(None, Rules::default());
        let mut ids: Vec<_> = (0..2_000)
            .map(|index| validator.new_event_id(UnixMillis(1_700_000_000_000 + index / 500)))
            .collect();
        let made = ids.clone();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids, made);
    }
}
