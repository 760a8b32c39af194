//! What the store knows of an event, as callers are told.

use embeddables_core::{Fate, ProjectId};
use embeddables_proto::events::v1 as proto;
use embeddables_queue::{Durability, Entry, EntryState, Outcome, OutcomeKind, UnixMillis};

use crate::clock::Clock;
use crate::dispatch::board::LaneView;
use crate::settle::progress::{self, Progress, ProgressError};

/// Says where an event is, with its attempts. `lane` is its lane as it is now: while that is held, so is the event.
///
/// # Errors
/// Where this release cannot read what is noted of its attempts.
pub fn of_entry(
    project: &ProjectId,
    id: &str,
    entry: &Entry,
    lane: Option<&LaneView>,
    clock: &dyn Clock,
) -> Result<proto::EventStatus, ProgressError> {
    let mut progress = Progress::decode_bytes(&entry.progress)?;
    if entry.interrupted {
        progress.note_interruption(entry.accept_time);
    }
    let (state, next_attempt_time, final_time) = place(&entry.state, clock);
    let status = proto::EventStatus {
        durability: durability_to_proto(entry.durability).into(),
        accept_time: Some(timestamp(entry.accept_time)),
        next_attempt_time: next_attempt_time.map(timestamp),
        ..of_progress(project.as_str(), id, state, final_time, progress)
    };
    Ok(match lane {
        Some(lane) if !is_final(state) => held(status, lane),
        _ => status,
    })
}

/// Says how an event ended. What is not noted with an outcome is left out, and so are the attempts.
pub fn of_outcome(outcome: &Outcome) -> proto::EventStatus {
    let progress = Progress::decode_bytes(&outcome.note).unwrap_or_else(|error| {
        // The outcome itself is sound.
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "what is noted of an outcome cannot be read"
        );
        Progress::default()
    });
    let (lane, state) = (outcome.lane.as_str(), state_of(outcome.kind));
    proto::EventStatus {
        attempts: Vec::new(),
        ..of_progress(lane, &outcome.id, state, Some(outcome.time), progress)
    }
}

/// Says what is noted of an event that has come to `state`.
pub fn of_progress(
    project: &str,
    id: &str,
    state: proto::State,
    final_time: Option<UnixMillis>,
    progress: Progress,
) -> proto::EventStatus {
    let (reason, message) = match state {
        proto::State::Quarantined => (
            "DAMAGED".to_owned(),
            "its record on disk is damaged; it was set aside".to_owned(),
        ),
        proto::State::Discarded => ("DISCARDED".to_owned(), "an operator removed it".to_owned()),
        _ => (progress.reason, progress.message),
    };
    let receipt = progress
        .receipt
        .zip(final_time)
        .map(|(receipt, time)| proto::Receipt {
            delivery_time: Some(timestamp(time)),
            entry_id: receipt.entry_id,
            contact_id: receipt.contact_id,
            group_id: receipt.group_id,
            embeddable_version_number: receipt.embeddable_version_number,
            unparsed: receipt.unparsed,
        });
    proto::EventStatus {
        event_id: id.to_owned(),
        project_id: project.to_owned(),
        state: state.into(),
        reason,
        message,
        receipt,
        attempts: progress.attempts.into_iter().map(attempt).collect(),
        attempt_count: i32::try_from(progress.attempt_count).unwrap_or(i32::MAX),
        possible_duplicate: progress.possible_duplicate,
        ..Default::default()
    }
}

/// What an event that is not final shows of a held lane; of any other nothing.
fn held(status: proto::EventStatus, lane: &LaneView) -> proto::EventStatus {
    let Some(hold) = &lane.hold else {
        return status;
    };
    proto::EventStatus {
        state: proto::State::Held.into(),
        next_attempt_time: lane.next_try.map(timestamp),
        reason: hold.reason.as_str().to_owned(),
        message: hold.message.clone(),
        ..status
    }
}

/// Says that an event has just been accepted.
pub fn accepted(
    project: &ProjectId,
    id: &str,
    accept_time: UnixMillis,
    durability: Durability,
) -> proto::EventStatus {
    proto::EventStatus {
        event_id: id.to_owned(),
        project_id: project.as_str().to_owned(),
        state: proto::State::Queued.into(),
        durability: durability_to_proto(durability).into(),
        accept_time: Some(timestamp(accept_time)),
        ..Default::default()
    }
}

/// The state that an outcome leaves its event in.
pub fn state_of(kind: OutcomeKind) -> proto::State {
    match kind {
        OutcomeKind::Delivered => proto::State::Delivered,
        OutcomeKind::DeadLettered => proto::State::DeadLettered,
        OutcomeKind::Quarantined => proto::State::Quarantined,
        OutcomeKind::Discarded => proto::State::Discarded,
    }
}

/// Whether nothing more will become of an event by itself.
pub fn is_final(state: proto::State) -> bool {
    use proto::State;
    matches!(
        state,
        State::Delivered | State::DeadLettered | State::Quarantined | State::Discarded
    )
}

/// State, time of the next attempt, and time at which it became final.
fn place(state: &EntryState, clock: &dyn Clock) -> (proto::State, Option<UnixMillis>, Option<UnixMillis>) {
    match state {
        EntryState::Ready => (proto::State::Queued, None, None),
        EntryState::Waiting { until } => {
            // Due times are kept on the steady clock; people read the wall's.
            let left = until.0.saturating_sub(clock.steady().0).max(0);
            (
                proto::State::Waiting,
                Some(UnixMillis(clock.wall().0.saturating_add(left))),
                None,
            )
        }
        EntryState::Delivered { time } => (proto::State::Delivered, None, Some(*time)),
        EntryState::DeadLettered { time, .. } => (proto::State::DeadLettered, None, Some(*time)),
        EntryState::Quarantined => (proto::State::Quarantined, None, None),
        EntryState::Discarded { time } => (proto::State::Discarded, None, Some(*time)),
    }
}

fn attempt(attempt: progress::Try) -> proto::Attempt {
    use proto::AttemptOutcome as Outcome;
    let outcome = match progress::fate_of_code(attempt.fate) {
        Some(Fate::NotSent) => Outcome::NotSent,
        Some(Fate::Rejected) => Outcome::Rejected,
        Some(Fate::Accepted) => Outcome::Accepted,
        Some(Fate::Ambiguous) => Outcome::Ambiguous,
        None => Outcome::Unspecified,
    };
    proto::Attempt {
        start_time: Some(timestamp(UnixMillis(attempt.start_ms))),
        duration: Some(super::refusal::proto_duration(std::time::Duration::from_millis(
            attempt.duration_ms,
        ))),
        outcome: outcome.into(),
        http_status: i32::try_from(attempt.http_status).unwrap_or(0),
        detail: attempt.detail,
    }
}

/// Wall time as protobuf has it.
pub fn timestamp(time: UnixMillis) -> prost_types::Timestamp {
    let nanos = time.0.rem_euclid(1_000) * 1_000_000;
    prost_types::Timestamp {
        seconds: time.0.div_euclid(1_000),
        nanos: i32::try_from(nanos).unwrap_or(0),
    }
}

/// Durability as the contract names it.
pub fn durability_to_proto(durability: Durability) -> proto::Durability {
    match durability {
        Durability::Memory => proto::Durability::Memory,
        Durability::Buffered => proto::Durability::Buffered,
        Durability::Fsynced => proto::Durability::Fsynced,
        Durability::Replicated => proto::Durability::Replicated,
    }
}

/// Durability as the queue names it; `None` where none was asked for.
pub fn durability_from_proto(durability: proto::Durability) -> Option<Durability> {
    match durability {
        proto::Durability::Unspecified => None,
        proto::Durability::Memory => Some(Durability::Memory),
        proto::Durability::Buffered => Some(Durability::Buffered),
        proto::Durability::Fsynced => Some(Durability::Fsynced),
        proto::Durability::Replicated => Some(Durability::Replicated),
    }
}

#[cfg(test)]
mod tests;
