//! What waits for something other than time alone: an event whose identifier upstream does not know, and those behind another
//! event of their identifier.
//!
//! # Invariants
//! 1. The entry schedule counts from when the event was parked: from upstream's first such answer to it, or, where it comes after one
//!    that was given up for the same, from when it began to wait behind that.
//! 2. Whatever else it waited for counts for nothing.

use std::time::Duration;

use embeddables_queue::{Disposition, Gate, Sequence};

use super::{Decision, Facts, Policy, dead_letter, reason, wait};
use crate::dispatch::schedule::Schedule;
use crate::settle::progress::{Progress, millis};

/// Longest wait behind another event before the queue is asked again; only a damaged store ever lets it pass.
const FOLLOW_AT_MOST: Duration = Duration::from_hours(1);

/// Lets an event wait behind another one of its identifier: `head` where that is under way, else the one that the queue knows.
/// `is_unknown` tells whether upstream said last that it does not know the identifier.
pub fn follow(
    head: Option<Sequence>,
    is_unknown: bool,
    facts: Facts,
    progress: &mut Progress,
    policy: &Policy,
) -> Decision {
    progress.in_line_age_ms.get_or_insert(millis(facts.age));
    let disposition = if is_unknown {
        let message =
            "no entry of the Embeddable matches the identifier yet; another of its events finds out"
                .to_owned();
        let longest = policy.schedule.entry_schedule.last().copied().unwrap_or_default();
        wait(
            longest.max(FOLLOW_AT_MOST),
            reason::ENTRY_NOT_FOUND,
            message,
            facts,
            progress,
        )
    } else {
        let message = "an earlier event of the same identifier is settled first".to_owned();
        wait(FOLLOW_AT_MOST, reason::EARLIER_EVENT, message, facts, progress)
    };
    let gate = if policy.ordered {
        Gate::Line { head }
    } else {
        Gate::Follow { head }
    };
    Decision { disposition, gate }
}

/// The user is not known: a wrong identifier, or an entry that has not been synced yet.
pub(super) fn entry_not_found(
    parked_at: Option<u64>,
    facts: Facts,
    progress: &mut Progress,
    schedule: &Schedule,
) -> Disposition {
    let age_ms = millis(facts.age);
    let parked_at = *progress.parked_age_ms.get_or_insert(parked_at.unwrap_or(age_ms));
    let parked_for = Duration::from_millis(age_ms.saturating_sub(parked_at));
    progress.entry_step = if progress.entry_tried {
        schedule.after_entry_try(progress.entry_step, parked_for)
    } else {
        schedule.entry_step(parked_for)
    };
    progress.entry_tried = true;
    progress.backoff_step = 0;
    match schedule.entry_delay(progress.entry_step, parked_for) {
        Some(delay) => {
            let message = "no entry of the Embeddable matches the identifier yet".to_owned();
            wait(delay, reason::ENTRY_NOT_FOUND, message, facts, progress)
        }
        None => {
            let message =
                "no entry of the Embeddable matched the identifier by the end of delivery.entry_schedule";
            dead_letter(reason::ENTRY_NOT_FOUND, message.to_owned(), facts, progress)
        }
    }
}
