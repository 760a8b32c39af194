//! Calls that are not what they should be: one static each, with its reason, its field and a sentence.

/// A call that is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct BadCall {
    /// Stable code.
    pub(super) reason: &'static str,
    /// Path of the field in the call.
    pub(super) field: &'static str,
    /// What is wrong and how to mend it.
    pub(super) sentence: &'static str,
}

impl BadCall {
    /// A call whose `field` is wrong for a stable reason.
    pub const fn new(reason: &'static str, field: &'static str, sentence: &'static str) -> Self {
        Self {
            reason,
            field,
            sentence,
        }
    }
}

impl std::fmt::Display for BadCall {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.sentence)
    }
}

/// The call brings no events.
pub static BATCH_EMPTY: BadCall = BadCall::new(
    "BATCH_EMPTY",
    "events",
    "the call brings no events: send at least one",
);
/// The call brings no event.
pub static EVENT_MISSING: BadCall =
    BadCall::new("EVENT_MISSING", "event", "the call brings no event: set `event`");
/// No event id was given to look up.
pub static EVENT_ID_MISSING: BadCall =
    BadCall::new("EVENT_ID_MISSING", "event_id", "say which event: set `event_id`");
/// An enum value of the options is none that this release knows.
pub static OPTION_UNKNOWN: BadCall = BadCall::new(
    "OPTION_UNKNOWN",
    "options",
    "an option has a value that this sidecar does not know: it may be older than the caller",
);
/// A cursor is none that a sidecar gave out.
pub static CURSOR_MALFORMED: BadCall = BadCall::new(
    "CURSOR_MALFORMED",
    "cursor",
    "the cursor is none that a sidecar gave out: take one of an earlier message, `earliest`, or none",
);
/// A state that is asked for is not final.
pub static STATE_NOT_AN_OUTCOME: BadCall = BadCall::new(
    "STATE_NOT_AN_OUTCOME",
    "states",
    "outcomes are delivered, dead-lettered, quarantined or discarded: ask for these states only",
);
/// `deliver_before` is not a time.
pub static DELIVER_BEFORE_INVALID: BadCall = BadCall::new(
    "DELIVER_BEFORE_INVALID",
    "options.deliver_before",
    "`deliver_before` is not a time between the years 1 and 9999",
);
