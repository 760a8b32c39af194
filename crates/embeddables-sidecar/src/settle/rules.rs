//! What an answer does to its event, and to those that wait behind the same identifier: the event column of the design's table,
//! as a pure function.
//!
//! # Invariants
//! 1. A 2xx is delivered, whatever its body.
//! 2. An event is dead-lettered only for an answer against the event itself, for the end of the entry schedule, for its age,
//!    for the caller's `deliver_before`, or, where so configured, because its fate is unknown; never because a key was rejected.
//! 3. Every decision leaves a reason and a sentence in the progress.
//! 4. Only what upstream does not know, and in an ordered lane whatever waits, makes others wait.

pub mod reason;

mod parking;

use std::time::Duration;

use embeddables_core::{Attempt, Fate, Receipt, Verdict};
use embeddables_queue::{Disposition, Gate, UnixMillis};
use rand::Rng;

use super::progress::{self, Progress};
use crate::dispatch::schedule::Schedule;

pub use self::parking::follow;

/// What is known of an event when its attempt ends.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its age at the end of the attempt.
    pub age: Duration,
    /// The caller's limit, in wall time.
    pub deliver_before: Option<UnixMillis>,
    /// Whether the event before it of the same identifier was given up because upstream did not know the identifier.
    pub succeeds_unknown: bool,
    /// The wall clock now.
    pub wall: UnixMillis,
    /// The steady clock now, on which due times are kept.
    pub steady: UnixMillis,
}

/// What becomes of an event whose fate is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ambiguity {
    /// It is tried again: upstream may then have it twice.
    #[default]
    Retry,
    /// It becomes a dead letter: upstream may then not have it.
    DeadLetter,
}

/// The rules of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// When events are tried again.
    pub schedule: Schedule,
    /// What becomes of an event whose fate is unknown.
    pub ambiguity: Ambiguity,
    /// Whether the events of an identifier keep their order.
    pub ordered: bool,
}

/// What becomes of an event, and of those behind it.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Of the event.
    pub disposition: Disposition,
    /// Of those behind it.
    pub gate: Gate,
}

/// Decides what becomes of an event after an attempt, and writes why into its progress.
pub fn decide(
    attempt: &Attempt,
    facts: Facts,
    progress: &mut Progress,
    policy: &Policy,
    random: &mut impl Rng,
) -> Decision {
    progress.http_status = attempt.http_status.map_or(0, u32::from);
    progress.upstream_body = attempt.excerpt.clone().unwrap_or_default();
    let in_line_age_ms = progress.in_line_age_ms.take();
    let disposition = match &attempt.verdict {
        Verdict::Delivered(receipt) => delivered(receipt, facts, progress),
        Verdict::EntryNotFound => {
            // It was unknown all the time that it waited behind one that was.
            let parked_at = in_line_age_ms.filter(|_| facts.succeeds_unknown);
            parking::entry_not_found(parked_at, facts, progress, &policy.schedule)
        }
        Verdict::Invalid => {
            let message = format!("upstream rejected the event: {}", attempt.detail);
            dead_letter(reason::UPSTREAM_REJECTED, message, facts, progress)
        }
        Verdict::KeyRejected => {
            let message = format!("upstream does not accept the project's key: {}", attempt.detail);
            wait(Duration::ZERO, reason::KEY_REJECTED, message, facts, progress)
        }
        Verdict::Refused => {
            let message = format!("refused on the way, not for the event's sake: {}", attempt.detail);
            let retry = Retry {
                code: reason::UPSTREAM_REFUSED,
                message,
                retry_after: None,
            };
            retry.until_max_age(attempt, facts, progress, &policy.schedule, random)
        }
        Verdict::Unavailable { .. } if is_final(attempt.fate, policy) => {
            ambiguous(&attempt.detail, facts, progress)
        }
        Verdict::Unavailable { retry_after } => {
            let code = match attempt.http_status {
                Some(429) => reason::UPSTREAM_THROTTLED,
                _ => reason::UPSTREAM_UNAVAILABLE,
            };
            let fate = if attempt.fate == Fate::Ambiguous {
                ", upstream may have it"
            } else {
                ""
            };
            let retry = Retry {
                code,
                message: format!("{}{fate}", attempt.detail),
                retry_after: *retry_after,
            };
            retry.until_max_age(attempt, facts, progress, &policy.schedule, random)
        }
    };
    let gate = gate(&attempt.verdict, &disposition, progress, policy);
    Decision { disposition, gate }
}

fn is_final(fate: Fate, policy: &Policy) -> bool {
    fate == Fate::Ambiguous && policy.ambiguity == Ambiguity::DeadLetter
}

/// What an answer means for the events of the same identifier.
fn gate(verdict: &Verdict, disposition: &Disposition, progress: &Progress, policy: &Policy) -> Gate {
    let waits = matches!(disposition, Disposition::Wait { .. });
    match verdict {
        _ if policy.ordered && waits => Gate::Lead,
        Verdict::Delivered(_) if !policy.ordered => Gate::Open,
        Verdict::EntryNotFound if waits => Gate::Lead,
        // It goes back as it was: a canary stays one.
        Verdict::KeyRejected if progress.parked_age_ms.is_some() => Gate::Lead,
        _ => Gate::Pass,
    }
}

/// Gives an event back untried. In an ordered lane it goes back into the line of its identifier.
pub fn give_back(facts: Facts, progress: &Progress, policy: &Policy) -> Decision {
    if !policy.ordered {
        return Decision {
            disposition: Disposition::Release,
            gate: Gate::Pass,
        };
    }
    Decision {
        disposition: Disposition::Wait {
            until: facts.steady,
            progress: progress.encode_bytes(),
        },
        gate: Gate::Line { head: None },
    }
}

/// Gives an event up that may have been sent by a process that ended, where nothing may be sent twice; `None` where it may.
pub fn interrupted(facts: Facts, progress: &mut Progress, policy: &Policy) -> Option<Disposition> {
    is_final(Fate::Ambiguous, policy)
        .then(|| ambiguous("the sidecar ended during the attempt", facts, progress))
}

fn ambiguous(detail: &str, facts: Facts, progress: &mut Progress) -> Disposition {
    let message = format!("upstream may have it, and delivery.ambiguity forbids another try: {detail}");
    dead_letter(reason::AMBIGUOUS, message, facts, progress)
}

/// Gives an event up whose `deliver_before` passed while it waited: nothing is sent any more.
pub fn deliver_before_passed(facts: Facts, progress: &mut Progress) -> Disposition {
    let message = "not delivered before the caller's deliver_before".to_owned();
    dead_letter(reason::DELIVER_BEFORE_PASSED, message, facts, progress)
}

/// Gives an event up that this release cannot read; its bytes are kept as they are.
pub fn unreadable(error: &dyn std::error::Error, facts: Facts, progress: &mut Progress) -> Disposition {
    dead_letter(reason::UNREADABLE, error.to_string(), facts, progress)
}

fn delivered(receipt: &Receipt, facts: Facts, progress: &mut Progress) -> Disposition {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    progress.receipt = Some(progress::Receipt {
        entry_id: text(&receipt.entry_id),
        contact_id: text(&receipt.contact_id),
        group_id: text(&receipt.group_id),
        embeddable_version_number: text(&receipt.embeddable_version_number),
        unparsed: receipt.unparsed,
    });
    progress.reason.clear();
    progress.message.clear();
    progress.upstream_body.clear();
    Disposition::Delivered {
        time: facts.wall,
        note: progress.encode_bytes(),
    }
}

/// A failure that may pass.
struct Retry {
    code: &'static str,
    message: String,
    retry_after: Option<Duration>,
}

impl Retry {
    fn until_max_age(
        self,
        attempt: &Attempt,
        facts: Facts,
        progress: &mut Progress,
        schedule: &Schedule,
        random: &mut impl Rng,
    ) -> Disposition {
        if facts.age >= schedule.max_age {
            let message = format!(
                "not delivered within delivery.max_age; the last try: {}",
                attempt.detail
            );
            return dead_letter(reason::MAX_AGE, message, facts, progress);
        }
        let delay = schedule.backoff(progress.backoff_step, self.retry_after, random);
        progress.backoff_step = progress.backoff_step.saturating_add(1);
        wait(delay, self.code, self.message, facts, progress)
    }
}

/// Waits for `delay`, but not beyond `deliver_before`: then there is only its end to write down.
fn wait(delay: Duration, code: &str, message: String, facts: Facts, progress: &mut Progress) -> Disposition {
    code.clone_into(&mut progress.reason);
    progress.message = message;
    let mut delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
    if let Some(limit) = facts.deliver_before {
        delay_ms = delay_ms.min(limit.0.saturating_sub(facts.wall.0).max(0));
    }
    let until = UnixMillis(facts.steady.0.saturating_add(delay_ms));
    Disposition::Wait {
        until,
        progress: progress.encode_bytes(),
    }
}

fn dead_letter(code: &str, message: String, facts: Facts, progress: &mut Progress) -> Disposition {
    code.clone_into(&mut progress.reason);
    progress.message = message;
    Disposition::DeadLetter {
        time: facts.wall,
        reason: code.into(),
        progress: progress.encode_bytes(),
    }
}

#[cfg(test)]
mod tests;
