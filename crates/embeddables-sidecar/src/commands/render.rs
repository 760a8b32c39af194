//! Results for people: a line an event, with all that is wrong beneath it.

use embeddables_proto::events::v1::{Durability, EventStatus, Refusal, State, Violation};

use crate::config::units::format_duration;

/// What became of a published event: `ID STATE`.
pub(super) fn published(status: &EventStatus) -> String {
    let mut line = format!("{} {}", status.event_id, state_name(status.state()));
    if !status.reason.is_empty() {
        line.push_str(&format!(" {}", status.reason));
    }
    if status.duplicate {
        line.push_str(" (duplicate: this id had been accepted before)");
    }
    line
}

/// Why an event was not taken, with every violation: `ID refused REASON: message`.
pub(super) fn refused(name: &str, line: Option<u64>, refusal: &Refusal) -> String {
    let mut text = format!("{name} refused {}: {}", refusal.reason, refusal.message);
    if let Some(line) = line {
        text.push_str(&format!(" (line {line})"));
    }
    for violation in &refusal.violations {
        text.push_str(&format!(
            "\n  {} {}: {}",
            violation.field, violation.reason, violation.description
        ));
    }
    if let Some(delay) = refusal
        .retry_delay
        .and_then(|delay| std::time::Duration::try_from(delay).ok())
    {
        text.push_str(&format!("\n  try again in {}", format_duration(delay)));
    }
    text
}

/// Takes the place within the call out of the violations: `events[3].name` is `event.name`. Calls are cut here, and nobody
/// else knows where.
pub(super) fn forget_place(refusal: &mut Refusal) {
    for Violation { field, .. } in &mut refusal.violations {
        if let Some(rest) = field
            .strip_prefix("events[")
            .and_then(|rest| rest.split_once(']'))
            .map(|(_, rest)| rest)
        {
            *field = format!("event{rest}");
        }
    }
}

/// A state in lower case: `dead_lettered`.
pub(super) fn state_name(state: State) -> String {
    short(state.as_str_name(), "STATE_")
}

/// A durability in lower case: `fsynced`.
pub(super) fn durability_name(durability: Durability) -> String {
    short(durability.as_str_name(), "DURABILITY_")
}

/// An enum value without the prefix of its enum, in lower case.
pub(super) fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// A time as RFC 3339 has it, with milliseconds.
pub(super) fn time(timestamp: &prost_types::Timestamp) -> String {
    match jiff::Timestamp::new(timestamp.seconds, timestamp.nanos) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{}s after 1970", timestamp.seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> Refusal {
        Refusal {
            code: 3,
            reason: "INVALID_EVENT".to_owned(),
            message: "the event has 1 violation".to_owned(),
            violations: vec![Violation {
                field: "events[3].name".to_owned(),
                reason: "NAME_NOT_SNAKE_CASE".to_owned(),
                description: "must be snake_case".to_owned(),
            }],
            retry_delay: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        }
    }

    #[test]
    fn a_refusal_shows_every_violation() {
        let mut refusal = refusal();
        forget_place(&mut refusal);
        assert_eq!(
            refused("e1", Some(7), &refusal),
            "e1 refused INVALID_EVENT: the event has 1 violation (line 7)\n  event.name NAME_NOT_SNAKE_CASE: must be snake_case\n  try again in 2s"
        );
    }

    #[test]
    fn an_accepted_event_is_one_line() {
        let status = EventStatus {
            event_id: "e1".to_owned(),
            state: State::DeadLettered.into(),
            duplicate: true,
            reason: "REJECTED".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            published(&status),
            "e1 dead_lettered REJECTED (duplicate: this id had been accepted before)"
        );
        assert_eq!(durability_name(Durability::Fsynced), "fsynced");
    }

    #[test]
    fn times_have_milliseconds() {
        assert_eq!(
            time(&prost_types::Timestamp {
                seconds: 1_640_995_200,
                nanos: 1_999_999
            }),
            "2022-01-01T00:00:00.001Z"
        );
    }
}
